//! The janitor: hear the three witnesses, compare, repair.
//!
//! The witnesses are heard in this order: GitHub, EC2, the table. What EC2 or GitHub showed and the table does not know
//! *then* was not merely late: everything is written down before it is made.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::Pool;
use domain::ids::{InstanceId, PoolName, Repository, RunnerId, Scope, SlotId};
use domain::log::{Stream, Transaction, What};
use domain::policy::PoolView;
use domain::policy::decide::{BOOT_FAILURES, BOOT_FAILURES_ALLOWED};
use domain::policy::due::is_being_retired;
use domain::policy::launch::open_circuit;
use domain::policy::sweep::{Census, Observation, Plan, Reap, plan, unowned_instances};
use domain::state::{Condemned, Config, Instance, Item, Janitor, Key, Ownership, Slot, SlotState, StopReason};
use domain::wire::{ObservedInstance, ObservedRunner};
use futures::stream::{self, StreamExt};
use serde::Serialize;

use crate::context::Context;
use crate::effect::{Lease, ReconcileError, commit_unlogged, read, remember_limit};
use crate::metrics;
use crate::ports::{CommitError, Deregistered, StoreError, Terminated};
use crate::reconcile::reconcile;
use crate::recover;
use crate::retire::{Fence, retire, terminate};

/// Slots written at once: slot, its instance and the event stay below DynamoDB's hundred.
const SLOTS_PER_WRITE: usize = 45;

/// So much of a console's end is kept, in bytes: a few hundred lines, in an item that stays small.
const CONSOLE_KEPT: usize = 16 * 1024;

/// Reaps under way at a time.
const MAX_CONCURRENT_REAPS: usize = 8;

/// Pools read or reconciled at a time.
const MAX_CONCURRENT_POOLS: usize = 4;

/// What a sweep did: the janitor's answer and its one log line.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Things that should not be there.
    pub found: usize,
    /// How many of them were removed, by reason.
    pub reaped: BTreeMap<&'static str, usize>,
    /// How many went away by themselves meanwhile.
    pub already_gone: usize,
    /// Machines that an operator wants left alone.
    pub held: usize,
    /// Removals and readings that failed: the next sweep tries again.
    pub failed: usize,
    /// Which fuses blew, in words.
    pub fused: Vec<String>,
    /// Failed deliveries that GitHub was asked for once more.
    #[serde(skip_serializing_if = "is_zero")]
    pub redelivered: usize,
    /// Jobs that were found though no webhook told of them.
    #[serde(skip_serializing_if = "is_zero")]
    pub recovered: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Report {
    /// As the log tells it; None if there is nothing to tell.
    fn event(&self) -> Option<What> {
        (*self != Self::default()).then(|| What::Swept {
            found: self.found,
            reaped: self.reaped.iter().map(|(why, times)| ((*why).to_owned(), *times)).collect(),
            already_gone: self.already_gone,
            held: self.held,
            failed: self.failed,
            fused: self.fused.clone(),
            redelivered: self.redelivered,
            recovered: self.recovered,
        })
    }
}

/// Whether a sweep changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Removes what it finds.
    Repair,
    /// Plans and reports only.
    DryRun,
}

/// What became of one removal.
enum Reaped {
    Removed,
    AlreadyGone,
    /// Left alone, for a good reason: it has a job, or somebody else has it.
    Spared,
}

