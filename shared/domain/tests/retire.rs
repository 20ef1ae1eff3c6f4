//! When a machine may be terminated, and what is written before and after.

mod common;

use std::collections::BTreeMap;

use common::{after, ago, instance, job, later, listed, noon, pool, slot, slots, turn, view};
use domain::config::Rates;
use domain::ids::{InstanceId, JobId, RunnerId, SlotId};
use domain::log::Stream;
use domain::policy::close::{Ended, close, console_tail, wants_console};
use domain::policy::early_end::FAILURES_ALLOWED;
use domain::policy::observe::{Observation, over_after};
use domain::policy::reap::{StopSlot, adopt, condemn, stop_slot};
use domain::policy::retire::{
    AfterDeregistration, Deregistration, Grounds, RetireStep, TagReading, Tags, Unheld, after_deregistration,
    permit_unowned, unregistered,
};
use domain::state::{
    Circuit, CircuitCause, Condemned, Instance, Item, Key, Ownership, Slot, StopReason, Unserved, WaitingJob,
};
use domain::wire::{NamedRunners, ObservedInstance, TokenMark};
use serde_json::{Value, json};

const SLOT: SlotId = SlotId { version: 4, index: 0 };

fn stopped(state: &str, why: &str, forced: bool) -> Slot {
    slot(state, 60, json!({ "stop": { "why": why, "at": ago(9), "forced": forced } }))
}

/// The proof that nobody holds the slots' machine.
fn unheld() -> Unheld {
    match TagReading::of([&listed()]).of_machine(&"i-1".into()) {
        Tags::Free(unheld) => unheld,
        other => panic!("{other:?}"),
    }
}

fn next_step(slot: &Slot) -> RetireStep {
    domain::policy::retire::next_step(slot, &unheld())
}

/// The runner that the next step deregisters.
fn deregisters(slot: &Slot) -> Option<RunnerId> {
    match next_step(slot) {
        RetireStep::Deregister(runner) => Some(runner.runner_id),
        RetireStep::Nothing | RetireStep::Terminate(_) => None,
    }
}

/// GitHub answered 404, and its list lacks the runner.
fn absent() -> Deregistration {
    not_found(TokenMark(1), listed_runners(&[8]))
}

fn not_found(token: TokenMark, listed: NamedRunners) -> Deregistration {
    Deregistration::not_found(&pool().owner, RunnerId(7), token, &listed)
}

fn listed_runners(ids: &[u64]) -> NamedRunners {
    let ids = ids.iter().copied().map(RunnerId).collect();
    NamedRunners { scope: pool().owner, name: common::RUNNER.to_owned(), token: TokenMark(1), ids }
}

/// The grounds of the permit, or None if the next step is not a termination.
fn grounds(step: &RetireStep) -> Option<Grounds> {
    match step {
        RetireStep::Terminate(permit) => {
            assert_eq!(permit.instance(), &InstanceId::from("i-1"));
            Some(permit.grounds())
        }
        RetireStep::Nothing | RetireStep::Deregister(_) => None,
    }
}

#[test]
fn a_registered_runner_is_deregistered_before_its_machine_is_terminated() {
    assert_eq!(next_step(&stopped("planned", "surplus", false)), RetireStep::Nothing);
    assert_eq!(grounds(&next_step(&stopped("launched", "surplus", false))), Some(Grounds::NeverConfigured));
    for state in ["configured", "online", "busy", "done"] {
        for (why, forced) in [("surplus", false), ("halted", false), ("operator", true)] {
            assert_eq!(deregisters(&stopped(state, why, forced)), Some(RunnerId(7)), "{state} {why}");
        }
        let deregistered = Slot { unregistered_at: Some(ago(1)), ..stopped(state, "surplus", false) };
        assert_eq!(grounds(&next_step(&deregistered)), Some(Grounds::Deregistered), "{state}");
    }
    assert_eq!(deregisters(&slot("done", 60, json!({}))), Some(RunnerId(7)), "a reported end permits nothing");
}

