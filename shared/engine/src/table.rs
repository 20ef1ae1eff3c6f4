//! How every part of the engine reads and writes the table.

use domain::ids::{Owner, PoolName};
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::state::{Item, Key, Leased, Limit};
use jiff::Timestamp;

use crate::context::Context;
use crate::error::ReconcileError;
use crate::ports::{CommitError, GitHubError};

/// Reads a pool: META first, then the rest. A query is not isolated from transactions; in this order, a decision made from
/// a torn reading fails on META's revision.
pub async fn read_pool(context: &Context<'_>, pool: &PoolName) -> Result<PoolView, ReconcileError> {
    let Some(Item::Meta(meta)) = context.ports.store.get(&Key::Meta(pool.clone())).await? else {
        return Err(ReconcileError::NoMeta(pool.clone()));
    };
    Ok(PoolView::new(meta, context.ports.store.partition(pool).await?))
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Commit {
    Written,
    /// The item of this key has changed since it was read: nothing was written.
    Lost(String),
}

/// Writes all of it, unless an item has changed since it was read.
pub(crate) async fn commit(context: &Context<'_>, writes: &Transaction) -> Result<Commit, ReconcileError> {
    match context.ports.store.commit(writes).await {
        Ok(()) => Ok(Commit::Written),
        Err(CommitError::Conflict(what)) => Ok(Commit::Lost(what)),
        Err(CommitError::Store(error)) => Err(error.into()),
    }
}

/// Writes where a lost race needs no answer: the winner goes on.
pub(crate) async fn commit_or_leave(context: &Context<'_>, writes: Transaction) -> Result<(), ReconcileError> {
    commit(context, &writes).await.map(drop)
}

/// Claims an intent until this invocation cannot work on it any more, and returns it as written. None if another
/// invocation was faster.
pub(crate) async fn claim<T>(context: &Context<'_>, record: T, until: Timestamp) -> Result<Option<T>, ReconcileError>
where
    T: Leased + Clone + Into<Item>,
{
    let claimed = record.claimed(until);
    match commit(context, &Transaction::new().put(claimed.clone())).await? {
        Commit::Written => Ok(Some(claimed.written())),
        Commit::Lost(_) => Ok(None),
    }
}

/// Until when GitHub must not be called for the account, if that is in the future.
pub(crate) fn limited_until(limit: Option<&Limit>, now: Timestamp) -> Option<Timestamp> {
    limit.map(|limit| limit.backoff_until).filter(|until| *until > now)
}

/// If GitHub limits the account, records until when, so that every function knows.
pub(crate) async fn record_limit(
    context: &Context<'_>,
    owner: &Owner,
    error: &GitHubError,
) -> Result<(), ReconcileError> {
    let GitHubError::Limited { until, .. } = error else { return Ok(()) };
    let known = match context.ports.store.get(&Key::Limit(owner.clone())).await? {
        Some(Item::Limit(limit)) => Some(limit),
        _ => None,
    };
    if known.as_ref().is_some_and(|known| known.backoff_until >= *until) {
        return Ok(());
    }
    let revision = known.map_or(0, |known| known.revision);
    let limit = Limit { owner: owner.clone(), backoff_until: *until, why: error.to_string(), revision };
    commit_or_leave(context, Transaction::new().put(limit)).await
}
