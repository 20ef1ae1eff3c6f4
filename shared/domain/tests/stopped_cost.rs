//! What a machine costs that was kept stopped.

mod common;

use common::{ago, instance, noon, pool, slot, turn, view};
use domain::config::Rates;
use domain::ids::InstanceId;
use domain::policy::close::{Ended, close};
use domain::state::{Instance, Machine, Slot};
use jiff::SignedDuration;
use serde_json::json;

/// What closing the slot records as the cost of its machine, an m7i.large that was launched two hours before noon.
fn cost(over: &Slot) -> String {
    let mapped = Instance { instance_type: Some("m7i.large".into()), launched_at: ago(7200), ..instance() };
    let ended = Ended { instances: vec![mapped], ..Ended::default() };
    let rates = Rates::of("us-east-1".to_owned());
    let closing = close(&pool(), &view([]), std::slice::from_ref(over), ended, &rates, &turn());
    let [closed] = &common::instances(&closing.writes)[..] else { panic!("one instance: {closing:?}") };
    assert_eq!(closed.cost_micro_usd, closing.costs.get(&over.id).copied());
    closed.cost_micro_usd.expect("a cost").to_string()
}

fn over(state: &str, more: serde_json::Value) -> Slot {
    let mut all = json!({ "launched_at": ago(7200), "gone_at": ago(60), "unregistered_at": ago(1) });
    all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    slot(state, 60, all)
}

#[test]
fn the_time_for_which_a_machine_was_stopped_costs_nothing() {
    // 0.1008 USD per hour.
    assert_eq!(cost(&over("done", json!({}))), "0.1999 USD", "it was never stopped: 119 minutes");
    let used = json!({ "stopped_at": ago(7200 - 60), "started_at": ago(600) });
    assert_eq!(cost(&over("done", used)), "0.0168 USD", "one minute to prepare itself, nine for its job");
    assert_eq!(cost(&over("stopped", json!({ "stopped_at": ago(6600) }))), "0.0168 USD", "ten minutes, and no job");
    let price = json!({ "stopped_at": ago(7200 - 600), "started_at": ago(120), "price_per_hour": 60000 });
    assert_eq!(cost(&over("done", price)), "0.0110 USD", "eleven minutes at the recorded price");
}

#[test]
fn a_machine_runs_from_its_launch_to_its_stop_and_from_its_start_to_its_end() {
    let minutes = |machine: &Machine| machine.has_run_for(noon()).as_mins();
    let launched = Machine::launched(InstanceId::from("i-1"), noon() - SignedDuration::from_mins(90));
    assert_eq!(minutes(&launched), 90);
    let stopped = Machine { stopped_at: Some(noon() - SignedDuration::from_mins(80)), ..launched };
    assert_eq!(minutes(&stopped), 10);
    let started = Machine { started_at: Some(noon() - SignedDuration::from_mins(5)), ..stopped };
    assert_eq!(minutes(&started), 15);
}
