//! Registering the runner of a machine that waits for its JIT config.

use domain::config::{Label, Pool};
use domain::ids::{InstanceId, RunnerId, RunnerName, SlotId};
use domain::log::{Stream, Transaction, What};
use domain::policy::PoolView;
use domain::policy::due::{Effect, next_effect};
use domain::policy::register::{
    NewRunner, due_again, hand_over, labels, next_registration, registration_refused, runner_name,
};
use domain::policy::retry::{backoff, next_attempt};
use domain::policy::stopped::{AfterStartError, after_start_error, start_again_after};
use domain::state::{Instance, Item, Key, Leased, Slot, SlotState, StopReason};
use futures::stream::{self, StreamExt};

use crate::context::Context;
use crate::effects::{Holder, Next};
use crate::error::ReconcileError;
use crate::ports::{ComputeError, Deregistered, GitHubError, Registration};
use crate::table::{Commit, MAX_RACES, claim, commit, commit_or_leave};

/// Concurrent registrations of one launch, or of one round. Those of one account are bounded together, see [`crate::accounts`].
pub(crate) const MAX_CONCURRENT_REGISTRATIONS: usize = 24;

/// Registers the runners of the machines that `bound` has just bound. Its items need no reading.
pub(crate) async fn register_bound(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    bound: &Transaction,
) -> Result<Next, ReconcileError> {
    let pairs: Vec<(Slot, Instance)> = bound
        .slots()
        .zip(bound.instances())
        .filter(|(slot, _)| matches!(next_effect(slot), Some(Effect::Register(_))))
        .collect();
    register_all(context, pool, view, pairs).await
}

async fn register_all(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    pairs: Vec<(Slot, Instance)>,
) -> Result<Next, ReconcileError> {
    stream::iter(pairs)
        .map(|(slot, instance)| register(context, pool, view, slot, instance))
        .buffer_unordered(MAX_CONCURRENT_REGISTRATIONS)
        .fold(Ok(None), |soonest: Result<Next, ReconcileError>, next| {
            std::future::ready(match (soonest, next) {
                (Ok(soonest), Ok(next)) => Ok(soonest.into_iter().chain(next).min()),
                (Err(error), _) | (_, Err(error)) => Err(error),
            })
        })
        .await
}

/// Registers the runners of slots, at most `STARTED_TOGETHER`: retries, recoveries, and warm or stopped machines that are wanted now.
/// Stopped machines are started first, with one call.
pub(crate) async fn register_each(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    slots: &[(SlotId, Holder)],
) -> Result<Next, ReconcileError> {
    let claimed = stream::iter(slots).map(|(slot, holder)| claimed(context, pool, view, *slot, *holder));
    let claimed: Vec<_> = claimed.buffered(MAX_CONCURRENT_REGISTRATIONS).collect().await;
    let pairs: Vec<(Slot, Instance)> = all_but_failed(claimed).into_iter().flatten().collect();
    if context.short_of_time() {
        return Ok(Some(context.now()));
    }
    let (stopped, mut up): (Vec<_>, Vec<_>) =
        pairs.into_iter().partition(|(slot, _)| matches!(slot.state, SlotState::Started(_)));
    let (started, next) = start(context, pool, stopped).await?;
    up.extend(started);
    let registered = register_all(context, pool, view, up).await?;
    Ok(next.into_iter().chain(registered).min())
}

/// The slot, claimed, and its machine's item. None if another invocation was faster.
async fn claimed(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    slot: SlotId,
    holder: Holder,
) -> Result<Option<(Slot, Instance)>, ReconcileError> {
    let Some(slot) = view.slots.get(&slot) else { return Ok(None) };
    let Some(machine) = slot.machine() else { return Ok(None) };
    let Some(Item::Instance(instance)) = context.ports.store.get(&Key::Instance(machine.instance.clone())).await?
    else {
        return Err(ReconcileError::Unexpected(format!("{} is bound but has no item", machine.instance)));
    };
    let slot = match holder {
        Holder::This => Some(slot.clone()),
        Holder::None => claim(context, next_registration(slot.clone()), context.lease(pool)).await?,
    };
    Ok(slot.map(|slot| (slot, instance)))
}

/// A slot that fails stays due, and does not keep the others waiting.
fn all_but_failed<T>(results: Vec<Result<T, ReconcileError>>) -> Vec<T> {
    let log = |error| tracing::warn!("a registration failed and stays due: {error}");
    results.into_iter().filter_map(|result| result.map_err(log).ok()).collect()
}

/// Starts machines with one call. Returns those that EC2 starts, and when the others are due.
async fn start(
    context: &Context<'_>,
    pool: &Pool,
    stopped: Vec<(Slot, Instance)>,
) -> Result<(Vec<(Slot, Instance)>, Next), ReconcileError> {
    let ids: Vec<InstanceId> = stopped.iter().map(|(_, instance)| instance.id.clone()).collect();
    if ids.is_empty() {
        return Ok((stopped, None));
    }
    let Err(error) = context.ports.compute.start(&ids).await else { return Ok((stopped, None)) };
    let (mut started, mut next) = (Vec::new(), None);
    for (slot, instance) in stopped {
        let alone = match after_start_error(error.code.as_deref(), ids.len()) {
            AfterStartError::OneByOne => context.ports.compute.start(std::slice::from_ref(&instance.id)).await,
            AfterStartError::Again | AfterStartError::GiveUp => Err(error.clone()),
        };
        match alone {
            Ok(()) => started.push((slot, instance)),
            Err(error) => next = next.into_iter().chain(not_started(context, pool, slot, &error).await?).min(),
        }
    }
    Ok((started, next))
}