/// Sweeps once, unless another sweep is under way.
///
/// # Errors
/// Only if the janitor's lock or the configuration cannot be read: every other failure is counted, and its part of the
/// world left alone.
pub async fn sweep(context: &Context<'_>, mode: Mode) -> Result<Report, StoreError> {
    let mut report = Report::default();
    let Some(Item::Config(config)) = context.ports.store.get(&Key::Config).await? else {
        tracing::warn!("no pools are configured: run `drover pools apply`. Nothing is swept");
        return Ok(report);
    };
    // Only now: a sweep that ends here would keep all others out until its deadline.
    let Some(lock) = lock(context).await? else {
        tracing::info!("another sweep is under way");
        return Ok(report);
    };
    let mut memory = lock;
    sweep_locked(context, &config, &mut memory, mode, &mut report).await;
    report.reaped.iter().for_each(|(why, times)| metrics::reaped(why, *times));
    metrics::swept(report.failed, report.redelivered, report.recovered);
    let now = context.now();
    let writes = Transaction::new().put(Janitor { until: now, ..memory });
    let writes = match report.event() {
        Some(what) => writes.told(Stream::Stack, context.cause(), what, now),
        None => writes,
    };
    // Lost only if the lock is: then another sweep remembers what it sees itself.
    let _ = context.ports.store.commit(&writes).await;
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
    let fresh = Janitor::default();
    let lock = Janitor { holder: context.request.to_owned(), until: context.deadline, ..before.unwrap_or(fresh) };
    match context.ports.store.commit(&Transaction::new().put(lock.clone())).await {
        Ok(()) => Ok(Some(Janitor { revision: lock.revision + 1, ..lock })),
        Err(CommitError::Conflict(_)) => Ok(None),
        Err(CommitError::Store(error)) => Err(error),
    }
}

async fn sweep_locked(context: &Context<'_>, config: &Config, memory: &mut Janitor, mode: Mode, report: &mut Report) {
    let runners = list_runners(context, config, report).await;
    let machines = match context.ports.compute.census().await {
        Ok(machines) => Some(machines),
        Err(error) => {
            tracing::error!("EC2 could not be heard, no machine is judged: {error}");
            report.failed += 1;
            None
        }
    };
    let pools = read_pools(context, config, report).await;
    metrics::state(&pools, context.now());
    let known = match read_unowned(context, machines.as_deref().unwrap_or_default(), &pools).await {
        Ok(known) => known,
        Err(error) => {
            tracing::error!("the strangers' items could not be read, nothing is judged: {error}");
            report.failed += 1;
            reconcile_all(context, config, report).await;
            return;
        }
    };
    let plan = plan(&Census {
        machines: machines.as_deref(),
        runners: &runners,
        pools: &pools,
        known: &known,
        suspects: &memory.suspects,
        now: context.now(),
    });
    report.found = plan.reaps.len();
    report.held = plan.held;
    report.fused.clone_from(&plan.fused);
    for fuse in &plan.fused {
        tracing::error!("fuse: {fuse}");
    }
    if mode == Mode::DryRun {
        for reap in &plan.reaps {
            tracing::info!("would reap: {reap:?}");
        }
        return;
    }
    let closed = write_down(context, &pools, &plan, report).await;
    reap_all(context, config, &known, &plan, report).await;
    reconcile_all(context, config, report).await;
    memory.suspects = plan.suspects;
    let now = context.now();
    let waiting = pools.iter().flat_map(|(_, view)| view.waiting.values().map(|job| job.repository.clone()));
    for repository in waiting.chain(closed) {
        recover::remember(memory, repository, now);
    }
    recover_lost(context, config, memory, report).await;
}

/// What no webhook told: failed deliveries are asked for again, and repositories are searched.
async fn recover_lost(context: &Context<'_>, config: &Config, memory: &mut Janitor, report: &mut Report) {
    report.redelivered = recover::redeliver(context, memory).await;
    let found = recover::search(context, config, memory).await;
    report.recovered = found.recovered;
    report.failed += found.failed;
    for pool in found.touched.iter().filter_map(|pool| config.pool(pool)) {
        if context.short_of_time() {
            return;
        }
        if let Err(error) = reconcile(context, config, pool).await {
            tracing::error!(pool.name = %pool.name, "pool {} is not reconciled: {error}", pool.name);
            report.failed += 1;
        }
    }
}

/// The lists of every scope. One that cannot be read to the end is left out: it is not an empty one.
async fn list_runners(
    context: &Context<'_>,
    config: &Config,
    report: &mut Report,
) -> BTreeMap<Scope, Vec<ObservedRunner>> {
    let scopes: BTreeSet<&Scope> = config.pools.iter().map(|pool| &pool.owner).collect();
    let mut lists = BTreeMap::new();
    for scope in scopes {
        match context.ports.github.runners(scope, context.stack).await {
            Ok(list) => drop(lists.insert(scope.clone(), list)),
            Err(error) => {
                tracing::error!(%scope, "the runners of {scope} could not be listed, none is judged: {error}");
                report.failed += 1;
            }
        }
    }
    lists
}

