//! Machines that are kept stopped: which are set aside, which are given to jobs, and which are ended.

mod common;

use std::collections::BTreeSet;

use common::{ago, job, later, noon, pool, slot, turn, view};
use domain::config::{LaunchTemplate, Market, Pool, Tuple};
use domain::ids::SlotId;
use domain::log::What;
use domain::policy::PoolView;
use domain::policy::decide::decide;
use domain::policy::stopped::{
    Kept, asked_for, is_idle, keeps_stopped, kept, missing, ready, records_launch, start_again_after,
};
use domain::state::{Item, Slot, SlotState, StopReason};
use jiff::SignedDuration;
use serde_json::{Value, json};

const NOTHING: [u8; 0] = [];

fn keeping(stopped: u32) -> Pool {
    Pool { stopped, max: 20, ..pool() }
}

fn tuple(market: Market) -> Tuple {
    Tuple { market, ..pool().tuples().remove(0) }
}

/// Slot 4.`index`, which no job wants, launched on demand unless `more` says otherwise.
fn unneeded(index: u8, state: &str, more: Value) -> Slot {
    let mut all = json!({
        "id": format!("4.{index}"), "instance": format!("i-{index}"), "wanted": false, "registration": 0,
        "warm_as": tuple(Market::OnDemand), "launched_at": ago(600),
    });
    all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    slot(state, 600, all)
}

/// A machine that is up and has prepared itself.
fn prepared(index: u8) -> Slot {
    unneeded(index, "launched", json!({ "boot": boot(Some(60)) }))
}

fn boot(prepared: Option<i64>) -> Value {
    json!({ "reported_at": ago(500), "uptime_seconds": 9, "prepared_at": prepared.map(ago), "seen_at": ago(30) })
}

fn stopped(index: u8) -> Slot {
    unneeded(index, "stopped", json!({ "stopped_at": ago(300) }))
}

fn read(slots: impl IntoIterator<Item = Slot>) -> PoolView {
    view(slots.into_iter().map(Item::from))
}

/// The indices of the slots that the next decision sets aside, and of those that it ends for this reason.
fn decided(pool: &Pool, read: &PoolView, why: StopReason) -> (Vec<u8>, Vec<u8>) {
    let mut read = read.clone();
    read.meta.config_hash = pool.config_hash();
    let slots = decide(pool, &read, &turn()).map(|decision| decision.slots).unwrap_or_default();
    let of = |is: &dyn Fn(&Slot) -> bool| slots.iter().filter(|slot| is(slot)).map(|slot| slot.id.index).collect();
    let aside = of(&|slot| matches!(slot.state, SlotState::Prepared(_)) && slot.stop.is_none());
    (aside, of(&|slot| slot.stop.as_ref().is_some_and(|stop| stop.why == why)))
}

fn set_aside(pool: &Pool, read: &PoolView) -> Vec<u8> {
    decided(pool, read, StopReason::Surplus).0
}

#[test]
fn a_prepared_machine_on_demand_that_nothing_needs_is_set_aside() {
    assert_eq!(set_aside(&keeping(1), &read([prepared(0)])), [0]);
    let both = decided(&keeping(1), &read([prepared(0), prepared(1)]), StopReason::Surplus);
    assert_eq!(both, (vec![1], vec![0]), "one is to be stopped, and nothing needs the other");
    assert_eq!(set_aside(&keeping(2), &read([prepared(0), stopped(1)])), [0]);
    assert_eq!(set_aside(&keeping(1), &read([prepared(0), stopped(1)])), NOTHING);
    assert_eq!(set_aside(&Pool { warm: 1, ..keeping(1) }, &read([prepared(0)])), NOTHING, "one is to be warm");
    assert_eq!(set_aside(&Pool { warm: 1, ..keeping(1) }, &read([prepared(0), prepared(1)])), [0]);
    for other in [
        unneeded(0, "launched", json!({ "boot": boot(None) })),
        unneeded(0, "launched", json!({})),
        Slot { held: true, ..prepared(0) },
        Slot { warm_as: Some(Box::new(tuple(Market::Spot))), ..prepared(0) },
        Slot { warm_as: None, ..prepared(0) },
        Slot { wanted: true, ..prepared(0) },
    ] {
        assert_eq!(set_aside(&keeping(1), &read([other.clone()])), NOTHING, "{other:?}");
    }
}

#[test]
fn the_event_counts_the_machines_that_are_set_aside() {
    let mut read = read([prepared(0), prepared(1), prepared(2)]);
    read.meta.config_hash = keeping(2).config_hash();
    read.waiting.insert(job(60).id, job(60));
    let decision = decide(&keeping(2), &read, &turn()).expect("a decision");
    let What::Decided { wanted, set_aside, .. } = decision.what else { panic!("{:?}", decision.what) };
    assert_eq!((wanted, set_aside), (1, 2), "a job gets one, and two are to be stopped");
}

