//! `drover ps`: every machine and every waiting job.

use std::collections::BTreeMap;

use domain::config::{Label, Market, MicroUsd};
use domain::ids::{InstanceId, InstanceType, JobId, PoolName, Repository, SlotId};
use domain::state::{Instance, Item, Key, Slot, SlotState, WaitingJob};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use platform::ec2::Ec2;
use serde::Serialize;
use serde_json::json;

use crate::output::{Columns, Failure, Output, age, or_dash, table};
use crate::read::pools;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    WaitingJob,
    Machine,
    BusyMachine,
    /// EC2 does not show it any more, and its slot is not closed yet.
    GoneMachine,
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
    /// Of a pool with shapes: the label of the jobs that the machine is for, or of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<Label>,
    pub(crate) job: Option<JobId>,
    pub(crate) repository: Option<Repository>,
    pub(crate) slot: Option<SlotId>,
    /// The runner's name at GitHub.
    pub(crate) runner: Option<String>,
    pub(crate) instance_type: Option<InstanceType>,
    pub(crate) market: Option<Market>,
    /// Recorded when the launch was decided, in a pool that needs prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usd_per_hour: Option<f64>,
    /// EC2's availability zone. None if EC2 does not show the machine.
    pub(crate) zone: Option<String>,
    /// Since EC2 launched the machine; before that since the decision. For a job since it was queued.
    pub(crate) age_seconds: i64,
}

/// Lists machines and waiting jobs.
///
/// # Errors
/// The table cannot be read, or the pool does not exist.
pub async fn ps(
    table: &impl Store,
    ec2: &Ec2,
    only: Option<&PoolName>,
    columns: Columns,
    now: Timestamp,
) -> Result<Output, Failure> {
    let mut rows = rows(table, only, now).await?;
    let ids: Vec<InstanceId> = rows.iter().filter_map(|row| row.instance.clone()).collect();
    // Without EC2's answer everything else is still worth reading.
    let zones = ec2.zones(&ids).await.unwrap_or_default();
    for row in &mut rows {
        row.zone = row.instance.as_ref().and_then(|id| zones.get(id)).cloned();
    }
    let mut header = vec!["INSTANCE", "POOL", "STATE", "TYPE", "MARKET", "ZONE", "JOB", "REPOSITORY", "AGE"];
    header.extend((columns == Columns::All).then_some(["SLOT", "RUNNER"]).into_iter().flatten());
    let has_classes = rows.iter().any(|row| row.class.is_some());
    header.extend(has_classes.then_some("CLASS"));
    let text = match rows.is_empty() {
        true => "no machines and no waiting jobs\n".to_owned(),
        false => self::table(&header, rows.iter().map(|row| cells(row, columns, has_classes))),
    };
    Ok(Output { ok: true, text, json: json!(rows) })
}

fn cells(row: &Row, columns: Columns, has_classes: bool) -> Vec<String> {
    let mut cells = vec![
        or_dash(row.instance.as_ref()),
        row.pool.to_string(),
        row.state.clone(),
        or_dash(row.instance_type.as_ref()),
        or_dash(row.market),
        or_dash(row.zone.as_ref()),
        or_dash(row.job),
        or_dash(row.repository.as_ref()),
        age(SignedDuration::from_secs(row.age_seconds)),
    ];
    if columns == Columns::All {
        cells.extend([or_dash(row.slot), or_dash(row.runner.as_ref())]);
    }
    if has_classes {
        cells.push(or_dash(row.class.as_ref()));
    }
    cells
}

pub(crate) async fn rows(table: &impl Store, only: Option<&PoolName>, now: Timestamp) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for pool in pools(table, only).await? {
        let items = table.partition(&pool.name).await?.items;
        let instances = instances(table, &items).await?;
        rows.extend(items.iter().filter_map(|item| match item {
            Item::Slot(slot) => Some(slot_row(slot, &instances, now)),
            Item::Waiting(job) => Some(job_row(job, &pool.name, now)),
            _ => None,
        }));
    }
    Ok(rows)
}

