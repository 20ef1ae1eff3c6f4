//! Performing the removals of a sweep's plan.

use std::collections::BTreeMap;

use domain::config::Pool;
use domain::ids::{InstanceId, Owner, PoolName, Scope, SlotId};
use domain::log::Turn;
use domain::policy::PoolView;
use domain::policy::reap::{self, StopSlot};
use domain::policy::retire::{Deregistration, TagReading, Tags, TerminationPermit, Unheld, permit_unowned};
use domain::policy::sweep::{Plan, Reap};
use domain::state::{Condemned, Config, Instance, StopReason};
use domain::wire::{ObservedInstance, ObservedRunner};
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use tracing::{Instrument, Span};

use crate::context::Context;
use crate::effects::Holder;
use crate::effects::deregister::deregister;
use crate::effects::retire::{RETIRED_TOGETHER, retire};
use crate::error::ReconcileError;
use crate::ports::{Deregistered, Terminated};
use crate::sweep::report::Report;
use crate::table::{Commit, commit, commit_or_leave, read_pool};

const MAX_CONCURRENT_REMOVALS: usize = 8;

/// Concurrent calls for the machines of one launch, and concurrent groups of slots of one pool.
const MAX_CONCURRENT_OF_ONE: usize = 4;

/// The result of one removal.
enum Outcome {
    Removed,
    AlreadyGone,
    /// Left alone: it has a job, or another invocation holds it.
    Spared,
}

/// The reason of a removal with its result, or a sentence about what is not removed.
type Done = Result<(&'static str, Outcome), String>;

/// Removals that share calls.
enum Removal<'a> {
    /// Slots of one pool.
    Stop(&'a PoolName, Vec<Stop<'a>>),
    /// Machines of one launch. Any of its runners may run on any of them.
    Condemn(&'a Scope, &'a [ObservedRunner], Vec<Unowned<'a>>),
    Adopt(&'a Reap, &'a ObservedInstance),
    Deregister(&'a Reap, &'a Scope, &'a ObservedRunner),
}

struct Stop<'a> {
    reap: &'a Reap,
    slot: SlotId,
    why: StopReason,
}

struct Unowned<'a> {
    reap: &'a Reap,
    machine: &'a ObservedInstance,
    why: Condemned,
}

/// The removals, each account's on their own.
fn by_account<'a>(config: &'a Config, plan: &'a Plan) -> Vec<Vec<Removal<'a>>> {
    let mut stopped: BTreeMap<&PoolName, Vec<Stop<'_>>> = BTreeMap::new();
    let mut condemned: BTreeMap<_, (&Scope, &[ObservedRunner], Vec<Unowned<'_>>)> = BTreeMap::new();
    let mut removals = Vec::new();
    for reap in &plan.reaps {
        match reap {
            Reap::Stop(pool, slot, why) => {
                stopped.entry(pool).or_default().push(Stop { reap, slot: *slot, why: *why });
            }
            Reap::Condemn { machine, why, scope, runners } => {
                // The attempts of a launch share its runners' names.
                let launch = machine.batch.as_ref().map(|batch| (&batch.pool, &batch.epoch, batch.version));
                let (.., machines) = condemned.entry(launch).or_insert((scope, runners.as_slice(), Vec::new()));
                machines.push(Unowned { reap, machine, why: *why });
            }
            Reap::Adopt(machine) => removals.push(Removal::Adopt(reap, machine)),
            Reap::Deregister(scope, runner) => removals.push(Removal::Deregister(reap, scope, runner)),
        }
    }
    removals.extend(stopped.into_iter().map(|(pool, stops)| Removal::Stop(pool, stops)));
    removals
        .extend(condemned.into_values().map(|(scope, runners, machines)| Removal::Condemn(scope, runners, machines)));
    let of_pool = |name: &PoolName| config.pool(name).map(|pool| pool.owner.owner());
    let account = |removal: &Removal<'a>| match removal {
        Removal::Stop(pool, _) => of_pool(pool),
        Removal::Condemn(scope, ..) | Removal::Deregister(_, scope, _) => Some(scope.owner()),
        Removal::Adopt(_, machine) => machine.batch.as_ref().and_then(|batch| of_pool(&batch.pool)),
    };
    let mut by_account: BTreeMap<Option<&Owner>, Vec<Removal<'a>>> = BTreeMap::new();
    for removal in removals {
        by_account.entry(account(&removal)).or_default().push(removal);
    }
    by_account.into_values().collect()
}

