//! The janitor's work: read the three sources, compare them, repair differences.
//!
//! GitHub is read first, then EC2, then the table. Every launch and registration is written to the table before it is made.
//! So an instance or a runner that is in the lists but not in the table is not simply too new.

mod actions;
mod market;
mod observe;
mod redeliver;
pub(crate) mod report;
mod search;
mod sources;
mod unrouted;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use domain::config::Pool;
use domain::ids::{InstanceId, Owner, Repository, Scope};
use domain::log::{Stream, Transaction, Turn};
use domain::policy::PoolView;
use domain::policy::listing::{RunnerList, note_quiet};
use domain::policy::retire::TagReading;
use domain::policy::search::remember;
use domain::policy::sweep::{Census, Plan, Shares, plan, shares};
use domain::state::{Config, FunctionName, Instance, Item, Janitor, Key};
use domain::wire::{ObservedInstance, StateReason};
use futures::future::{Either, join_all, select};
use futures::stream::{self, StreamExt};
use jiff::SignedDuration;

pub use self::report::Report;
use crate::accounts::Accounts;
use crate::context::{Context, MAX_CONCURRENT_POOLS};
use crate::metrics;
use crate::pools::{self, PoolsError};
use crate::ports::{CommitError, StoreError};
use crate::reconcile::reconcile;

/// What is left of an invocation when a sweep is cut off: enough to store what the next sweep needs to know.
const FAREWELL: SignedDuration = SignedDuration::from_secs(2);

/// Whether a sweep changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Repairs what it finds.
    Repair,
    /// Plans and reports only.
    DryRun,
}