#[test]
fn stopped_machines_that_are_too_many_are_ended_oldest_first() {
    let surplus = |pool: &Pool, read: &PoolView| decided(pool, read, StopReason::Surplus).1;
    assert_eq!(surplus(&keeping(1), &read([stopped(0), stopped(1), stopped(2)])), [0, 1]);
    assert_eq!(surplus(&keeping(3), &read([stopped(0), stopped(1), stopped(2)])), NOTHING);
    let held = Slot { held: true, ..stopped(0) };
    assert_eq!(surplus(&keeping(1), &read([held, stopped(1), stopped(2)])), [1, 2]);
}

#[test]
fn a_stopped_machine_of_another_image_or_older_than_two_weeks_is_ended() {
    let recycled = |pool: &Pool, slot: Slot| decided(pool, &read([slot]), StopReason::Recycled).1;
    let launched = |seconds: i64| unneeded(0, "stopped", json!({ "launched_at": ago(seconds), "stopped_at": ago(60) }));
    let days = 14 * 24 * 3600;
    assert_eq!(recycled(&keeping(1), launched(days - 1)), NOTHING);
    assert_eq!(recycled(&keeping(1), launched(days)), [0]);
    assert_eq!(recycled(&keeping(1), Slot { held: true, ..launched(days) }), NOTHING, "an operator holds it");
    for template in [
        LaunchTemplate { version: 2, ..pool().launch_template },
        LaunchTemplate { id: "lt-1".into(), ..pool().launch_template },
    ] {
        assert_eq!(recycled(&Pool { launch_template: template, ..keeping(1) }, stopped(0)), [0]);
    }
    assert_eq!(recycled(&keeping(1), stopped(0)), NOTHING);
}

#[test]
fn a_job_gets_a_stopped_machine_and_its_registration_begins() {
    let mut read = read([stopped(0)]);
    read.waiting.insert(job(60).id, job(60));
    read.meta.config_hash = keeping(1).config_hash();
    let decision = decide(&keeping(1), &read, &turn()).expect("a machine is given");
    let started = decision.slots.iter().find(|it| it.id == stopped(0).id).expect("the machine is given");
    let SlotState::Started(machine) = &started.state else { panic!("{started:?}") };
    assert_eq!((started.wanted, started.wanted_at, started.registration), (true, Some(noon()), 1));
    assert_eq!((machine.started_at, started.lease.next_at), (Some(noon()), turn().lease));
}

#[test]
fn a_machine_is_set_aside_stopped_and_ready_one_after_the_other() {
    let aside = prepared(0).set_aside(noon(), later(90)).expect("it is up");
    let SlotState::Prepared(machine) = &aside.state else { panic!("{aside:?}") };
    assert_eq!((machine.stopped_at, aside.lease.tries, aside.lease.next_at), (Some(noon()), 1, later(90)));
    let accepted = aside.clone().stop_accepted(later(60));
    assert_eq!((accepted.lease.tries, accepted.lease.next_at), (0, later(60)));
    assert!(matches!(accepted.clone().ready().expect("it was to be stopped").state, SlotState::Stopped(_)));
    assert_eq!(prepared(0).ready(), None, "somebody stopped it by hand");
    assert_eq!(accepted.set_aside(noon(), later(90)), None);
    let gone = aside.gone(noon());
    assert_eq!((gone.gone_at, gone.lease.tries, gone.lease.next_at), (Some(noon()), 0, noon()));
}

#[test]
fn a_machine_can_be_started_once_no_call_may_still_stop_it() {
    let leased = |slot: Slot, tries: u32, next_at| {
        let mut slot = slot;
        (slot.lease.tries, slot.lease.next_at) = (tries, next_at);
        slot
    };
    let aside = |seconds: i64| unneeded(0, "prepared", json!({ "stopped_at": ago(seconds) }));
    for (slot, is_ready) in [
        (stopped(0), true),
        (leased(stopped(0), 1, later(1)), false),
        (leased(stopped(0), 1, noon()), true),
        (leased(stopped(0), 0, later(1)), true),
        (Slot { held: true, ..stopped(0) }, false),
        (stopped(0).stopped(StopReason::Surplus, noon(), noon()), false),
        (Slot { gone_at: Some(noon()), ..stopped(0) }, false),
        (aside(119), false),
        (aside(120), true),
        (prepared(0), false),
    ] {
        assert_eq!(slot.is_ready(noon()), is_ready, "{slot:?}");
    }
}

