//! A job to re-run.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::{JobId, PoolName, Repository, RunId};
use crate::state::lease::{Lease, Leased};
use crate::wire::RunnerNotice;

/// GitHub re-runs no job of a run that is older than 30 days.
const RERUNS_END_AFTER: SignedDuration = SignedDuration::from_hours(35 * 24);

/// A job to re-run once its run has ended: the item `POOL#<pool>`, `RERUN#<job>`. It exists until the job of the next attempt
/// is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rerun {
    pub job: JobId,
    pub pool: PoolName,
    pub repository: Repository,
    pub run_id: RunId,
    /// The attempt in which it failed.
    pub run_attempt: u32,
    /// The job's name, written by users, and the runner that it ran on. They show which job of a later attempt is its
    /// re-run, and which is only a copy of its result. None if an older version wrote the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<RunnerNotice>,
    /// When the re-run became due.
    pub since: Timestamp,
    /// When GitHub accepted the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Timestamp>,
    /// Set if the job was cancelled. Such a job is re-run only if nobody cancelled its run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<Cancelled>,
    /// If the job was cancelled, due only after GitHub would refuse the re-run: an older version knows nothing of
    /// cancelled jobs, and would re-run it without a check.
    #[serde(flatten)]
    pub lease: Lease,
    pub revision: u64,
}

/// The end of a cancelled job whose machine EC2 reclaimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    pub interrupted_at: Timestamp,
    pub ended_at: Timestamp,
    /// The lease of the re-run.
    pub lease: Lease,
}

impl Rerun {
    /// The lease that counts.
    pub fn lease(&self) -> &Lease {
        self.cancelled.as_ref().map_or(&self.lease, |cancelled| &cancelled.lease)
    }

    /// What the lease of a cancelled job shows to older versions.
    pub fn not_for_older_versions(now: Timestamp) -> Lease {
        Lease::due(now + RERUNS_END_AFTER)
    }
}

impl Leased for Rerun {
    fn lease_mut(&mut self) -> &mut Lease {
        self.cancelled.as_mut().map_or(&mut self.lease, |cancelled| &mut cancelled.lease)
    }

    fn revision_mut(&mut self) -> &mut u64 {
        &mut self.revision
    }
}
