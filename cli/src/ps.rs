//! `drover ps`: every machine, and every job that waits for one.

use std::collections::BTreeMap;

use domain::ids::{InstanceId, PoolName};
use domain::state::{Instance, Item, Key, Slot, SlotState};
use engine::ports::{Store, StoreError};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::output::{Failure, Output, age, table};
use crate::read::pools;

/// One line.
#[derive(Debug, Serialize)]
struct Row {
    /// Missing while EC2 has not launched it, and for a waiting job.
    instance: Option<String>,
    pool: String,
    state: String,
    job: Option<u64>,
    repository: Option<String>,
    /// Since the launch, the decision, or the job's creation.
    age_seconds: i64,
}

/// Lists them.
///
/// # Errors
/// When the table cannot be read, or there is no such pool.
pub async fn ps(table: &impl Store, only: Option<&PoolName>, now: Timestamp) -> Result<Output, Failure> {
    let mut rows = Vec::new();
    for pool in pools(table, only).await? {
        rows.extend(rows_of(table, &pool.name, now).await?);
    }
    let header = ["INSTANCE", "POOL", "STATE", "JOB", "REPOSITORY", "AGE"];
    let dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
    let lines = rows.iter().map(|row| {
        vec![
            dash(row.instance.clone()),
            row.pool.clone(),
            row.state.clone(),
            dash(row.job.map(|job| job.to_string())),
            dash(row.repository.clone()),
            age(jiff::SignedDuration::from_secs(row.age_seconds)),
        ]
    });
    let text = match rows.is_empty() {
        true => "no machines, no waiting jobs\n".to_owned(),
        false => self::table(&header, lines),
    };
    Ok(Output { yes: true, text, json: json!(rows) })
}

async fn rows_of(table: &impl Store, pool: &PoolName, now: Timestamp) -> Result<Vec<Row>, StoreError> {
    let items = table.partition(pool).await?;
    let machines: Vec<Key> = items
        .iter()
        .filter_map(|item| match item {
            Item::Slot(slot) => slot.machine().map(|machine| Key::Instance(machine.instance.clone())),
            _ => None,
        })
        .collect();
    let mut known: BTreeMap<InstanceId, Instance> = BTreeMap::new();
    for item in table.get_many(&machines).await? {
        if let Item::Instance(instance) = item {
            known.insert(instance.id.clone(), instance);
        }
    }
    let since = |at: Timestamp| now.duration_since(at).as_secs();
    Ok(items
        .iter()
        .filter_map(|item| match item {
            Item::Slot(slot) => {
                let machine = slot.machine();
                Some(Row {
                    instance: machine.map(|machine| machine.instance.to_string()),
                    pool: pool.to_string(),
                    state: state(slot),
                    job: slot.job().map(|job| job.0),
                    repository: machine
                        .and_then(|machine| known.get(&machine.instance)?.repository.as_ref())
                        .map(ToString::to_string),
                    age_seconds: since(machine.map_or(slot.planned_at, |machine| machine.launched_at)),
                })
            }
            Item::Waiting(job) => Some(Row {
                instance: None,
                pool: pool.to_string(),
                state: if job.open { "queued" } else { "held" }.to_owned(),
                job: Some(job.id.0),
                repository: Some(job.repository.to_string()),
                age_seconds: since(job.queued_at),
            }),
            _ => None,
        })
        .collect())
}

/// A slot's state in a word, and what is being done about it.
pub(crate) fn state(slot: &Slot) -> String {
    let word = match &slot.state {
        SlotState::Planned => "launching",
        SlotState::Launched(_) if !slot.wanted => "warm",
        SlotState::Launched(_) => "booting",
        SlotState::Configured { .. } => "starting",
        SlotState::Online { .. } => "idle",
        SlotState::Busy { .. } => "busy",
        SlotState::Done { .. } => "done",
    };
    match (&slot.stop, slot.gone_at) {
        (_, Some(_)) => format!("{word}, gone"),
        _ if slot.held => format!("{word}, held by an operator"),
        (Some(stop), None) => format!("{word}, stopping: {}", stop.why),
        (None, None) => word.to_owned(),
    }
}