#[test]
fn a_404_proves_something_only_with_a_list_that_was_read_with_the_same_token() {
    assert!(matches!(absent(), Deregistration::Confirmed(_)));
    let elsewhere = NamedRunners { scope: "octo/widgets".parse().expect("a scope"), ..listed_runners(&[]) };
    for (token, listed) in
        [(TokenMark(2), listed_runners(&[])), (TokenMark(1), listed_runners(&[8, 7])), (TokenMark(1), elsewhere)]
    {
        assert_eq!(not_found(token, listed.clone()), Deregistration::Unproven, "{token:?} {listed:?}");
    }
    for state in ["configured", "online", "busy", "done"] {
        let slot = stopped(state, "runner_ended", false);
        let after = after_deregistration(slot.clone(), &unheld(), Deregistration::Unproven, noon());
        assert_eq!(after, AfterDeregistration::Leave(Box::new(slot)), "{state}");
    }
    assert_eq!(permit_unowned(&unheld(), Condemned::Orphan, &[Some(Deregistration::Unproven)]), None);
}

#[test]
fn a_machine_is_retired_only_after_its_tags_were_read_and_do_not_hold_it() {
    let other = ObservedInstance { id: "i-2".into(), ..listed() };
    let read = TagReading::of([&ObservedInstance { hold: true, ..listed() }, &other]);
    assert_eq!((read.of_machine(&"i-1".into()), read.of_machine(&"i-3".into())), (Tags::Held, Tags::Unknown));
    let Tags::Free(other) = read.of_machine(&"i-2".into()) else { panic!("nobody holds it") };
    let step = domain::policy::retire::next_step(&stopped("launched", "surplus", false), &other);
    assert_eq!(step, RetireStep::Nothing, "the proof is about another machine");
    assert_eq!(TagReading::default().of_machine(&"i-1".into()), Tags::Unknown, "EC2 did not answer");
}

#[test]
fn max_life_ends_a_job_without_a_deregistration_and_an_idle_runner_only_after_it() {
    assert_eq!(grounds(&next_step(&stopped("busy", "max_life", false))), Some(Grounds::MaxLife));
    assert_eq!(grounds(&next_step(&stopped("done", "max_life", false))), Some(Grounds::MaxLife));
    assert_eq!(deregisters(&stopped("online", "max_life", false)), Some(RunnerId(7)));
}

#[test]
fn a_deregistered_runner_is_recorded_before_the_machine_is_terminated() {
    for answer in [Deregistration::removed(), absent()] {
        let AfterDeregistration::Record(written) =
            after_deregistration(stopped("online", "surplus", false), &unheld(), answer, noon())
        else {
            panic!("{answer:?} is recorded");
        };
        assert_eq!((written.unregistered_at, written.lease.next_at), (Some(noon()), later(60)));
        let writes = unregistered(&pool(), std::slice::from_ref(&*written), &turn()).expect("a slot to write");
        assert_eq!(slots(&writes), vec![(*written).clone()]);
        assert_eq!(grounds(&next_step(&written)), Some(Grounds::Deregistered));
    }
}

#[test]
fn a_busy_runner_keeps_its_machine_except_past_max_life_and_by_force() {
    let busy = |why: &str, forced| {
        after_deregistration(stopped("online", why, forced), &unheld(), Deregistration::Busy, noon())
    };
    for why in ["surplus", "boot_failure", "disconnected", "halted", "interrupted", "operator", "job_done"] {
        let AfterDeregistration::KeepRunning(slot) = busy(why, false) else { panic!("{why} ends a job") };
        assert_eq!((slot.busy_seen_at, slot.lease.next_at), (Some(noon()), later(300)), "{why}");
        assert_eq!(slot.unregistered_at, None, "{why}");
    }
    for (why, forced, expected) in [("max_life", false, Grounds::MaxLife), ("operator", true, Grounds::Forced)] {
        let AfterDeregistration::Terminate(_, permit) = busy(why, forced) else { panic!("{why} does not end a job") };
        assert_eq!(permit.grounds(), expected);
    }
}

