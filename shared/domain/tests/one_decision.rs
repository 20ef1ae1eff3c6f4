//! What one decision launches, ends and charges, and when a circuit closes.

mod common;
#[path = "common/shapes.rs"]
mod shapes;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{ago, job, later, meta, noon, pool, slot, turn};
use domain::config::{Label, Machines, Market, MarketChoice, MicroUsd, Order, Pool};
use domain::ids::{JobId, RunId};
use domain::log::{Transaction, What};
use domain::policy::PoolView;
use domain::policy::decide::{Decision, decide};
use domain::state::{
    Circuit, CircuitCause, ClassState, Cooldown, Failure, Item, LaterAttempt, Meta, Rerun, Slot, StopReason, Unserved,
    WaitingJob,
};
use serde_json::{Value, json};

fn large(market: MarketChoice) -> Pool {
    Pool { market, max: 100, ..pool() }
}

fn read(pool: &Pool, items: impl IntoIterator<Item = Item>) -> PoolView {
    PoolView::new(Meta { config_hash: pool.config_hash(), ..meta() }, items)
}

fn jobs(ids: impl IntoIterator<Item = u64>, queued: i64) -> impl Iterator<Item = Item> {
    ids.into_iter().map(move |id| WaitingJob { id: JobId(id), ..job(queued) }.into())
}

/// Slot `version`.0, whose machine no job wants.
fn unneeded(version: u64, state: &str, more: Value) -> Slot {
    let mut all = json!({
        "id": format!("{version}.0"), "instance": format!("i-{version}"), "wanted": false, "registration": 0,
        "warm_as": pool().tuples().remove(0), "launched_at": ago(600),
    });
    all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    slot(state, 600, all)
}

fn decided(pool: &Pool, view: &PoolView) -> Decision {
    decide(pool, view, &turn()).expect("a decision")
}

/// The number of machines that the decision launches, how many of them jobs need, and their market.
fn launched(pool: &Pool, view: &PoolView) -> Option<(u32, usize, Market)> {
    let decision = decide(pool, view, &turn())?;
    let batch = decision.batch?;
    let wanted = decision.slots.iter().filter(|slot| slot.wanted).count();
    Some((batch.count, wanted, batch.tuple.expect("a tuple").market))
}

#[test]
fn a_job_gets_a_launch_back_while_the_machine_runs_another_one() {
    let pool = large(MarketChoice::OnDemand);
    let taken = slot("busy", 60, json!({ "planned_at": ago(600), "job": 9 }));
    let used_up = WaitingJob { launches: vec![taken.planned_at, ago(30), ago(20)], ..job(700) };
    let id = used_up.id;
    let spare = WaitingJob { id: JobId(id.0 + 1), launches: vec![taken.planned_at], ..job(700) };
    let mut view = read(&pool, [taken.clone().into(), used_up.clone().into()]);
    let returned = decided(&pool, &view);
    assert!(returned.batch.is_none() && returned.slots[0].charge_returned, "{returned:?}");
    view.apply(&returned.transaction(&turn()));
    assert_eq!(view.waiting[&id].launches, [ago(30), ago(20)]);
    assert_eq!(launched(&pool, &view).map(|(machines, ..)| machines), Some(1));
    view.apply(&decided(&pool, &view).transaction(&turn()));
    assert_eq!(view.waiting[&id].launches.len(), 3);
    assert!(decide(&pool, &view, &turn()).is_none_or(|more| more.jobs.is_empty()), "once for each machine");

    // GitHub passes a job over beside an idle runner: its launches bound what it costs.
    let unserved = Some(Unserved { since: ago(90), until: ago(30), seconds: 60 });
    let others = [
        WaitingJob { unserved, ..used_up.clone() },
        WaitingJob { class: Some("linux/2cpu".parse().expect("a label")), ..used_up.clone() },
        WaitingJob { launches: vec![ago(40), ago(30), ago(20)], ..used_up },
        spare,
    ];
    for other in others {
        let view = read(&pool, [taken.clone().into(), other.into()]);
        let decision = decide(&pool, &view, &turn());
        assert!(decision.is_none_or(|it| it.slots.iter().all(|slot| !slot.charge_returned)), "{view:?}");
    }
}