pub(super) async fn perform_all(
    context: &Context<'_>,
    config: &Config,
    recorded: &BTreeMap<InstanceId, Instance>,
    tags: &TagReading,
    plan: &Plan,
    report: &mut Report,
) {
    // Each account on its own, so that an account whose calls hang does not keep the others waiting.
    let done: Vec<Vec<Vec<Done>>> = join_all(by_account(config, plan).into_iter().map(|removals| {
        stream::iter(removals)
            .map(|removal| async move {
                if context.short_of_time() {
                    return Vec::new();
                }
                perform(context, config, (recorded, tags), removal).await
            })
            .buffer_unordered(MAX_CONCURRENT_REMOVALS)
            .collect()
    }))
    .await;
    for done in done.into_iter().flatten().flatten() {
        match done {
            Ok((reason, Outcome::Removed)) => *report.reaped.entry(reason).or_default() += 1,
            Ok((_, Outcome::AlreadyGone)) => report.already_gone += 1,
            Ok((_, Outcome::Spared)) => {}
            Err(what) => report.fail(what),
        }
    }
}

/// Its level is the highest, so that no configured level hides the span while lines are written.
fn reap_span(reap: &Reap) -> Span {
    match reap {
        Reap::Stop(pool, slot, _) => tracing::error_span!("effect", effect = "stop", %pool, %slot),
        Reap::Condemn { machine, .. } => tracing::error_span!("effect", effect = "condemn", instance = %machine.id),
        Reap::Adopt(machine) => tracing::error_span!("effect", effect = "adopt", instance = %machine.id),
        Reap::Deregister(_, runner) => tracing::error_span!("effect", effect = "deregister", runner = %runner.name),
    }
}

/// What the removal is about, in plain text.
fn subject(reap: &Reap) -> String {
    match reap {
        Reap::Stop(pool, slot, _) => format!("slot {slot} of pool {pool}"),
        Reap::Condemn { machine, .. } | Reap::Adopt(machine) => format!("instance {}", machine.id),
        Reap::Deregister(scope, runner) => format!("runner {} of {scope}", runner.name),
    }
}

fn done(reap: &Reap, outcome: Result<Outcome, ReconcileError>) -> Done {
    outcome.map(|outcome| (reap.reason(), outcome)).map_err(|error| not_removed(reap, &error.to_string()))
}

fn not_removed(reap: &Reap, why: &str) -> String {
    let what = format!("{} ({}) is not removed: {why}", subject(reap), reap.reason());
    reap_span(reap).in_scope(|| tracing::warn!("{what}"));
    what
}

async fn perform(
    context: &Context<'_>,
    config: &Config,
    (recorded, tags): (&BTreeMap<InstanceId, Instance>, &TagReading),
    removal: Removal<'_>,
) -> Vec<Done> {
    match removal {
        Removal::Stop(pool, stops) => match config.pool(pool) {
            Some(pool) => stop(context, tags, pool, &stops).await,
            None => Vec::new(),
        },
        Removal::Condemn(scope, runners, machines) => {
            condemn(context, (recorded, tags), (scope, runners), &machines).await
        }
        Removal::Adopt(reap, machine) => {
            let adopted = adopt(context, machine, recorded.get(&machine.id)).instrument(reap_span(reap)).await;
            vec![done(reap, adopted)]
        }
        Removal::Deregister(reap, scope, runner) => {
            vec![done(reap, deregister_stale(context, scope, runner).instrument(reap_span(reap)).await)]
        }
    }
}

