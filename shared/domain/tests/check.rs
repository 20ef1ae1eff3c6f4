//! What GitHub's answers about a job, and EC2's and GitHub's reports about a slot, change.

mod common;

use common::{ago, config, described, facts, instance, job, later, noon, pool, slot, slots, turn, view};
use domain::config::Pool;
use domain::ids::{JobId, RunnerId, SlotId};
use domain::log::Transaction;
use domain::policy::check::{Answer, LostJob, after_lost_job_check, answer, close_unknown, lost_job};
use domain::policy::interruption::{Reported, bound_slot, pool_of, record_change};
use domain::policy::observe::{Observation, record_observations};
use domain::policy::rerun::{Ended, NotRerun, RerunStep, next_step, owed};
use domain::state::{Instance, Item, Job, Ownership, Rank, Rerun, Slot, SlotState, StopReason, WaitingJob};
use domain::wire::{Action, InstanceChange, JobNotice};
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
    assert_eq!(lost_job(&busy, None), LostJob::Undecided, "GitHub also answers 404 if the app has lost access");
    let mut elsewhere = described("completed");
    elsewhere.runner.as_mut().expect("a runner").id = RunnerId(8);
    assert_eq!(lost_job(&busy, Some(&elsewhere)), LostJob::EndedElsewhere);
}

#[test]
fn a_lost_job_is_checked_for_half_an_hour() {
    let ends = |gone: i64, job| {
        let slot = after_lost_job_check(&slot("busy", 60, json!({ "gone_at": ago(gone) })), &[(JobId(5), job)], noon());
        assert_eq!(slot.lease.next_at, later(120));
        slot.job_check_ended
    };
    assert!(!ends(1799, LostJob::Undecided) && ends(1800, LostJob::Undecided));
    assert!(ends(1, LostJob::EndedElsewhere));
}

/// What EC2's report changes, if these records are stored.
fn change(slot: Option<Slot>, instance: Instance, jobs: Vec<Job>, change: InstanceChange) -> Option<Transaction> {
    let pool = Pool { rerun_on_interruption: true, ..pool() };
    record_change(&config([pool.clone()]), &pool, Reported { instance, slot, jobs }, change, &turn())
}

const INTERRUPTED: InstanceChange = InstanceChange::Interrupted(None);

fn reruns(writes: &Transaction) -> Vec<Rerun> {
    writes
        .puts
        .iter()
        .filter_map(|item| if let Item::Rerun(rerun) = item { Some(rerun.clone()) } else { None })
        .collect()
}

#[test]
fn an_interruption_stops_the_slot_unless_a_stop_ends_its_job_already() {
    let why = |more| {
        let writes = change(Some(slot("busy", 60, more)), instance(), Vec::new(), INTERRUPTED).expect("a write");
        assert_eq!(common::instances(&writes)[0].interrupted_at, Some(noon()), "recorded in any case");
        slots(&writes)[0].stop.as_ref().map(|stop| stop.why)
    };
    let stopped = |why: &str| json!({ "stop": { "why": why, "at": ago(9) } });
    assert_eq!(why(json!({})), Some(StopReason::Interrupted));
    assert_eq!(why(stopped("surplus")), Some(StopReason::Interrupted));
    for (earlier, kept) in [
        ("interrupted", StopReason::Interrupted),
        ("max_life", StopReason::MaxLife),
        ("halted", StopReason::Halted),
        ("runner_ended", StopReason::RunnerEnded),
    ] {
        assert_eq!(why(stopped(earlier)), Some(kept));
    }
    let known = Instance { interrupted_at: Some(ago(5)), ..instance() };
    assert_eq!(change(Some(slot("busy", 60, json!({}))), known, Vec::new(), INTERRUPTED), None, "a repeated notice");
}

/// Job 5, which ended like this a second before noon.
fn ended(conclusion: &str) -> Job {
    Job { conclusion: Some(conclusion.to_owned()), ..facts(&[Action::Completed]) }
}

