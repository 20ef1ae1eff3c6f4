//! Launching the instances of a batch, and binding each to a slot.

use std::collections::BTreeSet;

use domain::config::{Pool, Tuple};
use domain::ids::InstanceId;
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::launch::{self, AfterError, Attempt, Refused};
use domain::state::{Batch, Item, Key};
use jiff::Timestamp;

use crate::context::Context;
use crate::effects::register::register_bound;
use crate::effects::{Holder, Next};
use crate::error::ReconcileError;
use crate::metrics;
use crate::ports::{ErrorClass, Launch, LaunchError};
use crate::table::{Commit, MAX_RACES, commit, commit_or_leave, read_launch, read_pool};

/// Attempts in one invocation. Enough for every tuple of a large pool to be refused.
const MAX_ATTEMPTS: usize = 32;

/// Performs the launch of that version, attempt after attempt, until instances are launched or the launch must wait.
///
/// Crash windows: before the call, the batch is in the table with its lease, and the next invocation repeats the call
/// after the lease. After the call and before the binding, the instances carry the batch's tag, and the next invocation
/// finds them by it. A repeated call has the same client token, so EC2 launches nothing twice.
pub(crate) async fn launch(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    version: u64,
    holder: Holder,
) -> Result<Next, ReconcileError> {
    let mut view = match holder {
        Holder::This => view.of_batch(version),
        // Resuming a launch depends on the whole pool.
        Holder::None => view.clone(),
    };
    let mut attempt = Attempt::First;
    if holder == Holder::None {
        let Some(batch) = view.batches.get(&version) else { return Ok(None) };
        attempt = Attempt::of(batch);
        let missing_since = batch.missing_since;
        let writes = launch::claim(pool, &view, batch, &context.turn(pool));
        if let Commit::Lost(_) = commit(context, &writes).await? {
            return Ok(None);
        }
        view.apply(&writes);
        if let Some(claimed) = view.batches.get_mut(&version) {
            claimed.missing_since = missing_since;
        }
    }
    for _ in 0..MAX_ATTEMPTS {
        let Some(batch) = view.batches.get(&version).cloned() else { return Ok(None) };
        let Some(tuple) = batch.tuple.clone() else { return Ok(Some(batch.lease.next_at)) };
        if context.short_of_time() {
            return Ok(Some(context.now()));
        }
        match run_instances(context, pool, &batch, &tuple, attempt).await {
            Outcome::Launched(instances) => return bind(context, pool, view, version, instances).await,
            Outcome::Refused(why) => match refuse(context, pool, &batch, &tuple, &why).await? {
                Some(newer) => view = newer,
                None => return Ok(None),
            },
            Outcome::Throttled(error) => return throttled(context, pool, &batch, &error).await,
            Outcome::Later(batch, error) => return put_off(context, pool, *batch, &error).await,
        }
        attempt = Attempt::First;
    }
    Ok(Some(context.now()))
}

enum Outcome {
    Launched(Vec<(InstanceId, Timestamp)>),
    Refused(Refused),
    Throttled(LaunchError),
    /// The batch to write: its attempt is due again later.
    Later(Box<Batch>, LaunchError),
}

async fn run_instances(context: &Context<'_>, pool: &Pool, batch: &Batch, tuple: &Tuple, attempt: Attempt) -> Outcome {
    let tag = batch.tag();
    let mut found = Vec::new();
    if attempt == Attempt::Repeated {
        // An earlier call may have launched although no answer arrived.
        match context.ports.compute.by_batch(&tag).await {
            Ok(seen) => found = seen.into_iter().map(|seen| (seen.id, seen.launched_at)).collect(),
            Err(error) => {
                let error = LaunchError::unanswered("LookUp", &error.to_string());
                return Outcome::Later(
                    Box::new(launch::after_failed_look_up(pool, batch, &error, context.now())),
                    error,
                );
            }
        }
        if found.len() >= batch.count as usize {
            return Outcome::Launched(found);
        }
        if batch.is_unanswered() {
            if !found.is_empty() {
                return Outcome::Launched(found);
            }
            let error = launch::no_answer(batch);
            return outcome(launch::after_empty_look_up(pool, batch, &error, context.now()), error);
        }
    }
    let within = context.longest_call();
    let call = Launch { tag, tuple: tuple.clone(), count: batch.count, within };
    let error = match context.ports.compute.launch(&call).await {
        Ok(launched) => return Outcome::Launched(launched.into_iter().map(|one| (one.id, one.launched_at)).collect()),
        // The earlier call launched these, and EC2 refuses the rest.
        Err(error) if !found.is_empty() && error.class.is_refusal() => return Outcome::Launched(found),
        Err(error) => error,
    };
    failed(context, pool, batch, attempt, error)
}

fn failed(context: &Context<'_>, pool: &Pool, batch: &Batch, attempt: Attempt, error: LaunchError) -> Outcome {
    outcome(launch::after_error(pool, batch, attempt, &error, context.now()), error)
}

