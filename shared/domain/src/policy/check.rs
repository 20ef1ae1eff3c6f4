//! Asking GitHub about one job: whether it still waits, and how it ended if its machine is gone.

use jiff::Timestamp;

use crate::config::Pool;
use crate::ids::JobId;
use crate::log::{Stream, Transaction, Turn, What};
use crate::state::{ASK_AFTER, GIVE_UP_ASKING_AFTER, Job, Lease, Rank, Slot, TRUST_QUEUED_FOR, WaitingJob};
use crate::wire::{Action, JobNotice};

/// What GitHub's answer about a waiting job means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It still waits: write it. `demand_changed` asks for another decision.
    Waits { job: Box<WaitingJob>, demand_changed: bool },
    /// It has moved on: record the answer like a notice with this action.
    Moved(Action),
    /// GitHub does not know it, and would have failed it by now: close it.
    Unknown,
}

/// `said` is None if GitHub does not know the job.
pub fn answer(pool: &Pool, waiting: &WaitingJob, said: Option<&JobNotice>, asked_at: Timestamp) -> Answer {
    let Some(said) = said else {
        // It was deleted or moved, or the app may not see it any more. That is no reason to launch; whether the job is
        // over is certain only once GitHub would have failed it.
        if asked_at.duration_since(waiting.queued_at) >= TRUST_QUEUED_FOR {
            return Answer::Unknown;
        }
        return waits(pool, waiting, Gate::Closed, asked_at);
    };
    match said.status.as_str() {
        "queued" => waits(pool, waiting, Gate::Open, asked_at),
        "in_progress" => Answer::Moved(Action::InProgress),
        "completed" => Answer::Moved(Action::Completed),
        // `waiting`, `pending`, `requested`: GitHub has several names for a gate.
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

/// Closes a job that GitHub does not know. `job` is None if its facts are gone, too.
pub fn close_unknown(pool: &Pool, waiting: &WaitingJob, job: Option<Job>, turn: &Turn) -> Transaction {
    let Some(job) = job else { return Transaction::new().delete(waiting.clone()) };
    let job = Job { rank: Rank::Done, conclusion: Some("unknown".to_owned()), completed_at: Some(turn.now), ..job };
    let what = What::Checked { job: waiting.id, status: "not found".to_owned() };
    Transaction::new().put(job).delete(waiting.clone()).emit(Stream::Pool(pool.name.clone()), what, turn)
}

/// What GitHub says about the job of a slot whose machine is gone. Its `completed` may be lost, and GitHub fails a job
/// whose runner vanished only after some minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It ended on this slot's runner.
    EndedHere,
    /// It ended on another runner, or GitHub does not know it.
    EndedElsewhere,
    /// It has not ended, or GitHub did not answer.
    Undecided,
}

/// `said` is None if GitHub does not know the job.
pub fn fate(slot: &Slot, said: Option<&JobNotice>) -> Fate {
    match said {
        None => Fate::EndedElsewhere,
        Some(said) if said.status == "completed" => {
            let ran_on = said.runner.as_ref().map(|runner| runner.id);
            if ran_on == slot.runner().map(|runner| runner.runner_id) { Fate::EndedHere } else { Fate::EndedElsewhere }
        }
        Some(_) => Fate::Undecided,
    }
}

/// The slot after GitHub was asked and its job did not end here: asked again, or given up.
pub fn asked(slot: &Slot, fate: Fate, now: Timestamp) -> Slot {
    let lost_sight = match fate {
        Fate::EndedElsewhere => true,
        Fate::EndedHere | Fate::Undecided => {
            slot.gone_at.is_some_and(|gone_at| now.duration_since(gone_at) >= GIVE_UP_ASKING_AFTER)
        }
    };
    Slot { lost_sight, lease: Lease { next_at: now + ASK_AFTER * 2, ..slot.lease }, ..slot.clone() }
}

/// The job to ask about, if the slot's machine is gone and its job's end is not recorded.
pub fn job_of_lost_machine(slot: &Slot) -> Option<JobId> {
    slot.gone_at.and(slot.machine()).and(slot.job())
}
