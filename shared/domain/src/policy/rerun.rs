//! Re-running a job whose machine EC2 reclaimed, if its pool is configured so.

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::ids::{JobId, Repository, RunId};
use crate::log::{Stream, Transaction, Turn, What};
use crate::policy::retry::backoff;
use crate::state::{Cancelled, Config, Job, Lease, Leased, Rank, Rerun};
use crate::wire::{Action, JobNotice, Notice};

/// If a run does not end within this time, its job is not re-run.
pub const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// A machine powers itself off after its job. If the machine ended at least this long before the job, the job ended because
/// of the machine.
const LOST_BEFORE: SignedDuration = SignedDuration::from_secs(30);

/// The end of a job, from a notice or from its stored facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub job: JobId,
    pub repository: Repository,
    pub public: bool,
    pub run_id: RunId,
    pub run_attempt: u32,
    pub conclusion: Option<String>,
    pub at: Timestamp,
}

impl Ended {
    /// None if the notice does not report an end.
    pub fn of_notice(notice: &Notice) -> Option<Self> {
        let job = &notice.job;
        (notice.action == Action::Completed).then(|| Self {
            job: job.id,
            repository: notice.repository.clone(),
            public: notice.public,
            run_id: job.run_id,
            run_attempt: job.run_attempt,
            conclusion: job.conclusion.clone(),
            at: job.completed_at.unwrap_or(notice.received_at),
        })
    }

    /// None if the job has not ended.
    pub fn of_job(job: &Job) -> Option<Self> {
        Some(Self {
            job: job.id,
            repository: job.repository.clone(),
            public: job.public,
            run_id: job.run_id,
            run_attempt: job.run_attempt,
            conclusion: job.conclusion.clone(),
            at: job.completed_at.filter(|_| job.rank == Rank::Done)?,
        })
    }
}

/// The re-run that is owed to a job that ended on a machine of the pool, if the pool is configured so: once, and only if the
/// job ended without success and EC2 reclaimed its machine, or, for a failure, the machine ended clearly before the job.
///
/// Older versions re-run a cancelled job without a further check, so it is owed a re-run from format 2 of the table on.
pub fn owed(
    config: &Config,
    pool: &Pool,
    ended: &Ended,
    interrupted_at: Option<Timestamp>,
    gone_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<Rerun> {
    // A machine ends itself if it gets a job that its pool does not serve.
    let is_served = pool.serves(&ended.repository) && (pool.allow_public || !ended.public);
    if !pool.rerun_on_interruption || ended.run_attempt != 1 || !is_served {
        return None;
    }
    let lost = gone_at.is_some_and(|gone| ended.at.duration_since(gone) >= LOST_BEFORE);
    let mut cancelled = None;
    match (ended.conclusion.as_deref(), interrupted_at) {
        (Some("success" | "neutral" | "skipped"), _) => return None,
        (Some("cancelled"), Some(interrupted_at)) if config.format >= 2 => {
            cancelled = Some(Cancelled { interrupted_at, ended_at: ended.at });
        }
        (Some("cancelled"), _) => return None,
        (Some("failure"), None) if lost => {}
        (_, Some(_)) => {}
        (_, None) => return None,
    }
    Some(Rerun {
        job: ended.job,
        pool: pool.name.clone(),
        repository: ended.repository.clone(),
        run_id: ended.run_id,
        run_attempt: ended.run_attempt,
        since: now,
        cancelled,
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
    /// A user may have cancelled the job.
    GiveUp(NotRerun),
    Request,
}

/// Why a cancelled job is not re-run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRerun {
    /// It ended before EC2 announced that it reclaims the machine.
    CancelledBefore,
    /// Another job of the run was cancelled, and EC2 is not known to have reclaimed its machine.
    OthersCancelled,
}

impl fmt::Display for NotRerun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotRerun::CancelledBefore => "the job was cancelled before EC2 announced the interruption",
            NotRerun::OthersCancelled => "other jobs of the run were cancelled, so a user may have cancelled it",
        })
    }
}

/// `jobs` are the jobs of the run's latest attempt. `reclaimed` are jobs whose machines EC2 is known to have reclaimed.
pub fn next_step(rerun: &Rerun, jobs: &[JobNotice], reclaimed: &BTreeSet<JobId>) -> RerunStep {
    if jobs.iter().any(|job| job.run_attempt > rerun.run_attempt) {
        RerunStep::AlreadyDone
    } else if jobs.iter().any(|job| job.status != "completed") {
        RerunStep::RunUnderWay
    } else if let Some(why) = not_rerun(rerun, jobs, reclaimed) {
        RerunStep::GiveUp(why)
    } else {
        RerunStep::Request
    }
}

fn not_rerun(rerun: &Rerun, jobs: &[JobNotice], reclaimed: &BTreeSet<JobId>) -> Option<NotRerun> {
    let cancelled = rerun.cancelled?;
    if cancelled.interrupted_at >= cancelled.ended_at {
        return Some(NotRerun::CancelledBefore);
    }
    let is_other = |job: &&JobNotice| job.id != rerun.job && job.conclusion.as_deref() == Some("cancelled");
    let others = jobs.iter().filter(is_other).any(|job| !reclaimed.contains(&job.id));
    others.then_some(NotRerun::OthersCancelled)
}

/// How a re-run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RerunOutcome {
    Begun,
    AlreadyDone,
    RunNeverEnded,
    GivenUp(NotRerun),
    /// GitHub's message.
    Refused(String),
}

impl fmt::Display for RerunOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RerunOutcome::Begun => f.write_str("re-run requested"),
            RerunOutcome::AlreadyDone => f.write_str("the run was re-run already"),
            RerunOutcome::RunNeverEnded => f.write_str("the run did not end within a day"),
            RerunOutcome::GivenUp(why) => write!(f, "not re-run: {why}"),
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
