//! A job that is to be run again.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{JobId, PoolName, Repository, RunId};
use crate::state::lease::{Lease, Leased};

/// A job to be run again once its run has ended: the item `POOL#<pool>`, `RERUN#<job>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rerun {
    /// The job that failed.
    pub job: JobId,
    /// Its pool.
    pub pool: PoolName,
    /// Where it belongs.
    pub repository: Repository,
    /// Its run.
    pub run_id: RunId,
    /// The attempt in which it failed. A later one means that somebody ran it again.
    pub run_attempt: u32,
    /// Since when this is owed.
    pub since: Timestamp,
    #[serde(flatten)]
    pub lease: Lease,
    /// How often the item was written.
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
