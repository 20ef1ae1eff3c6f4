//! What GitHub's answers about a job, and EC2's and GitHub's reports about a slot, change.

mod common;

use common::{ago, config, described, facts, instance, job, later, noon, pool, slot, slots, turn, view};
use domain::config::Pool;
use domain::ids::{JobId, RunnerId, SlotId};
use domain::log::Transaction;
use domain::policy::check::{
    self, Answer, LostJob, after_lost_job_check, answer, claim, close_unknown, is_run_doubtful, lost_job, needs_facts,
    put_off, run_is_over,
};
use domain::policy::interruption::{Reported, bound_slot, pool_of, record_change};
use domain::policy::observe::{Observation, record_observations};
use domain::policy::rerun::{Ended, NotRerun, RerunStep, next_step, owed};
use domain::state::{Instance, Item, Job, Ownership, Rank, Rerun, Slot, SlotState, StopReason, Unserved, WaitingJob};
use domain::wire::{Action, InstanceChange, JobNotice, RunJobs, RunnerNotice};
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
fn a_job_that_could_not_be_asked_about_or_was_answered_is_not_claimed_any_more() {
    let claimed = claim(&job(600), later(30));
    assert!(claimed.is_being_asked_about(later(29)) && !claimed.is_being_asked_about(later(30)));
    let put_off = put_off(&claimed, later(90));
    assert_eq!((put_off.check_at, put_off.asked_until), (later(90), None));
    for status in ["queued", "waiting"] {
        assert_eq!(waits(&claimed, status).0.asked_until, None, "{status}");
    }
    let (held, _) = waits(&WaitingJob { unknown_since: Some(ago(60)), ..claimed }, "waiting");
    assert_eq!((held.unknown_since, held.checked_at, held.check_at), (None, noon(), later(300)));
}

#[test]
fn the_facts_of_a_job_are_read_if_it_may_have_had_a_gate_or_its_run_may_be_over() {
    let needs = |waiting: &WaitingJob, status: &str| needs_facts(waiting, Some(&described(status)), noon());
    assert!(!needs(&job(600), "queued") && needs(&WaitingJob { open: false, ..job(600) }, "queued"));
    assert!(!needs(&job(600), "in_progress") && !needs(&job(600), "completed") && needs(&job(600), "waiting"));
    assert!(!needs_facts(&job(600), None, noon()));
    let launched = |queued| WaitingJob { launches: vec![ago(60)], ..job(queued) };
    assert!(needs(&launched(3600), "queued") && !needs(&launched(3599), "queued") && !needs(&job(3600), "queued"));
    let unserved = Some(Unserved { since: ago(60), until: later(60), seconds: 120 });
    let passed_over = WaitingJob { unserved, ..job(600) };
    assert!(needs(&passed_over, "queued"));
    let over = run_is_over(passed_over.clone(), noon());
    assert_eq!((over.run_over_at, over.check_at), (Some(noon()), later(3600)));
    assert!(!is_run_doubtful(&over, noon()), "GitHub has said so already");
    assert!(is_run_doubtful(&passed_over, noon()));
    assert!(!is_run_doubtful(&WaitingJob { open: false, ..passed_over }, noon()));
}

#[test]
fn the_first_answer_that_github_does_not_know_a_job_is_an_event() {
    let unknown = |since| WaitingJob { unknown_since: since, open: false, ..job(600) };
    let is_event = |before, after| {
        let writes = check::waits(&pool(), &unknown(before), unknown(after), &turn());
        assert_eq!(writes.puts, [Item::from(unknown(after))]);
        writes.event.is_some()
    };
    assert!(is_event(None, Some(noon())));
    assert!(!is_event(Some(ago(60)), Some(ago(60))) && !is_event(None, None) && !is_event(Some(ago(60)), None));
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
    let lost = slot("busy", 60, json!({ "gone_at": ago(1), "claims": [{ "job": 5 }, { "job": 6 }] }));
    let asked = after_lost_job_check(&lost, &[(JobId(6), LostJob::EndedElsewhere)], noon());
    assert!(asked.claimed_jobs().iter().all(|claim| claim.ended == (claim.job == JobId(6))), "{asked:?}");
    assert!(!asked.job_check_ended);
}

/// What EC2's report changes, if these records are stored.
fn change(slot: Option<Slot>, instance: Instance, jobs: Vec<Job>, change: InstanceChange) -> Option<Transaction> {
    let pool = Pool { rerun_on_interruption: true, ..pool() };
    record_change(&pool, Reported { instance, slot, jobs, reruns: Default::default() }, change, &turn())
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
    assert_eq!(owes(None, "cancelled"), [JobId(5)], "whether it is re-run is decided later");
    let running = change(None, mapped, vec![facts(&[Action::InProgress])], INTERRUPTED).expect("a write");
    assert_eq!(reruns(&running), [], "it has not ended");
}

/// The re-run that job 5 is owed, if it ended like this and EC2 interrupted its machine then.
fn rerun(conclusion: &str, interrupted: Option<jiff::Timestamp>) -> Option<Rerun> {
    let pool = Pool { rerun_on_interruption: true, ..pool() };
    owed(&pool, &Ended::of_job(&ended(conclusion)).expect("it has ended"), interrupted, None, noon())
}

