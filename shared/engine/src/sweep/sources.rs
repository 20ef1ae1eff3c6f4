//! Reading the three sources. A list that cannot be read to the end is left out: it is unknown, not empty.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::Pool;
use domain::ids::{InstanceId, Owner, PoolName, RunnerName, Scope};
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::boot::{ObservedReport, awaited};
use domain::policy::budget::pay;
use domain::policy::listing::{Reading, due, remember};
use domain::policy::sweep::{is_current, reclaimed_instances, unowned_instances};
use domain::state::{BootReport, Config, Instance, Item, Janitor, Key, ListState, Machine, Slot, StoredReport, Usage};
use domain::wire::ObservedInstance;
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use jiff::Timestamp;

use crate::context::{Context, MAX_CONCURRENT_POOLS};
use crate::ports::{self, StoreError};
use crate::sweep::report::Report;
use crate::table::read_and_count;

/// Pages of one list, and lists of one account, that are read at the same time.
const MAX_CONCURRENT_PAGES: usize = 8;
const MAX_CONCURRENT_LISTS: usize = 4;

/// Accounts whose lists are read at the same time.
const MAX_CONCURRENT_ACCOUNTS: usize = 16;

/// Reads GitHub's lists of runners that are due. Each account's are read on their own, so that an account whose calls hang
/// does not keep the others waiting.
pub(super) async fn list_runners(
    context: &Context<'_>,
    config: &Config,
    memory: &mut Janitor,
    report: &mut Report,
) -> BTreeMap<Scope, Reading> {
    let now = context.now();
    let budget = |owner: &Owner| context.ports.github.budget(owner);
    let mut by_account: BTreeMap<Owner, Vec<(Scope, bool)>> = BTreeMap::new();
    for scope in due(memory, &config.pools, budget, now) {
        let is_unfinished = memory.lists.get(&scope).is_some_and(|last| last.state == ListState::Unfinished);
        by_account.entry(scope.owner().clone()).or_default().push((scope, is_unfinished));
    }
    let read: Vec<Vec<_>> = stream::iter(by_account.into_values())
        .map(|scopes| {
            stream::iter(scopes)
                .map(|(scope, is_unfinished)| async move {
                    let read = read_list(context, &scope, is_unfinished).await;
                    (scope, read)
                })
                .buffer_unordered(MAX_CONCURRENT_LISTS)
                .collect()
        })
        .buffer_unordered(MAX_CONCURRENT_ACCOUNTS)
        .collect()
        .await;
    let mut readings = BTreeMap::new();
    for (scope, (reading, error)) in read.into_iter().flatten() {
        if let Some(error) = error {
            let what = format!("the runners of {scope} cannot be listed, and not all are judged: {error}");
            tracing::error!(%scope, "{what}");
            report.fail(what);
        }
        let Some(reading) = reading else { continue };
        report.unreadable += reading.unreadable();
        if reading.unreadable() > 0 {
            tracing::error!(%scope, "{} runners of {scope} cannot be read", reading.unreadable());
        }
        remember(memory, &scope, &reading);
        pay_for(context, memory, scope.owner(), reading.counted());
        readings.insert(scope, reading);
    }
    readings
}

/// Takes calls for lists from the account's share of its budget.
pub(super) fn pay_for(context: &Context<'_>, memory: &mut Janitor, owner: &Owner, calls: u32) {
    let budget = context.ports.github.budget(owner);
    let paid = pay(memory.paid_until.get(owner).copied(), calls, budget, context.now());
    memory.paid_until.insert(owner.clone(), paid);
}

