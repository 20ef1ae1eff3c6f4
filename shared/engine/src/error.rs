//! Why a pool could not be reconciled.

use domain::ids::PoolName;

use crate::ports::{CommitError, ComputeError, GitHubError, QueueError, StoreError};

/// None of these errors loses an effect: what is due stays due, and the janitor reconciles every pool each minute.
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
    /// The table has an item that Drover never writes, or lacks one that it always writes.
    #[error("the table is inconsistent: {0}")]
    Unexpected(String),
    /// Other invocations kept changing an item between reading and writing it.
    #[error("{0} keeps changing")]
    Contention(String),
    #[error("cannot record {0}")]
    NotRecorded(String),
    /// `drover pools apply` writes the configuration and the state of each pool, but the state is missing.
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