#[test]
fn an_unowned_machine_is_terminated_once_every_runner_is_deregistered_or_past_max_life() {
    let permit = |why, answers: &[Option<Deregistration>]| {
        permit_unowned(&unheld(), why, answers).map(|permit| permit.grounds())
    };
    let (gone, busy) = (Some(absent()), Some(Deregistration::Busy));
    assert_eq!(permit(Condemned::Orphan, &[]), Some(Grounds::Deregistered));
    assert_eq!(permit(Condemned::Orphan, &[gone, Some(Deregistration::removed())]), Some(Grounds::Deregistered));
    assert_eq!((permit(Condemned::Orphan, &[gone, busy]), permit(Condemned::Orphan, &[None, gone])), (None, None));
    assert_eq!(permit(Condemned::MaxLife, &[busy]), Some(Grounds::MaxLife));
    assert_eq!(permit(Condemned::MaxLife, &[None]), Some(Grounds::MaxLife));
}

fn stop(state: &str, more: Value, why: StopReason) -> StopSlot {
    stop_slot(&pool(), &view([slot(state, 60, more).into()]), SLOT, why, &turn())
}

#[test]
fn a_stop_applies_only_if_its_reason_still_does() {
    let earlier = || json!({ "stop": { "why": "surplus", "at": ago(9) } });
    let reported = || json!({ "boot": { "reported_at": ago(20), "uptime_seconds": 9, "seen_at": ago(5) } });
    for (why, state, more, applies) in [
        (StopReason::BootFailure, "configured", json!({ "configured_at": ago(120) }), true),
        (StopReason::BootFailure, "configured", json!({ "configured_at": ago(119) }), false),
        (StopReason::BootFailure, "launched", json!({}), true),
        (StopReason::BootFailure, "launched", reported(), false),
        (StopReason::BootFailure, "launched", earlier(), false),
        (StopReason::BootFailure, "online", json!({}), false),
        (StopReason::BootFailure, "configured", earlier(), false),
        (StopReason::Disconnected, "online", json!({}), true),
        (StopReason::Disconnected, "busy", json!({}), false),
        (StopReason::Disconnected, "online", earlier(), false),
        (StopReason::RunnerEnded, "busy", json!({}), true),
        (StopReason::JobDone, "done", json!({}), true),
        (StopReason::JobDone, "done", json!({ "stop": { "why": "runner_ended", "at": ago(9) } }), false),
        (StopReason::Halted, "online", earlier(), false),
        (StopReason::Halted, "busy", earlier(), true),
        (StopReason::MaxLife, "done", earlier(), true),
        (StopReason::Surplus, "online", json!({}), true),
        (StopReason::Surplus, "online", earlier(), false),
    ] {
        let label = format!("{why} {state} {more}");
        match stop(state, more, why) {
            StopSlot::Claim(writes) => {
                assert!(applies, "{label}");
                let slot = &slots(&writes)[0];
                assert_eq!(
                    (slot.stop.as_ref().map(|it| it.why), slot.lease.next_at),
                    (Some(why), later(90)),
                    "{label}"
                );
            }
            StopSlot::Spare => assert!(!applies, "{label}"),
            StopSlot::AlreadyGone => panic!("{label}"),
        }
    }
    assert_eq!(stop("online", json!({ "gone_at": ago(1) }), StopReason::MaxLife), StopSlot::AlreadyGone);
    assert_eq!(stop_slot(&pool(), &view([]), SLOT, StopReason::MaxLife, &turn()), StopSlot::AlreadyGone);
}

#[test]
fn the_third_boot_failure_in_a_row_opens_the_circuit() {
    let fail = |failures: u32| {
        let mut read = view([slot("configured", 600, json!({})).into()]);
        read.meta.boot_failures = failures;
        let StopSlot::Claim(writes) = stop_slot(&pool(), &read, SLOT, StopReason::BootFailure, &turn()) else {
            panic!("it is a boot failure");
        };
        after(&read, &writes).meta
    };
    assert_eq!((fail(0).boot_failures, fail(0).circuit, fail(1).circuit), (1, Circuit::Closed, Circuit::Closed));
    let third = fail(FAILURES_ALLOWED - 1);
    assert!(matches!(third.circuit, Circuit::Open { cause: CircuitCause::BootFailures, since, .. } if since == noon()));
}