/// Claims slots of a pool, then retires them. A claim may also write META, so one claim follows the other: of claims made at
/// the same time only one could be written.
async fn stop(context: &Context<'_>, tags: &TagReading, pool: &Pool, stops: &[Stop<'_>]) -> Vec<Done> {
    let mut all = Vec::new();
    let mut view = match read_pool(context, &pool.name).await {
        Ok(view) => view,
        Err(error) => return stops.iter().map(|it| Err(not_removed(it.reap, &error.to_string()))).collect(),
    };
    let mut claimed = Vec::new();
    for Stop { reap, slot, why } in stops {
        if context.short_of_time() {
            break;
        }
        match claim_stop(context, pool, &mut view, *slot, *why).instrument(reap_span(reap)).await {
            Ok(outcome) => {
                if let (Outcome::Removed, Some(lease)) = (&outcome, view.slots.get(slot).map(|slot| slot.lease)) {
                    claimed.push((*slot, lease));
                }
                all.push(Ok((reap.reason(), outcome)));
            }
            Err(error) => all.push(done(reap, Err(error))),
        }
    }
    // A later claim may have read the pool again. If clocks differ, another invocation may hold the lease by now.
    let is_held = |id, lease| view.slots.get(&id).is_some_and(|slot| slot.lease == lease);
    let held = claimed.into_iter().filter(|(id, lease)| is_held(*id, *lease));
    let held: Vec<_> = held.map(|(id, _)| (id, Holder::This)).collect();
    let retired = stream::iter(held.chunks(RETIRED_TOGETHER))
        .map(|slots| retire(context, pool, &view, tags, slots))
        .buffer_unordered(MAX_CONCURRENT_OF_ONE)
        .collect::<Vec<_>>()
        .await;
    for error in retired.into_iter().flat_map(|retired| retired.failed) {
        let what = format!("slots of pool {} are not removed: {error}", pool.name);
        tracing::warn!(pool = %pool.name, "{what}");
        all.push(Err(what));
    }
    all
}

/// Claims a slot. If another invocation has changed it or META, the pool is read again, once.
async fn claim_stop(
    context: &Context<'_>,
    pool: &Pool,
    view: &mut PoolView,
    slot: SlotId,
    why: StopReason,
) -> Result<Outcome, ReconcileError> {
    for is_last in [false, true] {
        let writes = match reap::stop_slot(pool, view, slot, why, &context.turn(pool)) {
            StopSlot::AlreadyGone => return Ok(Outcome::AlreadyGone),
            StopSlot::Spare => return Ok(Outcome::Spared),
            StopSlot::Claim(writes) => writes,
        };
        match commit(context, &writes).await? {
            Commit::Written => {
                view.apply(&writes);
                return Ok(Outcome::Removed);
            }
            Commit::Lost(_) if is_last => {}
            Commit::Lost(_) => *view = read_pool(context, &pool.name).await?,
        }
    }
    Ok(Outcome::Spared)
}

