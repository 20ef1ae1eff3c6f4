//! Machines that end before their runner comes online: which of them count, and what follows.

mod common;

use std::collections::BTreeMap;

use common::{after, ago, instance, job, later, noon, pool, slot, turn, view};
use domain::config::{Label, Pool, Rates};
use domain::ids::{InstanceId, SlotId};
use domain::policy::PoolView;
use domain::policy::close::{Ended, close};
use domain::policy::decide::decide;
use domain::policy::early_end::{can_close, failure};
use domain::state::{Circuit, CircuitCause, Failure, Item, Meta, Slot, WaitingJob};
use domain::wire::StateReason;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

fn lost(state: &str, more: Value) -> Slot {
    let mut all = json!({ "gone_at": ago(40), "unregistered_at": ago(20) });
    all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    slot(state, 60, all)
}

fn reason(code: &str) -> StateReason {
    StateReason { code: code.to_owned(), message: format!("{code}: why") }
}

fn counts(slot: &Slot, reason: Option<&StateReason>) -> bool {
    failure(&view([slot.clone().into()]), slot, reason, None, noon()).is_some()
}

#[test]
fn a_machine_counts_if_it_ended_by_itself_before_its_runner_came_online() {
    for (state, more, expected) in [
        ("launched", json!({}), true),
        ("configured", json!({}), true),
        ("online", json!({}), false),
        ("busy", json!({}), false),
        ("done", json!({}), false),
        ("configured", json!({ "busy_seen_at": ago(50) }), false),
        ("configured", json!({ "held": true }), false),
        ("configured", json!({ "gone_at": null }), false),
    ] {
        assert_eq!(counts(&lost(state, more.clone()), None), expected, "{state} {more}");
    }
    for why in ["surplus", "recycled", "operator", "interrupted", "boot_failure", "max_life"] {
        let stopped = lost("configured", json!({ "stop": { "why": why, "at": ago(50) } }));
        assert!(!counts(&stopped, None), "{why}");
    }
    for (code, expected) in [
        ("Client.InvalidKMSKey.InvalidState", true),
        ("Client.InstanceInitiatedShutdown", true),
        ("Server.InternalError", true),
        ("Server.SpotInstanceTermination", false),
        ("Client.UserInitiatedShutdown", false),
    ] {
        assert_eq!(counts(&lost("launched", json!({})), Some(&reason(code))), expected, "{code}");
    }
}

#[test]
fn a_machine_that_may_have_run_a_waiting_job_is_not_closed_before_github_was_asked() {
    let slot = lost("configured", json!({}));
    let reasons = BTreeMap::new();
    let with_job = |checked_at| view([slot.clone().into(), WaitingJob { checked_at, ..job(60) }.into()]);
    let (unasked, asked) = (with_job(ago(60)), with_job(ago(10)));
    let closes = |view: &PoolView, slot: &Slot| can_close(&pool(), view, slot, Some(&reasons), noon());
    assert!(!closes(&unasked, &slot) && closes(&asked, &slot));
    assert!(!can_close(&pool(), &asked, &slot, None, noon()), "EC2's reason is not known yet");
    assert!(failure(&unasked, &slot, None, None, noon()).is_none());
    assert!(failure(&asked, &slot, None, None, noon()).is_some());
    let never_registered = lost("launched", json!({}));
    assert!(closes(&unasked, &never_registered), "it cannot have run a job");
    let old = lost("configured", json!({ "gone_at": ago(600) }));
    assert!(closes(&with_job(ago(601)), &old), "GitHub does not answer");
    let recent = lost("configured", json!({ "gone_at": ago(599) }));
    assert!(!closes(&with_job(ago(601)), &recent), "it may still answer");
    let gated = view([recent.clone().into(), WaitingJob { open: false, checked_at: ago(601), ..job(60) }.into()]);
    assert!(closes(&gated, &recent), "a gate held the job");
    assert!(closes(&unasked, &lost("online", json!({}))), "not an early end");
}