#[test]
fn machines_that_are_to_be_stopped_are_launched_on_demand_only() {
    let (spot, on_demand) = (large(MarketChoice::SpotThenOnDemand), large(MarketChoice::OnDemand));
    let keeping = |pool: &Pool, warm, stopped| Pool { warm, stopped, ..pool.clone() };
    let launches = |pool: Pool, waiting: u64| launched(&pool, &read(&pool, jobs(1..=waiting, 5)));
    assert_eq!(launches(keeping(&spot, 0, 2), 0), Some((2, 0, Market::OnDemand)));
    assert_eq!(launches(keeping(&spot, 1, 2), 0), Some((1, 0, Market::Spot)), "first the warm one");
    assert_eq!(launches(keeping(&spot, 0, 2), 3), Some((3, 3, Market::Spot)), "first those for jobs");
    assert_eq!(launches(keeping(&on_demand, 1, 2), 3), Some((6, 3, Market::OnDemand)));
    assert_eq!(launches(keeping(&on_demand, 0, 2), 0), Some((2, 0, Market::OnDemand)));
    assert_eq!(launches(keeping(&spot, 2, 0), 1), Some((3, 1, Market::Spot)));
    assert_eq!(launches(Pool { max: 3, ..keeping(&spot, 5, 0) }, 1), Some((3, 1, Market::Spot)), "at most `max`");
}

/// Job `id`, which repeats one whose machine EC2 reclaimed.
fn repeated(id: u64) -> WaitingJob {
    let attempt =
        LaterAttempt { run_id: RunId(2), run_attempt: 2, name: "build".to_owned(), follows_interruption: true };
    WaitingJob { id: JobId(id), attempt: Some(attempt), ..job(5) }
}

#[test]
fn a_job_that_repeats_an_interrupted_one_gets_a_machine_on_demand_that_is_charged_to_it() {
    let pool = large(MarketChoice::SpotThenOnDemand);
    let view = read(&pool, jobs([1, 3], 60).chain([repeated(2).into()]));
    let decision = decided(&pool, &view);
    let charged: Vec<_> = decision.jobs.iter().map(|job| (job.id.0, job.launches.as_slice())).collect();
    assert_eq!(launched(&pool, &view), Some((1, 1, Market::OnDemand)));
    assert_eq!(charged, [(2, &[noon()][..])]);
    let again = WaitingJob { launches: vec![ago(60)], ..repeated(2) };
    assert_eq!(launched(&pool, &read(&pool, [again.into()])), Some((1, 1, Market::Spot)), "one was launched for it");
    let spot = large(MarketChoice::Spot);
    assert_eq!(launched(&spot, &read(&spot, [repeated(2).into()])), Some((1, 1, Market::Spot)));
}

