//! Why a pool could not be reconciled.

use domain::ids::PoolName;

use crate::ports::{CommitError, ComputeError, GitHubError, QueueError, StoreError};

/// Nothing is lost by any of these: what is due stays due, and the janitor reconciles every pool each minute.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Compute(#[from] ComputeError),
    #[error(transparent)]
    GitHub(#[from] GitHubError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The table holds something that Drover never writes, or lacks something that it always writes.
    #[error("the table is inconsistent: {0}")]
    Unexpected(String),
    /// Other writers changed an item each time between reading and writing it.
    #[error("{0} keeps changing")]
    Contention(String),
    /// A fact could not be recorded.
    #[error("cannot record {0}")]
    NotRecorded(String),
    /// The table is not the one that `drover pools apply` wrote.
    #[error("pool {0} is configured but has no state: run `drover pools apply` again")]
    NoMeta(PoolName),
}

impl From<CommitError> for ReconcileError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Store(error) => ReconcileError::Store(error),
            CommitError::Conflict(what) => ReconcileError::Contention(what),
        }
    }
}
