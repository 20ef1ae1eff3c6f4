//! Reads and writes of the table that several parts of the engine need.

use domain::ids::PoolName;
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::state::{Item, Key, Leased};
use jiff::Timestamp;

use crate::context::Context;
use crate::error::ReconcileError;
use crate::ports::{CommitError, Reading};

/// How often a pool is read again because another invocation decided meanwhile.
const MAX_READINGS: usize = 3;

/// Reads a pool: META first, then the rest. A query is not isolated from transactions. In this order, a decision from a
/// reading that mixes two states fails on META's revision.
pub async fn read_pool(context: &Context<'_>, pool: &PoolName) -> Result<PoolView, ReconcileError> {
    read_and_count(context, pool).await.map(|(view, _)| view)
}

/// Like [`read_pool`], with the number of items that cannot be read and are left out.
pub(crate) async fn read_and_count(
    context: &Context<'_>,
    pool: &PoolName,
) -> Result<(PoolView, usize), ReconcileError> {
    let mut readings = 0;
    loop {
        let Some(Item::Meta(meta)) = context.ports.store.get(&Key::Meta(pool.clone())).await? else {
            return Err(ReconcileError::NoMeta(pool.clone()));
        };
        let Reading { items, unreadable } = context.ports.store.partition(pool).await?;
        let view = PoolView::new(meta, items);
        readings += 1;
        if readings == MAX_READINGS || !view.is_torn() {
            return Ok((view, unreadable.len()));
        }
    }
}

/// The result of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Commit {
    Written,
    /// Nothing was written, because the item of this key has changed since it was read.
    Lost(String),
}

/// Writes the transaction, unless an item has changed since it was read.
pub(crate) async fn commit(context: &Context<'_>, writes: &Transaction) -> Result<Commit, ReconcileError> {
    match context.ports.store.commit(writes).await {
        Ok(()) => Ok(Commit::Written),
        Err(CommitError::Conflict(what)) => Ok(Commit::Lost(what)),
        Err(CommitError::Store(error)) => Err(error.into()),
    }
}

/// Writes the transaction, or nothing if another invocation was faster and goes on itself.
pub(crate) async fn commit_or_leave(context: &Context<'_>, writes: Transaction) -> Result<(), ReconcileError> {
    commit(context, &writes).await.map(drop)
}

/// Claims an intent until `until`, and returns it as written. None if another invocation was faster.
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