#[test]
fn a_machine_that_cannot_be_stopped_makes_room_for_one_that_can() {
    let spot = |index: u8| Slot { warm_as: Some(Box::new(tuple(Market::Spot))), ..prepared(index) };
    let of = |slots: Vec<Slot>, demand: usize, warm: usize, stopped: usize| {
        kept(&read(slots), &BTreeSet::new(), demand, (warm, stopped), noon())
    };
    let nothing = Kept { warm: 0, preparing: 0, excess: 0, spare: 0 };
    assert_eq!(of(vec![spot(0)], 0, 0, 1), Kept { preparing: 1, spare: 1, ..nothing });
    assert_eq!(of(vec![spot(0), prepared(1)], 0, 0, 1), Kept { preparing: 1, spare: 1, ..nothing });
    assert_eq!(of(vec![spot(0), spot(1)], 1, 0, 1), Kept { preparing: 1, spare: 1, ..nothing }, "a job needs one");
    assert_eq!(of(vec![spot(0), spot(1), spot(2)], 1, 1, 1), Kept { warm: 1, preparing: 1, spare: 1, ..nothing });
    let wanted = Slot { wanted: true, ..spot(2) };
    assert_eq!(of(vec![spot(0), spot(1), wanted], 1, 0, 1), Kept { preparing: 1, spare: 2, ..nothing });
    assert_eq!(of(vec![spot(0)], 0, 0, 0), nothing, "nothing is to be prepared");
    let held = Slot { held: true, ..spot(0) };
    assert_eq!(of(vec![held, spot(1)], 0, 0, 1), Kept { preparing: 1, spare: 1, ..nothing });
    assert_eq!(of(vec![stopped(0), stopped(1), stopped(2)], 0, 0, 1), Kept { excess: 2, ..nothing });
    let taken = BTreeSet::from([SlotId { version: 4, index: 0 }]);
    assert_eq!(kept(&read([stopped(0), stopped(1)]), &taken, 0, (0, 2), noon()), Kept { preparing: 1, ..nothing });
}

#[test]
fn a_pool_asks_for_nothing_while_it_is_drained_and_a_class_never_does() {
    let pool = Pool { warm: 2, ..keeping(3) };
    let class = "linux/8cpu".parse().expect("a label");
    assert_eq!((asked_for(&pool, None, noon()), asked_for(&pool, Some(&class), noon())), ((2, 3), (0, 0)));
    assert_eq!(asked_for(&Pool { draining: true, ..pool }, None, noon()), (0, 0));
    let counted = read([stopped(0), stopped(1).stopped(StopReason::Surplus, noon(), noon()), prepared(2)]);
    assert_eq!((missing(&counted, 3), missing(&counted, 1), missing(&counted, 0)), (2, 0, 0));
    assert_eq!(ready(&counted).map(|slot| slot.id.index).collect::<Vec<_>>(), [0]);
}

#[test]
fn what_a_machine_is_launched_as_is_recorded_where_it_may_be_stopped() {
    assert!(records_launch(&keeping(1), false) && !records_launch(&keeping(1), true), "a job needs it");
    assert!(!records_launch(&keeping(0), false));
    assert!(keeps_stopped(&keeping(1), &read([])) && !keeps_stopped(&keeping(0), &read([])));
    assert!(!keeps_stopped(&keeping(0), &read([prepared(0)])));
    assert!(keeps_stopped(&keeping(0), &read([stopped(0)])), "one has not ended yet");
    assert!(!keeps_stopped(&keeping(0), &read([Slot { gone_at: Some(noon()), ..stopped(0) }])));
}

#[test]
fn a_start_is_tried_again_after_five_seconds_or_later_if_ec2_throttles() {
    let again = |code: Option<&str>, tries: u32| {
        let mut slot = stopped(0);
        slot.lease.tries = tries;
        start_again_after(code, &slot)
    };
    let seconds = SignedDuration::from_secs;
    assert_eq!((again(None, 3), again(Some("IncorrectInstanceState"), 3)), (seconds(5), seconds(5)));
    let throttled = |tries| again(Some("RequestLimitExceeded"), tries);
    assert!(throttled(0) <= seconds(2) && throttled(0) >= seconds(1), "{}", throttled(0));
    assert!(throttled(1) <= seconds(4) && throttled(1) >= seconds(3), "{}", throttled(1));
    assert!(throttled(2) > seconds(5), "{}", throttled(2));
}

#[test]
fn a_machine_that_may_be_ended_is_launched_alive_free_and_not_held() {
    for (slot, expected) in [
        (prepared(0), true),
        (unneeded(0, "planned", json!({})), false),
        (Slot { held: true, ..prepared(0) }, false),
        (Slot { gone_at: Some(noon()), ..prepared(0) }, false),
        (slot("online", 60, json!({})).observed_busy(noon()), false),
    ] {
        assert_eq!(is_idle(&slot, noon()), expected, "{slot:?}");
    }
}
