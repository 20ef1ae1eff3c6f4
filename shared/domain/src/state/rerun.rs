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
    #[serde(flatten)]
    pub lease: Lease,
    pub revision: u64,
}

impl Leased for Rerun {
    fn lease_mut(&mut self) -> &mut Lease {
        &mut self.lease
    }

    fn revision_mut(&mut self) -> &mut u64 {
        &mut self.revision
    }
}
