//! A batch becomes machines, and each machine a slot's.

use std::collections::BTreeSet;

use domain::config::{Pool, Tuple};
use domain::ids::InstanceId;
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::due::backoff;
use domain::policy::launch::{Refused, RefusedFor, bind, refused, resumed, throttled};
use domain::state::{Batch, Item, Key};
use jiff::Timestamp;

use crate::context::{Context, RESERVE};
use crate::effect::{Lease, Next, ReconcileError, read};
use crate::metrics;
use crate::ports::{CommitError, ErrorClass, Launch, LaunchError};
use crate::register;

/// Attempts in one invocation: the ways to launch of a large pool, all refused.
const ATTEMPTS: usize = 32;

/// Lost races read again.
const RACES: usize = 8;

/// Performs the launch of that version, attempt after attempt, as long as there are answers to go on from.
///
/// Crash windows: before the call the batch stands in the table with its lease, so whoever comes after the lease repeats
/// it; after the call and before the binding the instances carry the batch's tag, and whoever comes finds them by it; the
/// token makes even a repeated call harmless.
pub(crate) async fn launch(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    version: u64,
    lease: Lease,
) -> Result<Next, ReconcileError> {
    let mut view = view.clone();
    let mut repeated = false;
    if lease == Lease::Free {
        let tried = view.batches.get(&version).is_some_and(|batch| batch.tries > 0 && batch.tuple.is_some());
        repeated = tried;
        if !claim(context, pool, &mut view, version).await? {
            return Ok(None);
        }
    }
    for _ in 0..ATTEMPTS {
        let Some(batch) = view.batches.get(&version).cloned() else {
            return Ok(None);
        };
        let Some(tuple) = batch.tuple.clone() else {
            return Ok(Some(batch.next_at));
        };
        if context.short_of_time() {
            return Ok(Some(context.now()));
        }
        match attempt(context, pool, &batch, &tuple, repeated).await {
            Attempted::Launched(instances) => {
                return bind_and_register(context, pool, view, version, instances).await;
            }
            Attempted::Refused(why) => match refuse(context, pool, &batch, &tuple, why).await? {
                Some(fresh) => view = fresh,
                None => return Ok(None),
            },
            Attempted::Throttled(error) => {
                metrics::not_launched(pool, &error.code);
                tracing::warn!(
                    pool.name = %pool.name, batch.tag = %batch.tag(), ec2.code = error.code,
                    "launch {} is throttled", batch.tag()
                );
                let writes = |view: &PoolView| throttled(view, &batch, context.now());
                let view = follow(context, pool, &batch, writes).await?;
                return Ok(view.and_then(|view| view.meta.throttled.map(|throttled| throttled.until)));
            }
            Attempted::Unknown { next_at, missing_since, error } => {
                metrics::not_launched(pool, &error.code);
                tracing::warn!(
                    pool.name = %pool.name, batch.tag = %batch.tag(), ec2.code = error.code,
                    "launch {} stays owed: {error}", batch.tag()
                );
                put_off(context, Batch { next_at, missing_since, ..batch }).await?;
                return Ok(Some(next_at));
            }
        }
        repeated = false;
    }
    Ok(Some(context.now()))
}

/// Takes the lease of a batch that nobody works on; false if somebody was faster. One whose every way was refused chooses
/// anew.
async fn claim(context: &Context<'_>, pool: &Pool, view: &mut PoolView, version: u64) -> Result<bool, ReconcileError> {
    let Some(batch) = view.batches.get(&version) else {
        return Ok(false);
    };
    let (now, lease) = (context.now(), context.lease(pool));
    let writes = if batch.tuple.is_some() {
        Transaction::new().put(Batch { tries: batch.tries + 1, next_at: lease, ..batch.clone() })
    } else {
        resumed(pool, view, batch, context.cause(), now, lease)
    };
    match context.ports.store.commit(&writes).await {
        Ok(()) => view.apply(&writes),
        Err(CommitError::Conflict(_)) => return Ok(false),
        Err(CommitError::Store(error)) => return Err(error.into()),
    }
    Ok(true)
}

enum Attempted {
    Launched(Vec<(InstanceId, Timestamp)>),
    Refused(Refused),
    Throttled(LaunchError),
    Unknown { next_at: Timestamp, missing_since: Option<Timestamp>, error: LaunchError },
}