/// A job that ended on a runner of its own number.
fn job_of_run(id: u64, conclusion: &str) -> JobNotice {
    JobNotice {
        id: JobId(id),
        name: format!("job {id}"),
        runner: Some(RunnerNotice { id: RunnerId(id), name: format!("runner-{id}"), group: None }),
        conclusion: Some(conclusion.to_owned()),
        ..described("completed")
    }
}

fn run(jobs: impl IntoIterator<Item = JobNotice>) -> RunJobs {
    RunJobs { jobs: jobs.into_iter().collect(), ..RunJobs::default() }
}

/// The next step for job 5, in a run that has these other jobs. EC2 is known to have interrupted those in `reclaimed`.
fn step(rerun: &Rerun, others: &[JobNotice], reclaimed: &[u64], seconds: i64) -> RerunStep {
    let own = JobNotice { conclusion: Some("cancelled".to_owned()), ..described("completed") };
    let owed = reclaimed.iter().map(|id| (JobId(*id), Rerun { job: JobId(*id), ..rerun.clone() })).collect();
    next_step(rerun, &run(others.iter().cloned().chain([own])), &owed, later(seconds))
}

#[test]
fn a_cancelled_job_is_re_run_only_if_nobody_cancelled_its_run() {
    assert_eq!(rerun("cancelled", None), None);
    let owed = rerun("cancelled", Some(ago(90))).expect("EC2 interrupted the machine before the job ended");
    let others: Vec<_> = [(6, "success"), (7, "failure"), (8, "skipped")].map(|(id, end)| job_of_run(id, end)).into();
    assert_eq!(step(&owed, &others, &[], 0), RerunStep::Request(JobId(5)));
    let cancelled = [job_of_run(6, "cancelled")];
    assert_eq!(step(&owed, &cancelled, &[], 0), RerunStep::Wait, "the report about its machine may be late");
    assert_eq!(step(&owed, &cancelled, &[], 600), RerunStep::GiveUp(NotRerun::OthersCancelled));
    assert_eq!(step(&owed, &cancelled, &[6], 0), RerunStep::Request(JobId(5)), "EC2 took that machine, too");
    let late = rerun("cancelled", Some(later(1))).expect("a record that says why");
    assert_eq!(step(&late, &[], &[], 0), RerunStep::GiveUp(NotRerun::CancelledBefore));
    let failed = rerun("failure", Some(ago(90))).expect("it is owed a re-run");
    assert_eq!(step(&failed, &cancelled, &[], 0), RerunStep::Request(JobId(5)), "a failure is no cancellation");
    let unreadable = RunJobs { unreadable: 1, ..run([]) };
    let unclear = next_step(&owed, &unreadable, &Default::default(), later(600));
    assert_eq!(unclear, RerunStep::GiveUp(NotRerun::OthersCancelled), "the unreadable job may be a cancelled one");
}

#[test]
fn an_older_version_does_not_see_the_re_run_of_a_cancelled_job_as_due() {
    let mut stored = serde_json::to_value(rerun("cancelled", Some(ago(90)))).expect("an item");
    let item = stored.as_object_mut().expect("an object");
    for unknown in ["cancelled", "name", "runner"] {
        assert!(item.remove(unknown).is_some(), "{unknown}");
    }
    let older: Rerun = serde_json::from_value(stored).expect("a re-run");
    let month = 30 * 24 * 3600;
    assert!(!older.lease().is_free(later(month)), "GitHub re-runs nothing that is older than a month");
}

#[test]
fn in_a_later_attempt_a_copy_of_the_result_is_re_run_and_a_re_run_is_not_repeated() {
    let owed = rerun("failure", Some(ago(90))).expect("it is owed a re-run");
    let second = |id, job: JobNotice| JobNotice { id: JobId(id), run_attempt: 2, ..job };
    let copy = || second(15, described("completed"));
    let repeated = |status: &str| {
        let runner = RunnerNotice { id: RunnerId(8), name: "another".to_owned(), group: None };
        second(15, JobNotice { runner: Some(runner), status: status.to_owned(), ..described("completed") })
    };
    let next = |rerun: &Rerun, jobs: &[JobNotice]| next_step(rerun, &run(jobs.to_vec()), &Default::default(), noon());
    let other = |status: &str| second(16, JobNotice { status: status.to_owned(), ..job_of_run(6, "failure") });
    assert_eq!(next(&owed, &[copy(), other("completed")]), RerunStep::Request(JobId(15)));
    assert_eq!(next(&owed, &[copy(), other("in_progress")]), RerunStep::Wait);
    assert_eq!(next(&owed, &[repeated("queued")]), RerunStep::Wait, "its record is not there yet");
    assert_eq!(next(&owed, &[repeated("in_progress")]), RerunStep::UnderWay);
    assert_eq!(next(&owed, &[repeated("completed")]), RerunStep::UnderWay);
    let requested = Rerun { requested_at: Some(noon()), ..owed };
    assert_eq!(next(&requested, &[described("completed")]), RerunStep::Wait, "GitHub does not show the attempt yet");
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