#[test]
fn each_ground_of_a_termination_is_a_sentence() {
    for (ground, shown) in [
        (Grounds::Deregistered, "its runner is deregistered"),
        (Grounds::NeverConfigured, "it never had a runner"),
        (Grounds::MaxLife, "it is past max life"),
        (Grounds::Forced, "an operator forced it"),
    ] {
        assert_eq!(ground.to_string(), shown);
    }
}

#[test]
fn the_record_of_a_closed_machine_has_the_class_that_it_was_given_to() {
    let gone = json!({ "class": "linux/8cpu", "gone_at": ago(60), "unregistered_at": ago(30) });
    let given = slot("done", 60, gone);
    let (view, rates) = (view([given.clone().into()]), Rates::of("us-east-1".to_owned()));
    let ended = Ended { instances: vec![instance()], ..Ended::default() };
    let closing = close(&pool(), &view, std::slice::from_ref(&given), ended, &rates, &turn());
    assert_eq!(common::instances(&closing.writes)[0].class, given.class);
    assert!(!wants_console(&given), "it has run its job");
    assert!(wants_console(&slot("launched", 60, json!({ "gone_at": ago(60) }))), "it has ended by itself");
}

#[test]
fn a_plan_to_end_a_machine_is_dropped_if_it_was_set_aside_or_started_since() {
    let applies = |slot: Slot, why: StopReason| {
        let read = view([slot.clone().into()]);
        matches!(stop_slot(&pool(), &read, slot.id, why, &turn()), StopSlot::Claim(_))
    };
    let aside = |state: &str| slot(state, 60, json!({ "registration": 0, "stopped_at": ago(60) }));
    assert!(applies(slot("launched", 60, json!({})), StopReason::Halted));
    assert!(!applies(aside("prepared"), StopReason::Halted) && !applies(aside("stopped"), StopReason::Halted));
    assert!(
        applies(aside("stopped"), StopReason::NotReady)
            && !applies(slot("online", 60, json!({})), StopReason::NotReady)
    );
    let ending = aside("stopped").stopped(StopReason::Surplus, ago(9), ago(9));
    assert!(!applies(ending, StopReason::NotReady), "it is being ended");
}

#[test]
fn an_instance_is_condemned_once_and_not_while_its_slot_exists() {
    let writes = condemn(&listed(), Some(&instance()), Condemned::Orphan, &turn()).expect("a claim");
    assert_eq!(writes.checks, [(Key::Slot(pool().name, SLOT), 0)]);
    let [condemned] = &common::instances(&writes)[..] else { panic!("one instance: {writes:?}") };
    assert_eq!(condemned.ownership, Ownership::Condemned { why: Condemned::Orphan });
    assert_eq!(condemned.revision, 1, "it replaces the record that was read");
    assert_eq!(condemn(&listed(), Some(condemned), Condemned::MaxLife, &turn()), None);
    let unknown = condemn(&listed(), None, Condemned::Orphan, &turn()).expect("a claim");
    assert_eq!((unknown.checks.len(), common::instances(&unknown)[0].revision), (0, 0));
}

#[test]
fn an_adopted_instance_is_recorded_in_its_pools_log_or_in_the_stacks() {
    let stream = |instance| adopt(&instance, None, &turn()).event.expect("an event").stream;
    assert_eq!(stream(listed()), Stream::Pool(pool().name));
    assert_eq!(stream(domain::wire::ObservedInstance { pool: None, batch: None, ..listed() }), Stream::Stack);
    assert_eq!(common::instances(&adopt(&listed(), None, &turn()))[0].ownership, Ownership::Adopted);
}

