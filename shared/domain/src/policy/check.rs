//! GitHub's answers about one job: whether it still waits, and how it ended if its machine has ended.

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::ids::JobId;
use crate::log::{Stream, Transaction, Turn, What};
use crate::policy::PoolView;
use crate::state::{CHECK_LOST_JOB_EVERY, CheckRun, GIVE_UP_LOST_JOB_AFTER, Job, Lease, MAX_QUEUED, Slot, WaitingJob};
use crate::wire::{Action, JobNotice};

/// How often GitHub is asked about a job for which nothing is launched any more.
pub const RECHECK_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// After this wait GitHub is asked whether the run of a job is over, if machines were launched for the job.
const ASK_ABOUT_RUN_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// What GitHub's answer about a waiting job means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It still waits. If `demand_changed`, decide again.
    Waits { job: Box<WaitingJob>, demand_changed: bool },
    /// A gate holds it.
    Held { job: Box<WaitingJob>, demand_changed: bool },
    /// It has started or ended: record the answer like a notice with this action.
    Advanced(Action),
    /// GitHub does not know it, and would have failed a queued job by now: close it.
    Unknown,
    /// GitHub still calls it queued after 35 days: close it.
    TooOld,
}

/// The job while this invocation asks GitHub about it. Concurrent invocations see the same jobs due, and GitHub's limits are
/// for all of them together.
#[must_use]
pub fn claim(waiting: &WaitingJob, until: Timestamp) -> WaitingJob {
    WaitingJob { asked_until: Some(until), ..waiting.clone() }
}

/// The job after GitHub could not be asked.
#[must_use]
pub fn put_off(waiting: &WaitingJob, check_at: Timestamp) -> WaitingJob {
    WaitingJob { check_at, asked_until: None, ..waiting.clone() }
}

/// Whether the job's facts must be read to understand the answer: they say whether the job had a gate, and which run it
/// belongs to.
pub fn needs_facts(waiting: &WaitingJob, reported: Option<&JobNotice>, asked_at: Timestamp) -> bool {
    reported.is_some_and(|reported| match reported.status.as_str() {
        "queued" => !waiting.open || is_run_doubtful(waiting, asked_at),
        "in_progress" | "completed" => false,
        _ => true,
    })
}

/// Whether the run of a job that GitHub calls queued may be over: a runner was idle and did not receive it, or machines
/// that were launched for it did not run it.
pub fn is_run_doubtful(waiting: &WaitingJob, now: Timestamp) -> bool {
    let waits_for_long =
        !waiting.launches.is_empty() && now.duration_since(waiting.waits_since()) >= ASK_ABOUT_RUN_AFTER;
    waiting.open && waiting.given_up(now).is_none() && (waiting.unserved.is_some() || waits_for_long)
}

/// `reported` is None if GitHub does not know the job. `job` is None if its facts are not stored or were not read.
pub fn answer(
    pool: &Pool,
    waiting: &WaitingJob,
    job: Option<&Job>,
    reported: Option<&JobNotice>,
    asked_at: Timestamp,
) -> Answer {
    let Some(reported) = reported else {
        // The repository was deleted or moved, or the app has lost access. That is no reason to launch. The record is closed
        // only once nothing would be launched for the job anyway.
        if waiting.is_too_old(asked_at) {
            return Answer::Unknown;
        }
        let unknown_since = waiting.unknown_since.or(Some(asked_at));
        let (job, demand_changed) = closed(pool, &WaitingJob { unknown_since, ..waiting.clone() }, asked_at);
        return Answer::Waits { job, demand_changed };
    };
    match reported.status.as_str() {
        "queued" if waiting.open && asked_at.duration_since(waiting.queued_at) >= MAX_QUEUED => Answer::TooOld,
        "queued" => {
            // Only a gate that GitHub itself has reported begins a new wait. A job that GitHub did not know for a while, or
            // that is asked about because it is old, has waited since it was queued.
            let gate_opened = !waiting.open && waiting.unknown_since.is_none() && job.is_some_and(|job| job.gated);
            let opened_at = if gate_opened { Some(asked_at) } else { waiting.opened_at };
            let open = WaitingJob { open: true, opened_at, unknown_since: None, asked_until: None, ..waiting.clone() };
            let check_after = match open.given_up(asked_at) {
                Some(_) => RECHECK_EVERY,
                None => pool.timings.job_check.duration(),
            };
            let demand_changed = !waiting.open && open.is_demand(asked_at);
            let job = Box::new(WaitingJob { checked_at: asked_at, check_at: asked_at + check_after, ..open });
            Answer::Waits { job, demand_changed }
        }
        "in_progress" => Answer::Advanced(Action::InProgress),
        "completed" => Answer::Advanced(Action::Completed),
        // A gate: `waiting`, `pending` or `requested`.
        _ => {
            let (job, demand_changed) = closed(pool, &WaitingJob { unknown_since: None, ..waiting.clone() }, asked_at);
            Answer::Held { job, demand_changed }
        }
    }
}

/// Writes a job that still waits. Emits an event when GitHub first reports the job as unknown.
pub fn waits(pool: &Pool, before: &WaitingJob, job: WaitingJob, turn: &Turn) -> Transaction {
    let is_news = job.unknown_since.is_some() && before.unknown_since.is_none();
    let status = "not found: its repository was deleted or transferred, or the app lost access to it".to_owned();
    let what = What::Checked { job: job.id, status };
    let writes = Transaction::new().put(job);
    if is_news { writes.emit(Stream::Pool(pool.name.clone()), what, turn) } else { writes }
}

