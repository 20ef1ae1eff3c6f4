//! Reads and writes of the table that several parts of the engine need.

use domain::config::Pool;
use domain::ids::PoolName;
use domain::log::Transaction;
use domain::policy::{PoolView, nudge, unread};
use domain::state::{Batch, Item, Key, Leased, Meta, Nudge};
use jiff::Timestamp;

use crate::context::Context;
use crate::error::ReconcileError;
use crate::ports::{CommitError, Reading};

/// How often a pool is read again because another invocation decided meanwhile.
const MAX_READINGS: usize = 3;

/// After this many lost races in a row, the work is left to a later invocation.
pub(crate) const MAX_RACES: usize = 8;

/// How often a nudge is written if others write it at the same time. After that one that they have written is soon enough.
const NUDGE_RACES: usize = 2;

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
        let meta = read_meta(context, pool).await?;
        let Reading { items, unreadable } = context.ports.store.partition(pool).await?;
        let view = PoolView::new(meta, items);
        readings += 1;
        if readings == MAX_READINGS || !view.is_torn() {
            return Ok((view, unreadable.len()));
        }
    }
}

/// How much of a pool is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    /// What a decision needs, which in a pool with many busy machines is little. Effects that are due for other slots are left
    /// to nudges and sweeps.
    Needed,
}

/// Reads META of a pool.
pub(crate) async fn read_meta(context: &Context<'_>, pool: &PoolName) -> Result<Meta, ReconcileError> {
    match context.ports.store.get(&Key::Meta(pool.clone())).await? {
        Some(Item::Meta(meta)) => Ok(meta),
        _ => Err(ReconcileError::NoMeta(pool.clone())),
    }
}

/// Reads a pool, or as much of it as the next decision needs.
pub(crate) async fn read(context: &Context<'_>, pool: &Pool, extent: Extent) -> Result<PoolView, ReconcileError> {
    let meta = read_meta(context, &pool.name).await?;
    read_after(context, pool, meta, extent).await
}

/// Reads a pool whose META was read just now, or as much of it as the next decision needs.
pub(crate) async fn read_after(
    context: &Context<'_>,
    pool: &Pool,
    meta: Meta,
    extent: Extent,
) -> Result<PoolView, ReconcileError> {
    match extent {
        Extent::Whole => read_rest(context, meta).await,
        Extent::Needed => read_needed(context, pool, meta).await,
    }
}

async fn read_needed(context: &Context<'_>, pool: &Pool, meta: Meta) -> Result<PoolView, ReconcileError> {
    let Some(unread) = unread::readable_without(&meta).cloned() else { return read_rest(context, meta).await };
    let newest = unread::newest(&meta);
    let items = context.ports.store.partition_without(&pool.name, &unread, newest).await?.items;
    let view = PoolView::without(Some(unread), meta, items);
    match !view.is_torn() && unread::suffices(pool, &view, context.now()) {
        true => Ok(view),
        false => read_pool(context, &pool.name).await,
    }
}

/// The whole of a pool whose META was read just now.
async fn read_rest(context: &Context<'_>, meta: Meta) -> Result<PoolView, ReconcileError> {
    let items = context.ports.store.partition(&meta.pool).await?.items;
    let view = PoolView::new(meta, items);
    if view.is_torn() { read_pool(context, &view.meta.pool).await } else { Ok(view) }
}

/// Reads META and one launch of a pool, and nothing else of it.
pub(crate) async fn read_launch(context: &Context<'_>, batch: &Batch) -> Result<PoolView, ReconcileError> {
    let keys = [Key::Meta(batch.pool.clone()), Key::Batch(batch.pool.clone(), batch.version)];
    let (mut meta, mut launch) = (None, None);
    for item in context.ports.store.get_many(&keys).await? {
        match item {
            Item::Meta(found) => meta = Some(found),
            other => launch = Some(other),
        }
    }
    let meta = meta.ok_or_else(|| ReconcileError::NoMeta(batch.pool.clone()))?;
    Ok(PoolView::new(meta, launch))
}

/// The record of the nudge that was sent and not answered.
pub(crate) async fn sent_nudge(context: &Context<'_>, pool: &PoolName) -> Result<Option<Nudge>, ReconcileError> {
    match context.ports.store.get(&Key::Nudge(pool.clone())).await? {
        Some(Item::Nudge(nudge)) => Ok(Some(nudge)),
        _ => Ok(None),
    }
}

/// Whether this invocation answers the nudge, by deleting its record. It must read the pool after that.
pub(crate) async fn answers(context: &Context<'_>, nudge: Nudge) -> Result<bool, ReconcileError> {
    Ok(commit(context, &Transaction::new().delete(nudge)).await? == Commit::Written)
}

/// Sends a message that makes the scaler reconcile the pool at `at`, unless one was sent or the janitor runs before.
///
/// `sent` was read before. If it is due, it may have been answered since: then nobody reads the pool at `at`.
pub(crate) async fn send_nudge(
    context: &Context<'_>,
    pool: &PoolName,
    sent: Option<&Nudge>,
    at: Timestamp,
) -> Result<(), ReconcileError> {
    let now = context.now();
    let mut sent = match sent {
        Some(sent) if sent.due_at <= now => sent_nudge(context, pool).await?,
        sent => sent.cloned(),
    };
    for _ in 0..NUDGE_RACES {
        let Some(nudge) = nudge::due(pool, sent.as_ref(), at, now) else { return Ok(()) };
        let after = nudge.due_at.duration_since(now);
        if commit(context, &Transaction::new().put(nudge)).await? == Commit::Written {
            if let Err(error) = context.ports.queue.nudge(pool, after).await {
                tracing::warn!("no nudge is sent; the janitor reconciles the pool: {error}");
            }
            return Ok(());
        }
        sent = sent_nudge(context, pool).await?;
    }
    Ok(())
}

/// Makes another invocation read a pool with so many items, because one has just decided about it or reads it now.
pub(crate) async fn leave_to_another(
    context: &Context<'_>,
    pool: &PoolName,
    items: usize,
) -> Result<(), ReconcileError> {
    let sent = sent_nudge(context, pool).await?;
    send_nudge(context, pool, sent.as_ref(), context.now() + nudge::pause(items)).await
}

/// Announces in META that this invocation reads the pool now, if it is large, so that no other one reads it at the same time. Returns
/// META as it is then; None if another invocation was faster, and a nudge makes one read the pool after that.
pub(crate) async fn announce(context: &Context<'_>, meta: Meta) -> Result<Option<Meta>, ReconcileError> {
    let Some(reading) = nudge::reading(&meta, context.now()) else { return Ok(Some(meta)) };
    match commit(context, &Transaction::new().put(reading.clone())).await? {
        Commit::Written => Ok(Some(Meta { revision: reading.revision + 1, ..reading })),
        Commit::Lost(_) => {
            let items = meta.last_reading.map_or(0, |last| last.items as usize);
            leave_to_another(context, &meta.pool, items).await.map(|()| None)
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

/// Writes the transaction, or nothing if another invocation has changed an item first; that one then carries on.
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
