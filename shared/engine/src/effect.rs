//! What all effects share: how a pool is read, whose an effect is, when more of it is due, and what is written without an
//! event.

use domain::config::Pool;
use domain::ids::PoolName;
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::state::{Item, Key, Limit};
use jiff::Timestamp;

use crate::context::Context;
use crate::ports::{CommitError, ComputeError, GitHubError, QueueError, StoreError};

/// Why a pool could not be reconciled. Nothing is lost by that: what is owed stays owed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The table cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// EC2 cannot be used.
    #[error(transparent)]
    Compute(#[from] ComputeError),
    /// GitHub cannot be used.
    #[error(transparent)]
    GitHub(#[from] GitHubError),
    /// The queue cannot be used.
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
    /// The pool has no META: the table is not the one that `drover pools apply` wrote.
    #[error("pool {0} is configured but has no state: run `drover pools apply` again")]
    NoMeta(PoolName),
    /// Others change the pool faster than it can be read.
    #[error("pool {0} changes faster than it can be decided: {1}")]
    Races(PoolName, String),
}

impl From<CommitError> for ReconcileError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Store(error) => ReconcileError::Store(error),
            CommitError::Conflict(what) => ReconcileError::Contention(what),
        }
    }
}

/// Reads a pool: META first and to the end, then the rest. A query is not isolated from transactions; in this order a
/// decision made from a torn reading fails on META's revision.
pub async fn read(context: &Context<'_>, pool: &PoolName) -> Result<PoolView, ReconcileError> {
    let Some(Item::Meta(meta)) = context.ports.store.get(&Key::Meta(pool.clone())).await? else {
        return Err(ReconcileError::NoMeta(pool.clone()));
    };
    Ok(PoolView::new(meta, context.ports.store.partition(pool).await?))
}

/// When something more is due, as far as the effect just performed knows; None if nothing is.
pub(crate) type Next = Option<Timestamp>;

/// Whether an effect is this invocation's by the decision that called for it, or must be leased first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lease {
    /// It was decided by this invocation and leased with the decision.
    Held,
    /// It is free: to be taken before anything is called.
    Free,
}

/// Writes leases, tries and observations. False if somebody else was faster: then it is theirs.
pub(crate) async fn commit_unlogged(context: &Context<'_>, writes: Transaction) -> Result<bool, ReconcileError> {
    match context.ports.store.commit(&writes).await {
        Ok(()) => Ok(true),
        Err(CommitError::Conflict(_)) => Ok(false),
        Err(CommitError::Store(error)) => Err(error.into()),
    }
}

/// Lets every function know how long GitHub wants to be left alone.
pub(crate) async fn remember_limit(
    context: &Context<'_>,
    pool: &Pool,
    until: Timestamp,
    error: &GitHubError,
) -> Result<(), ReconcileError> {
    let owner = pool.owner.owner().clone();
    let known = match context.ports.store.get(&Key::Limit(owner.clone())).await? {
        Some(Item::Limit(limit)) => Some(limit),
        _ => None,
    };
    if known.as_ref().is_some_and(|known| known.backoff_until >= until) {
        return Ok(());
    }
    let revision = known.map_or(0, |known| known.revision);
    let limit = Limit { owner, backoff_until: until, why: error.to_string(), revision };
    commit_unlogged(context, Transaction::new().put(limit)).await?;
    Ok(())
}
