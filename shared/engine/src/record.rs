//! GitHub's words become facts.
//!
//! Recording is a join, so it may be repeated and reordered at will; a message is acknowledged once what it says stands in
//! the table, and everything that follows from it follows from the table. The way of a new job, by far the most frequent,
//! is one blind write for up to 48 of them: only if something is known already is anything read.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::Pool;
use domain::ids::{JobId, PoolName, RunnerName, StackName};
use domain::log::{Cause, Said, Stream, Transaction, What};
use domain::policy::rerun::called_for;
use domain::policy::route::{Unrouted, route};
use domain::state::{Config, Instance, Item, Job, Key, Rank, Slot, SlotState, WaitingJob};
use domain::wire::{Action, Notice};
use jiff::Timestamp;

use crate::context::Context;
use crate::effect::ReconcileError;
use crate::metrics;
use crate::ports::StoreError;

/// Job, waiting job and the event: 97 writes.
const JOBS_PER_WRITE: usize = 48;

/// Lost races read again. More than a few in a row mean trouble, and the message goes back to the queue.
const RACES: usize = 8;

/// What came of recording.
#[derive(Debug, Default)]
pub struct Recorded {
    /// The pools whose facts changed, or may have been changed by a run that did not get to deciding.
    pub touched: BTreeSet<PoolName>,
    /// Which of the notices could not be recorded, by their place, and why: they must come again.
    pub failed: BTreeMap<usize, String>,
    /// Jobs that nobody had heard of.
    pub new: Vec<JobId>,
    /// Which were not for us.
    pub ignored: BTreeMap<usize, Unrouted>,
}

/// Records what the notices say. Each stands or falls alone, but notices about one job go together.
pub async fn record(context: &Context<'_>, config: &Config, notices: &[Notice]) -> Recorded {
    let mut recorded = Recorded::default();
    let mut by_job: BTreeMap<JobId, Vec<usize>> = BTreeMap::new();
    for (place, notice) in notices.iter().enumerate() {
        by_job.entry(notice.job.id).or_default().push(place);
    }

    let mut fresh: BTreeMap<&PoolName, Vec<(JobId, &Pool)>> = BTreeMap::new();
    let mut known = Vec::new();
    for (job, places) in &by_job {
        let first = &notices[places[0]];
        match route_notice(config, first) {
            Ok(pool) if places.iter().all(|place| notices[*place].action == Action::Queued) => {
                fresh.entry(&pool.name).or_default().push((*job, pool));
            }
            _ => known.push(*job),
        }
    }

    let about = |job: &JobId| by_job[job].iter().map(|place| &notices[*place]).collect::<Vec<_>>();
    for (pool, jobs) in fresh {
        for chunk in jobs.chunks(JOBS_PER_WRITE) {
            let new: Vec<(&Pool, Vec<&Notice>)> = chunk.iter().map(|(job, pool)| (*pool, about(job))).collect();
            let writes = first_sight(&new, context.now());
            match context.ports.store.commit(&writes).await {
                Ok(()) => {
                    let jobs = writes.puts.iter().filter_map(|item| match item {
                        Item::Job(job) => Some(job),
                        _ => None,
                    });
                    jobs.for_each(|job| metrics::job_moved(None, job));
                    recorded.touched.insert(pool.clone());
                    recorded.new.extend(chunk.iter().map(|(job, _)| *job));
                }
                // Something is known of one of them, or it is not known whether this was written: look.
                Err(_) => known.extend(chunk.iter().map(|(job, _)| *job)),
            }
        }
    }

    for job in known {
        match record_known(context, config, &about(&job)).await {
            Ok(Known::Facts { pools, new }) => {
                recorded.touched.extend(pools);
                recorded.new.extend(new.then_some(job));
            }
            Ok(Known::NotOurs(why)) => recorded.ignored.extend(by_job[&job].iter().map(|place| (*place, why))),
            Err(error) => recorded.failed.extend(by_job[&job].iter().map(|place| (*place, error.to_string()))),
        }
    }
    recorded
}

fn route_notice<'a>(config: &'a Config, notice: &Notice) -> Result<&'a Pool, Unrouted> {
    route(&config.pools, &notice.repository, notice.public, &notice.job.labels)
}

