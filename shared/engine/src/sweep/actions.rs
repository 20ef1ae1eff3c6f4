//! Performing the removals of a sweep's plan.

use std::collections::BTreeMap;

use domain::ids::{InstanceId, Owner, PoolName, Scope, SlotId};
use domain::log::Turn;
use domain::policy::reap::{self, StopSlot};
use domain::policy::retire::{TagReading, Tags, TerminationPermit, Unheld, permit_unowned};
use domain::policy::sweep::{Plan, Reap};
use domain::state::{Condemned, Config, Instance, StopReason};
use domain::wire::{ObservedInstance, ObservedRunner};
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use tracing::{Instrument, Span};

use crate::context::Context;
use crate::effects::Holder;
use crate::effects::deregister::deregister;
use crate::effects::retire::retire;
use crate::error::ReconcileError;
use crate::ports::{Deregistered, Terminated};
use crate::sweep::report::Report;
use crate::table::{Commit, commit, commit_or_leave, read_pool};

const MAX_CONCURRENT_REAPS: usize = 8;

/// The result of one removal.
enum Outcome {
    Removed,
    AlreadyGone,
    /// Left alone: it has a job, or another invocation holds it.
    Spared,
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
    let mut by_account: BTreeMap<Option<&Owner>, Vec<&Reap>> = BTreeMap::new();
    for reap in &plan.reaps {
        by_account.entry(account(config, reap)).or_default().push(reap);
    }
    let done: Vec<Vec<_>> = join_all(by_account.into_values().map(|reaps| {
        stream::iter(reaps)
            .map(|reap| async move {
                if context.short_of_time() {
                    return (reap, Ok(Outcome::Spared));
                }
                (reap, perform(context, config, (recorded, tags), reap).instrument(reap_span(reap)).await)
            })
            .buffer_unordered(MAX_CONCURRENT_REAPS)
            .collect()
    }))
    .await;
    for (reap, done) in done.into_iter().flatten() {
        match done {
            Ok(Outcome::Removed) => *report.reaped.entry(reap.reason()).or_default() += 1,
            Ok(Outcome::AlreadyGone) => report.already_gone += 1,
            Ok(Outcome::Spared) => {}
            Err(error) => {
                let what = format!("{} ({}) is not removed: {error}", subject(reap), reap.reason());
                reap_span(reap).in_scope(|| tracing::warn!("{what}"));
                report.fail(what);
            }
        }
    }
}

/// The account whose runners the removal concerns.
fn account<'a>(config: &'a Config, reap: &'a Reap) -> Option<&'a Owner> {
    let of_pool = |name: &PoolName| config.pool(name).map(|pool| pool.owner.owner());
    match reap {
        Reap::Stop(pool, ..) => of_pool(pool),
        Reap::Condemn { machine, .. } | Reap::Adopt(machine) => {
            machine.batch.as_ref().and_then(|batch| of_pool(&batch.pool))
        }
        Reap::Deregister(scope, _) => Some(scope.owner()),
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

async fn perform(
    context: &Context<'_>,
    config: &Config,
    (recorded, tags): (&BTreeMap<InstanceId, Instance>, &TagReading),
    reap: &Reap,
) -> Result<Outcome, ReconcileError> {
    match reap {
        Reap::Stop(pool, slot, why) => stop(context, config, tags, pool, *slot, *why).await,
        Reap::Condemn { machine, why, scope, runners } => {
            condemn(context, tags, machine, recorded.get(&machine.id), *why, (scope, runners)).await
        }
        Reap::Adopt(machine) => adopt(context, machine, recorded.get(&machine.id)).await,
        Reap::Deregister(scope, runner) => deregister_stale(context, scope, runner).await,
    }
}

/// Claims a slot, then retires it.
async fn stop(
    context: &Context<'_>,
    config: &Config,
    tags: &TagReading,
    pool: &PoolName,
    slot: SlotId,
    why: StopReason,
) -> Result<Outcome, ReconcileError> {
    let Some(pool) = config.pool(pool) else { return Ok(Outcome::Spared) };
    let mut view = read_pool(context, &pool.name).await?;
    let writes = match reap::stop_slot(pool, &view, slot, why, &context.turn(pool)) {
        StopSlot::AlreadyGone => return Ok(Outcome::AlreadyGone),
        StopSlot::Spare => return Ok(Outcome::Spared),
        StopSlot::Claim(writes) => writes,
    };
    if let Commit::Lost(_) = commit(context, &writes).await? {
        return Ok(Outcome::Spared);
    }
    view.apply(&writes);
    let retired = retire(context, pool, &view, tags, &[(slot, Holder::This)]).await;
    retired.failed.into_iter().next().map_or(Ok(Outcome::Removed), Err)
}

/// Removes an instance that belongs to no slot. After the claim it cannot be bound, and after the deregistrations it cannot
/// receive a job. Only then it is terminated.
async fn condemn(
    context: &Context<'_>,
    tags: &TagReading,
    machine: &ObservedInstance,
    recorded: Option<&Instance>,
    why: Condemned,
    runners: (&Scope, &[ObservedRunner]),
) -> Result<Outcome, ReconcileError> {
    let Tags::Free(unheld) = tags.of_machine(&machine.id) else { return Ok(Outcome::Spared) };
    if let Some(writes) = reap::condemn(machine, recorded, why, &turn(context))
        && let Commit::Lost(_) = commit(context, &writes).await?
    {
        return Ok(Outcome::Spared);
    }
    let Some(permit) = deregister_all(context, &unheld, machine, why, runners).await? else {
        return Ok(Outcome::Spared);
    };
    match context.ports.compute.terminate(&permit).await {
        Ok(Terminated::Ending) => Ok(Outcome::Removed),
        Ok(Terminated::NotFound) => Ok(Outcome::AlreadyGone),
        Err(error) => Err(error.into()),
    }
}

/// Deregisters the runners that may run on the instance. None if one of them may have a job.
async fn deregister_all(
    context: &Context<'_>,
    unheld: &Unheld,
    machine: &ObservedInstance,
    why: Condemned,
    (scope, runners): (&Scope, &[ObservedRunner]),
) -> Result<Option<TerminationPermit>, ReconcileError> {
    let mut answers = Vec::new();
    for ObservedRunner { id: runner, name, .. } in runners {
        let answer = deregister(context, scope, *runner, name).await;
        answers.push(answer.as_ref().ok().copied());
        if permit_unowned(unheld, why, &answers).is_some() {
            if let Err(error) = &answer {
                tracing::warn!(runner_id = %runner, "runner {runner} cannot be deregistered: {error}");
            }
            continue;
        }
        answer?;
        tracing::error!(
            instance = %machine.id, runner_id = %runner,
            "instance {} belongs to no slot, but may have a job: left alone", machine.id
        );
        return Ok(None);
    }
    Ok(permit_unowned(unheld, why, &answers))
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
