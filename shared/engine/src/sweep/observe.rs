//! Recording what EC2 and GitHub show about the slots, and closing those whose machine and registration are gone.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use domain::config::Pool;
use domain::ids::{InstanceId, Repository, SlotId};
use domain::policy::PoolView;
use domain::policy::close::{Ended, close, console_tail, wants_console};
use domain::policy::early_end::can_close;
use domain::policy::observe::{Observation, over_after, record_observations};
use domain::policy::retire::Deregistration;
use domain::policy::sweep::Plan;
use domain::state::{Config, Instance, Item, Key, Runner, Slot};
use domain::wire::{InstanceChange, StateReason};

use crate::context::Context;
use crate::effects::deregister::deregister;
use crate::error::ReconcileError;
use crate::instance_change::instance_changed;
use crate::metrics;
use crate::sweep::report::Report;
use crate::sweep::sources::{LastReports, last_reports};
use crate::table::{Commit, commit, read_pool};

/// With an instance, a runner and a waiting job per slot, META and the event, 98 of the 100 writes that DynamoDB allows.
const SLOTS_PER_WRITE: usize = 24;

/// The number of lost races after which slots are left to the next sweep.
const MAX_RACES: usize = 4;

/// Records the interruptions that only EC2's list shows, as if a notice had reported them. Returns the pools with what has
/// changed.
pub(super) async fn record_interruptions<'a>(
    context: &Context<'_>,
    config: &Config,
    pools: &'a [(Pool, PoolView)],
    plan: &Plan,
    report: &mut Report,
) -> Cow<'a, [(Pool, PoolView)]> {
    let mut changed = BTreeSet::new();
    for instance in &plan.interrupted {
        if context.short_of_time() {
            break;
        }
        match instance_changed(context, config, instance, InstanceChange::Interrupted(None)).await {
            Ok(pool) => changed.extend(pool),
            Err(error) => {
                let what = format!("the interruption of instance {instance} is not recorded: {error}");
                tracing::warn!(%instance, "{what}");
                report.fail(what);
            }
        }
    }
    if changed.is_empty() {
        return Cow::Borrowed(pools);
    }
    let mut pools = pools.to_vec();
    for (pool, view) in pools.iter_mut().filter(|(pool, _)| changed.contains(&pool.name)) {
        // Otherwise the writes about the pool's slots lose their race, and are made by the next sweep.
        if let Ok(read) = read_pool(context, &pool.name).await {
            *view = read;
        }
    }
    Cow::Owned(pools)
}

/// Returns the repositories whose jobs the closed slots ran.
pub(super) async fn record_and_close(
    context: &Context<'_>,
    pools: &[(Pool, PoolView)],
    plan: &Plan,
    report: &mut Report,
) -> BTreeSet<Repository> {
    let mut closed = BTreeSet::new();
    for (pool, view) in pools {
        let mut view = view.clone();
        let observations = plan.observations.get(&pool.name).map(Vec::as_slice).unwrap_or_default();
        let (reasons, now) = (plan.reasons.as_ref(), context.now());
        let mut over: BTreeMap<SlotId, Slot> = BTreeMap::new();
        for chunk in observations.chunks(SLOTS_PER_WRITE) {
            match observe(context, pool, &mut view, chunk, reasons).await {
                Ok(slots) => over.extend(slots.into_iter().map(|slot| (slot.id, slot))),
                Err(error) => {
                    let what = format!("pool {}: observations are not recorded: {error}", pool.name);
                    tracing::warn!(pool = %pool.name, "{what}");
                    report.fail(what);
                }
            }
        }
        for slot in view.slots.values().filter(|slot| slot.is_over() && can_close(pool, &view, slot, reasons, now)) {
            over.entry(slot.id).or_insert_with(|| slot.clone());
        }
        let over: Vec<Slot> = over.into_values().collect();
        for chunk in over.chunks(SLOTS_PER_WRITE) {
            match close_slots(context, pool, &mut view, chunk, reasons).await {
                Ok(repositories) => closed.extend(repositories),
                Err(error) => {
                    let what = format!("pool {}: slots are not closed: {error}", pool.name);
                    tracing::warn!(pool = %pool.name, "{what}");
                    report.fail(what);
                }
            }
        }
    }
    closed
}