/// Registers a runner and hands its JIT config over. The number of the registration was stored in the slot before.
///
/// Crash windows: between the registration and the hand-over there is an offline registration, whose name the next attempt
/// does not repeat. It can receive no job, and the janitor deletes it. The hand-over is one transaction, and fails if the
/// slot was stopped meanwhile. A machine that was set aside has been started before, which may be repeated.
async fn register(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    slot: Slot,
    instance: Instance,
) -> Result<Next, ReconcileError> {
    if context.short_of_time() {
        return Ok(Some(context.now()));
    }
    let name = runner_name(context.stack, pool, &view.meta.epoch, &slot);
    let registration = Registration {
        scope: pool.owner.clone(),
        name: name.clone(),
        labels: labels(pool, &slot),
        group: pool.runner_group,
    };
    let registered = match context.ports.github.register(&registration).await {
        Ok(registered) => registered,
        Err(error) => return refused(context, pool, slot, &name, error).await,
    };
    let runner_id = registered.runner_id;
    let instance_id = instance.id.clone();
    let turn = context.turn(pool);
    let runner = NewRunner { name: &name, id: runner_id, jit_config: registered.jit_config };
    let Some(writes) = hand_over(pool, context.runner_role, &slot, instance, runner, &turn) else {
        return Ok(None);
    };
    match commit(context, &writes).await? {
        Commit::Written => {
            tracing::info!(runner = %name, runner_id = %runner_id, instance = %instance_id, "runner {name} is handed over to {instance_id}");
        }
        Commit::Lost(what) => {
            tracing::info!(runner = %name, "runner {name} is not handed over: {what} has changed");
            drop_registration(context, pool, runner_id, &name).await;
            return again(context, pool, &slot).await;
        }
    }
    Ok(None)
}

/// Gives up the claim of a slot whose hand-over lost its race, if the registration is still needed. Returns when it is due.
async fn again(context: &Context<'_>, pool: &Pool, lost: &Slot) -> Result<Next, ReconcileError> {
    for _ in 0..MAX_RACES {
        let key = Key::Slot(pool.name.clone(), lost.id);
        let Some(Item::Slot(found)) = context.ports.store.get(&key).await? else { return Ok(None) };
        let now = context.now();
        let Some(slot) = due_again(lost, found, now) else { return Ok(None) };
        if commit(context, &Transaction::new().put(slot)).await? == Commit::Written {
            return Ok(Some(now));
        }
    }
    Ok(None)
}

/// EC2 refused to start the machine, or did not answer. A machine that it refuses is ended, and what the pool lacks is decided
/// anew.
async fn not_started(
    context: &Context<'_>,
    pool: &Pool,
    slot: Slot,
    error: &ComputeError,
) -> Result<Next, ReconcileError> {
    tracing::warn!(slot = %slot.id, "the machine of slot {} is not started: {error}", slot.id);
    let now = context.now();
    if after_start_error(error.code.as_deref(), 1) == AfterStartError::GiveUp {
        let why = StopReason::NotReady;
        let what = What::Stopped { slot: slot.id, why };
        let writes = Transaction::new().put(slot.stopped(why, now, now));
        let writes = writes.emit(Stream::Pool(pool.name.clone()), what, &context.turn(pool));
        commit_or_leave(context, writes).await?;
        return Ok(Some(now));
    }
    let next_at = now + start_again_after(error.code.as_deref(), &slot);
    commit_or_leave(context, Transaction::new().put(slot.put_off(next_at))).await?;
    Ok(Some(next_at))
}

/// How many names of one slot may be taken before the next one waits.
const NAMES_TRIED_AT_ONCE: u32 = 3;

/// GitHub refused or did not answer. The machine waits, and no other one is launched in its place.
async fn refused(
    context: &Context<'_>,
    pool: &Pool,
    slot: Slot,
    name: &RunnerName,
    error: GitHubError,
) -> Result<Next, ReconcileError> {
    tracing::warn!(runner = %name, "runner {name} is not registered yet: {error}");
    let now = context.now();
    let next_at = match &error {
        // The next registration has another name. If several names are taken, something else is wrong.
        GitHubError::NameTaken if slot.lease.tries <= NAMES_TRIED_AT_ONCE => now,
        error => next_attempt(error.failure(), now, backoff(pool, slot.lease.tries, &name.to_string())),
    };
    if error.is_refusal() && !matches!(error, GitHubError::NameTaken) {
        open_circuit(context, pool, slot.class.as_ref(), &error).await?;
    }
    commit_or_leave(context, Transaction::new().put(slot.put_off(next_at))).await?;
    Ok(Some(next_at))
}

/// If another invocation changes META first, the next refusal opens the circuit.
async fn open_circuit(
    context: &Context<'_>,
    pool: &Pool,
    class: Option<&Label>,
    error: &GitHubError,
) -> Result<(), ReconcileError> {
    let Some(Item::Meta(meta)) = context.ports.store.get(&Key::Meta(pool.name.clone())).await? else {
        return Ok(());
    };
    match registration_refused(pool, &meta, class, error.to_string(), &context.turn(pool)) {
        Some(writes) => commit_or_leave(context, writes).await,
        None => Ok(()),
    }
}

/// Deletes a registration that no machine will use. The janitor does it if this fails.
async fn drop_registration(context: &Context<'_>, pool: &Pool, runner: RunnerId, name: &RunnerName) {
    match context.ports.github.deregister(&pool.owner, runner).await {
        Ok(Deregistered::Removed | Deregistered::NotFound(_) | Deregistered::Busy) => {}
        Err(error) => {
            tracing::warn!(runner = %name, "runner {name} stays registered until the janitor deletes it: {error}")
        }
    }
}
