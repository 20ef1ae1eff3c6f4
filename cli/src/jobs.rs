//! `drover jobs`: every waiting or running job, for how long, and on request those that have ended.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use domain::config::{Label, Pool};
use domain::ids::{InstanceId, JobId, PoolName, Repository, RunId};
use domain::log::{After, Stream};
use domain::state::{Instance, Item, Job, Key, SlotState, Usage};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use platform::table::Table;
use serde::Serialize;
use serde_json::json;

use crate::output::{Columns, Failure, Output, age, or_dash, table};
use crate::read::{log_since, pools, view};

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
    Finished,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Held => "held",
            State::GivenUp => "given up",
            State::Running => "running",
            State::Finished => "finished",
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
    workflow: Option<String>,
    run: RunId,
    labels: Vec<String>,
    /// Of a job of a pool with shapes: the label that says which machine it asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<Label>,
    /// The machine, once the job runs.
    instance: Option<InstanceId>,
    /// From queued to started, or until now.
    pub(crate) waited_seconds: i64,
    runs_seconds: Option<i64>,
    /// Of a finished job.
    #[serde(skip_serializing_if = "Option::is_none")]
    conclusion: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<Timestamp>,
    /// Of a finished job whose machine has reported it: the mean of the vCPUs in use, and the peak of the memory, of what the
    /// machine has.
    cpu_percent: Option<f64>,
    memory_percent: Option<f64>,
}

/// Which jobs to list.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    pub pool: Option<&'a PoolName>,
    /// Also jobs that ended in this period.
    pub finished: Option<Range<Timestamp>>,
    pub columns: Columns,
}

/// The further columns with [`Columns::All`].
const ALL: [&str; 5] = ["CPU", "MEMORY", "WORKFLOW", "RUN", "LABELS"];

/// Lists waiting jobs, the longest wait first, then running jobs, then finished jobs, the newest first.
///
/// # Errors
/// The table cannot be read, or the pool does not exist.
pub async fn jobs(table: &Table, query: &Query<'_>, now: Timestamp) -> Result<Output, Failure> {
    let mut rows = rows(table, query.pool, now).await?;
    if let Some(period) = &query.finished {
        rows.extend(finished(table, query.pool, period).await?);
    }
    let mut header = vec!["JOB", "POOL", "STATE", "REPOSITORY", "NAME", "WAITED", "RUNS", "INSTANCE"];
    header.extend((query.columns == Columns::All).then_some(ALL).into_iter().flatten());
    let text = match rows.is_empty() {
        true if query.finished.is_some() => "no jobs\n".to_owned(),
        true => "no waiting or running jobs\n".to_owned(),
        false => self::table(&header, rows.iter().map(|row| cells(row, query.columns))),
    };
    Ok(Output { ok: true, text, json: json!(rows) })
}

fn cells(row: &JobRow, columns: Columns) -> Vec<String> {
    let time = |seconds: i64| age(SignedDuration::from_secs(seconds));
    let mut cells = vec![
        row.job.to_string(),
        row.pool.to_string(),
        row.conclusion.clone().unwrap_or_else(|| row.state.as_str().to_owned()),
        row.repository.to_string(),
        row.name.clone(),
        time(row.waited_seconds),
        or_dash(row.runs_seconds.map(time)),
        or_dash(row.instance.as_ref()),
    ];
    if columns == Columns::All {
        let percent = |share: Option<f64>| or_dash(share.map(|share| format!("{share:.0} %")));
        cells.extend([percent(row.cpu_percent), percent(row.memory_percent)]);
        cells.extend([or_dash(row.workflow.as_ref()), row.run.to_string(), row.labels.join(", ")]);
    }
    cells
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
            let class = pool.class_of(&job.labels);
            rows.push(JobRow { class, ..row(&job, state, running.get(&job.id).cloned(), now) });
        }
    }
    rows.sort_by_key(|row| (row.runs_seconds.is_some(), Reverse(row.waited_seconds), row.job));
    Ok(rows)
}