/// Removes machines of one launch that belong to no slot. After the claims none can be bound, and after the deregistrations
/// none can receive a job. Only then are they terminated. Each runner is deregistered once, and not once for each machine.
async fn condemn(
    context: &Context<'_>,
    (recorded, tags): (&BTreeMap<InstanceId, Instance>, &TagReading),
    (scope, runners): (&Scope, &[ObservedRunner]),
    machines: &[Unowned<'_>],
) -> Vec<Done> {
    let claims = stream::iter(machines)
        .map(|it| async move {
            let claimed = claim_unowned(context, recorded.get(&it.machine.id), tags, it);
            (it, claimed.instrument(reap_span(it.reap)).await)
        })
        .buffered(MAX_CONCURRENT_OF_ONE)
        .collect::<Vec<_>>()
        .await;
    let (mut all, mut claimed) = (Vec::new(), Vec::new());
    for (it, claim) in claims {
        match claim {
            Ok(Some(unheld)) => claimed.push((it, unheld)),
            Ok(None) => all.push(Ok((it.reap.reason(), Outcome::Spared))),
            Err(error) => all.push(done(it.reap, Err(error))),
        }
    }
    if claimed.is_empty() {
        return all;
    }
    let answers = deregister_all(context, scope, runners).await;
    let failed = answers.iter().find_map(|answer| answer.as_ref().err());
    let answers: Vec<Option<Deregistration>> = answers.iter().map(|answer| answer.as_ref().ok().copied()).collect();
    let ended = stream::iter(claimed)
        .map(|(it, unheld)| {
            let permit = permit_unowned(&unheld, it.why, &answers);
            let ended = async move {
                match (permit, failed) {
                    (Some(permit), _) => done(it.reap, terminate(context, &permit).await),
                    (None, Some(why)) => Err(not_removed(it.reap, why)),
                    (None, None) => {
                        let instance = &it.machine.id;
                        tracing::error!(%instance, "instance {instance} belongs to no slot, but may have a job: left alone");
                        Ok((it.reap.reason(), Outcome::Spared))
                    }
                }
            };
            ended.instrument(reap_span(it.reap))
        })
        .buffered(MAX_CONCURRENT_OF_ONE)
        .collect::<Vec<_>>()
        .await;
    all.extend(ended);
    all
}

/// None if the machine is left alone.
async fn claim_unowned(
    context: &Context<'_>,
    recorded: Option<&Instance>,
    tags: &TagReading,
    Unowned { machine, why, .. }: &Unowned<'_>,
) -> Result<Option<Unheld>, ReconcileError> {
    if context.short_of_time() {
        return Ok(None);
    }
    let Tags::Free(unheld) = tags.of_machine(&machine.id) else { return Ok(None) };
    if let Some(writes) = reap::condemn(machine, recorded, *why, &turn(context))
        && let Commit::Lost(_) = commit(context, &writes).await?
    {
        return Ok(None);
    }
    Ok(Some(unheld))
}

/// Deregisters the runners of a launch. Returns GitHub's answer for each, or why there is none.
async fn deregister_all(
    context: &Context<'_>,
    scope: &Scope,
    runners: &[ObservedRunner],
) -> Vec<Result<Deregistration, String>> {
    stream::iter(runners)
        .map(|ObservedRunner { id, name, .. }| async move {
            if context.short_of_time() {
                return Err("too little time is left to deregister its runner".to_owned());
            }
            deregister(context, scope, *id, name).await.map_err(|error| {
                tracing::warn!(runner_id = %id, "runner {id} cannot be deregistered: {error}");
                error.to_string()
            })
        })
        .buffered(MAX_CONCURRENT_OF_ONE)
        .collect()
        .await
}

async fn terminate(context: &Context<'_>, permit: &TerminationPermit) -> Result<Outcome, ReconcileError> {
    match context.ports.compute.terminate(permit).await? {
        Terminated::Ending => Ok(Outcome::Removed),
        Terminated::NotFound => Ok(Outcome::AlreadyGone),
    }
}

async fn adopt(
    context: &Context<'_>,
    machine: &ObservedInstance,
    recorded: Option<&Instance>,
) -> Result<Outcome, ReconcileError> {
    tracing::error!(instance = %machine.id, "instance {} belongs to no slot, but has a job: left alone", machine.id);
    commit_or_leave(context, reap::adopt(machine, recorded, &turn(context))).await?;
    Ok(Outcome::Spared)
}

async fn deregister_stale(
    context: &Context<'_>,
    scope: &Scope,
    runner: &ObservedRunner,
) -> Result<Outcome, ReconcileError> {
    match context.ports.github.deregister(scope, runner.id).await? {
        Deregistered::Removed => Ok(Outcome::Removed),
        Deregistered::NotFound(_) => Ok(Outcome::AlreadyGone),
        Deregistered::Busy => Ok(Outcome::Spared),
    }
}

/// The turn for a write that concerns no pool and takes no lease.
fn turn(context: &Context<'_>) -> Turn {
    let now = context.now();
    Turn { now, lease: now, cause: context.cause() }
}
