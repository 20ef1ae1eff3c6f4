//! `drover jobs`: every waiting or running job, and for how long.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use domain::ids::{InstanceId, JobId, PoolName, Repository};
use domain::state::{Item, Job, Key, SlotState};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;

use crate::output::{Failure, Output, age, or_dash, table};
use crate::read::{pools, view};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Queued,
    /// Waiting for an approval, or for GitHub to confirm that it is still queued.
    Held,
    /// GitHub calls it queued, and nothing is launched for it any more.
    #[serde(rename = "given up")]
    GivenUp,
    Running,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Held => "held",
            State::GivenUp => "given up",
            State::Running => "running",
        }
    }
}

/// A line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct JobRow {
    pub(crate) job: JobId,
    pub(crate) pool: PoolName,
    pub(crate) state: State,
    pub(crate) repository: Repository,
    pub(crate) name: String,
    /// The machine, once the job runs.
    instance: Option<InstanceId>,
    /// From queued to started, or until now.
    pub(crate) waited_seconds: i64,
    runs_seconds: Option<i64>,
}

/// Lists waiting jobs, the longest wait first, then running jobs.
///
/// # Errors
/// The table cannot be read, or the pool does not exist.
pub async fn jobs(table: &impl Store, only: Option<&PoolName>, now: Timestamp) -> Result<Output, Failure> {
    let rows = rows(table, only, now).await?;
    let header = ["JOB", "POOL", "STATE", "REPOSITORY", "NAME", "WAITED", "RUNS", "INSTANCE"];
    let text = match rows.is_empty() {
        true => "no waiting or running jobs\n".to_owned(),
        false => self::table(&header, rows.iter().map(cells)),
    };
    Ok(Output { ok: true, text, json: json!(rows) })
}

fn cells(row: &JobRow) -> Vec<String> {
    let time = |seconds: i64| age(SignedDuration::from_secs(seconds));
    vec![
        row.job.to_string(),
        row.pool.to_string(),
        row.state.as_str().to_owned(),
        row.repository.to_string(),
        row.name.clone(),
        time(row.waited_seconds),
        or_dash(row.runs_seconds.map(time)),
        or_dash(row.instance.as_ref()),
    ]
}

pub(crate) async fn rows(table: &impl Store, only: Option<&PoolName>, now: Timestamp) -> Result<Vec<JobRow>, Failure> {
    let mut rows = Vec::new();
    for pool in pools(table, only).await? {
        let view = view(table, &pool.name).await?;
        let running: BTreeMap<JobId, InstanceId> = view
            .slots
            .values()
            .filter_map(|slot| match &slot.state {
                SlotState::Busy { .. } => Some((slot.job()?, slot.machine()?.instance.clone())),
                _ => None,
            })
            .collect();
        let keys: Vec<Key> = view.waiting.keys().chain(running.keys()).copied().map(Key::Job).collect();
        for item in table.get_many(&keys).await? {
            let Item::Job(job) = item else { continue };
            let state = match view.waiting.get(&job.id) {
                Some(waiting) if waiting.given_up(now).is_some() => State::GivenUp,
                Some(waiting) if waiting.open => State::Queued,
                Some(_) => State::Held,
                None => State::Running,
            };
            rows.push(row(&job, state, running.get(&job.id).cloned(), now));
        }
    }
    rows.sort_by_key(|row| (row.runs_seconds.is_some(), Reverse(row.waited_seconds), row.job));
    Ok(rows)
}

fn row(job: &Job, state: State, instance: Option<InstanceId>, now: Timestamp) -> JobRow {
    let started = match state {
        State::Running => job.started_at,
        State::Queued | State::Held | State::GivenUp => None,
    };
    JobRow {
        job: job.id,
        pool: job.pool.clone(),
        state,
        repository: job.repository.clone(),
        name: job.name.clone(),
        instance,
        waited_seconds: started.unwrap_or(now).duration_since(job.queued_at).as_secs(),
        runs_seconds: started.map(|at| now.duration_since(at).as_secs()),
    }
}
