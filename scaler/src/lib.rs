//! The scaler: records what the queue says and gives every pool the runners it needs.
//!
//! Retry policy, by message: one that cannot be understood is *poison*, fails, and ends in the dead-letter queue once SQS
//! has delivered it often enough; one whose facts could not be written down *fails* and comes again; every other one is
//! done, also when what follows from it could not be performed: that is owed by the table from then on.

use std::collections::BTreeMap;
use std::sync::Mutex;

use domain::state::{Config, Item, Key};
use domain::wire::Message;
use engine::consume::{Consumed, consume};
use engine::context::Context;
use engine::metrics;
use engine::ports::StoreError;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long the pools are remembered: `drover pools apply` takes effect within this time. Reading them each time would be
/// one more call on the way to every launch.
pub const REMEMBER_POOLS: SignedDuration = SignedDuration::from_secs(60);

/// SQS's event, as far as it concerns us.
#[derive(Debug, Deserialize)]
pub struct Batch {
    /// The messages.
    #[serde(rename = "Records", default)]
    records: Vec<Record>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    message_id: String,
    body: String,
}

/// The partial batch response: the messages to have again.
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

/// The pools, remembered for [`REMEMBER_POOLS`].
#[derive(Debug, Default)]
pub struct Pools {
    read: Mutex<Option<(Timestamp, Config)>>,
}

impl Pools {
    async fn get(&self, context: &Context<'_>) -> Result<Config, PoolsError> {
        let now = context.now();
        let remembered = self.read.lock().expect("nobody panics while holding it").clone();
        if let Some((at, config)) = remembered
            && now.duration_since(at) < REMEMBER_POOLS
        {
            return Ok(config);
        }
        match context.ports.store.get(&Key::Config).await? {
            Some(Item::Config(config)) => {
                *self.read.lock().expect("nobody panics while holding it") = Some((now, config.clone()));
                Ok(config)
            }
            _ => Err(PoolsError::NotConfigured),
        }
    }
}

/// The pools are not known.
#[derive(Debug, thiserror::Error)]
enum PoolsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no pools are configured: run `drover pools apply`")]
    NotConfigured,
}

/// Handles one batch.
pub async fn handle(context: &Context<'_>, pools: &Pools, batch: Batch) -> Failures {
    let config = match pools.get(context).await {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("the batch comes again: {error}");
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
                tracing::error!(message.id = record.message_id, "message {} is poison: {error}", record.message_id);
                poison.push(Failure { item_identifier: record.message_id });
            }
        }
    }
    let consumed = consume(context, &config, &messages).await;
    tell(&ids, &messages, &consumed);
    let failed = consumed.failed.into_keys().map(|place| Failure { item_identifier: ids[place].clone() });
    Failures { batch_item_failures: poison.into_iter().chain(failed).collect() }
}

fn failures(records: impl Iterator<Item = Record>) -> Failures {
    let batch_item_failures = records.map(|record| Failure { item_identifier: record.message_id }).collect();
    Failures { batch_item_failures }
}

fn tell(ids: &[String], messages: &[Message], consumed: &Consumed) {
    for (place, error) in &consumed.failed {
        tracing::error!(message.id = ids[*place], "message {} comes again: {error}", ids[*place]);
    }
    for (place, why) in &consumed.ignored {
        metrics::ignored(*why);
        if let Message::WorkflowJob(notice) = &messages[*place] {
            tracing::info!(
                message.id = ids[*place], delivery.id = %notice.delivery, job.id = %notice.job.id, ?why,
                "job {} is not for us: {why:?}", notice.job.id
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
