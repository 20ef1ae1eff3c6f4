//! Re-running a job whose machine EC2 reclaimed, if its pool is configured so.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::ids::{JobId, Repository, RunId};
use crate::log::{Stream, Transaction, Turn, What};
use crate::policy::PoolView;
use crate::policy::retry::backoff;
use crate::state::{Cancelled, Job, Lease, Leased, Rank, Rerun, WaitingJob};
use crate::wire::{Action, JobNotice, Notice, RunJobs, RunnerNotice};

/// If a run does not end within this time, its job is not re-run.
pub const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// A machine powers itself off after its job. If the machine ended at least this long before the job, the job ended because
/// of the machine.
const LOST_BEFORE: SignedDuration = SignedDuration::from_secs(30);

/// How long Drover waits for reports about the machines of a run's other cancelled jobs. Nineteen of twenty webhooks arrive
/// within three minutes, and failed ones are requested again within a minute.
const UNCLEAR_FOR: SignedDuration = SignedDuration::from_mins(10);

/// The end of a job, from a notice or from its stored facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub job: JobId,
    pub repository: Repository,
    pub public: bool,
    pub run_id: RunId,
    pub run_attempt: u32,
    pub name: String,
    pub runner: Option<RunnerNotice>,
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
            name: job.name.clone(),
            runner: job.runner.clone(),
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
            name: job.name.clone(),
            runner: job.runner.clone(),
            conclusion: job.conclusion.clone(),
            at: job.completed_at.filter(|_| job.rank == Rank::Done)?,
        })
    }
}

/// The re-run that is owed to a job that ended on a machine of the pool, if the pool is configured so: once, and only if the
/// job ended without success and EC2 reclaimed its machine, or, for a failure, the machine ended clearly before the job.
pub fn owed(
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
    let mut lease = Lease::due(now);
    match (ended.conclusion.as_deref(), interrupted_at) {
        (Some("success" | "neutral" | "skipped"), _) => return None,
        (Some("cancelled"), None) => return None,
        (Some("cancelled"), Some(interrupted_at)) => {
            cancelled = Some(Cancelled { interrupted_at, ended_at: ended.at, lease });
            lease = Rerun::not_for_older_versions(now);
        }
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
        name: Some(ended.name.clone()),
        runner: ended.runner.clone(),
        since: now,
        requested_at: None,
        cancelled,
        lease,
        revision: 0,
    })
}

/// The next step of a re-run that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RerunStep {
    /// Re-run this job. It is another one if the run has later attempts, because GitHub copies the results of the jobs that
    /// a later attempt does not run, and re-runs only jobs of the latest attempt.
    Request(JobId),
    /// Not now: GitHub refuses to re-run a job before its run has ended, or a report that decides about it may still come.
    Wait,
    /// The re-run is under way: Drover requested it and perhaps lost the answer, or somebody else did.
    UnderWay,
    /// A user may have cancelled the job.
    GiveUp(NotRerun),
}

/// Why a cancelled job is not re-run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRerun {
    /// Drover does not know that EC2 announced the interruption before the job ended.
    CancelledBefore,
    /// Another job of the run was cancelled, and EC2 is not known to have reclaimed its machine; or a job of the run cannot be
    /// read.
    OthersCancelled,
}

impl fmt::Display for NotRerun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotRerun::CancelledBefore => "nothing shows that EC2 interrupted the job before it was cancelled",
            NotRerun::OthersCancelled => "other jobs of the run were cancelled, so a user may have cancelled it",
        })
    }
}

/// `run` has the jobs of the run's latest attempt. `owed` are the jobs whose machines EC2 is known to have reclaimed.
pub fn next_step(rerun: &Rerun, run: &RunJobs, owed: &BTreeMap<JobId, Rerun>, now: Timestamp) -> RerunStep {
    let has_ended = run.jobs.iter().all(|job| job.status == "completed");
    let job = match run.jobs.iter().find(|job| is_result_of(rerun, job)) {
        Some(job) => job.id,
        None if run.jobs.iter().any(|job| job.run_attempt > rerun.run_attempt) => {
            // Once it has started, no machine is launched for it.
            let waits = |job: &JobNotice| is_repeated_by(rerun, job) && !has_started(job);
            return if run.jobs.iter().any(waits) { RerunStep::Wait } else { RerunStep::UnderWay };
        }
        None => rerun.job,
    };
    if !has_ended || rerun.requested_at.is_some() {
        return RerunStep::Wait;
    }
    match not_rerun(rerun, run, owed) {
        None => RerunStep::Request(job),
        Some(NotRerun::OthersCancelled) if now.duration_since(rerun.since) < UNCLEAR_FOR => RerunStep::Wait,
        Some(why) => RerunStep::GiveUp(why),
    }
}

