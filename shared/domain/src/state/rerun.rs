//! A job to re-run.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{JobId, PoolName, Repository, RunId};
use crate::state::lease::{Lease, Leased};

/// A job to re-run once its run has ended: the item `POOL#<pool>`, `RERUN#<job>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rerun {
    pub job: JobId,
    pub pool: PoolName,
    pub repository: Repository,
    pub run_id: RunId,
    /// The attempt in which it failed. If the run has a later attempt, somebody has re-run it.
    pub run_attempt: u32,
    /// When the re-run became due.
    pub since: Timestamp,
    /// Set if the job was cancelled: EC2's announcement and the job's end, both of which must be known. A cancelled job is
    /// re-run only if nobody cancelled its run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<Cancelled>,
    #[serde(flatten)]
    pub lease: Lease,
    pub revision: u64,
}

/// The end of a cancelled job whose machine EC2 reclaimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    pub interrupted_at: Timestamp,
    pub ended_at: Timestamp,
}

impl Leased for Rerun {
    fn lease_mut(&mut self) -> &mut Lease {
        &mut self.lease
    }

    fn revision_mut(&mut self) -> &mut u64 {
        &mut self.revision
    }
}