fn close_one(read: &PoolView, console: &str) -> PoolView {
    let slots: Vec<Slot> = read.slots.values().cloned().collect();
    let reasons = BTreeMap::from([(InstanceId::from("i-1"), reason("Client.InvalidKMSKey.InvalidState"))]);
    let ended = Ended {
        instances: vec![instance()],
        consoles: [(InstanceId::from("i-1"), console.to_owned())].into(),
        reasons: Some(&reasons),
        ..Ended::default()
    };
    let rates = Rates::of("eu-central-1".to_owned());
    after(read, &close(&pool(), read, &slots, ended, &rates, &turn()).writes)
}

#[test]
fn the_third_early_end_in_a_row_opens_the_circuit_with_ec2s_reason_and_the_console() {
    let close_with = |failures: u32| {
        let mut read = view([lost("launched", json!({})).into()]);
        read.meta.boot_failures = failures;
        close_one(&read, "one\n\ntwo\nthree\nfour\nfive\nsix\n").meta
    };
    let second = close_with(1);
    assert_eq!((second.boot_failures, &second.circuit), (2, &Circuit::Closed));
    let [kept] = &second.failures[..] else { panic!("one failure") };
    assert_eq!(kept.reason, "Client.InvalidKMSKey.InvalidState: why", "the code is not repeated");
    assert_eq!(kept.console, "two\nthree\nfour\nfive\nsix");
    let third = close_with(2);
    let Circuit::Open { cause: CircuitCause::EndedEarly, message, .. } = &third.circuit else { panic!("{third:?}") };
    for part in ["3 machines in a row", "i-1", "Client.InvalidKMSKey.InvalidState", "five / six"] {
        assert!(message.contains(part), "{message}");
    }
}

/// Slots whose machines ended early and are not closed yet.
fn ended(number: u8) -> Vec<Item> {
    let slot = |index| Slot { id: SlotId { version: 4, index }, ..lost("launched", json!({})) };
    (0..number).map(|index| slot(index).into()).collect()
}

#[test]
fn nothing_is_launched_while_ends_that_would_open_the_circuit_are_not_counted_yet() {
    let pool = Pool { max: 10, ..pool() };
    let launches = |failures: u32, items: Vec<Item>| {
        let mut read = view(items.into_iter().chain([job(5).into()]));
        read.meta.config_hash = pool.config_hash();
        read.meta.boot_failures = failures;
        decide(&pool, &read, &turn()).is_some_and(|decision| decision.batch.is_some())
    };
    assert!(launches(0, ended(2)) && !launches(0, ended(3)) && !launches(2, ended(1)));
    let works = Slot { id: SlotId { version: 4, index: 9 }, ..slot("busy", 30, json!({})) };
    assert!(launches(0, ended(3).into_iter().chain([works.into()]).collect()), "a newer machine works");
}

#[test]
fn a_machine_that_comes_online_ends_the_row() {
    let mut read = close_one(&view([lost("launched", json!({})).into()]), "");
    read.meta.config_hash = pool().config_hash();
    let next = |slot: Slot| {
        let read = PoolView { slots: [(slot.id, slot)].into(), ..read.clone() };
        decide(&pool(), &read, &turn()).map(|decision| decision.meta.boot_failures)
    };
    assert_eq!(next(slot("busy", 30, json!({}))), Some(0));
    assert_eq!(next(slot("busy", 300, json!({}))), None, "it was launched before the failure");
}

#[test]
fn a_stopped_machine_counts_from_its_start() {
    let started = json!({ "launched_at": ago(600), "stopped_at": ago(400), "started_at": ago(60) });
    let failed = close_one(&view([lost("started", started.clone()).into()]), "").meta;
    let [failure] = &failed.failures[..] else { panic!("one failure: {failed:?}") };
    assert_eq!(failure.launched_at, ago(60));

    let mut read = view([slot("busy", 30, started).into()]);
    read.meta = Meta { config_hash: pool().config_hash(), ..failed };
    let next = |read: &PoolView| decide(&pool(), read, &turn()).map(|decision| decision.meta.boot_failures);
    assert_eq!(next(&read), Some(0), "it works, and was started when the other one was");
    read.meta.failures[0].launched_at = ago(59);
    assert_eq!(next(&read), None, "it was started before the other one");
}