/// Whether GitHub's list has the job that is to be re-run: itself, or a copy of its result.
fn is_result_of(rerun: &Rerun, job: &JobNotice) -> bool {
    let is_same_runner = rerun
        .runner
        .as_ref()
        .zip(job.runner.as_ref())
        .is_some_and(|(own, other)| other.names(own.id, &own.name, own.group) && job.status == "completed");
    job.id == rerun.job || is_same_runner && rerun.name.as_ref() == Some(&job.name)
}

/// Whether the job is the re-run, as far as its name shows. Older versions do not record the name.
fn is_repeated_by(rerun: &Rerun, job: &JobNotice) -> bool {
    job.run_attempt > rerun.run_attempt && rerun.name.as_ref().is_none_or(|name| *name == job.name)
}

fn has_started(job: &JobNotice) -> bool {
    matches!(job.status.as_str(), "in_progress" | "completed")
}

fn not_rerun(rerun: &Rerun, run: &RunJobs, owed: &BTreeMap<JobId, Rerun>) -> Option<NotRerun> {
    let cancelled = rerun.cancelled?;
    if cancelled.interrupted_at >= cancelled.ended_at {
        return Some(NotRerun::CancelledBefore);
    }
    let is_other = |job: &&JobNotice| !is_result_of(rerun, job) && job.conclusion.as_deref() == Some("cancelled");
    let is_reclaimed = |job: &JobNotice| owed.values().any(|other| is_result_of(other, job));
    let others = run.jobs.iter().filter(is_other).any(|job| !is_reclaimed(job));
    (others || run.unreadable > 0).then_some(NotRerun::OthersCancelled)
}

/// The waiting jobs that repeat interrupted ones, marked as such, each with the record that it ends. At most `most`.
pub fn recorded(view: &PoolView, most: usize) -> Vec<(WaitingJob, Rerun)> {
    let mut found: Vec<(WaitingJob, Rerun)> = Vec::new();
    for rerun in view.reruns.values() {
        let repeats = |job: &&WaitingJob| {
            job.attempt.as_ref().is_some_and(|attempt| {
                attempt.run_id == rerun.run_id
                    && attempt.run_attempt > rerun.run_attempt
                    && rerun.name.as_ref().is_none_or(|name| *name == attempt.name)
            })
        };
        let mut jobs = view.waiting.values().filter(repeats);
        let Some(job) = jobs.find(|job| found.iter().all(|(taken, _)| taken.id != job.id)) else { continue };
        let mut job = job.clone();
        if let Some(attempt) = &mut job.attempt {
            attempt.follows_interruption = true;
        }
        found.push((job, rerun.clone()));
        if found.len() == most {
            break;
        }
    }
    found
}

/// How a re-run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RerunOutcome {
    UnderWay,
    RunNeverEnded,
    GivenUp(NotRerun),
    /// GitHub's message.
    Refused(String),
}

impl fmt::Display for RerunOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RerunOutcome::UnderWay => f.write_str("the run was re-run already"),
            RerunOutcome::RunNeverEnded => f.write_str("the run did not end within a day"),
            RerunOutcome::GivenUp(why) => write!(f, "not re-run: {why}"),
            RerunOutcome::Refused(message) => write!(f, "GitHub refuses the re-run: {message}"),
        }
    }
}

/// GitHub has accepted the request. The record stays until the job of the next attempt is recorded.
pub fn requested(pool: &Pool, rerun: Rerun, turn: &Turn) -> Transaction {
    let what = What::Rerun { job: rerun.job, outcome: "re-run requested".to_owned() };
    let mut rerun = Rerun { requested_at: Some(turn.now), ..rerun };
    *rerun.lease_mut() = Lease::due(turn.now + pool.timings.job_check.duration());
    Transaction::new().put(rerun).emit(Stream::Pool(pool.name.clone()), what, turn)
}

/// Deletes the record. The end of a re-run that Drover requested is no news.
pub fn close(pool: &Pool, rerun: Rerun, outcome: &RerunOutcome, turn: &Turn) -> Transaction {
    let what = What::Rerun { job: rerun.job, outcome: outcome.to_string() };
    let is_news = rerun.requested_at.is_none();
    let writes = Transaction::new().delete(rerun);
    if is_news { writes.emit(Stream::Pool(pool.name.clone()), what, turn) } else { writes }
}

/// The re-run, due again after the back-off; None if it is too old.
pub fn wait(pool: &Pool, rerun: &Rerun, now: Timestamp) -> Option<Rerun> {
    if now.duration_since(rerun.since) >= GIVE_UP_AFTER {
        return None;
    }
    let wait = backoff(pool, rerun.lease().tries, &rerun.job.to_string());
    Some(rerun.clone().put_off(now + wait))
}