/// Writes jobs that nobody has heard of.
fn first_sight(jobs: &[(&Pool, Vec<&Notice>)], now: Timestamp) -> Transaction {
    let mut writes = Transaction::new();
    for (pool, notices) in jobs {
        let job = joined(None, pool, notices);
        let waiting = WaitingJob::of(&job, now, pool.timings.job_check.duration());
        writes = writes.put(job).put(waiting);
    }
    let notices: Vec<&Notice> = jobs.iter().flat_map(|(_, notices)| notices.iter().copied()).collect();
    writes.told(Stream::Pool(jobs[0].0.name.clone()), cause(&notices), said(&notices), now)
}

enum Known {
    Facts { pools: Vec<PoolName>, new: bool },
    NotOurs(Unrouted),
}

/// Records what is said of one job, whatever is known of it.
async fn record_known(context: &Context<'_>, config: &Config, notices: &[&Notice]) -> Result<Known, ReconcileError> {
    for _ in 1..RACES {
        match record_once(context, config, notices).await {
            Err(ReconcileError::Contention(_)) => {}
            other => return other,
        }
    }
    record_once(context, config, notices).await
}

async fn record_once(context: &Context<'_>, config: &Config, notices: &[&Notice]) -> Result<Known, ReconcileError> {
    let store = context.ports.store;
    let now = context.now();
    let id = notices[0].job.id;
    let routed = route_notice(config, notices[0]);
    let ours = our_runner(context.stack, config, notices);

    let mut keys = vec![Key::Job(id)];
    keys.extend(routed.as_ref().ok().map(|pool| Key::Waiting(pool.name.clone(), id)));
    keys.extend(ours.as_ref().map(|(_, name)| Key::Slot(name.pool.clone(), name.slot)));
    let (mut before, mut waiting, mut slot) = (None, None, None);
    for item in store.get_many(&keys).await? {
        match item {
            Item::Job(job) => before = Some(*job),
            Item::Waiting(job) => waiting = Some(job),
            Item::Slot(found) => slot = Some(found),
            other => return Err(ReconcileError::Unexpected(format!("{} was not asked for", other.key()))),
        }
    }
    if let Some(job) = &before
        && routed.as_ref().ok().is_none_or(|pool| pool.name != job.pool)
    {
        // Routed before the pools were changed: a job never moves.
        waiting = match store.get(&Key::Waiting(job.pool.clone(), id)).await? {
            Some(Item::Waiting(job)) => Some(job),
            _ => None,
        };
    }

    let mut touched = Vec::new();
    let mut writes = Transaction::new();
    let mut after = None;
    let pool = match &before {
        Some(job) => config.pool(&job.pool),
        None => routed.as_ref().ok().copied(),
    };
    if let Some(pool) = pool {
        let job = joined(before.clone(), pool, notices);
        touched.push(pool.name.clone());
        writes = change_waiting(writes, pool, &job, before.as_ref(), waiting, notices, now);
        if before.as_ref() != Some(&job) {
            writes = writes.put(job.clone());
        }
        after = Some(job);
    }
    let mut taken = None;
    let had_no_job = slot.as_ref().is_some_and(|slot| slot.job().is_none());
    if let Some((pool, _)) = ours
        && let Some(slot) = slot
        && let Some(slot) = notices.iter().fold(None, |moved: Option<Slot>, notice| {
            advanced(moved.as_ref().unwrap_or(&slot), pool, notice, now).or(moved)
        })
    {
        if matches!(slot.state, SlotState::Done { .. }) {
            writes = writes.put_all(notices.iter().find_map(|notice| called_for(pool, &slot, notice, now)));
        }
        if let Some(instance) = mapped(context, &slot, notices[0]).await? {
            writes = writes.put(instance);
        }
        if !touched.contains(&slot.pool) {
            touched.push(slot.pool.clone());
        }
        taken = had_no_job.then(|| slot.clone());
        writes = writes.put(slot);
    }
    if touched.is_empty() {
        return Ok(Known::NotOurs(routed.err().unwrap_or(Unrouted::NoPools)));
    }
    if !writes.is_empty() {
        let writes = tell(writes, &touched[0], notices, now);
        store.commit(&writes).await?;
        after.iter().for_each(|job| metrics::job_moved(before.as_ref(), job));
        taken.iter().for_each(|slot| metrics::job_taken(slot, after.as_ref()));
    }
    Ok(Known::Facts { pools: touched, new: before.is_none() && pool.is_some() })
}

