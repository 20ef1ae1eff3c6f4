//! The scaler: records what the messages in the queue report, and gives every pool the runners that it needs.
//!
//! Retry policy, per message:
//! - A message that cannot be parsed is *poison*. It fails, and SQS moves it to the dead-letter queue after some deliveries.
//! - A message whose facts could not be recorded *fails* too, and SQS delivers it again.
//! - Every other message is done, even if an effect that follows from it failed: the table has a record of the effect, and
//!   it is tried again.

use std::collections::BTreeMap;
use std::sync::Mutex;

use domain::policy::unrouted::has_unrouted;
use domain::state::{Config, FunctionName};
use domain::wire::Message;
use engine::consume::{Consumed, consume};
use engine::context::Context;
use engine::metrics;
use engine::pools::PoolsError;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long the pools are cached. `drover pools apply` takes effect within this time. Reading the pools for every batch
/// would delay each launch by one more call.
pub const POOLS_CACHED_FOR: SignedDuration = SignedDuration::from_secs(60);

/// If the pools cannot be read, those that were read less than this ago are used. `drover pools apply` lets the functions use a
/// removed pool for two minutes.
pub const POOLS_USED_FOR: SignedDuration = SignedDuration::from_secs(90);

/// Pools that were read longer ago than this are read again if none of them accepts a job. Many jobs of others then cost one
/// call in this time.
pub const POOLS_READ_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(2);

/// The fields of an SQS event that the scaler uses.
#[derive(Debug, Deserialize)]
pub struct Batch {
    #[serde(rename = "Records", default)]
    records: Vec<Record>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    message_id: String,
    body: String,
}

/// The partial batch response: the messages that SQS must deliver again.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    batch_item_failures: Vec<Failure>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    item_identifier: String,
}

/// The pools, cached for [`POOLS_CACHED_FOR`].
#[derive(Debug, Default)]
pub struct Pools {
    /// When the pools were read, and what was read.
    cached: Mutex<Option<(Timestamp, Config)>>,
}

impl Pools {
    async fn get(&self, context: &Context<'_>) -> Result<Config, PoolsError> {
        let now = context.now();
        let cached = self.cached.lock().expect("no thread panics while it holds the lock").clone();
        match cached.map(|(at, config)| (now.duration_since(at), config)) {
            Some((age, config)) if age < POOLS_CACHED_FOR => Ok(config),
            Some((age, config)) if age < POOLS_USED_FOR => self.read_or(context, now, config).await,
            Some(_) | None => self.read(context, now).await,
        }
    }

    /// The pools for these messages. If none accepts one of the jobs, the pools are read again: they may just have been
    /// applied.
    async fn for_messages(
        &self,
        context: &Context<'_>,
        config: Config,
        messages: &[Message],
    ) -> Result<Config, PoolsError> {
        let now = context.now();
        let read_at = self.cached.lock().expect("no thread panics while it holds the lock").as_ref().map(|(at, _)| *at);
        let is_fresh = read_at.is_some_and(|at| now.duration_since(at) < POOLS_READ_AGAIN_AFTER);
        if is_fresh || !has_unrouted(&config, messages) {
            return Ok(config);
        }
        self.read_or(context, now, config).await
    }

    /// The messages need not wait for minutes until SQS delivers them again because a reading failed.
    async fn read_or(&self, context: &Context<'_>, now: Timestamp, cached: Config) -> Result<Config, PoolsError> {
        match self.read(context, now).await {
            Err(PoolsError::Store(error)) => {
                tracing::warn!("the pools cannot be read, so those of a moment ago are used: {error}");
                Ok(cached)
            }
            read => read,
        }
    }

    async fn read(&self, context: &Context<'_>, now: Timestamp) -> Result<Config, PoolsError> {
        let config = engine::pools::read(context, FunctionName::Scaler).await?;
        *self.cached.lock().expect("no thread panics while it holds the lock") = Some((now, config.clone()));
        Ok(config)
    }
}

/// Handles one batch.
pub async fn handle(context: &Context<'_>, pools: &Pools, batch: Batch) -> Failures {
    let config = match pools.get(context).await {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("SQS delivers the batch again: {error}");
            return failures(batch.records.into_iter());
        }
    };
    let mut poison = Vec::new();
    let mut ids = Vec::new();
    let mut messages = Vec::new();
    for record in batch.records {
        match Message::parse(&record.body) {
            Ok(message) => {
                ids.push(record.message_id);
                messages.push(message);
            }
            Err(error) => {
                tracing::error!(message_id = record.message_id, "message {} is poison: {error}", record.message_id);
                poison.push(Failure { item_identifier: record.message_id });
            }
        }
    }
    let config = match pools.for_messages(context, config, &messages).await {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("SQS delivers the batch again: {error}");
            let again = ids.into_iter().map(|item_identifier| Failure { item_identifier });
            return Failures { batch_item_failures: poison.into_iter().chain(again).collect() };
        }
    };
    let consumed = consume(context, &config, &messages).await;
    log_outcome(&ids, &messages, &consumed);
    let failed = consumed.failed.into_keys().map(|index| Failure { item_identifier: ids[index].clone() });
    Failures { batch_item_failures: poison.into_iter().chain(failed).collect() }
}

fn failures(records: impl Iterator<Item = Record>) -> Failures {
    let batch_item_failures = records.map(|record| Failure { item_identifier: record.message_id }).collect();
    Failures { batch_item_failures }
}

fn log_outcome(ids: &[String], messages: &[Message], consumed: &Consumed) {
    for (index, error) in &consumed.failed {
        tracing::error!(message_id = ids[*index], "SQS delivers message {} again: {error}", ids[*index]);
    }
    for (index, why) in &consumed.ignored {
        metrics::ignored(*why);
        if let Message::WorkflowJob(notice) = &messages[*index] {
            tracing::info!(
                message_id = ids[*index], delivery = %notice.delivery, job = %notice.job.id, ?why,
                "job {} belongs to no pool: {why:?}", notice.job.id
            );
        }
    }
    let mut ignored: BTreeMap<String, usize> = BTreeMap::new();
    for why in consumed.ignored.values() {
        *ignored.entry(format!("{why:?}")).or_default() += 1;
    }
    tracing::info!(
        messages = messages.len(),
        failed = consumed.failed.len(),
        ?ignored,
        pools = consumed.pools.len(),
        "{} messages consumed",
        messages.len()
    );
}