async fn read_pools(context: &Context<'_>, config: &Config, report: &mut Report) -> Vec<(Pool, PoolView)> {
    let readings: Vec<_> = stream::iter(&config.pools)
        .map(|pool| async move { (pool, read(context, &pool.name).await) })
        .buffered(MAX_CONCURRENT_POOLS)
        .collect()
        .await;
    let mut pools = Vec::new();
    for (pool, reading) in readings {
        match reading {
            Ok(view) => pools.push((pool.clone(), view)),
            Err(error) => {
                tracing::error!(pool.name = %pool.name, "pool {} could not be read, nothing of it is judged: {error}", pool.name);
                report.failed += 1;
            }
        }
    }
    pools
}

async fn read_unowned(
    context: &Context<'_>,
    machines: &[ObservedInstance],
    pools: &[(Pool, PoolView)],
) -> Result<BTreeMap<InstanceId, Instance>, StoreError> {
    let keys: Vec<Key> = unowned_instances(machines, pools).into_iter().map(Key::Instance).collect();
    let items = if keys.is_empty() { Vec::new() } else { context.ports.store.get_many(&keys).await? };
    Ok(items
        .into_iter()
        .filter_map(|item| match item {
            Item::Instance(instance) => Some((instance.id.clone(), instance)),
            _ => None,
        })
        .collect())
}

/// Writes down what EC2 and GitHub said of the slots, and lets go of those of which nothing is left. Gives the repositories
/// whose jobs those had.
async fn write_down(
    context: &Context<'_>,
    pools: &[(Pool, PoolView)],
    plan: &Plan,
    report: &mut Report,
) -> BTreeSet<Repository> {
    let mut closed = BTreeSet::new();
    for (pool, view) in pools {
        let mut view = view.clone();
        let seen = plan.observations.get(&pool.name).map(Vec::as_slice).unwrap_or_default();
        for chunk in seen.chunks(SLOTS_PER_WRITE) {
            if let Err(error) = observe(context, pool, &mut view, chunk).await {
                tracing::warn!(pool.name = %pool.name, "pool {}: not everything could be written down: {error}", pool.name);
                report.failed += 1;
            }
        }
        let over: Vec<Slot> = view.slots.values().filter(|slot| slot.is_over()).cloned().collect();
        for chunk in over.chunks(SLOTS_PER_WRITE) {
            match close(context, pool, chunk).await {
                Ok(repositories) => closed.extend(repositories),
                Err(error) => {
                    tracing::warn!(pool.name = %pool.name, "pool {}: slots could not be closed: {error}", pool.name);
                    report.failed += 1;
                }
            }
        }
    }
    closed
}

async fn observe(
    context: &Context<'_>,
    pool: &Pool,
    view: &mut PoolView,
    seen: &[Observation],
) -> Result<(), ReconcileError> {
    let now = context.now();
    let mut changed: BTreeMap<SlotId, Slot> = BTreeMap::new();
    let (mut online, mut gone, mut unregistered) = (Vec::new(), Vec::new(), Vec::new());
    for observation in seen {
        let (Observation::Online(id)
        | Observation::Busy(id)
        | Observation::Gone(id)
        | Observation::Unregistered(id)
        | Observation::LeftRegistered(id, _)
        | Observation::Held(id)
        | Observation::Released(id)) = observation;
        let Some(slot) = changed.get(id).or_else(|| view.slots.get(id)).cloned() else { continue };
        let slot = match observation {
            Observation::Online(_) => {
                let (Some(machine), Some(runner)) = (slot.machine().cloned(), slot.runner().cloned()) else { continue };
                online.push(*id);
                Slot { state: SlotState::Online { machine, runner, online_at: now }, ..slot }
            }
            Observation::Busy(_) => slot.seen_busy(now),
            Observation::Gone(_) => {
                gone.push(*id);
                slot.gone(now)
            }
            Observation::Unregistered(_) => {
                unregistered.push(*id);
                Slot { unregistered_at: Some(now), ..slot }
            }
            Observation::LeftRegistered(_, runner) => match left_registered(context, pool, *runner).await {
                true => {
                    unregistered.push(*id);
                    Slot { unregistered_at: Some(now), ..slot }
                }
                false => continue,
            },
            Observation::Held(_) => Slot { held: true, ..slot },
            Observation::Released(_) => Slot { held: false, ..slot },
        };
        changed.insert(*id, slot);
    }
    if changed.is_empty() {
        return Ok(());
    }
    let writes = Transaction::new().put_all(changed.into_values());
    let writes = if online.is_empty() && gone.is_empty() && unregistered.is_empty() {
        writes
    } else {
        let what = What::Observed { online, gone, unregistered };
        writes.told(Stream::Pool(pool.name.clone()), context.cause(), what, now)
    };
    if commit_unlogged(context, writes.clone()).await? {
        view.apply(&writes);
    }
    Ok(())
}

