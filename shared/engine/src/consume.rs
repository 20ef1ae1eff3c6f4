//! The scaler's work: a batch of messages becomes facts, facts become decisions, decisions become effects.
//!
//! A message is done once its facts are in the table. If an effect fails, the message is not received again: the effect
//! stays due, and the next invocation that reconciles the pool performs it. Only a message that could not be recorded goes
//! back to the queue.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::PoolName;
use domain::policy::due::quiet_first;
use domain::policy::route::Unrouted;
use domain::state::Config;
use domain::wire::{Message, Notice};
use futures::stream::{self, StreamExt};

use crate::accounts::Accounts;
use crate::context::{Context, MAX_CONCURRENT_POOLS};
use crate::instance_change::instance_changed;
use crate::reconcile::{nudged, reconcile_after_facts, reconcile_after_nudge};
use crate::record::record;
use crate::table::Extent;

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
    note_installations(context, config, messages);
    let accounts = Accounts::new(context);
    consume_gated(&context.with_github(&accounts), &accounts, config, messages).await
}

/// A webhook names the app's installation on the repository's account. This saves a cold process the call that finds it.
fn note_installations(context: &Context<'_>, config: &Config, messages: &[Message]) {
    for message in messages {
        if let Message::WorkflowJob(notice) = message
            && let Some(installation) = notice.installation
            && config.pools.iter().any(|pool| *pool.owner.owner() == notice.repository.owner)
        {
            context.ports.github.note_installation(&notice.repository.owner, installation);
        }
    }
}

async fn consume_gated(
    context: &Context<'_>,
    accounts: &Accounts<'_>,
    config: &Config,
    messages: &[Message],
) -> Consumed {
    let mut consumed = Consumed::default();
    let (mut answered, mut whole) = (BTreeSet::new(), BTreeSet::new());
    let (mut indices, mut notices): (Vec<usize>, Vec<Notice>) = (Vec::new(), Vec::new());
    for (index, message) in messages.iter().enumerate() {
        let done = match message {
            Message::WorkflowJob(notice) => {
                indices.push(index);
                notices.push(Notice::clone(notice));
                continue;
            }
            Message::Nudge { pool, .. } => nudged(context, pool).await.map(|is_answered| {
                answered.extend(is_answered.then(|| pool.clone()));
                Some(pool.clone())
            }),
            Message::Instance { id, change } => instance_changed(context, config, id, *change).await,
        };
        match done {
            Ok(pool) => {
                whole.extend(pool.clone());
                consumed.concerns(pool);
            }
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
    let (answered, whole) = (&answered, &whole);
    stream::iter(quiet_first(&consumed.pools).into_iter().filter_map(|pool| config.pool(pool)))
        .for_each_concurrent(MAX_CONCURRENT_POOLS, |pool| async move {
            // A machine's end or an operator may leave something to do for a slot that decisions do not need.
            let extent = if whole.contains(&pool.name) { Extent::Whole } else { Extent::Needed };
            let reconciled = match answered.contains(&pool.name) {
                true => reconcile_after_nudge(context, config, pool).await,
                false => reconcile_after_facts(context, accounts, config, pool, extent).await,
            };
            if let Err(error) = reconciled {
                tracing::error!(pool = %pool.name, "pool {} is not reconciled: {error}", pool.name);
            }
        })
        .await;
    consumed
}