#[test]
fn closing_a_slot_deletes_it_and_closes_the_record_of_its_instance() {
    let claims = json!([{ "job": 5, "repository": "octo/app", "ended": true }]);
    let ended = json!({ "gone_at": ago(60), "unregistered_at": ago(1), "launched_at": ago(660), "claims": claims });
    let over = slot("done", 60, ended);
    let mapped = Instance { instance_type: Some("m7i.large".into()), launched_at: ago(660), ..instance() };
    let consoles = BTreeMap::from([(mapped.id.clone(), "panic".to_owned())]);
    let rates = Rates::of("us-east-1".to_owned());
    let ended = Ended { instances: vec![mapped], consoles, ..Ended::default() };
    let closing = close(&pool(), &view([]), std::slice::from_ref(&over), ended, &rates, &turn());
    assert_eq!(closing.writes.deletes, [(Key::Slot(pool().name, SLOT), 1)]);
    let [closed] = &common::instances(&closing.writes)[..] else { panic!("one instance: {closing:?}") };
    assert_eq!(closed.ownership, Ownership::Closed { closed_at: noon(), why: "job_done".to_owned() });
    assert_eq!(closed.console.as_deref(), Some("panic"));
    assert_eq!(closed.claims, over.claims, "the record outlives the slot, which shows that the job has ended");
    let cost = closing.costs[&SLOT];
    assert_eq!((closed.cost_micro_usd, cost.to_string()), (Some(cost), "0.0168 USD".to_owned()), "ten minutes");
}

#[test]
fn a_slot_of_which_only_the_registration_was_left_is_over_without_a_write_of_its_own() {
    let over = |slot: Slot, seen: &[Observation]| over_after(&pool(), &view([slot.into()]), seen, &turn());
    let ended = |state: &str| slot(state, 60, json!({ "gone_at": ago(60) }));
    let unregistered = [Observation::Unregistered(SLOT)];
    let [closing] = &over(ended("done"), &unregistered)[..] else { panic!("it is over") };
    assert_eq!((closing.unregistered_at, closing.revision), (Some(noon()), ended("done").revision));
    assert_eq!(over(ended("busy"), &unregistered), [], "GitHub is asked about its job first");
    assert_eq!(over(slot("done", 60, json!({})), &[Observation::Gone(SLOT), unregistered[0].clone()]), []);
}

#[test]
fn a_machine_that_has_run_another_job_is_no_longer_charged_to_one_that_waits() {
    let over = |index, state| {
        let mut slot = slot(state, 60, json!({ "gone_at": ago(60), "unregistered_at": ago(1) }));
        slot.id.index = index;
        slot
    };
    let charged = |id| WaitingJob { id: JobId(id), launches: vec![ago(300), over(0, "done").planned_at], ..job(600) };
    let left = |slots: &[Slot]| {
        let read = view(slots.iter().cloned().map(Item::from).chain([charged(1).into(), charged(2).into()]));
        let ended = Ended { instances: vec![instance()], ..Ended::default() };
        let closing = close(&pool(), &read, slots, ended, &Rates::of("us-east-1".to_owned()), &turn());
        after(&read, &closing.writes).waiting.values().map(|job| job.launches.len()).collect::<Vec<_>>()
    };
    assert_eq!(left(&[over(0, "done")]), [2, 1], "one of the decision's two launches");
    assert_eq!(left(&[over(0, "done"), over(1, "busy"), over(2, "done")]), [1, 1], "other launches stay charged");
    assert_eq!(left(&[over(0, "online")]), [2, 2], "it has run nothing");
    let returned = Slot { charge_returned: true, ..over(0, "done") };
    assert_eq!(left(&[returned]), [2, 2], "it was given back before");
    let unserved = Some(Unserved { since: ago(90), until: ago(30), seconds: 60 });
    let unserved = WaitingJob { unserved, ..charged(3) };
    let read = view([over(0, "done").into(), unserved.into()]);
    let slots: Vec<Slot> = read.slots.values().cloned().collect();
    let ended = Ended { instances: vec![instance()], ..Ended::default() };
    let closing = close(&pool(), &read, &slots, ended, &Rates::of("us-east-1".to_owned()), &turn());
    assert_eq!(after(&read, &closing.writes).waiting[&JobId(3)].launches.len(), 2, "no idle runner got it");
}

#[test]
fn the_end_of_a_long_console_is_kept_in_whole_characters() {
    assert_eq!(console_tail(""), None);
    assert_eq!(console_tail("short").as_deref(), Some("short"));
    let long = format!("ü{}", "x".repeat(16 * 1024 - 1));
    assert_eq!(console_tail(&long).map(|tail| tail.len()), Some(16 * 1024 - 1));
}
