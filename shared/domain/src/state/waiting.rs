//! A queued job in its pool's partition.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::Label;
use crate::ids::{JobId, PoolName, Repository, RunId};
use crate::state::job::{Job, MAX_QUEUED, TRUST_QUEUED_FOR};

/// A queued job in its pool's partition: the item `POOL#<pool>`, `JOB#<job>`. It exists if and only if the job's rank is
/// [`Rank::Queued`](super::Rank::Queued).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingJob {
    pub id: JobId,
    pub pool: PoolName,
    pub repository: Repository,
    /// The label that says which machine it asks for. None in a pool without shapes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Label>,
    /// When GitHub created the job.
    pub queued_at: Timestamp,
    /// Whether the job needs a runner now. False while a gate holds it, and until GitHub has confirmed an old job.
    pub open: bool,
    /// When GitHub is next asked whether the job still waits.
    pub check_at: Timestamp,
    /// When GitHub was last asked about the job, or when the first notice about it arrived.
    pub checked_at: Timestamp,
    /// When instances were launched for this job, within the pool's `relaunch_window`. Bounds the number of launches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub launches: Vec<Timestamp>,
    /// When its gate opened, or its first webhook arrived more than a day late. None if its wait began when it was queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Timestamp>,
    /// Set if a runner with matching labels was idle for `idle_grace` and GitHub did not give it this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unserved: Option<Unserved>,
    /// When GitHub reported that its run is over, although it calls the job queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_over_at: Option<Timestamp>,
    /// Since when GitHub answers that it does not know the job. The job is not open then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_since: Option<Timestamp>,
    /// Set if the job is not of its run's first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<LaterAttempt>,
    /// Until when the invocation that asks GitHub about the job is expected to record the answer. No other one asks before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_until: Option<Timestamp>,
    pub revision: u64,
}

/// A job that somebody re-ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaterAttempt {
    pub run_id: RunId,
    /// From 2.
    pub run_attempt: u32,
    /// The job's name, written by users.
    pub name: String,
    /// EC2 reclaimed the machine of the job that it repeats. A machine is launched on demand for it, if the pool may.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follows_interruption: bool,
}

/// GitHub does not give the job to idle runners with matching labels: for example, the runner group excludes the
/// repository, or `max-parallel` holds the job back. Launching more runners does not help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unserved {
    pub since: Timestamp,
    /// The job is not demand before then.
    pub until: Timestamp,
    /// The length of this wait. The next one is twice as long.
    pub seconds: i64,
}

/// Why Drover launches nothing more for a job that GitHub calls queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// GitHub would have failed it long ago, or given it to a runner.
    TooOld,
    /// Its run is over.
    RunOver,
}

impl LaterAttempt {
    fn of(job: &Job) -> Option<Self> {
        (job.run_attempt > 1).then(|| Self {
            run_id: job.run_id,
            run_attempt: job.run_attempt,
            name: job.name.clone(),
            follows_interruption: false,
        })
    }
}

impl WaitingJob {
    /// The record of a new job. It is open if the notices prove that it needs a runner; otherwise GitHub is asked at once.
    pub fn of(job: &Job, class: Option<Label>, now: Timestamp, check_every: SignedDuration) -> Self {
        let open = job.needs_no_check(now);
        Self {
            id: job.id,
            pool: job.pool.clone(),
            repository: job.repository.clone(),
            class,
            queued_at: job.queued_at,
            open,
            check_at: if open { now + check_every } else { now },
            checked_at: job.first_seen_at,
            launches: Vec::new(),
            opened_at: job.late_webhook_at(),
            unserved: None,
            run_over_at: None,
            unknown_since: None,
            attempt: LaterAttempt::of(job),
            asked_until: None,
            revision: 0,
        }
    }

    /// Whether the job needs a runner now.
    pub fn is_demand(&self, now: Timestamp) -> bool {
        self.open && self.given_up(now).is_none() && self.unserved.as_ref().is_none_or(|unserved| unserved.until <= now)
    }

    /// Why nothing is launched for the job, although GitHub calls it queued. GitHub says so of some jobs for ever.
    pub fn given_up(&self, now: Timestamp) -> Option<GivenUp> {
        if !self.open {
            None
        } else if self.run_over_at.is_some() {
            Some(GivenUp::RunOver)
        } else if self.is_too_old(now) {
            Some(GivenUp::TooOld)
        } else {
            None
        }
    }

    /// Whether GitHub should have ended the job by now.
    pub fn is_too_old(&self, now: Timestamp) -> bool {
        now >= (self.waits_since() + TRUST_QUEUED_FOR).min(self.queued_at + MAX_QUEUED)
    }

    /// The launches for the job within `window` before `now`.
    pub fn launches_within(&self, window: SignedDuration, now: Timestamp) -> impl Iterator<Item = &Timestamp> {
        self.launches.iter().filter(move |at| now.duration_since(**at) < window)
    }

    /// Whether an invocation is asking GitHub about the job.
    pub fn is_being_asked_about(&self, now: Timestamp) -> bool {
        self.asked_until.is_some_and(|until| until > now)
    }

    /// When its wait for a machine began.
    pub fn waits_since(&self) -> Timestamp {
        self.opened_at.unwrap_or(self.queued_at)
    }
}
