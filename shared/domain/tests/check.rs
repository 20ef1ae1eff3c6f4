//! What GitHub's answers about a job, and EC2's and GitHub's reports about a slot, change.

mod common;

use common::{ago, config, described, facts, instance, job, later, noon, pool, slot, slots, turn, view};
use domain::ids::{RunnerId, SlotId};
use domain::policy::check::{Answer, LostJob, after_lost_job_check, answer, close_unknown, lost_job};
use domain::policy::interruption::{bound_slot, record_change};
use domain::policy::observe::{Observation, record_observations};
use domain::state::{Item, Ownership, Rank, SlotState, StopReason, WaitingJob};
use domain::wire::{Action, InstanceChange};
use serde_json::json;

const SLOT: SlotId = SlotId { version: 4, index: 0 };

/// The job after the answer, if GitHub has reported a gate of it before.
fn waits(waiting: &WaitingJob, status: &str) -> (WaitingJob, bool) {
    let gated = facts(&[Action::Waiting]);
    match answer(&pool(), waiting, Some(&gated), Some(&described(status)), noon()) {
        Answer::Waits { job, demand_changed } | Answer::Held { job, demand_changed } => (*job, demand_changed),
        other => panic!("{status}: {other:?}"),
    }
}

#[test]
fn only_githubs_answer_opens_and_closes_a_gate() {
    let gated = WaitingJob { open: false, ..job(600) };
    let (opened, changed) = waits(&gated, "queued");
    assert_eq!((opened.open, opened.opened_at, changed), (true, Some(noon()), true));
    let (still, changed) = waits(&job(600), "queued");
    assert_eq!((still.open, still.opened_at, changed), (true, None, false), "it never had a gate");
    assert_eq!((still.checked_at, still.check_at), (noon(), later(300)));
    for status in ["waiting", "pending", "requested"] {
        let (closed, changed) = waits(&job(600), status);
        assert_eq!((closed.open, changed), (false, true), "{status}");
    }
}

#[test]
fn an_answer_records_a_job_that_has_started_or_ended() {
    let advanced = |status| answer(&pool(), &job(600), None, Some(&described(status)), noon());
    assert_eq!(advanced("in_progress"), Answer::Advanced(Action::InProgress));
    assert_eq!(advanced("completed"), Answer::Advanced(Action::Completed));
}

#[test]
fn an_unknown_job_is_no_demand_and_is_closed_after_a_day() {
    let day = 24 * 3600;
    let unknown = |queued| answer(&pool(), &job(queued), None, None, noon());
    assert!(matches!(unknown(day - 1), Answer::Waits { job, demand_changed: true } if !job.open));
    assert_eq!(unknown(day), Answer::Unknown);
    let closed = close_unknown(&pool(), &job(day), Some(facts(&[Action::Queued])), &turn());
    let [Item::Job(done)] = &closed.puts[..] else { panic!("one job: {closed:?}") };
    assert_eq!((done.rank, done.completed_at, closed.deletes.len()), (Rank::Done, Some(noon()), 1));
    let forgotten = close_unknown(&pool(), &job(day), None, &turn());
    assert_eq!((forgotten.puts.len(), forgotten.deletes.len()), (0, 1));
}

#[test]
fn a_lost_job_ended_here_only_on_the_runner_of_the_slot() {
    let busy = slot("busy", 60, json!({ "gone_at": ago(60) }));
    assert_eq!(lost_job(&busy, Some(&described("completed"))), LostJob::EndedHere);
    assert_eq!(lost_job(&busy, Some(&described("in_progress"))), LostJob::Undecided);
    assert_eq!(lost_job(&busy, None), LostJob::EndedElsewhere);
    let mut elsewhere = described("completed");
    elsewhere.runner.as_mut().expect("a runner").id = RunnerId(8);
    assert_eq!(lost_job(&busy, Some(&elsewhere)), LostJob::EndedElsewhere);
}