/// Reads as many pages of a list as time allows. Returns what was read, and why not more; None if nothing was read.
async fn read_list(context: &Context<'_>, scope: &Scope, is_unfinished: bool) -> (Option<Reading>, Option<String>) {
    if context.short_of_time() {
        return (None, None);
    }
    let before = match is_unfinished {
        false => None,
        true => match context.ports.store.get(&Key::Listing(scope.clone())).await {
            Ok(Some(Item::Listing(listing))) => Some(listing),
            Ok(_) => None,
            Err(error) => return (None, Some(error.to_string())),
        },
    };
    let mut reading = Reading::new(before, context.now());
    let mut is_begun = false;
    while let Some(next) = reading.next_page()
        && !context.short_of_time()
    {
        let last = next + reading.pages_left().clamp(1, MAX_CONCURRENT_PAGES);
        let pages = (next..last).map(|page| context.ports.github.runners(scope, context.stack, page));
        for page in join_all(pages).await {
            match page {
                Ok(page) => reading.add(page),
                // The pages after this one are of no use without it.
                Err(error) => return (is_begun.then_some(reading), Some(error.to_string())),
            }
            is_begun = true;
        }
    }
    (is_begun.then_some(reading), None)
}

/// Keeps the lists that were not read to their end for the next sweep.
pub(super) async fn keep_unfinished(
    context: &Context<'_>,
    readings: &BTreeMap<Scope, Reading>,
    pools: &[(Pool, PoolView)],
    memory: &mut Janitor,
) {
    let views: BTreeMap<&PoolName, &PoolView> = pools.iter().map(|(pool, view)| (&pool.name, view)).collect();
    for (scope, reading) in readings {
        let is_used = |name: &RunnerName| views.get(&name.pool).is_some_and(|view| is_current(view, name));
        let writes = match (reading.unfinished(scope, is_used), reading.outdated()) {
            (Some(listing), _) => Transaction::new().put(listing),
            (None, Some(listing)) => Transaction::new().delete(listing.clone()),
            (None, None) => continue,
        };
        if let Err(error) = context.ports.store.commit(&writes).await {
            tracing::warn!(%scope, "the list of runners of {scope} is read again: {error}");
            memory.lists.remove(scope);
        }
    }
}

/// EC2's list of instances.
pub(super) async fn list_instances(context: &Context<'_>, report: &mut Report) -> Option<Vec<ObservedInstance>> {
    match context.ports.compute.census().await {
        Ok(machines) => Some(machines),
        Err(error) => {
            let what = format!("instances cannot be listed, and none is judged: {error}");
            tracing::error!("{what}");
            report.fail(what);
            None
        }
    }
}

/// The pools that can be read.
pub(super) async fn read_pools(context: &Context<'_>, config: &Config, report: &mut Report) -> Vec<(Pool, PoolView)> {
    let readings: Vec<_> = stream::iter(&config.pools)
        .map(|pool| async move { (pool, read_and_count(context, &pool.name).await) })
        .buffered(MAX_CONCURRENT_POOLS)
        .collect()
        .await;
    let mut pools = Vec::new();
    for (pool, reading) in readings {
        match reading {
            Ok((view, unreadable)) => {
                report.unreadable += unreadable;
                pools.push((pool.clone(), view));
            }
            Err(error) => {
                let what = format!("pool {} cannot be read, and is not judged: {error}", pool.name);
                tracing::error!(pool = %pool.name, "{what}");
                report.fail(what);
            }
        }
    }
    pools
}

/// The boot reports of the machines that have no runner yet. Empty if they cannot be read: then none is known to be missing.
pub(super) async fn read_reports<'a>(
    context: &Context<'_>,
    pools: &'a [(Pool, PoolView)],
    report: &mut Report,
) -> BTreeMap<InstanceId, ObservedReport> {
    let now = context.now();
    let of_pool =
        |(pool, view): &'a (Pool, PoolView)| view.slots.values().filter_map(move |slot| awaited(pool, slot, now));
    let machines = pools.iter().flat_map(of_pool);
    let machines: Vec<&Machine> = machines.collect();
    let stored = stored_reports(context, &machines).await.unwrap_or_else(|error| {
        let what = format!("the boot reports of machines cannot be read: {error}");
        tracing::warn!("{what}");
        report.fail(what);
        None
    });
    let Some(stored) = stored else { return BTreeMap::new() };
    machines.into_iter().map(|it| (it.instance.clone(), observed(stored.get(&it.instance), it, now))).collect()
}