fn row(job: &Job, state: State, instance: Option<InstanceId>, now: Timestamp) -> JobRow {
    let started = match state {
        State::Running | State::Finished => job.started_at,
        State::Queued | State::Held | State::GivenUp => None,
    };
    let now = job.completed_at.unwrap_or(now);
    JobRow {
        job: job.id,
        pool: job.pool.clone(),
        state,
        repository: job.repository.clone(),
        name: job.name.clone(),
        workflow: job.workflow.clone(),
        run: job.run_id,
        labels: job.labels.clone(),
        class: None,
        instance,
        waited_seconds: started.unwrap_or(now).duration_since(job.queued_at).as_secs(),
        runs_seconds: started.map(|at| now.duration_since(at).as_secs()),
        conclusion: job.completed_at.and(job.conclusion.clone()),
        completed_at: job.completed_at,
        cpu_percent: None,
        memory_percent: None,
    }
}

/// A row for each job that ended in the period, the newest first.
async fn finished(table: &Table, only: Option<&PoolName>, period: &Range<Timestamp>) -> Result<Vec<JobRow>, Failure> {
    let mut rows = Vec::new();
    for pool in pools(table, only).await? {
        let ended = ended(table, &pool, period).await?;
        let machines = if pool.usage { machines_of(table, &ended).await? } else { BTreeMap::new() };
        for (job, instance) in ended {
            let at = job.completed_at.unwrap_or(period.end);
            let shares = instance.as_ref().and_then(|id| machines.get(id)?.usage_of(job.id)).map(Usage::shares);
            let tenths = |percent: f64| (percent * 10.0).round() / 10.0;
            let (cpu_percent, memory_percent) = shares.map(|(cpu, memory)| (tenths(cpu), tenths(memory))).unzip();
            rows.push(JobRow { cpu_percent, memory_percent, ..row(&job, State::Finished, instance, at) });
        }
    }
    rows.sort_by_key(|row| (Reverse(row.completed_at), row.job));
    Ok(rows)
}

/// The records of the machines of these jobs.
pub(crate) async fn machines_of(
    table: &impl Store,
    ended: &[(Job, Option<InstanceId>)],
) -> Result<BTreeMap<InstanceId, Instance>, Failure> {
    let ids: BTreeSet<&InstanceId> = ended.iter().filter_map(|(_, instance)| instance.as_ref()).collect();
    let keys: Vec<Key> = ids.into_iter().cloned().map(Key::Instance).collect();
    let instances = table.get_many(&keys).await?.into_iter().filter_map(|item| match item {
        Item::Instance(instance) => Some((instance.id.clone(), instance)),
        _ => None,
    });
    Ok(instances.collect())
}

/// The jobs of the pool that ended in the period, from the log, with their machines. Drover knows a job for a week after its end.
pub(crate) async fn ended(
    table: &Table,
    pool: &Pool,
    period: &Range<Timestamp>,
) -> Result<Vec<(Job, Option<InstanceId>)>, Failure> {
    let mut ids = BTreeSet::new();
    let mut machines: BTreeMap<JobId, InstanceId> = BTreeMap::new();
    for event in log_since(table, &Stream::Pool(pool.name.clone()), period.start).await? {
        ids.extend(event.after.iter().filter_map(ended_job));
        machines.extend(event.after.iter().filter_map(machine));
    }
    let keys: Vec<Key> = ids.into_iter().map(Key::Job).collect();
    let items = table.get_many(&keys).await?.into_iter();
    let ended = items.filter_map(|item| match item {
        Item::Job(job) if job.completed_at.is_some_and(|at| period.contains(&at)) => {
            let machine = machines.get(&job.id).cloned();
            Some((*job, machine))
        }
        _ => None,
    });
    Ok(ended.collect())
}

/// The job that an event shows as ended.
fn ended_job(after: &After) -> Option<JobId> {
    after.fields.get("completed_at").filter(|at| !at.is_null())?;
    after.key.strip_prefix("JOB#")?.split(' ').next()?.parse().ok().map(JobId)
}

/// The machine that an event names as that of a job.
fn machine(after: &After) -> Option<(JobId, InstanceId)> {
    let id = after.key.strip_prefix("INSTANCE#")?.strip_suffix(" STATE")?;
    Some((JobId(after.fields.get("job")?.as_u64()?), InstanceId::from(id)))
}