#[test]
fn a_lost_job_is_checked_for_half_an_hour() {
    let ends = |gone: i64, job| {
        let slot = after_lost_job_check(&slot("busy", 60, json!({ "gone_at": ago(gone) })), job, noon());
        assert_eq!(slot.lease.next_at, later(120));
        slot.job_check_ended
    };
    assert!(!ends(1799, LostJob::Undecided) && ends(1800, LostJob::Undecided));
    assert!(ends(1, LostJob::EndedElsewhere));
}

#[test]
fn an_interruption_stops_the_slot_unless_a_stop_ends_its_job_already() {
    let interrupted = |more| record_change(&pool(), slot("busy", 60, more), InstanceChange::Interrupted, &turn());
    let why = |more| interrupted(more).map(|writes| slots(&writes)[0].stop.as_ref().map(|stop| stop.why));
    let stopped = |why: &str| json!({ "stop": { "why": why, "at": ago(9) } });
    assert_eq!(why(json!({})), Some(Some(StopReason::Interrupted)));
    assert_eq!(why(stopped("surplus")), Some(Some(StopReason::Interrupted)));
    for earlier in ["interrupted", "max_life", "halted", "runner_ended"] {
        assert_eq!(why(stopped(earlier)), None, "{earlier}");
    }
}

#[test]
fn the_end_of_an_instance_is_recorded_once() {
    let change = |slot, change| record_change(&pool(), slot, change, &turn());
    let ended = change(slot("busy", 60, json!({})), InstanceChange::Ended).expect("a write");
    let [gone] = &slots(&ended)[..] else { panic!("one slot: {ended:?}") };
    assert_eq!((gone.gone_at, gone.lease.next_at), (Some(noon()), later(60)), "its job is checked after a minute");
    assert_eq!(change(gone.clone(), InstanceChange::Ended), None);
    assert_eq!(change(slot("busy", 60, json!({})), InstanceChange::Other), None);
}

#[test]
fn a_report_of_ec2_concerns_bound_instances_of_configured_pools() {
    let config = config([pool()]);
    assert_eq!(bound_slot(&config, &instance()).map(|(_, slot)| slot), Some(SLOT));
    let adopted = domain::state::Instance { ownership: Ownership::Adopted, ..instance() };
    assert!(bound_slot(&config, &adopted).is_none());
    assert!(bound_slot(&common::config([]), &instance()).is_none());
}

#[test]
fn observations_of_one_slot_add_up_in_one_write() {
    let read = view([slot("configured", 60, json!({})).into()]);
    let all = [Observation::Gone(SLOT), Observation::Unregistered(SLOT), Observation::Held(SLOT)];
    let writes = record_observations(&pool(), &read, &all, &turn()).expect("a write");
    let [slot] = &slots(&writes)[..] else { panic!("one slot: {writes:?}") };
    assert_eq!((slot.gone_at, slot.unregistered_at, slot.held), (Some(noon()), Some(noon()), true));
    assert!(writes.event.is_some());
}

#[test]
fn a_runner_comes_online_only_after_its_hand_over() {
    let online = |state: &str| {
        let read = view([slot(state, 60, json!({})).into()]);
        let writes = record_observations(&pool(), &read, &[Observation::Online(SLOT)], &turn());
        writes
            .map(|writes| matches!(slots(&writes)[0].state, SlotState::Online { online_at, .. } if online_at == noon()))
    };
    assert_eq!((online("configured"), online("launched")), (Some(true), None));
}

#[test]
fn busy_and_hold_are_no_events_and_a_registration_that_is_left_changes_nothing() {
    let read = view([slot("online", 60, json!({ "held": true })).into()]);
    let record = |observation| record_observations(&pool(), &read, &[observation], &turn());
    let busy = record(Observation::Busy(SLOT)).expect("a write");
    assert_eq!((slots(&busy)[0].busy_seen_at, busy.event), (Some(noon()), None));
    let released = record(Observation::Released(SLOT)).expect("a write");
    assert_eq!((slots(&released)[0].held, released.event), (false, None));
    assert_eq!(record(Observation::LeftRegistered(SLOT, RunnerId(7))), None);
    assert_eq!(record(Observation::Gone(SlotId { version: 9, index: 0 })), None, "no such slot");
}