/// Deregisters the runner of a machine that is no more; whether GitHub knows it no more.
async fn left_registered(context: &Context<'_>, pool: &Pool, runner: RunnerId) -> bool {
    match context.ports.github.deregister(&pool.owner, runner).await {
        Ok(Deregistered::Removed | Deregistered::AlreadyGone) => true,
        // GitHub has not noticed yet that the machine is gone.
        Ok(Deregistered::Busy) => false,
        Err(error) => {
            tracing::warn!(runner.id = %runner, "runner {runner} cannot be deregistered yet: {error}");
            if let Some((_, until)) = error.limit(pool.owner.owner()) {
                let _ = remember_limit(context, pool, until, &error).await;
            }
            false
        }
    }
}

async fn close(context: &Context<'_>, pool: &Pool, slots: &[Slot]) -> Result<BTreeSet<Repository>, ReconcileError> {
    let now = context.now();
    let keys: Vec<Key> =
        slots.iter().filter_map(|slot| Some(Key::Instance(slot.machine()?.instance.clone()))).collect();
    let mut writes = Transaction::new();
    let mut repositories = BTreeSet::new();
    let mut costs = BTreeMap::new();
    for item in context.ports.store.get_many(&keys).await? {
        let Item::Instance(instance) = item else { continue };
        repositories.extend(instance.repository.clone());
        let slot = slots.iter().find(|slot| slot.machine().is_some_and(|machine| machine.instance == instance.id));
        if let Some(slot) = slot {
            let lived = slot.gone_at.unwrap_or(now).duration_since(instance.launched_at);
            let cost = instance.instance_type.as_ref().and_then(|it| context.rates.cost(it, lived));
            costs.extend(cost.map(|cost| (slot.id, cost)));
            let console = if slot.ended().is_abnormal() { console_tail(context, &instance.id).await } else { None };
            let closed = instance.closed(slot.ended(), now);
            writes = writes.put(Instance { cost_micro_usd: cost, console, ..closed });
        }
    }
    let what = What::Closed { slots: slots.iter().map(|slot| slot.id).collect() };
    let writes = slots.iter().cloned().fold(writes, Transaction::delete);
    if commit_unlogged(context, writes.told(Stream::Pool(pool.name.clone()), context.cause(), what, now)).await? {
        slots.iter().for_each(|slot| metrics::slot_closed(slot, costs.get(&slot.id).copied(), now));
    }
    Ok(repositories)
}

/// The end of what a machine wrote to its console. Worth a try, no more: the slot is closed without it, too.
async fn console_tail(context: &Context<'_>, id: &InstanceId) -> Option<String> {
    if context.short_of_time() {
        return None;
    }
    match context.ports.compute.console(id).await {
        Ok(console) => {
            let console = console.filter(|console| !console.is_empty())?;
            let from = console.ceil_char_boundary(console.len().saturating_sub(CONSOLE_KEPT));
            Some(console[from..].to_owned())
        }
        Err(error) => {
            tracing::warn!(instance.id = %id, "what instance {id} wrote to its console is lost: {error}");
            None
        }
    }
}

