//! The writes that follow from EC2's answers to a launch.

mod common;

use std::collections::BTreeSet;

use common::{after, later, noon, pool, turn};
use domain::config::{Market, Pool};
use domain::ids::{InstanceId, JobId};
use domain::policy::PoolView;
use domain::policy::launch::{Refused, RefusedFor, bind, refused};
use domain::state::{Batch, Circuit, Item, Meta, Slot, SlotState, WaitingJob};
use serde_json::json;

fn two_zones() -> Pool {
    Pool { subnets: vec!["subnet-a".into(), "subnet-b".into()], ..pool() }
}

/// Two jobs wait, and a launch of two machines for them is due.
fn planned() -> (PoolView, Batch) {
    let mut items: Vec<Item> = Vec::new();
    for index in 0..2 {
        let slot = json!({
            "id": format!("4.{index}"), "pool": "linux", "state": "planned", "wanted": true, "planned_at": noon(),
            "registration": 0, "next_at": noon(), "revision": 1,
        });
        items.push(serde_json::from_value::<Slot>(slot).expect("a slot").into());
        let job = json!({
            "id": 5 + index, "pool": "linux", "repository": "octo/widgets", "queued_at": noon(), "open": true,
            "check_at": later(90), "checked_at": noon(), "launches": [noon()], "revision": 1,
        });
        items.push(serde_json::from_value::<WaitingJob>(job).expect("a job").into());
    }
    let batch = json!({
        "pool": "linux", "version": 4, "epoch": "e1", "attempt": 1, "count": 2, "tries": 1, "next_at": later(90),
        "planned_at": noon(), "revision": 1,
    });
    let batch: Batch = serde_json::from_value(batch).expect("a batch");
    let batch = Batch { tuple: two_zones().tuples().into_iter().next(), ..batch };
    items.push(batch.clone().into());
    (PoolView::new(Meta::new(pool().name, "e1".parse().expect("an epoch")), items), batch)
}

fn machines(view: &PoolView) -> Vec<Option<&str>> {
    view.slots.values().map(|slot| slot.machine().map(|machine| machine.instance.as_str())).collect()
}

#[test]
fn instances_are_bound_in_the_order_of_their_ids_and_the_rest_is_another_attempt() {
    let (view, batch) = planned();
    let launched = |ids: &[&str]| ids.iter().map(|id| (InstanceId::from(*id), noon())).collect::<Vec<_>>();
    let none = BTreeSet::new();
    let all = bind(&view, &batch, &launched(&["i-3", "i-1"]), &none, &turn()).expect("two to bind");
    let all = after(&view, &all);
    assert_eq!((machines(&all), all.batches.len()), (vec![Some("i-1"), Some("i-3")], 0));

    let one = bind(&view, &batch, &launched(&["i-2"]), &none, &turn()).expect("one to bind");
    let one = after(&view, &one);
    assert_eq!(machines(&one), [Some("i-2"), None]);
    let slot = one.slots.values().next().expect("the first");
    assert!(matches!(slot.state, SlotState::Launched(_)) && slot.registration == 1 && slot.lease.next_at == later(90));
    let rest = &one.batches[&4];
    assert_eq!((rest.attempt, rest.count, rest.lease.tries, rest.lease.next_at), (2, 1, 0, noon()), "another token");
    assert_ne!(rest.tag(), batch.tag());

    let taken = BTreeSet::from(["i-2".into()]);
    assert_eq!(bind(&one, rest, &launched(&["i-2"]), &taken, &turn()), None, "it is bound already");
    let last = bind(&one, rest, &launched(&["i-2", "i-4"]), &taken, &turn()).expect("one to bind");
    let last = after(&one, &last);
    assert_eq!((machines(&last), last.batches.len()), (vec![Some("i-2"), Some("i-4")], 0));
}

#[test]
fn after_a_refusal_the_next_tuple_is_tried_or_the_launch_waits_or_ends() {
    let pool = two_zones();
    let (view, batch) = planned();
    let no = |about, view: &PoolView, batch: &Batch| {
        let why = Refused { about, code: "No".to_owned(), message: "no".to_owned() };
        let tuple = batch.tuple.clone().expect("a way");
        after(view, &refused(&pool, view, batch, &tuple, &why, &turn()))
    };
    let first = no(RefusedFor::Capacity, &view, &batch);
    let second = &first.batches[&4];
    let subnet = |batch: &Batch| batch.tuple.as_ref().map(|tuple| tuple.subnet.as_str().to_owned());
    assert_eq!((second.attempt, second.count, second.lease.tries, second.lease.next_at), (2, 2, 1, later(90)));
    assert_eq!((subnet(&batch).as_deref(), subnet(second).as_deref()), (Some("subnet-a"), Some("subnet-b")));
    assert_eq!((first.meta.cooldowns.len(), second.refusals.len()), (1, 1));

    let both = no(RefusedFor::Capacity, &first, second);
    let waits = &both.batches[&4];
    let free_at = both.meta.cooldowns.iter().map(|cooling| cooling.until).min().expect("two are cooling down");
    assert_eq!((waits.attempt, waits.lease.tries, subnet(waits), waits.lease.next_at), (3, 0, None, free_at));
    assert!(free_at > noon() && machines(&both) == [None, None]);

    let quota = no(RefusedFor::Quota, &view, &batch);
    assert_eq!(quota.meta.pauses.iter().map(|pause| pause.market).collect::<Vec<_>>(), [Market::OnDemand]);
    assert_eq!(subnet(&quota.batches[&4]), None, "another zone does not help");

    let wrong = no(RefusedFor::Configuration, &view, &batch);
    assert!(matches!(&wrong.meta.circuit, Circuit::Open { cause, .. } if cause.code() == "No"));
    assert_eq!((wrong.batches.len(), wrong.slots.len()), (0, 0), "given up");
    let charged = |view: &PoolView| view.waiting.values().map(|job| job.launches.len()).sum::<usize>();
    assert_eq!((charged(&view), charged(&wrong)), (2, 0), "slots without a launch are not charged");
    assert!(wrong.waiting.contains_key(&JobId(5)));
}