#[test]
fn every_decision_fits_into_a_transaction() {
    let pool = Pool { warm: 30, stopped: 70, max: 1000, ..pool() };
    let idle = |version| Item::from(unneeded(version, "launched", json!({ "launched_at": ago(20 * 3600) })));
    let aside = |version| Item::from(unneeded(version, "stopped", json!({ "launched_at": ago(15 * 24 * 3600) })));
    let boot = json!({ "reported_at": ago(500), "uptime_seconds": 9, "prepared_at": ago(60), "seen_at": ago(30) });
    let prepared = |version| Item::from(unneeded(version, "launched", json!({ "boot": boot })));
    let named = |id: u64| {
        let value = json!({
            "job": id, "pool": "linux", "repository": "octo/widgets", "run_id": 2, "run_attempt": 1, "since": ago(60),
            "tries": 1, "next_at": noon(), "revision": 1,
        });
        Item::from(serde_json::from_value::<Rerun>(value).expect("a re-run"))
    };
    let online = || slot("online", 600, json!({ "id": "900.0", "instance": "i-900" }));
    let attempt = || LaterAttempt { follows_interruption: false, ..repeated(1).attempt.expect("an attempt") };
    let second = |id| Item::from(WaitingJob { attempt: Some(attempt()), ..repeated(id) });
    let worlds: [(&str, Vec<Item>); 6] = [
        ("idle machines", (1..=200).map(idle).collect()),
        ("stopped machines", (1..=200).map(aside).collect()),
        ("prepared machines", (1..=200).map(prepared).collect()),
        ("all of them", (1..=60).map(idle).chain((61..=140).map(aside)).chain((141..=200).map(prepared)).collect()),
        ("jobs of an interruption", (1..=60).map(named).chain((101..=160).map(second)).collect()),
        ("unserved and new jobs", jobs(1..=60, 600).chain(jobs(101..=160, 5)).chain([online().into()]).collect()),
    ];
    for (name, items) in worlds {
        for pool in [pool.clone(), Pool { warm: 0, stopped: 0, ..pool.clone() }, Pool { stopped: 0, ..pool.clone() }] {
            let mut view = read(&pool, items.clone());
            view.meta.revision = 1000;
            if let Some(decision) = decide(&pool, &view, &turn()) {
                let writes = decision.transaction(&turn());
                assert!(writes.len() <= Transaction::MAX_WRITES, "{name}: {} writes", writes.len());
            }
        }
    }
}

#[test]
fn jobs_that_an_idle_runner_did_not_get_are_set_aside_for_twice_as_long_each_time() {
    let pool = Pool { max: 0, ..pool() };
    let unserved = |last: Option<i64>, runner: Value| {
        let unserved = last.map(|seconds| Unserved { since: ago(900), until: noon(), seconds });
        let waiting = WaitingJob { unserved, ..job(600) };
        let view = read(&pool, [waiting.into(), Item::from(slot("online", 600, runner))]);
        let decision = decide(&pool, &view, &turn())?;
        let passed_over = decision.jobs.into_iter().next()?;
        assert_eq!(passed_over.check_at, noon(), "GitHub is asked about it");
        let unserved = passed_over.unserved.expect("it is set aside");
        assert_eq!(unserved.until, later(unserved.seconds));
        Some((unserved.seconds, unserved.since))
    };
    assert_eq!(unserved(None, json!({})), Some((30, noon())));
    assert_eq!(unserved(Some(300), json!({})), Some((600, ago(900))));
    assert_eq!(unserved(Some(1200), json!({})), Some((1800, ago(900))), "at most `backoff_max`");
    assert_eq!(unserved(None, json!({ "busy_seen_at": ago(5) })), None, "the runner is busy");
    assert_eq!(unserved(None, json!({ "gone_at": ago(5) })), None, "the machine has ended");
    let many = read(&pool, jobs(1..=60, 600).chain([slot("online", 600, json!({})).into()]));
    assert_eq!(decided(&pool, &many).jobs.len(), 24, "a decision has room for so many");
}

fn open(until: i64, backoff_seconds: i64, cause: CircuitCause) -> Circuit {
    Circuit::Open { until: later(until), backoff_seconds, since: ago(300), cause, message: String::new() }
}

#[test]
fn an_open_circuit_permits_one_probe_at_a_time_and_waits_twice_as_long_after_it() {
    let pool = large(MarketChoice::OnDemand);
    let probe = |until: i64, backoff: i64| {
        let mut view = read(&pool, jobs(1..=5, 5));
        view.meta.circuit = open(until, backoff, CircuitCause::BootFailures);
        let decision = decide(&pool, &view, &turn())?;
        let Circuit::Open { until, backoff_seconds, .. } = decision.meta.circuit else { panic!("it is open") };
        assert!(until >= later(backoff_seconds), "the probe has time to boot and to fail");
        Some((decision.batch?.count, backoff_seconds))
    };
    assert_eq!((probe(1, 60), probe(0, 60), probe(0, 1200)), (None, Some((1, 120)), Some((1, 1800))));
}