#[test]
fn a_late_interruption_owes_the_job_that_has_ended_a_re_run_whatever_became_of_its_slot() {
    let mapped = Instance { job: Some(JobId(5)), ..instance() };
    let owes = |slot, conclusion: &str| {
        let writes = change(slot, mapped.clone(), vec![ended(conclusion)], INTERRUPTED).expect("a write");
        reruns(&writes).iter().map(|rerun| rerun.job).collect::<Vec<_>>()
    };
    assert_eq!(owes(Some(slot("done", 9, json!({}))), "failure"), [JobId(5)]);
    assert_eq!(owes(None, "failure"), [JobId(5)], "its slot is closed");
    assert_eq!(owes(None, "timed_out"), [JobId(5)]);
    assert_eq!(owes(None, "success"), []);
    assert_eq!(owes(None, "cancelled"), [], "older versions would re-run it without a check");
    let running = change(None, mapped, vec![facts(&[Action::InProgress])], INTERRUPTED).expect("a write");
    assert_eq!(reruns(&running), [], "it has not ended");
}

#[test]
fn a_cancelled_job_is_re_run_only_if_nobody_cancelled_its_run() {
    let pool = Pool { rerun_on_interruption: true, ..pool() };
    let config = domain::state::Config { format: 2, ..config([pool.clone()]) };
    let end = Ended::of_job(&ended("cancelled")).expect("it has ended");
    let owed_if = |interrupted| owed(&config, &pool, &end, interrupted, None, noon());
    assert_eq!(owed_if(None), None);
    let rerun = owed_if(Some(ago(90))).expect("EC2 reclaimed the machine before the job ended");
    let jobs = |others: &[(u64, &str)]| {
        let own = (5, "cancelled");
        let job = |(id, conclusion): &(u64, &str)| JobNotice {
            id: JobId(*id),
            conclusion: Some((*conclusion).to_owned()),
            ..described("completed")
        };
        others.iter().chain([&own]).map(job).collect::<Vec<_>>()
    };
    let step = |rerun: &Rerun, others: &[(u64, &str)], reclaimed: &[u64]| {
        next_step(rerun, &jobs(others), &reclaimed.iter().copied().map(JobId).collect())
    };
    assert_eq!(step(&rerun, &[(6, "success"), (7, "failure"), (8, "skipped")], &[]), RerunStep::Request);
    assert_eq!(step(&rerun, &[(6, "cancelled")], &[]), RerunStep::GiveUp(NotRerun::OthersCancelled));
    assert_eq!(step(&rerun, &[(6, "cancelled")], &[6]), RerunStep::Request, "EC2 took that machine, too");
    let late = owed_if(Some(later(1))).expect("a record that says why");
    assert_eq!(step(&late, &[], &[]), RerunStep::GiveUp(NotRerun::CancelledBefore));
    let failed = Rerun { cancelled: None, ..rerun };
    assert_eq!(step(&failed, &[(6, "cancelled")], &[]), RerunStep::Request, "a failure is no cancellation");
}

#[test]
fn the_end_of_an_instance_is_recorded_once() {
    let ends = |slot| change(Some(slot), instance(), Vec::new(), InstanceChange::Ended);
    let ended = ends(slot("busy", 60, json!({}))).expect("a write");
    let [gone] = &slots(&ended)[..] else { panic!("one slot: {ended:?}") };
    assert_eq!((gone.gone_at, gone.lease.next_at), (Some(noon()), noon()), "its job is checked at once");
    assert_eq!(ends(gone.clone()), None);
    assert_eq!(change(Some(slot("busy", 60, json!({}))), instance(), Vec::new(), InstanceChange::Other), None);
}

#[test]
fn a_report_of_ec2_concerns_bound_instances_of_configured_pools() {
    let configured = config([pool()]);
    assert_eq!(bound_slot(&instance()), Some(SLOT));
    let adopted = Instance { ownership: Ownership::Adopted, ..instance() };
    assert!(bound_slot(&adopted).is_none());
    assert_eq!(pool_of(&configured, &adopted).map(|pool| &pool.name), Some(&pool().name), "its job may be re-run");
    assert!(pool_of(&config([]), &instance()).is_none());
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
    let runner = slot("online", 60, json!({})).runner().expect("a runner").clone();
    assert_eq!(record(Observation::LeftRegistered(SLOT, runner)), None);
    assert_eq!(record(Observation::Gone(SlotId { version: 9, index: 0 })), None, "no such slot");
}
