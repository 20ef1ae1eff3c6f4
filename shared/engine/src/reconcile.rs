//! One pool, from what is known to what is done about it: decide until nothing is left to decide, perform what that owes
//! and whatever else is owed and leased by nobody.
//!
//! There is no other path: the first run, a retry, a redelivered message, the janitor after a crash all come through here.

use std::collections::BTreeSet;

use domain::config::Pool;
use domain::ids::PoolName;
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::decide::decide;
use domain::policy::due::{Effect, due, owed};
use domain::state::{Config, Item, Key, Nudge};
use futures::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};

use crate::context::Context;
use crate::effect::{Lease, Next, ReconcileError, read};
use crate::ports::{CommitError, StoreError};
use crate::{check, launch, register, rerun, retire, tell};

/// Effects of one pool under way at a time. GitHub allows 100 concurrent requests an installation, and a launch fans out
/// into [`register::MAX_CONCURRENT_REGISTRATIONS`] of them.
const MAX_CONCURRENT_EFFECTS: usize = 4;

/// Rounds of deciding and performing in one invocation. Each ends with nothing to decide and everything free begun; what
/// is decided in a further one follows from what EC2 and GitHub answered.
const ROUNDS: usize = 16;

/// Decisions in a row: 48 launches each. Beyond that another invocation can go on.
const DECISIONS: usize = 64;

/// What is due later than this is left to the janitor, which comes every minute.
const NUDGE_WITHIN: SignedDuration = SignedDuration::from_secs(55);

/// A nudge that is overdue by this much is lost.
const NUDGE_LOST_AFTER: SignedDuration = SignedDuration::from_mins(2);

/// Gives the pool what it needs, as far as time allows.
pub async fn reconcile(context: &Context<'_>, config: &Config, pool: &Pool) -> Result<(), ReconcileError> {
    let mut view = read(context, &pool.name).await?;
    let mut next = None;
    for round in 0..ROUNDS {
        if round > 0 {
            view = read(context, &pool.name).await?;
        }
        let mut own = BTreeSet::new();
        let undecided = decide_all(context, pool, &mut view, &mut own).await?;
        let effects: BTreeSet<Effect> =
            due(pool, &view, context.now()).into_iter().chain(own.iter().copied()).collect();
        let performed = perform_all(context, config, pool, &view, &effects, &own).await;
        next = undecided.into_iter().chain(performed).min();
        if context.short_of_time() || next.is_none_or(|at| at > context.now()) {
            break;
        }
    }
    let fates = view.slots.values().filter_map(|slot| slot.fate_known_at()).filter(|at| *at > context.now()).min();
    match next.into_iter().chain(fates).min() {
        Some(at) => nudge(context, pool, &view, at).await,
        None => Ok(()),
    }
}

/// Decides until nothing is left to decide, or time or patience is over: then there is more to do at once.
async fn decide_all(
    context: &Context<'_>,
    pool: &Pool,
    view: &mut PoolView,
    own: &mut BTreeSet<Effect>,
) -> Result<Next, ReconcileError> {
    let mut decided = 0;
    let mut fresh = true;
    while decided < DECISIONS {
        let now = context.now();
        let Some(decision) = decide(pool, view, now, context.lease(pool)) else {
            return Ok(None);
        };
        if !fresh {
            // Its version is our own doing and tells nothing of what others wrote since the reading.
            *view = read(context, &pool.name).await?;
            fresh = true;
            continue;
        }
        decided += 1;
        let launch = decision.batch.as_ref().map(|batch| Effect::Launch(batch.version));
        let slots: Vec<Effect> = decision.slots.iter().filter_map(owed).collect();
        let writes = decision.transaction(context.cause(), now);
        match context.ports.store.commit(&writes).await {
            Ok(()) => {
                view.apply(&writes);
                fresh = false;
                own.extend(launch.into_iter().chain(slots));
            }
            Err(CommitError::Conflict(_)) => *view = read(context, &pool.name).await?,
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
        if context.short_of_time() {
            break;
        }
    }
    Ok(Some(context.now()))
}

async fn perform_all(
    context: &Context<'_>,
    config: &Config,
    pool: &Pool,
    view: &PoolView,
    effects: &BTreeSet<Effect>,
    own: &BTreeSet<Effect>,
) -> Next {
    stream::iter(effects)
        .map(|effect| async move {
            if context.short_of_time() {
                return Some(context.now());
            }
            let lease = if own.contains(effect) { Lease::Held } else { Lease::Free };
            let done = match effect {
                Effect::Launch(version) => launch::launch(context, pool, view, *version, lease).await,
                Effect::Register(slot) => register::register_one(context, pool, view, *slot, lease).await,
                Effect::Retire(slot) => retire::retire(context, pool, view, *slot, lease).await,
                Effect::Check(job) => check::check(context, config, pool, view, *job).await,
                Effect::Ask(slot) => check::ask(context, config, view, *slot).await,
                Effect::Tell(job) => tell::tell(context, pool, view, *job).await,
                Effect::Rerun(job) => rerun::rerun(context, pool, view, *job).await,
            };
            done.unwrap_or_else(|error| {
                tracing::warn!(pool.name = %pool.name, ?effect, "pool {}: {effect:?} stays owed: {error}", pool.name);
                None
            })
        })
        .buffer_unordered(MAX_CONCURRENT_EFFECTS)
        .filter_map(std::future::ready)
        .fold(None, |soonest: Next, at| std::future::ready(Some(soonest.map_or(at, |soonest| soonest.min(at)))))
        .await
}

/// What falls due before the janitor comes is asked for by a message, one a pool.
async fn nudge(context: &Context<'_>, pool: &Pool, view: &PoolView, at: Timestamp) -> Result<(), ReconcileError> {
    let now = context.now();
    let due_at = at.max(now);
    let promised = view.nudge.as_ref().is_some_and(|nudge| now.duration_since(nudge.due_at) < NUDGE_LOST_AFTER);
    if promised || due_at.duration_since(now) > NUDGE_WITHIN {
        return Ok(());
    }
    let revision = view.nudge.as_ref().map_or(0, |nudge| nudge.revision);
    let nudge = Nudge { pool: pool.name.clone(), due_at, revision };
    match context.ports.store.commit(&Transaction::new().put(nudge)).await {
        Ok(()) => {}
        Err(CommitError::Conflict(_)) => return Ok(()),
        Err(CommitError::Store(error)) => return Err(error.into()),
    }
    if let Err(error) = context.ports.queue.nudge(&pool.name, due_at.duration_since(now)).await {
        // The janitor comes within a minute anyway.
        tracing::warn!(pool.name = %pool.name, "pool {}: {error}", pool.name);
    }
    Ok(())
}

/// A nudge has arrived: the next one may be sent.
pub async fn nudged(context: &Context<'_>, pool: &PoolName) -> Result<(), StoreError> {
    if let Some(Item::Nudge(nudge)) = context.ports.store.get(&Key::Nudge(pool.clone())).await? {
        match context.ports.store.commit(&Transaction::new().delete(nudge)).await {
            Ok(()) | Err(CommitError::Conflict(_)) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
    }
    Ok(())
}