#[test]
fn a_circuit_closes_when_its_cause_is_over() {
    let pool = Pool { max: 0, ..pool() };
    let is_closed = |cause: CircuitCause, failures: u32, slot: Slot| {
        let mut view = read(&pool, [Item::from(slot)]);
        view.meta.circuit = open(600, 60, cause);
        view.meta.boot_failures = failures;
        decide(&pool, &view, &turn()).is_some_and(|decision| decision.meta.circuit == Circuit::Closed)
    };
    let refused_by_ec2 = || CircuitCause::LaunchRefused("InvalidAMIID.NotFound".to_owned());
    let refused_by_github = || CircuitCause::RegistrationRefused;
    // The circuit opened 300 seconds before noon.
    let registered = |seconds| slot("configured", 900, json!({ "configured_at": ago(seconds) }));
    assert!(is_closed(refused_by_github(), 0, registered(300)) && !is_closed(refused_by_github(), 0, registered(301)));
    let launched = |seconds| slot("launched", seconds, json!({}));
    assert!(is_closed(refused_by_ec2(), 0, launched(300)) && !is_closed(refused_by_ec2(), 0, launched(301)));
    assert!(
        !is_closed(refused_by_github(), 0, launched(60)) && !is_closed(CircuitCause::BootFailures, 3, launched(60))
    );
    assert!(is_closed(refused_by_ec2(), 2, launched(60)) && !is_closed(refused_by_ec2(), 3, launched(60)));
    assert!(is_closed(refused_by_github(), 2, registered(60)) && !is_closed(refused_by_github(), 3, registered(60)));
    let online = || slot("online", 60, json!({}));
    for cause in [CircuitCause::BootFailures, CircuitCause::EndedEarly, refused_by_ec2(), refused_by_github()] {
        assert!(is_closed(cause, 3, online()), "a runner came online");
    }
}

#[test]
fn a_machine_that_works_ends_the_row_of_failures_before_it() {
    let pool = Pool { max: 0, ..pool() };
    let failures = |launched: i64, state: &str, row: u32| {
        let mut view = read(&pool, [Item::from(slot(state, launched, json!({})))]);
        view.meta.boot_failures = row;
        let instance = Some("i-0".into());
        let failure =
            Failure { at: ago(60), instance, launched_at: ago(300), reason: "no".to_owned(), console: String::new() };
        view.meta.failures = vec![failure];
        decide(&pool, &view, &turn()).map_or(row, |decision| decision.meta.boot_failures)
    };
    assert_eq!((failures(300, "online", 2), failures(301, "online", 2)), (0, 2));
    assert_eq!(failures(60, "configured", 2), 2);
}

/// A pool that is ordered by price, with what is known of machines.
fn by_price() -> Pool {
    let machines = Machines { catalogue: shapes::catalogue(), spot: None };
    let instance_types = vec!["m7i.large".into(), "m7i.2xlarge".into()];
    let subnets = shapes::pool().subnets;
    Pool {
        order: Order::Price,
        instance_types,
        subnets,
        machines: Some(Arc::new(machines)),
        ..large(MarketChoice::OnDemand)
    }
}

#[test]
fn the_event_says_how_many_launch_options_come_before_the_chosen_one() {
    let pool = by_price();
    let passed = |view: &PoolView| {
        let What::Decided { choice, .. } = decided(&pool, view).what else { panic!("a decision") };
        choice.map(|choice| (choice.options, choice.passed, choice.price_per_hour))
    };
    let mut view = read(&pool, jobs(1..=1, 5));
    assert_eq!(passed(&view), Some((4, 0, Some(MicroUsd(100_800)))));
    let first = decided(&pool, &view).batch.and_then(|batch| batch.tuple).expect("a launch");
    view.meta.cooldowns = vec![Cooldown { tuple: first, until: later(60), seconds: 60, code: "No".to_owned() }];
    assert_eq!(passed(&view), Some((4, 1, Some(MicroUsd(100_800)))));
}