async fn reap_all(
    context: &Context<'_>,
    config: &Config,
    known: &BTreeMap<InstanceId, Instance>,
    plan: &Plan,
    report: &mut Report,
) {
    let done: Vec<_> = stream::iter(&plan.reaps)
        .map(|reap| async move {
            if context.short_of_time() {
                return (reap, Ok(Reaped::Spared));
            }
            let done = match reap {
                Reap::Stop(pool, slot, why) => stop(context, config, pool, *slot, *why).await,
                Reap::Finish(pool, slot) => finish(context, config, pool, *slot).await,
                Reap::Condemn { machine, why, runners } => {
                    condemn(context, machine, known.get(&machine.id), *why, runners).await
                }
                Reap::Adopt(machine) => adopt(context, machine, known.get(&machine.id)).await,
                Reap::Deregister(scope, runner) => deregister(context, scope, runner).await,
            };
            (reap, done)
        })
        .buffer_unordered(MAX_CONCURRENT_REAPS)
        .collect()
        .await;
    for (reap, done) in done {
        match done {
            Ok(Reaped::Removed) => *report.reaped.entry(reap.reason()).or_default() += 1,
            Ok(Reaped::AlreadyGone) => report.already_gone += 1,
            Ok(Reaped::Spared) => {}
            Err(error) => {
                tracing::warn!("not reaped: {reap:?}: {error}");
                report.failed += 1;
            }
        }
    }
}

/// Stops a slot: the claim, and then its retirement. A boot failure is told to the pool in the same write.
async fn stop(
    context: &Context<'_>,
    config: &Config,
    pool: &PoolName,
    slot: SlotId,
    why: StopReason,
) -> Result<Reaped, ReconcileError> {
    let Some(pool) = config.pool(pool) else { return Ok(Reaped::Spared) };
    let mut view = read(context, &pool.name).await?;
    let Some(found) = view.slots.get(&slot).filter(|slot| slot.gone_at.is_none()) else {
        return Ok(Reaped::AlreadyGone);
    };
    let now = context.now();
    // What was judged may have moved on since: a runner that has a job by now is not stopped for having none.
    let still = match why {
        StopReason::BootFailure => matches!(found.state, SlotState::Configured { .. }) && found.stop.is_none(),
        StopReason::Disconnected => matches!(found.state, SlotState::Online { .. }) && found.stop.is_none(),
        StopReason::RunnerEnded | StopReason::Halted => found.rank() < 5 && !is_being_retired(found),
        StopReason::MaxLife => true,
        StopReason::Surplus | StopReason::Interrupted | StopReason::Recycled | StopReason::Operator => {
            found.stop.is_none()
        }
    };
    if !still {
        return Ok(Reaped::Spared);
    }
    let stopped = found.clone().stopped(why, now, context.lease(pool));
    let mut writes = Transaction::new().put(stopped);
    if why == StopReason::BootFailure {
        let mut meta = view.meta.clone();
        meta.boot_failures += 1;
        if meta.boot_failures >= BOOT_FAILURES_ALLOWED {
            let message = format!(
                "{} machines in a row never came online: look at the image, the agent's log and the network",
                meta.boot_failures
            );
            open_circuit(&mut meta, pool, BOOT_FAILURES.to_owned(), message, now);
        }
        writes = writes.put(meta);
    }
    let writes = writes.told(Stream::Pool(pool.name.clone()), context.cause(), What::Stopped { slot, why }, now);
    if !commit_unlogged(context, writes.clone()).await? {
        return Ok(Reaped::Spared);
    }
    view.apply(&writes);
    retire(context, pool, &view, slot, Lease::Held).await?;
    Ok(Reaped::Removed)
}

/// Terminates the machine of a slot whose job is done.
async fn finish(
    context: &Context<'_>,
    config: &Config,
    pool: &PoolName,
    slot: SlotId,
) -> Result<Reaped, ReconcileError> {
    let Some(pool) = config.pool(pool) else { return Ok(Reaped::Spared) };
    match context.ports.store.get(&Key::Slot(pool.name.clone(), slot)).await? {
        Some(Item::Slot(slot)) if matches!(slot.state, SlotState::Done { .. }) => {
            terminate(context, pool, slot, Fence::JobDone).await?;
            Ok(Reaped::Removed)
        }
        Some(_) => Ok(Reaped::Spared),
        None => Ok(Reaped::AlreadyGone),
    }
}