fn outcome(after: AfterError, error: LaunchError) -> Outcome {
    match after {
        AfterError::Refused(why) => Outcome::Refused(why),
        AfterError::Throttled => Outcome::Throttled(error),
        AfterError::Later(batch) => Outcome::Later(batch, error),
    }
}

/// Records a definitive refusal. Returns the pool as written; None if another invocation has gone on with the batch.
async fn refuse(
    context: &Context<'_>,
    pool: &Pool,
    batch: &Batch,
    tuple: &Tuple,
    why: &Refused,
) -> Result<Option<PoolView>, ReconcileError> {
    tracing::warn!(code = why.code, %tuple, "EC2 refused {tuple}: {}: {}", why.code, why.message);
    metrics::launch_refused(pool, why);
    let writes = |view: &PoolView| launch::refused(pool, view, batch, tuple, why, &context.turn(pool));
    follow_up(context, batch, Reads::WholePool, writes).await
}

async fn throttled(
    context: &Context<'_>,
    pool: &Pool,
    batch: &Batch,
    error: &LaunchError,
) -> Result<Next, ReconcileError> {
    metrics::not_launched(pool, &error.code);
    tracing::warn!(code = error.code, "EC2 throttles launch {}", batch.tag());
    let writes = |view: &PoolView| launch::throttled(view, batch, error, context.now());
    let view = follow_up(context, batch, Reads::Launch, writes).await?;
    Ok(view.and_then(|view| view.meta.throttled.map(|throttled| throttled.until)))
}

async fn put_off(
    context: &Context<'_>,
    pool: &Pool,
    batch: Batch,
    error: &LaunchError,
) -> Result<Next, ReconcileError> {
    metrics::not_launched(pool, &error.code);
    let (next_at, tag) = (batch.lease.next_at, batch.tag());
    let code = &error.code;
    if error.class == ErrorClass::Caller {
        tracing::error!(code, "EC2 does not accept this function's credentials, launch {tag} waits: {error}");
    } else {
        tracing::warn!(code, "launch {tag} has no clear answer and is repeated at {next_at:.0}: {error}");
    }
    commit_or_leave(context, Transaction::new().put(batch)).await?;
    Ok(Some(next_at))
}

/// What is read before EC2's answer is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    WholePool,
    /// META and the batch.
    Launch,
}

/// Writes what follows from EC2's answer to the batch's present attempt, from a new reading. Returns what was read, as written;
/// None if another invocation has gone on with the batch.
async fn follow_up(
    context: &Context<'_>,
    batch: &Batch,
    reads: Reads,
    writes: impl Fn(&PoolView) -> Transaction,
) -> Result<Option<PoolView>, ReconcileError> {
    let mut lost = String::new();
    for _ in 0..MAX_RACES {
        let mut view = match reads {
            Reads::WholePool => read_pool(context, &batch.pool).await?,
            Reads::Launch => read_launch(context, batch).await?,
        };
        let is_unchanged = view.batches.get(&batch.version).is_some_and(|now| now.revision == batch.revision);
        if !is_unchanged {
            return Ok(None);
        }
        let writes = writes(&view);
        match commit(context, &writes).await? {
            Commit::Written => {
                view.apply(&writes);
                return Ok(Some(view));
            }
            Commit::Lost(what) => lost = what,
        }
    }
    Err(ReconcileError::Contention(lost))
}

/// Binds the instances and registers their runners.
///
/// The common case needs no reading: this invocation wrote the batch and its slots, and new instances have no item. The store
/// refuses the transaction if that is not so.
async fn bind(
    context: &Context<'_>,
    pool: &Pool,
    mut view: PoolView,
    version: u64,
    launched: Vec<(InstanceId, Timestamp)>,
) -> Result<Next, ReconcileError> {
    let mut lost = String::new();
    let mut taken = BTreeSet::new();
    for _ in 0..MAX_RACES {
        let Some(batch) = view.batches.get(&version) else { return Ok(None) };
        let Some(writes) = launch::bind(&view, batch, &launched, &taken, &context.turn(pool)) else { return Ok(None) };
        match commit(context, &writes).await? {
            Commit::Written => {
                metrics::launched(pool, &writes);
                view.apply(&writes);
                let unlaunched = view.batches.contains_key(&version).then(|| context.now());
                let registered = register_bound(context, pool, &view, &writes).await?;
                return Ok(unlaunched.into_iter().chain(registered).min());
            }
            Commit::Lost(what) => {
                lost = what;
                taken.extend(recorded(context, &launched).await?);
                view = read_pool(context, &pool.name).await?;
            }
        }
    }
    Err(ReconcileError::Contention(lost))
}

/// The instances that have an item already: bound by another invocation, or condemned.
async fn recorded(
    context: &Context<'_>,
    launched: &[(InstanceId, Timestamp)],
) -> Result<Vec<InstanceId>, ReconcileError> {
    let keys: Vec<Key> = launched.iter().map(|(id, _)| Key::Instance(id.clone())).collect();
    let items = context.ports.store.get_many(&keys).await?;
    Ok(items
        .into_iter()
        .filter_map(|item| match item {
            Item::Instance(instance) => Some(instance.id),
            _ => None,
        })
        .collect())
}