#[test]
fn under_a_cap_the_first_launch_option_that_it_pays_for_is_taken() {
    let types = ["m7i.2xlarge", "m7i.large"].map(Into::into).to_vec();
    let launches = |cap: u64| {
        let pool = Pool {
            order: Order::Listed,
            instance_types: types.clone(),
            price_per_hour: Some(MicroUsd(cap)),
            ..by_price()
        };
        let decision = decide(&pool, &read(&pool, jobs(1..=1, 5)), &turn())?;
        Some(decision.batch?.tuple?.instance_type.to_string())
    };
    assert_eq!(launches(403_200).as_deref(), Some("m7i.2xlarge"));
    assert_eq!(launches(403_199).as_deref(), Some("m7i.large"));
    assert_eq!(launches(100_799), None);
}

fn label(terms: &str) -> Label {
    format!("linux/{terms}").parse().expect("a label")
}

fn of_class(id: u64, queued: i64, class: &Label) -> Item {
    WaitingJob { id: JobId(id), class: Some(class.clone()), ..job(queued) }.into()
}

fn with_shapes() -> Pool {
    let machines = Machines { catalogue: shapes::catalogue(), spot: None };
    Pool { max: 20, machines: Some(Arc::new(machines)), ..shapes::pool() }
}

#[test]
fn a_class_that_the_cap_can_never_pay_for_does_not_keep_newer_jobs_waiting() {
    let (large, small) = (label("8cpu"), label("2cpu"));
    let launches = |cap: u64| {
        let pool = Pool { price_per_hour: Some(MicroUsd(cap)), ..with_shapes() };
        let running = json!({ "class": small, "price_per_hour": 200_000 });
        let view = read(&pool, [of_class(4, 600, &large), of_class(5, 60, &small), slot("busy", 600, running).into()]);
        decide(&pool, &view, &turn()).and_then(|decision| decision.batch?.class)
    };
    assert_eq!(launches(320_000), Some(small.clone()), "an empty pool could not pay for 8 vCPUs either");
    assert_eq!(launches(400_000), None, "what becomes free is for the older job");
    assert_eq!(launches(600_000), Some(large));
}

#[test]
fn the_circuit_of_a_class_that_only_others_make_suspect_is_not_stored() {
    let failing = ClassState {
        circuit: open(600, 300, CircuitCause::LaunchRefused("InvalidAMIID.NotFound".to_owned())),
        boot_failures: 0,
        failures: Vec::new(),
        answers: Vec::new(),
    };
    let pool = Pool { max: 1, ..with_shapes() };
    let classes: BTreeMap<Label, ClassState> = ["1cpu", "2cpu", "8cpu"].map(|it| (label(it), failing.clone())).into();
    let held = slot("busy", 600, json!({ "class": label("1cpu"), "launched_at": ago(900), "held": true }));
    let mut view = read(&pool, [of_class(5, 60, &label("4cpu")), held.into()]);
    view.meta.classes = classes.clone();
    let stored = decide(&pool, &view, &turn()).map_or(classes.clone(), |decision| decision.meta.classes);
    assert_eq!(stored, classes, "there is no room for a probe");
}

#[test]
fn warm_machines_that_may_outlast_no_job_are_replaced_two_dozen_at_a_time() {
    let pool = Pool { warm: 60, max: 100, ..pool() };
    let old = |age: i64| {
        let warm = |version| Item::from(unneeded(version, "launched", json!({ "launched_at": ago(age) })));
        let mut view = read(&pool, (1..=60).map(warm));
        view.meta.revision = 100;
        let slots = decide(&pool, &view, &turn()).map(|decision| decision.slots).unwrap_or_default();
        slots.iter().filter(|slot| slot.stop.as_ref().is_some_and(|stop| stop.why == StopReason::Recycled)).count()
    };
    let half = 6 * 3600;
    assert_eq!((old(half - 1), old(half)), (0, 24));
}