/// Removes a machine that belongs to nobody: the claim keeps it from being bound, the deregistrations keep it from being
/// given a job, and only then it ends.
async fn condemn(
    context: &Context<'_>,
    machine: &ObservedInstance,
    known: Option<&Instance>,
    why: Condemned,
    runners: &[(Scope, RunnerId)],
) -> Result<Reaped, ReconcileError> {
    let now = context.now();
    let claimed = known.is_some_and(|known| matches!(known.ownership, Ownership::Condemned { .. }));
    if !claimed {
        let item = Instance::unowned(machine, known, Ownership::Condemned { why }, now);
        let stream = item.pool.clone().map_or(Stream::Stack, Stream::Pool);
        let what = What::Condemned { instance: machine.id.clone(), why };
        let writes = claim(known, item).told(stream, context.cause(), what, now);
        if !commit_unlogged(context, writes).await? {
            return Ok(Reaped::Spared);
        }
    }
    for (scope, runner) in runners {
        match context.ports.github.deregister(scope, *runner).await {
            Ok(Deregistered::Removed | Deregistered::AlreadyGone) => {}
            Ok(Deregistered::Busy) if why == Condemned::MaxLife => {}
            Ok(Deregistered::Busy) => {
                tracing::error!(instance.id = %machine.id, runner.id = %runner, "instance {} is nobody's, but may have a job: left alone", machine.id);
                return Ok(Reaped::Spared);
            }
            Err(error) if why == Condemned::MaxLife => {
                tracing::warn!(runner.id = %runner, "runner {runner} could not be deregistered: {error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    match context.ports.compute.terminate(&machine.id).await {
        Ok(Terminated::Ending) => Ok(Reaped::Removed),
        Ok(Terminated::NotFound) => Ok(Reaped::AlreadyGone),
        Err(error) => Err(error.into()),
    }
}

/// Writes that make a machine a stranger. One whose item says that it is bound is one only if its slot is no more: the
/// pools were read before the item, and it may have been bound in between.
fn claim(known: Option<&Instance>, item: Instance) -> Transaction {
    let mut writes = Transaction::new();
    if let Some(Instance { ownership: Ownership::Bound, pool: Some(pool), slot: Some(slot), .. }) = known {
        writes.checks.push((Key::Slot(pool.clone(), *slot), 0));
    }
    writes.put(item)
}

async fn adopt(
    context: &Context<'_>,
    machine: &ObservedInstance,
    known: Option<&Instance>,
) -> Result<Reaped, ReconcileError> {
    let now = context.now();
    tracing::error!(instance.id = %machine.id, "instance {} is nobody's, but has a job: left alone", machine.id);
    let item = Instance::unowned(machine, known, Ownership::Adopted, now);
    let stream = item.pool.clone().map_or(Stream::Stack, Stream::Pool);
    let what = What::Adopted { instance: machine.id.clone() };
    commit_unlogged(context, claim(known, item).told(stream, context.cause(), what, now)).await?;
    Ok(Reaped::Spared)
}

async fn deregister(context: &Context<'_>, scope: &Scope, runner: &ObservedRunner) -> Result<Reaped, ReconcileError> {
    match context.ports.github.deregister(scope, runner.id).await {
        Ok(Deregistered::Removed) => Ok(Reaped::Removed),
        Ok(Deregistered::AlreadyGone) => Ok(Reaped::AlreadyGone),
        Ok(Deregistered::Busy) => Ok(Reaped::Spared),
        Err(error) => Err(error.into()),
    }
}

/// Every intent still open is driven on, every pool decided: the last resort of whatever was lost.
async fn reconcile_all(context: &Context<'_>, config: &Config, report: &mut Report) {
    let failed = stream::iter(&config.pools)
        .map(|pool| async move {
            if context.short_of_time() {
                return 0;
            }
            match reconcile(context, config, pool).await {
                Ok(()) => 0,
                Err(error) => {
                    tracing::error!(pool.name = %pool.name, "pool {} is not reconciled: {error}", pool.name);
                    1
                }
            }
        })
        .buffer_unordered(MAX_CONCURRENT_POOLS)
        .fold(0, |sum, failed| std::future::ready(sum + failed))
        .await;
    report.failed += failed;
}
