//! A machine that waits becomes a runner.

use domain::config::Pool;
use domain::ids::{RunnerId, RunnerName, SlotId};
use domain::log::{Stream, Transaction, What};
use domain::policy::PoolView;
use domain::policy::decide::REGISTRATION_REFUSED;
use domain::policy::due::{Effect, backoff, owed};
use domain::policy::launch::open_circuit;
use domain::state::{BootItem, Circuit, Instance, Item, Key, Runner, Slot, SlotState, boot_key};
use futures::stream::{self, StreamExt};
use jiff::SignedDuration;

use crate::context::Context;
use crate::effect::{Lease, Next, ReconcileError, commit_unlogged, remember_limit};
use crate::ports::{CommitError, Deregistered, GitHubError, Registered, Registration};

/// Registrations under way at a time for one launch. GitHub allows 100 concurrent requests an installation; four
/// invocations with one full launch each stay below.
pub(crate) const MAX_CONCURRENT_REGISTRATIONS: usize = 24;

/// How long a boot item outlives its machine's longest life before DynamoDB may drop it.
const KEEP_BOOT_ITEM: SignedDuration = SignedDuration::from_hours(24);

/// Registers the runners of machines that `bound` has just bound: the items are as written there, nothing is read but how
/// long GitHub wants to be left alone.
pub(crate) async fn register_bound(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    bound: &Transaction,
) -> Result<Next, ReconcileError> {
    let mut instances = bound.puts.iter().filter_map(|item| match item.clone().next_revision() {
        Item::Instance(instance) => Some(instance),
        _ => None,
    });
    let pairs: Vec<(Slot, Instance)> = bound
        .puts
        .iter()
        .filter_map(|item| match item.clone().next_revision() {
            Item::Slot(slot) => Some(slot),
            _ => None,
        })
        .zip(instances.by_ref())
        .filter(|(slot, _)| matches!(owed(slot), Some(Effect::Register(_))))
        .collect();
    if pairs.is_empty() {
        return Ok(None);
    }
    let owner = pool.owner.owner();
    if let Some(Item::Limit(limit)) = context.ports.store.get(&Key::Limit(owner.clone())).await?
        && limit.backoff_until > context.now()
    {
        let until = limit.backoff_until;
        let waiting = pairs.into_iter().map(|(slot, _)| Slot { next_at: until, ..slot });
        commit_unlogged(context, Transaction::new().put_all(waiting)).await?;
        return Ok(Some(until));
    }
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

/// Registers one slot's runner: a retry, a recovery, or a warm machine that is wanted now.
pub(crate) async fn register_one(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    slot: SlotId,
    lease: Lease,
) -> Result<Next, ReconcileError> {
    let Some(slot) = view.slots.get(&slot) else {
        return Ok(None);
    };
    let Some(machine) = slot.machine() else {
        return Ok(None);
    };
    let mut slot = slot.clone();
    let store = context.ports.store;
    let owner = Key::Limit(pool.owner.owner().clone());
    let (mut instance, mut limit) = (None, None);
    for item in store.get_many(&[Key::Instance(machine.instance.clone()), owner]).await? {
        match item {
            Item::Instance(found) => instance = Some(found),
            Item::Limit(found) => limit = Some(found.backoff_until),
            other => return Err(ReconcileError::Unexpected(format!("{} was not asked for", other.key()))),
        }
    }
    let Some(instance) = instance else {
        return Err(ReconcileError::Unexpected(format!("{} is bound but has no item", machine.instance)));
    };
    if let Some(until) = limit.filter(|until| *until > context.now()) {
        commit_unlogged(context, Transaction::new().put(Slot { next_at: until, ..slot })).await?;
        return Ok(Some(until));
    }
    if lease == Lease::Free {
        // Another registration has another name: the last one's may be lost, but it may exist.
        slot =
            Slot { registration: slot.registration + 1, tries: slot.tries + 1, next_at: context.lease(pool), ..slot };
        if !commit_unlogged(context, Transaction::new().put(slot.clone())).await? {
            return Ok(None);
        }
        slot.revision += 1;
    }
    register(context, pool, view, slot, instance).await
}

/// Registers and hands over. The slot carries the registration's number, durable since before this call.
///
/// Crash windows: before the call nothing has happened; after it and before the hand-over there is an offline registration
/// of a name that the next try does not repeat, which can take no job and which the janitor deletes; the hand-over itself
/// is one transaction, and only if nobody has stopped the slot meanwhile.
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
    let name = RunnerName {
        stack: context.stack.clone(),
        pool: pool.name.clone(),
        epoch: view.meta.epoch.clone(),
        slot: slot.id,
        registration: slot.registration,
    };
    let registration = Registration {
        scope: pool.owner.clone(),
        name: name.clone(),
        labels: pool.labels.iter().cloned().collect(),
        group: pool.runner_group,
    };
    let registered = match context.ports.github.register(&registration).await {
        Ok(registered) => registered,
        Err(error) => return refused(context, pool, slot, &name, error).await,
    };
    let runner_id = registered.runner_id;
    match context.ports.store.commit(&hand_over(context, pool, &slot, instance, &name, registered)).await {
        Ok(()) => {
            tracing::info!(
                pool.name = %pool.name, runner.name = %name, runner.id = %runner_id,
                instance.id = slot.machine().map(|machine| machine.instance.as_str()),
                "runner {name} is handed over"
            );
            Ok(None)
        }
        Err(CommitError::Conflict(what)) => {
            tracing::info!(runner.name = %name, "runner {name} is not wanted any more: {what} has changed");
            drop_registration(context, pool, runner_id, &name).await;
            Ok(None)
        }
        Err(CommitError::Store(error)) => Err(error.into()),
    }
}

