//! `drover jobs`: every job that waits or runs, and for how long.

use std::collections::BTreeMap;

use domain::ids::{JobId, PoolName};
use domain::state::{Item, Job, Key, Phase};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;

use crate::output::{Failure, Output, age, table};
use crate::read::{pools, view};

/// One line.
#[derive(Debug, Serialize)]
struct Row {
    job: u64,
    pool: String,
    state: &'static str,
    repository: String,
    name: String,
    /// On which machine, once it runs.
    instance: Option<String>,
    /// From its creation to its start, or until now.
    waited_seconds: i64,
    /// Since its start.
    runs_seconds: Option<i64>,
}

/// Lists them, those first that wait longest.
///
/// # Errors
/// When the table cannot be read, or there is no such pool.
pub async fn jobs(table: &impl Store, only: Option<&PoolName>, now: Timestamp) -> Result<Output, Failure> {
    let mut rows = Vec::new();
    for pool in pools(table, only).await? {
        let view = view(table, &pool.name).await?;
        let running: BTreeMap<JobId, String> = view
            .slots
            .values()
            .filter(|slot| slot.phase() == Phase::Busy)
            .filter_map(|slot| Some((slot.job()?, slot.machine()?.instance.to_string())))
            .collect();
        let keys: Vec<Key> = view.waiting.keys().chain(running.keys()).copied().map(Key::Job).collect();
        for item in table.get_many(&keys).await? {
            let Item::Job(job) = item else { continue };
            let open = view.waiting.get(&job.id).map(|waiting| waiting.open);
            rows.push(row(&job, open, running.get(&job.id).cloned(), now));
        }
    }
    rows.sort_by_key(|row| (row.runs_seconds.is_some(), std::cmp::Reverse(row.waited_seconds), row.job));
    let header = ["JOB", "POOL", "STATE", "REPOSITORY", "NAME", "WAITED", "RUNS", "INSTANCE"];
    let length = |seconds: i64| age(SignedDuration::from_secs(seconds));
    let lines = rows.iter().map(|row| {
        vec![
            row.job.to_string(),
            row.pool.clone(),
            row.state.to_owned(),
            row.repository.clone(),
            row.name.clone(),
            length(row.waited_seconds),
            row.runs_seconds.map_or("-".to_owned(), length),
            row.instance.clone().unwrap_or("-".to_owned()),
        ]
    });
    let text = match rows.is_empty() {
        true => "no job waits, none runs\n".to_owned(),
        false => self::table(&header, lines),
    };
    Ok(Output { yes: true, text, json: json!(rows) })
}

fn row(job: &Job, open: Option<bool>, instance: Option<String>, now: Timestamp) -> Row {
    let started = job.started_at.filter(|_| open.is_none());
    Row {
        job: job.id.0,
        pool: job.pool.to_string(),
        state: match open {
            Some(true) => "queued",
            Some(false) => "held",
            None => "running",
        },
        repository: job.repository.to_string(),
        name: job.name.clone(),
        instance,
        waited_seconds: started.unwrap_or(now).duration_since(job.queued_at).as_secs(),
        runs_seconds: started.map(|at| now.duration_since(at).as_secs()),
    }
}