/// An event is told only of facts: a mere change of when to check is none.
fn tell(writes: Transaction, pool: &PoolName, notices: &[&Notice], now: Timestamp) -> Transaction {
    if writes.puts.iter().all(|item| matches!(item, Item::Waiting(_))) && writes.deletes.is_empty() {
        return writes;
    }
    writes.told(Stream::Pool(pool.clone()), cause(notices), said(notices), now)
}

fn joined(before: Option<Job>, pool: &Pool, notices: &[&Notice]) -> Job {
    let first = before.unwrap_or_else(|| Job::first(pool.name.clone(), notices[0]));
    notices.iter().fold(first, |job, notice| job.join(notice))
}

/// Keeps the pool's own item of the job in step: it exists exactly as long as the job's rank is Queued.
fn change_waiting(
    writes: Transaction,
    pool: &Pool,
    job: &Job,
    before: Option<&Job>,
    waiting: Option<WaitingJob>,
    notices: &[&Notice],
    now: Timestamp,
) -> Transaction {
    match (job.rank, waiting) {
        (Rank::Queued, None) => writes.put(WaitingJob::of(job, now, pool.timings.job_check.duration())),
        (Rank::Queued, Some(waiting)) => {
            let newly_gated = job.gated && !before.is_some_and(|before| before.gated);
            // Of a gated job every word but the one already known may mean that the gate moved: ask GitHub.
            let heard_anew = job.gated && notices.iter().any(|notice| notice.received_at > waiting.checked_at);
            if newly_gated || heard_anew {
                writes.put(WaitingJob { open: waiting.open && !newly_gated, check_at: now, ..waiting })
            } else {
                writes
            }
        }
        (Rank::Started | Rank::Done, Some(waiting)) => writes.delete(waiting),
        (Rank::Started | Rank::Done, None) => writes,
    }
}

/// The pool and name of our runner that the notices name, if it can be one of ours: the job's repository must lie in the
/// scope where the pool registers, since anybody may register a runner of our name elsewhere.
fn our_runner<'a>(stack: &StackName, config: &'a Config, notices: &[&Notice]) -> Option<(&'a Pool, RunnerName)> {
    notices.iter().find_map(|notice| {
        let name: RunnerName = notice.job.runner.as_ref()?.name.parse().ok()?;
        let pool = config.pool(&name.pool)?;
        (name.stack == *stack && pool.owner.covers(&notice.repository)).then_some((pool, name))
    })
}

/// The slot after the notice, if it concerns it: scope, id and name must all be the ones we registered.
fn advanced(slot: &Slot, pool: &Pool, notice: &Notice, now: Timestamp) -> Option<Slot> {
    let said = notice.job.runner.as_ref()?;
    let runner = slot.runner()?.clone();
    let machine = slot.machine()?.clone();
    if runner.runner_id != said.id || runner.runner_name != said.name || !pool.owner.covers(&notice.repository) {
        return None;
    }
    let job = notice.job.id;
    let state = match notice.action {
        Action::Queued | Action::Waiting => return None,
        Action::InProgress => SlotState::Busy { machine, runner, job },
        Action::Completed => SlotState::Done { machine, runner, job, done_at: now },
    };
    let state = SlotState::furthest(&slot.state, state)?;
    Some(Slot { state, busy_seen_at: None, busy_since: None, next_at: now, tries: 0, ..slot.clone() })
}

/// The mapping of the slot's instance, with the job.
async fn mapped(context: &Context<'_>, slot: &Slot, notice: &Notice) -> Result<Option<Instance>, StoreError> {
    let Some(machine) = slot.machine() else {
        return Ok(None);
    };
    let found = context.ports.store.get(&Key::Instance(machine.instance.clone())).await?;
    let Some(Item::Instance(instance)) = found else {
        return Ok(None);
    };
    if instance.job.is_some() {
        return Ok(None);
    }
    Ok(Some(Instance { job: Some(notice.job.id), repository: Some(notice.repository.clone()), ..instance }))
}

fn cause(notices: &[&Notice]) -> Cause {
    let mut deliveries: Vec<_> = notices.iter().map(|notice| notice.delivery.clone()).collect();
    deliveries.dedup();
    Cause::Deliveries(deliveries)
}

fn said(notices: &[&Notice]) -> What {
    let mut said: Vec<Said> = notices
        .iter()
        .map(|notice| Said { job: notice.job.id, action: notice.action, delivery: notice.delivery.clone() })
        .collect();
    said.dedup();
    What::Recorded { said }
}