/// Returns the slots that can be closed now. What was observed about them is not written: they are about to be deleted.
async fn observe(
    context: &Context<'_>,
    pool: &Pool,
    view: &mut PoolView,
    observations: &[Observation],
    reasons: Option<&BTreeMap<InstanceId, StateReason>>,
) -> Result<Vec<Slot>, ReconcileError> {
    let turn = context.turn(pool);
    let mut resolved = Vec::new();
    for observation in observations {
        match observation {
            Observation::LeftRegistered(slot, runner) => {
                if !context.short_of_time() && deregister_left(context, pool, runner).await {
                    resolved.push(Observation::Unregistered(*slot));
                }
            }
            other => resolved.push(other.clone()),
        }
    }
    let mut over = over_after(pool, view, &resolved, &turn);
    over.retain(|slot| can_close(pool, view, slot, reasons, turn.now));
    resolved.retain(|observation| over.iter().all(|slot| slot.id != observation.slot()));
    for is_last in [false, true] {
        let Some(writes) = record_observations(pool, view, &resolved, &turn) else { break };
        match commit(context, &writes).await? {
            Commit::Written => {
                metrics::observed(view, &writes);
                view.apply(&writes);
                break;
            }
            // One slot that a webhook has changed must not lose the observations of all others.
            Commit::Lost(_) if !is_last => *view = read_pool(context, &pool.name).await?,
            Commit::Lost(what) => tracing::info!(pool = %pool.name, "the next sweep records what this one saw: {what}"),
        }
    }
    Ok(over)
}

/// Deregisters the runner of a machine that has ended. Returns whether it is deregistered now.
async fn deregister_left(context: &Context<'_>, pool: &Pool, left: &Runner) -> bool {
    let runner = left.runner_id;
    match deregister(context, &pool.owner, runner, &left.runner_name).await {
        Ok(Deregistration::Confirmed(_)) => true,
        // GitHub has not noticed yet that the machine has ended, or does not show the scope any more.
        Ok(Deregistration::Busy | Deregistration::Unproven) => false,
        Err(error) => {
            tracing::warn!(runner_id = %runner, "runner {runner} cannot be deregistered yet: {error}");
            false
        }
    }
}

async fn close_slots(
    context: &Context<'_>,
    pool: &Pool,
    view: &mut PoolView,
    slots: &[Slot],
    reasons: Option<&BTreeMap<InstanceId, StateReason>>,
) -> Result<BTreeSet<Repository>, ReconcileError> {
    let turn = context.turn(pool);
    let keys: Vec<Key> =
        slots.iter().filter_map(|slot| Some(Key::Instance(slot.machine()?.instance.clone()))).collect();
    let read = context.ports.store.get_readable(&keys).await?;
    // The slot of an unreadable mapping stays open, so that the mapping is closed with it once it can be read.
    let slots: Vec<Slot> = slots.iter().filter(|slot| !is_mapped(slot, &read.unreadable)).cloned().collect();
    let slots = slots.as_slice();
    if slots.is_empty() {
        return Ok(BTreeSet::new());
    }
    let instances: Vec<Instance> = read
        .items
        .into_iter()
        .filter_map(|item| match item {
            Item::Instance(instance) => Some(instance),
            _ => None,
        })
        .collect();
    let consoles = read_consoles(context, slots, &instances).await;
    let LastReports { boots, usages } = last_reports(context, pool, slots).await;
    let mut repositories = BTreeSet::new();
    for _ in 0..MAX_RACES {
        let ended = Ended {
            instances: instances.clone(),
            consoles: consoles.clone(),
            reports: boots.clone(),
            usages: usages.clone(),
            reasons,
        };
        let closing = close(pool, view, slots, ended, context.rates, &turn);
        repositories = closing.repositories;
        if commit(context, &closing.writes).await? == Commit::Written {
            view.apply(&closing.writes);
            slots.iter().for_each(|slot| metrics::slot_closed(slot, closing.costs.get(&slot.id).copied(), turn.now));
            for slot in slots {
                let instance = slot.machine().map(|machine| &machine.instance);
                metrics::booted(slot, instance.and_then(|it| boots.get(it)));
                metrics::used(slot, instance.and_then(|it| usages.get(it)));
            }
            break;
        }
        // META changes with every decision, and failures are counted in it.
        *view = read_pool(context, &pool.name).await?;
    }
    Ok(repositories)
}

/// Whether the mapping of the slot's instance is one of these items.
fn is_mapped(slot: &Slot, items: &[Key]) -> bool {
    slot.machine().is_some_and(|machine| items.contains(&Key::Instance(machine.instance.clone())))
}

/// The ends of the consoles of machines that ended abnormally. If one cannot be read, the slot is closed without it.
async fn read_consoles(context: &Context<'_>, slots: &[Slot], instances: &[Instance]) -> BTreeMap<InstanceId, String> {
    let abnormal: BTreeSet<&InstanceId> = slots
        .iter()
        .filter(|slot| wants_console(slot))
        .filter_map(|slot| slot.machine().map(|machine| &machine.instance))
        .collect();
    let mut consoles = BTreeMap::new();
    for id in instances.iter().map(|instance| &instance.id).filter(|id| abnormal.contains(id)) {
        if context.short_of_time() {
            break;
        }
        match context.ports.compute.console(id).await {
            Ok(console) => {
                consoles.extend(console.and_then(|console| console_tail(&console)).map(|tail| (id.clone(), tail)));
            }
            Err(error) => tracing::warn!(instance = %id, "the console of instance {id} cannot be read: {error}"),
        }
    }
    consoles
}
