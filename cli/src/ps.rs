//! `drover ps`: every machine and every waiting job.

use std::collections::BTreeMap;

use domain::ids::{InstanceId, JobId, PoolName, Repository};
use domain::state::{Item, Key, Slot, SlotState, WaitingJob};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;

use crate::output::{Failure, Output, age, or_dash, table};
use crate::read::pools;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    WaitingJob,
    Machine,
    BusyMachine,
}

/// A line of the table: a slot or a waiting job.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    #[serde(skip)]
    pub(crate) kind: Kind,
    /// None before EC2 has launched the machine, and for a waiting job.
    pub(crate) instance: Option<InstanceId>,
    pub(crate) pool: PoolName,
    pub(crate) state: String,
    pub(crate) job: Option<JobId>,
    pub(crate) repository: Option<Repository>,
    /// Since EC2 launched the machine; before that since the decision. For a job since it was queued.
    pub(crate) age_seconds: i64,
}

/// Lists machines and waiting jobs.
///
/// # Errors
/// The table cannot be read, or the pool does not exist.
pub async fn ps(table: &impl Store, only: Option<&PoolName>, now: Timestamp) -> Result<Output, Failure> {
    let rows = rows(table, only, now).await?;
    let text = match rows.is_empty() {
        true => "no machines and no waiting jobs\n".to_owned(),
        false => self::table(&["INSTANCE", "POOL", "STATE", "JOB", "REPOSITORY", "AGE"], rows.iter().map(cells)),
    };
    Ok(Output { ok: true, text, json: json!(rows) })
}

fn cells(row: &Row) -> Vec<String> {
    vec![
        or_dash(row.instance.as_ref()),
        row.pool.to_string(),
        row.state.clone(),
        or_dash(row.job),
        or_dash(row.repository.as_ref()),
        age(SignedDuration::from_secs(row.age_seconds)),
    ]
}

pub(crate) async fn rows(table: &impl Store, only: Option<&PoolName>, now: Timestamp) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for pool in pools(table, only).await? {
        let items = table.partition(&pool.name).await?.items;
        let repositories = repositories(table, &items).await?;
        rows.extend(items.iter().filter_map(|item| match item {
            Item::Slot(slot) => Some(slot_row(slot, &repositories, now)),
            Item::Waiting(job) => Some(job_row(job, &pool.name, now)),
            _ => None,
        }));
    }
    Ok(rows)
}

/// The repositories whose jobs the machines run.
async fn repositories(table: &impl Store, items: &[Item]) -> Result<BTreeMap<InstanceId, Repository>, Failure> {
    let keys: Vec<Key> = items
        .iter()
        .filter_map(|item| match item {
            Item::Slot(slot) => slot.machine().map(|machine| Key::Instance(machine.instance.clone())),
            _ => None,
        })
        .collect();
    let items = table.get_many(&keys).await?.into_iter();
    let known = items.filter_map(|item| match item {
        Item::Instance(instance) => Some((instance.id, instance.repository?)),
        _ => None,
    });
    Ok(known.collect())
}

fn slot_row(slot: &Slot, repositories: &BTreeMap<InstanceId, Repository>, now: Timestamp) -> Row {
    let machine = slot.machine();
    let since = machine.map_or(slot.planned_at, |machine| machine.launched_at);
    Row {
        kind: match slot.state {
            SlotState::Busy { .. } => Kind::BusyMachine,
            _ => Kind::Machine,
        },
        instance: machine.map(|machine| machine.instance.clone()),
        pool: slot.pool.clone(),
        state: state(slot),
        job: slot.job(),
        repository: machine.and_then(|machine| repositories.get(&machine.instance)).cloned(),
        age_seconds: now.duration_since(since).as_secs(),
    }
}

fn job_row(job: &WaitingJob, pool: &PoolName, now: Timestamp) -> Row {
    Row {
        kind: Kind::WaitingJob,
        instance: None,
        pool: pool.clone(),
        state: match (job.given_up(now), job.open) {
            (Some(_), _) => "given up",
            (None, true) => "queued",
            (None, false) => "held",
        }
        .to_owned(),
        job: Some(job.id),
        repository: Some(job.repository.clone()),
        age_seconds: now.duration_since(job.queued_at).as_secs(),
    }
}

/// A slot's state in a word.
pub(crate) fn short_state(slot: &Slot) -> &'static str {
    match &slot.state {
        SlotState::Planned => "launching",
        SlotState::Launched(_) if !slot.wanted => "warm",
        SlotState::Launched(_) => "booting",
        SlotState::Configured { .. } => "starting",
        SlotState::Online { .. } => "idle",
        SlotState::Busy { .. } => "busy",
        SlotState::Done { .. } => "done",
    }
}

/// A slot's state, and what an operator or Drover does to the slot.
pub(crate) fn state(slot: &Slot) -> String {
    let state = short_state(slot);
    match (&slot.stop, slot.gone_at) {
        (_, Some(_)) => format!("{state}, gone"),
        _ if slot.held => format!("{state}, held by an operator"),
        (Some(stop), None) => format!("{state}, stopping: {}", stop.why),
        (None, None) => state.to_owned(),
    }
}
