//! A queued job as its pool sees it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::{JobId, PoolName, Repository};
use crate::state::job::Job;

/// A job of rank [`Rank::Queued`](super::Rank::Queued) as its pool sees it: the item `POOL#<pool>`, `JOB#<job>`. It exists exactly as long as
/// the job's rank is Queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingJob {
    /// GitHub's id.
    pub id: JobId,
    /// Its pool.
    pub pool: PoolName,
    /// Where it belongs.
    pub repository: Repository,
    /// When GitHub made it.
    pub queued_at: Timestamp,
    /// Whether it is demand: false while a gate holds it or its truth is being checked.
    pub open: bool,
    /// When to ask GitHub whether it still waits.
    pub check_at: Timestamp,
    /// When GitHub was last asked, or the job first heard of: what was received before is known.
    pub checked_at: Timestamp,
    /// When instances were launched on its account, at most the last hour's: what bounds relaunching.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub launches: Vec<Timestamp>,
    /// Since when its gate is open, if it ever had one: its wait for a machine began only then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Timestamp>,
    /// A runner that fits idled through its grace, and GitHub did not give it this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unserved: Option<Unserved>,
    /// How often the item was written.
    pub revision: u64,
}

/// GitHub does not give a job to the runners that fit it: their group excludes its repository, say, or `max-parallel`
/// holds it back. Launching more of them helps nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unserved {
    /// Since when.
    pub since: Timestamp,
    /// It is no demand before then.
    pub until: Timestamp,
    /// How long this wait is; the next is twice as long.
    pub seconds: i64,
}

impl WaitingJob {
    /// As first recorded: open, unless it is not plain that a runner is wanted, and then GitHub is asked at once.
    pub fn of(job: &Job, now: Timestamp, check_every: SignedDuration) -> Self {
        let open = job.needs_no_check(now);
        Self {
            id: job.id,
            pool: job.pool.clone(),
            repository: job.repository.clone(),
            queued_at: job.queued_at,
            open,
            check_at: if open { now + check_every } else { now },
            checked_at: job.first_seen_at,
            launches: Vec::new(),
            opened_at: None,
            unserved: None,
            revision: 0,
        }
    }

    /// Whether it wants a runner now.
    pub fn is_demand(&self, now: Timestamp) -> bool {
        self.open && self.unserved.as_ref().is_none_or(|unserved| unserved.until <= now)
    }

    /// The launches charged to the job within `window` before `now`.
    pub fn launches_within(&self, window: SignedDuration, now: Timestamp) -> impl Iterator<Item = &Timestamp> {
        self.launches.iter().filter(move |at| now.duration_since(**at) < window)
    }

    /// Since when it waits for a machine.
    pub fn waits_since(&self) -> Timestamp {
        self.opened_at.unwrap_or(self.queued_at)
    }
}