/// What the reports table has of these machines. None if the stack has no such table.
async fn stored_reports(
    context: &Context<'_>,
    machines: &[&Machine],
) -> Result<Option<BTreeMap<InstanceId, StoredReport>>, StoreError> {
    if machines.is_empty() {
        return Ok(None);
    }
    let ids: Vec<InstanceId> = machines.iter().map(|machine| machine.instance.clone()).collect();
    context.ports.store.boot_reports(context.runner_role, &ids).await
}

fn observed(stored: Option<&StoredReport>, machine: &Machine, now: Timestamp) -> ObservedReport {
    let Machine { instance, launched_at, .. } = machine;
    let observed = ObservedReport::of(stored, *launched_at, now);
    if let ObservedReport::Unusable(why) = observed {
        tracing::warn!(%instance, "the boot report of {instance} is not used: {why}");
    }
    observed
}

/// What machines that have ended reported.
#[derive(Debug, Default)]
pub(super) struct LastReports {
    /// Their boot, of those whose slots do not have it.
    pub(super) boots: BTreeMap<InstanceId, BootReport>,
    /// What their jobs used, in a pool with `usage`.
    pub(super) usages: BTreeMap<InstanceId, Usage>,
}

/// What machines that have ended reported. If that cannot be read, their slots are closed, too.
pub(super) async fn last_reports(context: &Context<'_>, pool: &Pool, slots: &[Slot]) -> LastReports {
    let slots = slots.iter().filter(|slot| pool.usage || slot.boot.is_none());
    let machines: Vec<(&Machine, &Slot)> = slots.filter_map(|slot| Some((slot.machine()?, slot))).collect();
    let ended: Vec<&Machine> = machines.iter().map(|(machine, _)| *machine).collect();
    let stored = stored_reports(context, &ended).await.unwrap_or_else(|error| {
        tracing::warn!("slots are closed without their machines' reports, which cannot be read: {error}");
        None
    });
    let (mut last, now) = (LastReports::default(), context.now());
    let Some(stored) = stored else { return last };
    for (machine, slot) in machines {
        let (instance, stored) = (&machine.instance, stored.get(&machine.instance));
        if slot.boot.is_none() {
            last.boots.extend(observed(stored, machine, now).report().map(|boot| (instance.clone(), boot)));
        }
        let usage = stored.and_then(|stored| stored.usage.as_ref()).filter(|_| pool.usage);
        match usage.map(|text| Usage::parse(text, now.duration_since(machine.launched_at))) {
            Some(Ok(usage)) => {
                last.usages.insert(instance.clone(), usage);
            }
            Some(Err(why)) => tracing::warn!(%instance, "the usage that {instance} reports is not recorded: {why}"),
            None => {}
        }
    }
    last
}

/// The records of the instances that belong to no open slot or that EC2 has reclaimed.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub(super) readable: BTreeMap<InstanceId, Instance>,
    /// The instances whose record cannot be read.
    pub(super) unreadable: BTreeSet<InstanceId>,
}

pub(super) async fn read_instances(
    context: &Context<'_>,
    machines: &[ObservedInstance],
    pools: &[(Pool, PoolView)],
    report: &mut Report,
) -> Result<Recorded, StoreError> {
    let mut wanted: BTreeSet<InstanceId> = unowned_instances(machines, pools).into_iter().collect();
    wanted.extend(reclaimed_instances(machines).cloned());
    let keys: Vec<Key> = wanted.into_iter().map(Key::Instance).collect();
    let read =
        if keys.is_empty() { ports::Reading::default() } else { context.ports.store.get_readable(&keys).await? };
    report.unreadable += read.unreadable.len();
    let mut recorded = Recorded::default();
    for item in read.items {
        if let Item::Instance(instance) = item {
            recorded.readable.insert(instance.id.clone(), instance);
        }
    }
    for key in read.unreadable {
        if let Key::Instance(instance) = key {
            recorded.unreadable.insert(instance);
        }
    }
    Ok(recorded)
}
