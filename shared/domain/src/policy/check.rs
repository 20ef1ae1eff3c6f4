//! GitHub's answers about one job: whether it still waits, and how it ended if its machine has ended.

use jiff::Timestamp;

use crate::config::Pool;
use crate::ids::JobId;
use crate::log::{Stream, Transaction, Turn, What};
use crate::state::{
    CHECK_LOST_JOB_AFTER, GIVE_UP_LOST_JOB_AFTER, Job, Lease, Rank, Slot, TRUST_QUEUED_FOR, WaitingJob,
};
use crate::wire::{Action, JobNotice};

/// What GitHub's answer about a waiting job means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It still waits: write it. If `demand_changed`, decide again.
    Waits { job: Box<WaitingJob>, demand_changed: bool },
    /// It has started or ended: record the answer like a notice with this action.
    Advanced(Action),
    /// GitHub does not know it, and would have failed a queued job by now: close it.
    Unknown,
}

/// `reported` is None if GitHub does not know the job.
pub fn answer(pool: &Pool, waiting: &WaitingJob, reported: Option<&JobNotice>, asked_at: Timestamp) -> Answer {
    let Some(reported) = reported else {
        // The repository was deleted or moved, or the app has lost access. That is no reason to launch. The job has ended
        // for certain only once GitHub would have failed it.
        if asked_at.duration_since(waiting.queued_at) >= TRUST_QUEUED_FOR {
            return Answer::Unknown;
        }
        return waits(pool, waiting, Gate::Closed, asked_at);
    };
    match reported.status.as_str() {
        "queued" => waits(pool, waiting, Gate::Open, asked_at),
        "in_progress" => Answer::Advanced(Action::InProgress),
        "completed" => Answer::Advanced(Action::Completed),
        // A gate: `waiting`, `pending` or `requested`.
        _ => waits(pool, waiting, Gate::Closed, asked_at),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Closed,
}

fn waits(pool: &Pool, waiting: &WaitingJob, gate: Gate, asked_at: Timestamp) -> Answer {
    let open = gate == Gate::Open;
    let opened_at = if open && !waiting.open { Some(asked_at) } else { waiting.opened_at };
    let check_at = asked_at + pool.timings.job_check.duration();
    let job = WaitingJob { open, opened_at, checked_at: asked_at, check_at, ..waiting.clone() };
    Answer::Waits { demand_changed: job.open != waiting.open, job: Box::new(job) }
}

/// Closes a job that GitHub does not know. `job` is None if its facts are no longer stored.
pub fn close_unknown(pool: &Pool, waiting: &WaitingJob, job: Option<Job>, turn: &Turn) -> Transaction {
    let Some(job) = job else { return Transaction::new().delete(waiting.clone()) };
    let job = Job { rank: Rank::Done, conclusion: Some("unknown".to_owned()), completed_at: Some(turn.now), ..job };
    let what = What::Checked { job: waiting.id, status: "not found".to_owned() };
    Transaction::new().put(job).delete(waiting.clone()).emit(Stream::Pool(pool.name.clone()), what, turn)
}

/// What GitHub's answer says about the job of a slot whose machine has ended. The webhook `completed` may be lost, and
/// GitHub fails the job of a runner that disappeared only after some minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostJob {
    /// It ended on this slot's runner.
    EndedHere,
    /// It ended on another runner, or GitHub does not know it.
    EndedElsewhere,
    /// It has not ended, or GitHub did not answer.
    Undecided,
}

/// `reported` is None if GitHub does not know the job.
pub fn lost_job(slot: &Slot, reported: Option<&JobNotice>) -> LostJob {
    match reported {
        None => LostJob::EndedElsewhere,
        Some(reported) if reported.status == "completed" => {
            let ran_on = reported.runner.as_ref().map(|runner| runner.id);
            if ran_on == slot.runner().map(|runner| runner.runner_id) {
                LostJob::EndedHere
            } else {
                LostJob::EndedElsewhere
            }
        }
        Some(_) => LostJob::Undecided,
    }
}

/// The slot after an answer that does not end its job: GitHub is asked again later, or not any more.
pub fn after_lost_job_check(slot: &Slot, job: LostJob, now: Timestamp) -> Slot {
    let job_check_ended = match job {
        LostJob::EndedElsewhere => true,
        LostJob::EndedHere | LostJob::Undecided => {
            slot.gone_at.is_some_and(|gone_at| now.duration_since(gone_at) >= GIVE_UP_LOST_JOB_AFTER)
        }
    };
    Slot { job_check_ended, lease: Lease { next_at: now + CHECK_LOST_JOB_AFTER * 2, ..slot.lease }, ..slot.clone() }
}

/// The job of a slot whose machine has ended.
pub fn job_of_lost_machine(slot: &Slot) -> Option<JobId> {
    slot.gone_at.and(slot.machine()).and(slot.job())
}
