//! Re-running a job whose machine EC2 reclaimed, if its pool is configured so.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::log::{Stream, Transaction, Turn, What};
use crate::policy::retry::backoff;
use crate::state::{Lease, Leased, Rerun, Slot, StopReason};
use crate::wire::{Action, JobNotice, Notice};

/// If a run does not end within this time, its job is not re-run.
pub const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// A machine powers itself off after its job. If the machine ended at least this long before the job, the job ended because
/// of the machine.
const LOST_BEFORE: SignedDuration = SignedDuration::from_secs(30);

/// The re-run that becomes due when the slot's job ends: only if the job failed in its first attempt, its machine was
/// interrupted or ended before it, and the pool is configured so.
pub fn due(pool: &Pool, slot: &Slot, notice: &Notice, now: Timestamp) -> Option<Rerun> {
    let job = &notice.job;
    let interrupted = slot.stop.as_ref().is_some_and(|stop| stop.why == StopReason::Interrupted);
    let ended_at = job.completed_at.unwrap_or(notice.received_at);
    let lost = slot.gone_at.is_some_and(|gone| ended_at.duration_since(gone) >= LOST_BEFORE);
    let failed = notice.action == Action::Completed && job.conclusion.as_deref() == Some("failure");
    let wanted = pool.rerun_on_interruption && job.run_attempt == 1 && failed && (interrupted || lost);
    wanted.then(|| Rerun {
        job: job.id,
        pool: pool.name.clone(),
        repository: notice.repository.clone(),
        run_id: job.run_id,
        run_attempt: job.run_attempt,
        since: now,
        lease: Lease::due(now),
        revision: 0,
    })
}

/// The next step of a re-run that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RerunStep {
    /// The run has a later attempt: somebody re-ran it, or the answer to an earlier request was lost.
    AlreadyDone,
    /// GitHub refuses to re-run a job before its run has ended.
    RunUnderWay,
    Request,
}

/// `jobs` are the jobs of the run's latest attempt.
pub fn next_step(rerun: &Rerun, jobs: &[JobNotice]) -> RerunStep {
    if jobs.iter().any(|job| job.run_attempt > rerun.run_attempt) {
        RerunStep::AlreadyDone
    } else if jobs.iter().any(|job| job.status != "completed") {
        RerunStep::RunUnderWay
    } else {
        RerunStep::Request
    }
}

/// How a re-run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RerunOutcome {
    Begun,
    AlreadyDone,
    RunNeverEnded,
    /// GitHub's message.
    Refused(String),
}

impl fmt::Display for RerunOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RerunOutcome::Begun => f.write_str("re-run requested"),
            RerunOutcome::AlreadyDone => f.write_str("the run was re-run already"),
            RerunOutcome::RunNeverEnded => f.write_str("the run did not end within a day"),
            RerunOutcome::Refused(message) => write!(f, "GitHub refuses the re-run: {message}"),
        }
    }
}

/// Deletes the record.
pub fn close(pool: &Pool, rerun: Rerun, outcome: &RerunOutcome, turn: &Turn) -> Transaction {
    let what = What::Rerun { job: rerun.job, outcome: outcome.to_string() };
    Transaction::new().delete(rerun).emit(Stream::Pool(pool.name.clone()), what, turn)
}

/// The re-run, due again after the back-off; None if it is too old.
pub fn wait(pool: &Pool, rerun: &Rerun, now: Timestamp) -> Option<Rerun> {
    if now.duration_since(rerun.since) >= GIVE_UP_AFTER {
        return None;
    }
    let wait = backoff(pool, rerun.lease.tries, &rerun.job.to_string());
    Some(rerun.clone().put_off(now + wait))
}
