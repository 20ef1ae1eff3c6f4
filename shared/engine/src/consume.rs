//! The scaler's work: a batch of messages becomes facts, facts become decisions, decisions become effects.
//!
//! A message is done once its facts are in the table. If an effect fails, the message is not received again: the effect
//! stays due, and the next invocation that reconciles the pool performs it. Only a message that could not be recorded goes
//! back to the queue.

use std::collections::BTreeMap;

use domain::config::Pool;
use domain::ids::{InstanceId, PoolName};
use domain::policy::due::quiet_first;
use domain::policy::interruption::{Reported, bound_slot, pool_of, record_change};
use domain::policy::route::Unrouted;
use domain::state::{Config, Item, Key};
use domain::wire::{InstanceChange, Message, Notice};
use futures::stream::{self, StreamExt};

use crate::accounts::Accounts;
use crate::context::{Context, MAX_CONCURRENT_POOLS};
use crate::error::ReconcileError;
use crate::reconcile::{nudged, reconcile};
use crate::record::{MAX_RACES, record};
use crate::table::{Commit, commit};

/// The result of a batch. Messages are identified by their index.
#[derive(Debug, Default)]
pub struct Consumed {
    /// Messages that must go back to the queue, and why.
    pub failed: BTreeMap<usize, String>,
    /// Messages about jobs that no pool serves.
    pub ignored: BTreeMap<usize, Unrouted>,
    /// Pools that were reconciled, or could not be, with the number of jobs and messages that concern each.
    pub pools: BTreeMap<PoolName, usize>,
}

impl Consumed {
    fn concerns(&mut self, pool: Option<PoolName>) {
        if let Some(pool) = pool {
            *self.pools.entry(pool).or_default() += 1;
        }
    }
}

/// Records all messages first, then reconciles every pool whose facts changed.
pub async fn consume(context: &Context<'_>, config: &Config, messages: &[Message]) -> Consumed {
    let accounts = Accounts::new(context);
    consume_gated(&context.with_github(&accounts), config, messages).await
}

async fn consume_gated(context: &Context<'_>, config: &Config, messages: &[Message]) -> Consumed {
    let mut consumed = Consumed::default();
    let (mut indices, mut notices): (Vec<usize>, Vec<Notice>) = (Vec::new(), Vec::new());
    for (index, message) in messages.iter().enumerate() {
        let done = match message {
            Message::WorkflowJob(notice) => {
                indices.push(index);
                notices.push(Notice::clone(notice));
                continue;
            }
            Message::Nudge { pool, .. } => nudged(context, pool).await.map(|()| Some(pool.clone())),
            Message::Instance { id, change } => instance_changed(context, config, id, *change).await,
        };
        match done {
            Ok(pool) => consumed.concerns(pool),
            Err(error) => drop(consumed.failed.insert(index, error.to_string())),
        }
    }
    let recorded = record(context, config, &notices).await;
    consumed.failed.extend(recorded.failed.into_iter().map(|(index, error)| (indices[index], error)));
    consumed.ignored.extend(recorded.ignored.into_iter().map(|(index, why)| (indices[index], why)));
    for (pool, jobs) in recorded.touched {
        *consumed.pools.entry(pool).or_default() += jobs;
    }

    let context = &context.shared_by(consumed.pools.len()).yielding();
    stream::iter(quiet_first(&consumed.pools).into_iter().filter_map(|pool| config.pool(pool)))
        .for_each_concurrent(MAX_CONCURRENT_POOLS, |pool| async move {
            if let Err(error) = reconcile(context, config, pool).await {
                tracing::error!(pool = %pool.name, "pool {} is not reconciled: {error}", pool.name);
            }
        })
        .await;
    consumed
}

/// Records what EC2 reports about an instance. Returns the pool to reconcile; None if the instance is none of the stack's, or
/// nothing changes. A lost race is repeated here: on the queue, the message would wait until it is visible again, and the
/// slot may be closed by then.
async fn instance_changed(
    context: &Context<'_>,
    config: &Config,
    id: &InstanceId,
    change: InstanceChange,
) -> Result<Option<PoolName>, ReconcileError> {
    if change == InstanceChange::Other {
        return Ok(None);
    }
    let mut lost = String::new();
    for _ in 0..MAX_RACES {
        let Some((pool, reported)) = read_reported(context, config, id).await? else { return Ok(None) };
        let Some(writes) = record_change(config, pool, reported, change, &context.turn(pool)) else { return Ok(None) };
        match commit(context, &writes).await? {
            Commit::Written => return Ok(Some(pool.name.clone())),
            Commit::Lost(what) => lost = what,
        }
    }
    Err(ReconcileError::Contention(lost))
}

/// Reads the records about an instance: the slot first, because the end of a job writes slot and job together.
async fn read_reported<'a>(
    context: &Context<'_>,
    config: &'a Config,
    id: &InstanceId,
) -> Result<Option<(&'a Pool, Reported)>, ReconcileError> {
    let store = context.ports.store;
    let Some(Item::Instance(instance)) = store.get(&Key::Instance(id.clone())).await? else { return Ok(None) };
    let Some(pool) = pool_of(config, &instance) else { return Ok(None) };
    let slot = match bound_slot(&instance) {
        Some(slot) => match store.get(&Key::Slot(pool.name.clone(), slot)).await? {
            Some(Item::Slot(slot)) => Some(slot),
            _ => None,
        },
        None => None,
    };
    let claimed = instance.claimed_jobs().into_iter().map(Key::Job).collect::<Vec<_>>();
    let jobs = if claimed.is_empty() { Vec::new() } else { store.get_many(&claimed).await? };
    let jobs = jobs.into_iter().filter_map(|item| if let Item::Job(job) = item { Some(*job) } else { None });
    Ok(Some((pool, Reported { jobs: jobs.collect(), instance, slot })))
}
