//! A slot that was stopped: deregister, terminate, in that order.

use domain::config::Pool;
use domain::ids::SlotId;
use domain::log::{Stream, Transaction, What};
use domain::policy::PoolView;
use domain::policy::due::backoff;
use domain::state::{Slot, SlotState, StopReason, TRUST_BUSY_FOR};
use jiff::SignedDuration;

use crate::context::Context;
use crate::effect::{Lease, Next, ReconcileError, commit_unlogged, remember_limit};
use crate::ports::{CommitError, Deregistered, GitHubError, Terminated};

/// How long EC2 may take to show a terminated machine as gone before it is told again.
const TERMINATE_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// What allows a machine's end. There is no way to [`terminate`] without one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    /// GitHub answered 204 or 404 to the deregistration.
    Deregistered,
    /// It was never left a JIT config, and the slot's stop keeps it from being left one.
    NeverConfigured,
    /// GitHub said that its job is over.
    JobDone,
    /// Older than any machine may be, whatever it does: loud.
    MaxLife,
    /// An operator said so, whatever it does, and was told what that means.
    Forced,
}

/// Performs a stop.
///
/// Crash windows: the stop stands in the table, so nobody hands over or counts on the slot any more; deregistering again
/// is answered 404, terminating again changes nothing.
pub(crate) async fn retire(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    slot: SlotId,
    lease: Lease,
) -> Result<Next, ReconcileError> {
    let Some(slot) = view.slots.get(&slot) else {
        return Ok(None);
    };
    let mut slot = slot.clone();
    if lease == Lease::Free {
        slot = Slot { tries: slot.tries + 1, next_at: context.lease(pool), ..slot };
        if !commit_unlogged(context, Transaction::new().put(slot.clone())).await? {
            return Ok(None);
        }
        slot.revision += 1;
    }
    match fence(context, pool, Box::new(slot)).await? {
        Fenced::May(slot, fence) => terminate(context, pool, *slot, fence).await,
        Fenced::Later(next) => Ok(next),
    }
}

enum Fenced {
    May(Box<Slot>, Fence),
    Later(Next),
}

async fn fence(context: &Context<'_>, pool: &Pool, slot: Box<Slot>) -> Result<Fenced, ReconcileError> {
    let why = slot.stop.as_ref().map(|stop| stop.why);
    match &slot.state {
        SlotState::Planned => Ok(Fenced::Later(None)),
        SlotState::Launched(_) => Ok(Fenced::May(slot, Fence::NeverConfigured)),
        SlotState::Done { .. } => Ok(Fenced::May(slot, Fence::JobDone)),
        SlotState::Busy { .. } if why == Some(StopReason::MaxLife) => Ok(Fenced::May(slot, Fence::MaxLife)),
        SlotState::Configured { .. } | SlotState::Online { .. } | SlotState::Busy { .. }
            if slot.unregistered_at.is_some() =>
        {
            Ok(Fenced::May(slot, Fence::Deregistered))
        }
        SlotState::Configured { runner, .. } | SlotState::Online { runner, .. } | SlotState::Busy { runner, .. } => {
            match context.ports.github.deregister(&pool.owner, runner.runner_id).await {
                Ok(Deregistered::Removed | Deregistered::AlreadyGone) => unregistered(context, pool, *slot).await,
                Ok(Deregistered::Busy) if why == Some(StopReason::MaxLife) => Ok(Fenced::May(slot, Fence::MaxLife)),
                Ok(Deregistered::Busy) if slot.stop.as_ref().is_some_and(|stop| stop.forced) => {
                    Ok(Fenced::May(slot, Fence::Forced))
                }
                Ok(Deregistered::Busy) => {
                    let now = context.now();
                    let next_at = now + TRUST_BUSY_FOR;
                    let slot = Slot { next_at, ..slot.seen_busy(now) };
                    commit_unlogged(context, Transaction::new().put(slot)).await?;
                    Ok(Fenced::Later(Some(next_at)))
                }
                Err(error) => put_off(context, pool, *slot, error).await.map(Fenced::Later),
            }
        }
    }
}

/// Writes down that GitHub knows the runner no more.
async fn unregistered(context: &Context<'_>, pool: &Pool, slot: Slot) -> Result<Fenced, ReconcileError> {
    let now = context.now();
    let mut slot = Slot { unregistered_at: Some(now), ..slot };
    let what = What::Unregistered { slot: slot.id };
    let writes = Transaction::new().put(slot.clone()).told(Stream::Pool(pool.name.clone()), context.cause(), what, now);
    match context.ports.store.commit(&writes).await {
        Ok(()) => {
            slot.revision += 1;
            Ok(Fenced::May(Box::new(slot), Fence::Deregistered))
        }
        // Somebody knows more of the slot: read again, next time.
        Err(CommitError::Conflict(_)) => Ok(Fenced::Later(Some(now))),
        Err(CommitError::Store(error)) => Err(error.into()),
    }
}

async fn put_off(context: &Context<'_>, pool: &Pool, slot: Slot, error: GitHubError) -> Result<Next, ReconcileError> {
    tracing::warn!(pool.name = %pool.name, slot.id = %slot.id, "slot {} cannot be retired yet: {error}", slot.id);
    let next_at = match &error {
        GitHubError::Limited { until, .. } => {
            remember_limit(context, pool, *until, &error).await?;
            *until
        }
        GitHubError::NameTaken
        | GitHubError::Denied(_)
        | GitHubError::Refused(_)
        | GitHubError::Unavailable { .. }
        | GitHubError::SecretUnreadable { .. }
        | GitHubError::SecretUnusable(_) => context.now() + backoff(pool, slot.tries, &slot.id.to_string()),
    };
    commit_unlogged(context, Transaction::new().put(Slot { next_at, ..slot })).await?;
    Ok(Some(next_at))
}

/// Ends a slot's machine, which `fence` allows. Whether it is gone is for EC2 to show.
pub(crate) async fn terminate(
    context: &Context<'_>,
    pool: &Pool,
    slot: Slot,
    fence: Fence,
) -> Result<Next, ReconcileError> {
    let Some(machine) = slot.machine() else {
        return Ok(None);
    };
    let instance = machine.instance.clone();
    let next_at = match context.ports.compute.terminate(&instance).await {
        Ok(Terminated::Ending | Terminated::NotFound) => {
            tracing::info!(
                pool.name = %pool.name, instance.id = %instance, slot.id = %slot.id, ?fence,
                "instance {instance} is terminated: {fence:?}"
            );
            context.now() + TERMINATE_AGAIN_AFTER
        }
        Err(error) => {
            tracing::warn!(instance.id = %instance, "instance {instance} cannot be terminated yet: {error}");
            context.now() + backoff(pool, slot.tries, instance.as_str())
        }
    };
    commit_unlogged(context, Transaction::new().put(Slot { next_at, ..slot })).await?;
    Ok(Some(next_at))
}