/// The job that cannot start now, and whether it could before.
fn closed(pool: &Pool, waiting: &WaitingJob, asked_at: Timestamp) -> (Box<WaitingJob>, bool) {
    let check_at = asked_at + pool.timings.job_check.duration();
    let job = WaitingJob { open: false, checked_at: asked_at, check_at, asked_until: None, ..waiting.clone() };
    (Box::new(job), waiting.open)
}

/// Records that a gate holds the job. The job's facts keep that GitHub has reported a gate: a later opening begins a new
/// wait.
pub fn held(pool: &Pool, waiting: WaitingJob, job: Option<Job>, turn: &Turn) -> Transaction {
    let id = waiting.id;
    let writes = Transaction::new().put(waiting);
    let Some(job) = job.filter(|job| !job.gated) else { return writes };
    let what = What::Checked { job: id, status: "held by a gate".to_owned() };
    writes.put(Job { gated: true, ..job }).emit(Stream::Pool(pool.name.clone()), what, turn)
}

/// The waiting job after GitHub reported that its run is over.
#[must_use]
pub fn run_is_over(waiting: WaitingJob, asked_at: Timestamp) -> WaitingJob {
    WaitingJob { run_over_at: Some(asked_at), check_at: asked_at + RECHECK_EVERY, ..waiting }
}

/// Closes a job that GitHub does not know. `job` is None if its facts are no longer stored.
pub fn close_unknown(pool: &Pool, waiting: &WaitingJob, job: Option<Job>, turn: &Turn) -> Transaction {
    let what = What::Checked { job: waiting.id, status: "not found".to_owned() };
    close(pool, waiting, job, "unknown", what, turn)
}

/// Closes a job that GitHub has called queued for 35 days. Its check run stays as it is.
pub fn close_too_old(pool: &Pool, view: &PoolView, waiting: &WaitingJob, job: Option<Job>, turn: &Turn) -> Transaction {
    let what = What::Checked { job: waiting.id, status: "queued for more than 35 days".to_owned() };
    let check_run = view.check_runs.get(&waiting.id).cloned();
    without_check_run(close(pool, waiting, job, "unknown", what, turn), check_run)
}

/// Closes a job that an operator gives up. Its check run stays as it is.
pub fn forget(pool: &Pool, view: &PoolView, waiting: &WaitingJob, job: Option<Job>, turn: &Turn) -> Transaction {
    let what = What::Forgotten { job: waiting.id };
    let check_run = view.check_runs.get(&waiting.id).cloned();
    without_check_run(close(pool, waiting, job, "forgotten", what, turn), check_run)
}

fn close(
    pool: &Pool,
    waiting: &WaitingJob,
    job: Option<Job>,
    conclusion: &str,
    what: What,
    turn: &Turn,
) -> Transaction {
    let writes = Transaction::new().delete(waiting.clone());
    let Some(job) = job else { return writes };
    writes.put(job.closed(conclusion, turn.now)).emit(Stream::Pool(pool.name.clone()), what, turn)
}

fn without_check_run(writes: Transaction, check_run: Option<CheckRun>) -> Transaction {
    match check_run {
        Some(check_run) => writes.delete(check_run),
        None => writes,
    }
}

/// What GitHub's answer says about the job of a slot whose machine has ended. The webhook `completed` may be lost, and
/// GitHub fails the job of a runner that disappeared only after some minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostJob {
    /// It ended on this slot's runner.
    EndedHere,
    /// It ended on another runner.
    EndedElsewhere,
    /// It has not ended, GitHub did not answer, or GitHub does not know it.
    Undecided,
}

/// `reported` is None if GitHub does not know the job.
pub fn lost_job(slot: &Slot, reported: Option<&JobNotice>) -> LostJob {
    match reported {
        // GitHub also answers 404 if the app has lost access to the repository.
        None => LostJob::Undecided,
        Some(reported) if reported.status == "completed" => {
            let ran_here =
                reported.runner.as_ref().zip(slot.runner()).is_some_and(|(named, own)| own.is_named_by(named));
            if ran_here { LostJob::EndedHere } else { LostJob::EndedElsewhere }
        }
        Some(_) => LostJob::Undecided,
    }
}

/// The slot after answers that end none of its claimed jobs: GitHub is asked again later, or not any more.
pub fn after_lost_job_check(slot: &Slot, answers: &[(JobId, LostJob)], now: Timestamp) -> Slot {
    let mut claims = slot.claimed_jobs();
    for claim in &mut claims {
        claim.ended |= answers.contains(&(claim.job, LostJob::EndedElsewhere));
    }
    let has_waited = slot.gone_at.is_some_and(|gone_at| now.duration_since(gone_at) >= GIVE_UP_LOST_JOB_AFTER);
    let job_check_ended = has_waited || claims.iter().all(|claim| claim.ended);
    let lease = Lease { next_at: now + CHECK_LOST_JOB_EVERY, ..slot.lease };
    Slot { job_check_ended, claims, lease, ..slot.clone() }
}