/// Each machine, and what an operator calls it: its pool and state.
///
/// # Errors
/// The table cannot be read.
pub async fn machines(table: &impl Store, now: Timestamp) -> Result<Vec<(String, String)>, Failure> {
    let rows = rows(table, None, now).await?.into_iter();
    Ok(rows.filter_map(|row| Some((row.instance?.to_string(), format!("{}, {}", row.pool, row.state)))).collect())
}

/// The records of the slots' machines.
async fn instances(table: &impl Store, items: &[Item]) -> Result<BTreeMap<InstanceId, Instance>, Failure> {
    let keys: Vec<Key> = items
        .iter()
        .filter_map(|item| match item {
            Item::Slot(slot) => slot.machine().map(|machine| Key::Instance(machine.instance.clone())),
            _ => None,
        })
        .collect();
    let items = table.get_many(&keys).await?.into_iter();
    let known = items.filter_map(|item| match item {
        Item::Instance(instance) => Some((instance.id.clone(), instance)),
        _ => None,
    });
    Ok(known.collect())
}

fn slot_row(slot: &Slot, instances: &BTreeMap<InstanceId, Instance>, now: Timestamp) -> Row {
    let machine = slot.machine();
    let instance = machine.and_then(|machine| instances.get(&machine.instance));
    let since = machine.map_or(slot.planned_at, |machine| machine.launched_at);
    Row {
        kind: match (&slot.state, slot.gone_at) {
            (_, Some(_)) => Kind::GoneMachine,
            (SlotState::Busy { .. }, None) => Kind::BusyMachine,
            (
                SlotState::Planned
                | SlotState::Launched(_)
                | SlotState::Prepared(_)
                | SlotState::Stopped(_)
                | SlotState::Started(_)
                | SlotState::Configured { .. }
                | SlotState::Online { .. }
                | SlotState::Done { .. },
                None,
            ) => Kind::Machine,
        },
        instance: machine.map(|machine| machine.instance.clone()),
        pool: slot.pool.clone(),
        state: state(slot),
        class: slot.class.clone(),
        usd_per_hour: slot.price_per_hour.map(MicroUsd::usd),
        job: slot.job(),
        repository: instance.and_then(|instance| instance.repository.clone()),
        slot: Some(slot.id),
        runner: instance.and_then(|instance| instance.runner_name.clone()),
        instance_type: instance.and_then(|instance| instance.instance_type.clone()),
        market: instance.and_then(|instance| instance.market),
        zone: None,
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
        class: job.class.clone(),
        usd_per_hour: None,
        job: Some(job.id),
        repository: Some(job.repository.clone()),
        slot: None,
        runner: None,
        instance_type: None,
        market: None,
        zone: None,
        age_seconds: now.duration_since(job.queued_at).as_secs(),
    }
}

/// A slot's state, as short as possible.
pub(crate) fn short_state(slot: &Slot) -> &'static str {
    match &slot.state {
        SlotState::Planned => "launching",
        SlotState::Launched(_) if !slot.wanted => "warm",
        SlotState::Launched(_) => "booting",
        SlotState::Prepared(_) => "being stopped",
        SlotState::Stopped(_) => "stopped",
        SlotState::Started(_) => "being started",
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
        (Some(stop), None) if slot.is_set_aside() => format!("{state}, ending: {}", stop.why),
        (Some(stop), None) => format!("{state}, stopping: {}", stop.why),
        (None, None) => state.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::aside::fixtures::slot;

    #[test]
    fn a_machine_that_is_kept_stopped_has_a_state_in_plain_words() {
        let shown = |state_of: &str, more: serde_json::Value| state(&slot(1, state_of, &more));
        assert_eq!(shown("prepared", json!({})), "being stopped");
        assert_eq!(shown("stopped", json!({})), "stopped");
        assert_eq!(shown("started", json!({ "wanted": true })), "being started");
        let stop = json!({ "stop": { "why": "surplus", "at": "2026-11-02T11:59:00Z" } });
        assert_eq!(shown("stopped", stop.clone()), "stopped, ending: surplus");
        assert_eq!(shown("launched", stop), "warm, stopping: surplus");
    }
}