fn hand_over(
    context: &Context<'_>,
    pool: &Pool,
    slot: &Slot,
    instance: Instance,
    name: &RunnerName,
    registered: Registered,
) -> Transaction {
    let now = context.now();
    let runner = Runner { runner_id: registered.runner_id, runner_name: name.to_string(), configured_at: now };
    let machine = slot.machine().expect("only a launched slot is registered").clone();
    let key = boot_key(context.runner_role, &machine.instance);
    let max_life = pool.timings.max_life.duration();
    let boot = BootItem {
        jit_config: registered.jit_config,
        max_life_seconds: max_life.as_secs().unsigned_abs(),
        repositories: pool.repository_patterns(),
        expires_at: (now + max_life + KEEP_BOOT_ITEM).as_second(),
    };
    let instance =
        Instance { runner_id: Some(runner.runner_id), runner_name: Some(runner.runner_name.clone()), ..instance };
    let slot = Slot { state: SlotState::Configured { machine, runner }, tries: 0, next_at: now, ..slot.clone() };
    let what = What::HandedOver { slot: slot.id, runner_name: name.to_string() };
    Transaction::new().put(slot).put(instance).leave(key, boot).told(
        Stream::Pool(pool.name.clone()),
        context.cause(),
        what,
        now,
    )
}

/// GitHub refused or did not answer: the machine waits, no other is launched for it.
async fn refused(
    context: &Context<'_>,
    pool: &Pool,
    slot: Slot,
    name: &RunnerName,
    error: GitHubError,
) -> Result<Next, ReconcileError> {
    tracing::warn!(pool.name = %pool.name, runner.name = %name, "runner {name} is not registered yet: {error}");
    let now = context.now();
    let next_at = match &error {
        GitHubError::Limited { until, .. } => {
            remember_limit(context, pool, *until, &error).await?;
            *until
        }
        GitHubError::NameTaken => now,
        GitHubError::Denied(_) | GitHubError::Refused(_) | GitHubError::SecretUnusable(_) => {
            open_pools_circuit(context, pool, &error).await?;
            now + backoff(pool, slot.tries, &name.to_string())
        }
        GitHubError::Unavailable { .. } | GitHubError::SecretUnreadable { .. } => {
            now + backoff(pool, slot.tries, &name.to_string())
        }
    };
    commit_unlogged(context, Transaction::new().put(Slot { next_at, ..slot })).await?;
    Ok(Some(next_at))
}

/// No machine of the pool can be registered: what is there waits, and no more are launched for other jobs. A race that is
/// lost here is won by the next refusal.
async fn open_pools_circuit(context: &Context<'_>, pool: &Pool, error: &GitHubError) -> Result<(), ReconcileError> {
    let Some(Item::Meta(mut meta)) = context.ports.store.get(&Key::Meta(pool.name.clone())).await? else {
        return Ok(());
    };
    if meta.circuit != Circuit::Closed {
        return Ok(());
    }
    let (code, message, now) = (REGISTRATION_REFUSED.to_owned(), error.to_string(), context.now());
    open_circuit(&mut meta, pool, code.clone(), message.clone(), now);
    let stream = Stream::Pool(pool.name.clone());
    let writes = Transaction::new().put(meta);
    commit_unlogged(context, writes.told(stream, context.cause(), What::CircuitOpened { code, message }, now)).await?;
    Ok(())
}

/// A registration that nobody will use. The janitor finds it if this fails.
async fn drop_registration(context: &Context<'_>, pool: &Pool, runner: RunnerId, name: &RunnerName) {
    match context.ports.github.deregister(&pool.owner, runner).await {
        Ok(Deregistered::Removed | Deregistered::AlreadyGone | Deregistered::Busy) => {}
        Err(error) => {
            tracing::warn!(runner.name = %name, "runner {name} stays registered for the janitor: {error}")
        }
    }
}