async fn attempt(context: &Context<'_>, pool: &Pool, batch: &Batch, tuple: &Tuple, repeated: bool) -> Attempted {
    let tag = batch.tag();
    let mut missing_since = batch.missing_since;
    let mut found = Vec::new();
    if repeated {
        // An earlier call may have launched without our hearing of it.
        match context.ports.compute.by_batch(&tag).await {
            Ok(seen) => found = seen.into_iter().map(|seen| (seen.id, seen.launched_at)).collect(),
            Err(error) => {
                let error =
                    LaunchError { class: ErrorClass::Ambiguous, code: "LookUp".to_owned(), message: error.to_string() };
                let next_at = context.now() + backoff(pool, batch.tries, &tag.to_string());
                return Attempted::Unknown { next_at, missing_since, error };
            }
        }
        if found.len() >= batch.count as usize {
            return Attempted::Launched(found);
        }
    }
    let now = context.now();
    let within = context.deadline.duration_since(now) - RESERVE / 2;
    let launch = Launch { tag: tag.clone(), tuple: tuple.clone(), count: batch.count, within };
    let error = match context.ports.compute.launch(&launch).await {
        Ok(launched) => {
            return Attempted::Launched(launched.into_iter().map(|one| (one.id, one.launched_at)).collect());
        }
        // What the look-up showed is there, whatever a repetition is answered.
        Err(_) if !found.is_empty() => return Attempted::Launched(found),
        Err(error) => error,
    };
    let now = context.now();
    let about = match error.class {
        ErrorClass::Throttled => return Attempted::Throttled(error),
        ErrorClass::Ambiguous => {
            let next_at = now + backoff(pool, batch.tries, &tag.to_string());
            return Attempted::Unknown { next_at, missing_since, error };
        }
        ErrorClass::Capacity => RefusedFor::Capacity,
        ErrorClass::Quota => RefusedFor::Quota,
        ErrorClass::Configuration => RefusedFor::Configuration,
    };
    if repeated {
        // The refusal is of this call. An earlier one, perhaps still on its way then, may have launched: only a second
        // empty look-up, a confirm gap after the first, rules that out.
        let since = *missing_since.get_or_insert(now);
        let confirmed_at = since + pool.timings.confirm_gap.duration();
        if now < confirmed_at {
            return Attempted::Unknown { next_at: confirmed_at, missing_since, error };
        }
    }
    Attempted::Refused(Refused { about, code: error.code, message: error.message })
}

/// Writes down a definitive refusal. Gives the pool as it is then; None if somebody else has gone on with the batch.
async fn refuse(
    context: &Context<'_>,
    pool: &Pool,
    batch: &Batch,
    tuple: &Tuple,
    why: Refused,
) -> Result<Option<PoolView>, ReconcileError> {
    tracing::warn!(
        pool.name = %pool.name, batch.tag = %batch.tag(), ec2.code = why.code, %tuple,
        "launch {} refused: {tuple}: {}: {}", batch.tag(), why.code, why.message
    );
    metrics::launch_refused(pool, &why.code);
    let writes = |view: &PoolView| {
        refused(pool, view, batch, tuple, why.clone(), context.cause(), context.now(), context.lease(pool))
    };
    follow(context, pool, batch, writes).await
}

/// Writes what follows from EC2's answer to the batch's present attempt, from a fresh reading of the pool. Gives the pool
/// as it is then; None if somebody else has gone on with the batch.
async fn follow(
    context: &Context<'_>,
    pool: &Pool,
    batch: &Batch,
    writes: impl Fn(&PoolView) -> Transaction,
) -> Result<Option<PoolView>, ReconcileError> {
    let mut lost = String::new();
    for _ in 0..RACES {
        let mut view = read(context, &pool.name).await?;
        let same = view.batches.get(&batch.version).is_some_and(|now| now.revision == batch.revision);
        if !same {
            return Ok(None);
        }
        let writes = writes(&view);
        match context.ports.store.commit(&writes).await {
            Ok(()) => {
                view.apply(&writes);
                return Ok(Some(view));
            }
            Err(CommitError::Conflict(what)) => lost = what,
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(ReconcileError::Races(pool.name.clone(), lost))
}

async fn put_off(context: &Context<'_>, batch: Batch) -> Result<(), ReconcileError> {
    match context.ports.store.commit(&Transaction::new().put(batch)).await {
        Ok(()) | Err(CommitError::Conflict(_)) => Ok(()),
        Err(CommitError::Store(error)) => Err(error.into()),
    }
}

/// The common case reads nothing: the batch and its slots are as this invocation wrote them, and no instance that was
/// launched a moment ago has an item. The store refuses if any of that is wrong.
async fn bind_and_register(
    context: &Context<'_>,
    pool: &Pool,
    mut view: PoolView,
    version: u64,
    launched: Vec<(InstanceId, Timestamp)>,
) -> Result<Next, ReconcileError> {
    let mut lost = String::new();
    let mut taken = BTreeSet::new();
    for _ in 0..RACES {
        let Some(batch) = view.batches.get(&version) else {
            return Ok(None);
        };
        let (now, lease) = (context.now(), context.lease(pool));
        let Some(writes) = bind(&view, batch, &launched, &taken, context.cause(), now, lease) else {
            return Ok(None);
        };
        match context.ports.store.commit(&writes).await {
            Ok(()) => {
                metrics::launched(pool, &writes);
                view.apply(&writes);
                let unlaunched = view.batches.contains_key(&version).then(|| context.now());
                let registered = register::register_bound(context, pool, &view, &writes).await?;
                return Ok(unlaunched.into_iter().chain(registered).min());
            }
            Err(CommitError::Conflict(what)) => {
                lost = what;
                let keys: Vec<Key> = launched.iter().map(|(id, _)| Key::Instance(id.clone())).collect();
                for item in context.ports.store.get_many(&keys).await? {
                    if let Item::Instance(instance) = item {
                        taken.insert(instance.id);
                    }
                }
                view = read(context, &pool.name).await?;
            }
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(ReconcileError::Races(pool.name.clone(), lost))
}
