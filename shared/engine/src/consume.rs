//! The scaler: a batch of messages becomes facts, the facts decisions, the decisions effects.
//!
//! A message is done once its facts stand in the table. What could not be *performed* is no reason to have it again: the
//! table owes it, and whoever looks at the pool next pays. Only a message that could not be recorded goes back.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{InstanceId, PoolName};
use domain::log::{Stream, Transaction, What};
use domain::policy::route::Unrouted;
use domain::state::{Config, Item, Key, Ownership, StopReason};
use domain::wire::{InstanceChange, Message, Notice};
use futures::stream::{self, StreamExt};

use crate::context::Context;
use crate::effect::{ReconcileError, commit_unlogged};
use crate::reconcile::{nudged, reconcile};
use crate::record::record;

/// Pools reconciled at a time.
const MAX_CONCURRENT_POOLS: usize = 4;

/// What came of a batch.
#[derive(Debug, Default)]
pub struct Consumed {
    /// The messages to have again, by their place, and why.
    pub failed: BTreeMap<usize, String>,
    /// Those that were not for us, by their place.
    pub ignored: BTreeMap<usize, Unrouted>,
    /// The pools that were looked at.
    pub pools: BTreeSet<PoolName>,
}

/// Consumes messages: records all of them first, then reconciles every pool they touch.
pub async fn consume(context: &Context<'_>, config: &Config, messages: &[Message]) -> Consumed {
    let mut consumed = Consumed::default();
    let mut notices: Vec<(usize, Notice)> = Vec::new();
    for (place, message) in messages.iter().enumerate() {
        let done = match message {
            Message::WorkflowJob(notice) => {
                notices.push((place, Notice::clone(notice)));
                continue;
            }
            Message::Nudge { pool, .. } => nudged(context, pool).await.map(|()| Some(pool.clone())).map_err(Into::into),
            Message::Instance { id, change } => instance_changed(context, config, id, *change).await,
        };
        match done {
            Ok(pool) => consumed.pools.extend(pool),
            Err(error) => drop(consumed.failed.insert(place, error.to_string())),
        }
    }
    let (places, notices): (Vec<usize>, Vec<Notice>) = notices.into_iter().unzip();
    let recorded = record(context, config, &notices).await;
    consumed.failed.extend(recorded.failed.into_iter().map(|(place, error)| (places[place], error)));
    consumed.ignored.extend(recorded.ignored.into_iter().map(|(place, why)| (places[place], why)));
    consumed.pools.extend(recorded.touched);

    stream::iter(consumed.pools.iter().filter_map(|pool| config.pool(pool)))
        .for_each_concurrent(MAX_CONCURRENT_POOLS, |pool| async move {
            if let Err(error) = reconcile(context, config, pool).await {
                // The janitor reconciles every pool each minute.
                tracing::error!(pool.name = %pool.name, "pool {} is not reconciled: {error}", pool.name);
            }
        })
        .await;
    consumed
}

/// Follows EC2's word about an instance. Gives the pool it concerns; None if it is not ours or nothing changes.
async fn instance_changed(
    context: &Context<'_>,
    config: &Config,
    id: &InstanceId,
    change: InstanceChange,
) -> Result<Option<PoolName>, ReconcileError> {
    let why = match change {
        InstanceChange::Other => return Ok(None),
        InstanceChange::Interrupted => Some(StopReason::Interrupted),
        InstanceChange::Ended => None,
    };
    let Some(Item::Instance(instance)) = context.ports.store.get(&Key::Instance(id.clone())).await? else {
        return Ok(None);
    };
    let (Ownership::Bound, Some(pool), Some(slot)) = (&instance.ownership, &instance.pool, instance.slot) else {
        return Ok(None);
    };
    let Some(pool) = config.pool(pool) else { return Ok(None) };
    let Some(Item::Slot(slot)) = context.ports.store.get(&Key::Slot(pool.name.clone(), slot)).await? else {
        return Ok(None);
    };
    let now = context.now();
    let id = slot.id;
    let (slot, what) = match why {
        // One that came too late for a runner with a job must not hide why that job will fail.
        Some(why) if slot.stop.as_ref().is_some_and(|stop| stop.why == why || stop.why.ends_a_job()) => {
            return Ok(None);
        }
        Some(why) => (slot.stopped(why, now, now), What::Stopped { slot: id, why }),
        None if slot.gone_at.is_some() => return Ok(None),
        None => {
            let what = What::Observed { online: Vec::new(), gone: vec![id], unregistered: Vec::new() };
            (slot.gone(now), what)
        }
    };
    let writes = Transaction::new().put(slot).told(Stream::Pool(pool.name.clone()), context.cause(), what, now);
    if !commit_unlogged(context, writes).await? {
        return Err(ReconcileError::Contention(format!("slot {id} of pool {}", pool.name)));
    }
    Ok(Some(pool.name.clone()))
}