/// Sweeps once, unless another sweep is under way.
///
/// # Errors
/// The janitor's lock or the configuration cannot be read, or the table's format is newer than this version supports. Every
/// other failure is counted in the report, and what could not be read is left alone.
pub async fn sweep(context: &Context<'_>, mode: Mode) -> Result<Report, PoolsError> {
    let mut report = Report::default();
    let config = match pools::read(context, FunctionName::Janitor).await {
        Ok(config) => config,
        Err(PoolsError::NotConfigured) => {
            tracing::warn!("nothing is swept: {}", PoolsError::NotConfigured);
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    // The lock is last: a sweep that returned early with the lock would keep all others out until its deadline.
    let Some(mut memory) = lock(context).await? else {
        tracing::info!("another sweep is under way");
        return Ok(report);
    };
    let accounts = Accounts::new(context);
    let shared = context.with_github(&accounts).shared_by(config.pools.len());
    let is_finished = {
        let swept = pin!(sweep_locked(&shared, &config, &mut memory, mode, &mut report));
        let time_is_up = context.ports.clock.sleep_until(context.deadline - FAREWELL);
        matches!(select(swept, time_is_up).await, Either::Left(_))
    };
    if !is_finished {
        // As after a crash: what was begun and not recorded is due again.
        let what = "the sweep is cut off: its calls took longer than its time limit allows".to_owned();
        tracing::error!("{what}");
        report.fail(what);
    }
    metrics::swept(&report);
    unlock(context, memory, &report).await;
    Ok(report)
}

async fn lock(context: &Context<'_>) -> Result<Option<Janitor>, StoreError> {
    let now = context.now();
    let before = match context.ports.store.get(&Key::Janitor).await? {
        Some(Item::Janitor(before)) => Some(before),
        _ => None,
    };
    if before.as_ref().is_some_and(|before| before.until > now) {
        return Ok(None);
    }
    let before = before.unwrap_or_default();
    let lock = Janitor {
        holder: context.request.to_owned(),
        until: context.deadline,
        unfinished_since: before.unfinished_since.or(Some(now)),
        ..before
    };
    match context.ports.store.commit(&Transaction::new().put(lock.clone())).await {
        Ok(()) => Ok(Some(Janitor { revision: lock.revision + 1, ..lock })),
        Err(CommitError::Conflict(_)) => Ok(None),
        Err(CommitError::Store(error)) => Err(error),
    }
}

/// Ends the lock, and stores what the next sweep needs to know.
async fn unlock(context: &Context<'_>, memory: Janitor, report: &Report) {
    let now = context.now();
    let memory = Janitor { until: now, unfinished_since: None, ..memory }.keep_failures(&report.failures);
    let event = report.describe(&memory.failures);
    let writes = Transaction::new().put(memory.within_limit());
    let writes = match event {
        Some(what) => writes.emit(Stream::Stack, what, &Turn { now, lease: now, cause: context.cause() }),
        None => writes,
    };
    if let Err(error) = context.ports.store.commit(&writes).await {
        // The lock expires, and the next sweep finds out again what looks wrong.
        tracing::warn!("the sweep's findings are not stored: {error}");
    }
}

async fn sweep_locked(context: &Context<'_>, config: &Config, memory: &mut Janitor, mode: Mode, report: &mut Report) {
    let shares = shares(context.now(), context.share.until);
    let readings = sources::list_runners(&context.until(shares.lists), config, memory, report).await;
    let runners: BTreeMap<Scope, RunnerList> =
        readings.iter().map(|(scope, reading)| (scope.clone(), reading.list())).collect();
    let machines = sources::list_instances(context, report).await;
    report_unknown(config, machines.as_deref().unwrap_or_default(), report);
    let pools = sources::read_pools(context, config, report).await;
    metrics::state(&pools, context.now());
    let recorded = match sources::read_instances(context, machines.as_deref().unwrap_or_default(), &pools, report).await
    {
        Ok(recorded) => recorded,
        Err(error) => {
            let what = format!("the records of instances cannot be read, and nothing is judged: {error}");
            tracing::error!("{what}");
            report.fail(what);
            reconcile_all(&context.until(shares.pools), config, report).await;
            return;
        }
    };
    let reports = sources::read_reports(context, &pools, report).await;
    let plan = plan(&Census {
        machines: machines.as_deref(),
        runners: &runners,
        pools: &pools,
        recorded: &recorded.readable,
        unreadable: &recorded.unreadable,
        suspects: &memory.suspects,
        reports: &reports,
        reporting: &memory.reporting,
        format: config.format,
        now: context.now(),
    });
    report.add_plan(&plan);
    match mode {
        Mode::DryRun => plan.reaps.iter().for_each(|reap| tracing::info!("would reap: {reap:?}")),
        Mode::Repair => {
            sources::keep_unfinished(context, &readings, &pools, memory).await;
            memory.suspects.clone_from(&plan.suspects);
            memory.reporting.clone_from(&plan.reporting);
            note_quiet(memory, &config.pools, &pools, &runners, machines.as_deref(), context.now());
            let tags = TagReading::of(machines.iter().flatten());
            let read = (pools.as_slice(), &recorded.readable, &tags);
            repair(context, config, memory, shares, read, &plan, report).await;
            let reclaimed =
                machines.iter().flatten().filter(|it| it.state_reason.as_ref().is_some_and(StateReason::is_reclaim));
            let reclaimed = reclaimed.filter_map(|machine| recorded.readable.get(&machine.id));
            market::refresh(&context.until(shares.deliveries), config, reclaimed, report).await;
        }
    }
}

/// Reports the machines of pools that are not in the table. Nothing is known about them, so they are left alone.
fn report_unknown(config: &Config, machines: &[ObservedInstance], report: &mut Report) {
    for seen in machines.iter().filter(|seen| seen.state.is_live()) {
        if let Some(batch) = seen.batch.as_ref().filter(|batch| config.pool(&batch.pool).is_none()) {
            let (id, pool) = (&seen.id, &batch.pool);
            let what = format!(
                "{id} was launched for pool {pool}, which does not exist, and is left alone: apply a file with that pool, or \
                 terminate it"
            );
            tracing::error!(instance = %id, "{what}");
            report.fail(what);
        }
    }
}

async fn repair(
    context: &Context<'_>,
    config: &Config,
    memory: &mut Janitor,
    shares: Shares,
    (pools, recorded, tags): (&[(Pool, PoolView)], &BTreeMap<InstanceId, Instance>, &TagReading),
    plan: &Plan,
    report: &mut Report,
) {
    let removing = &context.until(shares.removals);
    let pools = &observe::record_interruptions(removing, config, pools, plan, report).await;
    let closed = observe::record_and_close(removing, pools, plan, report).await;
    actions::perform_all(removing, config, recorded, tags, plan, report).await;
    reconcile_all(&context.until(shares.pools), config, report).await;
    remember_repositories(memory, pools, closed, context);
    redeliver::redeliver(&context.until(shares.deliveries), memory, report).await;
    let mut touched = unrouted::route_again(&context.until(shares.deliveries), config, memory, report).await;
    touched.extend(search::search(context, config, memory, report).await);
    for pool in touched.iter().filter_map(|pool| config.pool(pool)) {
        if context.short_of_time() {
            return;
        }
        report.failures.extend(reconcile_or_explain(context, config, pool).await);
    }
}

/// Remembers the repositories of the stack's jobs. They are searched for jobs whose webhook never came.
fn remember_repositories(
    memory: &mut Janitor,
    pools: &[(Pool, PoolView)],
    closed: BTreeSet<Repository>,
    context: &Context<'_>,
) {
    let now = context.now();
    let waiting = pools.iter().flat_map(|(_, view)| view.waiting.values().map(|job| job.repository.clone()));
    waiting.chain(closed).for_each(|repository| remember(memory, repository, now));
}

/// Reconciles every pool, which performs every effect that another invocation has left. Each account's pools are reconciled
/// on their own, so that an account whose calls hang does not keep the others waiting.
async fn reconcile_all(context: &Context<'_>, config: &Config, report: &mut Report) {
    let mut by_account: BTreeMap<&Owner, Vec<&Pool>> = BTreeMap::new();
    for pool in &config.pools {
        by_account.entry(pool.owner.owner()).or_default().push(pool);
    }
    let failures: Vec<Vec<Option<String>>> = join_all(by_account.into_values().map(|pools| {
        stream::iter(pools)
            .map(|pool| async move {
                if context.short_of_time() { None } else { reconcile_or_explain(context, config, pool).await }
            })
            .buffer_unordered(MAX_CONCURRENT_POOLS)
            .collect()
    }))
    .await;
    report.failures.extend(failures.into_iter().flatten().flatten());
}

/// Returns the failure, if there was one.
async fn reconcile_or_explain(context: &Context<'_>, config: &Config, pool: &Pool) -> Option<String> {
    let error = reconcile(context, config, pool).await.err()?;
    let what = format!("pool {} is not reconciled: {error}", pool.name);
    tracing::error!(pool = %pool.name, "{what}");
    Some(what)
}