#[test]
fn a_machine_launched_before_one_that_failed_does_not_end_the_row() {
    let mut read = view([slot("busy", 300, json!({})).into()]);
    read.meta.config_hash = pool().config_hash();
    // Ends are counted in any order: the machine that was launched last was counted first.
    let launched = |seconds: i64| Failure { launched_at: ago(seconds), ..failed() };
    [90, 400, 500, 600].map(launched).into_iter().for_each(|failure| failure.keep(&mut read.meta.failures));
    let until = later(60);
    let cause = CircuitCause::EndedEarly;
    read.meta.circuit = Circuit::Open { until, backoff_seconds: 60, since: ago(350), cause, message: String::new() };
    read.meta.boot_failures = 4;
    let kept: Vec<_> = read.meta.failures.iter().map(|failure| failure.launched_at).collect();
    assert_eq!(kept, [ago(500), ago(400), ago(90)], "those that were launched last");
    let is_closed =
        |read: &PoolView| decide(&pool(), read, &turn()).is_some_and(|it| it.meta.circuit == Circuit::Closed);
    assert!(!is_closed(&read));
    read.meta.failures.retain(|failure| failure.launched_at != ago(90));
    assert!(is_closed(&read), "the machine was launched after the others");
}

/// The circuit after a probe that was launched 100 seconds ago.
fn after_probe(cause: CircuitCause) -> Circuit {
    let until = ago(100) + pool().timings.boot_grace.duration() + SignedDuration::from_secs(120);
    Circuit::Open { until, backoff_seconds: 120, since: ago(400), cause, message: String::new() }
}

fn next_probe_at(circuit: &Circuit) -> Option<Timestamp> {
    if let Circuit::Open { until, .. } = circuit { Some(*until) } else { None }
}

#[test]
fn a_probe_that_is_stopped_before_it_shows_anything_keeps_no_job_waiting() {
    let warm = slot("launched", 90, json!({ "wanted": false, "registration": 0, "planned_at": ago(100) }));
    let mut read = view([warm.into()]);
    read.meta.config_hash = pool().config_hash();
    read.meta.circuit = after_probe(CircuitCause::EndedEarly);
    let stopped = decide(&pool(), &read, &turn()).expect("no machine is kept warm any more");
    assert!(stopped.slots[0].stop.is_some());
    assert_eq!(next_probe_at(&stopped.meta.circuit), Some(noon()));

    let older = slot("launched", 90, json!({ "wanted": false, "registration": 0, "planned_at": ago(101) }));
    let read = PoolView { slots: [(older.id, older)].into(), ..read };
    let stopped = decide(&pool(), &read, &turn()).expect("no machine is kept warm any more");
    assert_eq!(stopped.meta.circuit, read.meta.circuit, "another probe is under way");
}

#[test]
fn a_probe_that_ec2_reclaims_keeps_no_job_waiting_and_one_that_fails_does() {
    let class: Label = "any/2cpu".parse().expect("a label");
    for class in [None, Some(class)] {
        let close_for = |code: &str| {
            let probe = Slot { class: class.clone(), ..lost("launched", json!({ "planned_at": ago(100) })) };
            let mut read = view([probe.clone().into()]);
            let failing =
                Meta { circuit: after_probe(CircuitCause::EndedEarly), boot_failures: 3, ..read.meta.clone() };
            read.meta = match &class {
                None => failing,
                Some(class) => read.meta.with_class(class, failing),
            };
            let reasons = BTreeMap::from([(InstanceId::from("i-1"), reason(code))]);
            let ended = Ended { instances: vec![instance()], reasons: Some(&reasons), ..Ended::default() };
            let rates = Rates::of("eu-central-1".to_owned());
            let meta = after(&read, &close(&pool(), &read, &[probe], ended, &rates, &turn()).writes).meta;
            next_probe_at(&class.as_ref().map_or_else(|| meta.clone(), |class| meta.of_class(class)).circuit)
        };
        assert_eq!(close_for("Server.SpotInstanceTermination"), Some(noon()), "{class:?}");
        assert_eq!(close_for("Client.InstanceInitiatedShutdown"), Some(later(120)), "{class:?}");
    }
}

fn failed() -> Failure {
    Failure { at: noon(), instance: None, launched_at: noon(), reason: String::new(), console: String::new() }
}
