//! Recording notices: what GitHub reports about workflow jobs becomes facts in the table.
//!
//! Most notices are about new jobs. Up to 48 of these are one write without a read, which fails if one of them is stored
//! already.

use std::collections::BTreeMap;

use domain::config::Pool;
use domain::ids::{JobId, PoolName, Repository};
use domain::log::Transaction;
use domain::policy::record::{Recorder, Recording, record_new, sort};
use domain::policy::route::Unrouted;
use domain::state::{Config, Item, Key};
use domain::wire::{Action, JobNotice, Notice};
use jiff::Timestamp;

use crate::context::Context;
use crate::error::ReconcileError;
use crate::metrics;
use crate::table::{Commit, MAX_RACES, commit};

/// Two writes per job and the event: 97 of DynamoDB's 100.
pub(crate) const JOBS_PER_WRITE: usize = 48;

/// The result of recording notices.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Pools whose facts changed, now or in an earlier invocation that may not have reconciled the pool, with the number of
    /// jobs.
    pub touched: BTreeMap<PoolName, usize>,
    /// Notices that must be received again, by index, and why.
    pub failed: BTreeMap<usize, String>,
    /// Jobs that were not stored before.
    pub new: Vec<JobId>,
    /// Notices about jobs that no pool serves, by index.
    pub ignored: BTreeMap<usize, Unrouted>,
}

/// Records the notices. The notices about one job are recorded together; jobs are recorded independently of each other.
pub async fn record(context: &Context<'_>, config: &Config, notices: &[Notice]) -> Recorded {
    let mut recorded = Recorded::default();
    let sorted = sort(config, notices);
    let of_job = |job: &JobId| sorted.by_job[job].iter().map(|index| &notices[*index]).collect::<Vec<_>>();
    let mut others = sorted.others.clone();
    for (pool, jobs) in &sorted.likely_new {
        for chunk in jobs.chunks(JOBS_PER_WRITE) {
            let new: Vec<(&Pool, Vec<&Notice>)> = chunk.iter().map(|(job, pool)| (*pool, of_job(job))).collect();
            let writes = record_new(&new, context.now());
            let ids = chunk.iter().map(|(job, _)| *job);
            match context.ports.store.commit(&writes).await {
                Ok(()) => {
                    metrics::jobs_recorded(&writes);
                    *recorded.touched.entry((*pool).clone()).or_default() += chunk.len();
                    recorded.new.extend(ids);
                }
                // One of them is stored already, or the table did not confirm the write: read.
                Err(_) => others.extend(ids),
            }
        }
    }
    for job in others {
        let indices = &sorted.by_job[&job];
        match record_one(context, config, &of_job(&job)).await {
            Ok(Ok(recording)) => {
                for pool in recording.pools {
                    *recorded.touched.entry(pool).or_default() += 1;
                }
                recorded.new.extend(recording.is_new.then_some(job));
            }
            Ok(Err(why)) => recorded.ignored.extend(indices.iter().map(|index| (*index, why))),
            Err(error) => recorded.failed.extend(indices.iter().map(|index| (*index, error.to_string()))),
        }
    }
    recorded
}

/// Records the notices of one job that may be stored already.
async fn record_one(
    context: &Context<'_>,
    config: &Config,
    notices: &[&Notice],
) -> Result<Result<Recording, Unrouted>, ReconcileError> {
    let mut lost = String::new();
    for _ in 0..MAX_RACES {
        let now = context.now();
        let recorder = read(context, Recorder::new(context.stack, config, notices), now).await?;
        let keep = recorder.keep_unrouted(now);
        let recording = match recorder.record(now) {
            Ok(recording) => recording,
            Err(why) => match write(context, &keep).await? {
                Commit::Written => return Ok(Err(why)),
                Commit::Lost(what) => {
                    lost = what;
                    continue;
                }
            },
        };
        match write(context, &recording.writes).await? {
            Commit::Written => {
                metrics::job_recorded(&recording);
                return Ok(Ok(recording));
            }
            Commit::Lost(what) => lost = what,
        }
    }
    Err(ReconcileError::Contention(lost))
}

/// Reads the records that the recorder needs.
async fn read<'a>(
    context: &Context<'_>,
    mut recorder: Recorder<'a>,
    now: Timestamp,
) -> Result<Recorder<'a>, ReconcileError> {
    let store = context.ports.store;
    let not_requested =
        |key: Key| ReconcileError::Unexpected(format!("the table returned {key}, which was not requested"));
    for item in store.get_many(&recorder.first_keys()).await? {
        recorder.add(item).map_err(not_requested)?;
    }
    if let Some(key) = recorder.other_waiting_key()
        && let Some(item) = store.get(&key).await?
    {
        recorder.add(item).map_err(not_requested)?;
    }
    if let Some(key) = recorder.closed_runner_key()
        && let Some(item) = store.get(&key).await?
    {
        recorder.add(item).map_err(not_requested)?;
    }
    if let Some(key) = recorder.instance_key(now)
        && let Some(item) = store.get(&key).await?
    {
        recorder.add(item).map_err(not_requested)?;
    }
    Ok(recorder)
}

async fn write(context: &Context<'_>, writes: &Transaction) -> Result<Commit, ReconcileError> {
    if writes.is_empty() { Ok(Commit::Written) } else { commit(context, writes).await }
}

/// Records GitHub's answer to a request about one job.
pub(crate) async fn record_answer(
    context: &Context<'_>,
    config: &Config,
    repository: &Repository,
    reported: JobNotice,
    action: Action,
    asked_at: Timestamp,
) -> Result<(), ReconcileError> {
    let job = reported.id;
    let public = match context.ports.store.get(&Key::Job(job)).await? {
        Some(Item::Job(job)) => job.public,
        _ => false,
    };
    let notice = Notice::asked(repository.clone(), public, action, reported, asked_at);
    match record(context, config, &[notice]).await.failed.into_values().next() {
        Some(error) => Err(ReconcileError::NotRecorded(format!("job {job}: {error}"))),
        None => Ok(()),
    }
}
