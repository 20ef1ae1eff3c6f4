//! The janitor's work: read the three sources, compare them, repair differences.
//!
//! GitHub is read first, then EC2, then the table. Every launch and registration is written to the table before it is made.
//! So an instance or a runner that is in the lists and not in the table is not just too new.

mod actions;
mod observe;
mod redeliver;
pub(crate) mod report;
mod search;
mod sources;

use std::collections::{BTreeMap, BTreeSet};

use domain::config::Pool;
use domain::ids::{InstanceId, Repository};
use domain::log::{Stream, Transaction, Turn};
use domain::policy::PoolView;
use domain::policy::search::remember;
use domain::policy::sweep::{Census, Plan, plan};
use domain::state::{Config, FunctionName, Instance, Item, Janitor, Key};
use futures::stream::{self, StreamExt};

pub use self::report::Report;
use crate::context::{Context, MAX_CONCURRENT_POOLS};
use crate::metrics;
use crate::pools::{self, PoolsError};
use crate::ports::{CommitError, StoreError};
use crate::reconcile::reconcile;

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
    pools::wake_scaler(context, &config).await?;
    // The lock is last: a sweep that returned early with the lock would keep all others out until its deadline.
    let Some(mut memory) = lock(context).await? else {
        tracing::info!("another sweep is under way");
        return Ok(report);
    };
    sweep_locked(context, &config, &mut memory, mode, &mut report).await;
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
    let writes = Transaction::new().put(memory);
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
    let runners = sources::list_runners(context, config, report).await;
    let machines = sources::list_instances(context, report).await;
    let pools = sources::read_pools(context, config, report).await;
    metrics::state(&pools, context.now());
    let recorded = match sources::read_unowned(context, machines.as_deref().unwrap_or_default(), &pools).await {
        Ok(recorded) => recorded,
        Err(error) => {
            let what = format!("the records of unowned instances cannot be read, and nothing is judged: {error}");
            tracing::error!("{what}");
            report.fail(what);
            reconcile_all(context, config, report).await;
            return;
        }
    };
    let plan = plan(&Census {
        machines: machines.as_deref(),
        runners: &runners,
        pools: &pools,
        recorded: &recorded,
        suspects: &memory.suspects,
        now: context.now(),
    });
    report.add_plan(&plan);
    match mode {
        Mode::DryRun => plan.reaps.iter().for_each(|reap| tracing::info!("would reap: {reap:?}")),
        Mode::Repair => repair(context, config, memory, &pools, &recorded, plan, report).await,
    }
}

async fn repair(
    context: &Context<'_>,
    config: &Config,
    memory: &mut Janitor,
    pools: &[(Pool, PoolView)],
    recorded: &BTreeMap<InstanceId, Instance>,
    plan: Plan,
    report: &mut Report,
) {
    let closed = observe::record_and_close(context, pools, &plan, report).await;
    actions::perform_all(context, config, recorded, &plan, report).await;
    reconcile_all(context, config, report).await;
    memory.suspects = plan.suspects;
    remember_repositories(memory, pools, closed, context);
    recover_webhooks(context, config, memory, report).await;
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

/// Finds jobs whose webhook was lost: requests failed deliveries again, and searches repositories.
async fn recover_webhooks(context: &Context<'_>, config: &Config, memory: &mut Janitor, report: &mut Report) {
    report.redelivered = redeliver::redeliver(context, memory, report).await;
    let found = search::search(context, config, memory).await;
    report.recovered = found.recovered;
    report.failures.extend(found.failures);
    for pool in found.touched.iter().filter_map(|pool| config.pool(pool)) {
        if context.short_of_time() {
            return;
        }
        report.failures.extend(reconcile_or_explain(context, config, pool).await);
    }
}

/// Reconciles every pool, which performs every effect that another invocation has left.
async fn reconcile_all(context: &Context<'_>, config: &Config, report: &mut Report) {
    let failures: Vec<Option<String>> = stream::iter(&config.pools)
        .map(|pool| async move {
            if context.short_of_time() { None } else { reconcile_or_explain(context, config, pool).await }
        })
        .buffer_unordered(MAX_CONCURRENT_POOLS)
        .collect()
        .await;
    report.failures.extend(failures.into_iter().flatten());
}

/// Returns the failure, if there was one.
async fn reconcile_or_explain(context: &Context<'_>, config: &Config, pool: &Pool) -> Option<String> {
    let error = reconcile(context, config, pool).await.err()?;
    let what = format!("pool {} is not reconciled: {error}", pool.name);
    tracing::error!(pool = %pool.name, "{what}");
    Some(what)
}
