//! Retiring a slot that was stopped: deregister, then terminate.

use domain::config::Pool;
use domain::ids::SlotId;
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::retire::{AfterDeregistration, RetireStep, TerminationPermit, after_deregistration, next_step};
use domain::policy::retry::{backoff, next_attempt};
use domain::state::{Leased, Slot};
use jiff::SignedDuration;

use crate::context::Context;
use crate::effects::{Holder, Next};
use crate::error::ReconcileError;
use crate::ports::{GitHubError, Terminated};
use crate::table::{Commit, claim, commit, commit_or_leave, record_limit};

/// A terminated machine that EC2 still lists after this time is terminated again.
const TERMINATE_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// Retires a stopped slot.
///
/// Crash windows: the stop is in the table, so the slot receives no JIT config and is not supply. GitHub answers a repeated
/// deregistration with 404, and a repeated termination changes nothing.
pub(crate) async fn retire(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    slot: SlotId,
    holder: Holder,
) -> Result<Next, ReconcileError> {
    let Some(slot) = view.slots.get(&slot).cloned() else { return Ok(None) };
    let slot = match holder {
        Holder::This => Some(slot),
        Holder::None => claim(context, slot, context.lease(pool)).await?,
    };
    let Some(slot) = slot else { return Ok(None) };
    match next_step(&slot) {
        RetireStep::Nothing => Ok(None),
        RetireStep::Terminate(permit) => terminate(context, pool, slot, &permit).await,
        RetireStep::Deregister(runner) => match context.ports.github.deregister(&pool.owner, runner).await {
            Ok(answer) => {
                act_on_answer(context, pool, after_deregistration(pool, slot, answer, &context.turn(pool))).await
            }
            Err(error) => put_off(context, pool, slot, error).await,
        },
    }
}

async fn act_on_answer(context: &Context<'_>, pool: &Pool, after: AfterDeregistration) -> Result<Next, ReconcileError> {
    match after {
        AfterDeregistration::Terminate(slot, permit) => terminate(context, pool, *slot, &permit).await,
        AfterDeregistration::KeepRunning(slot) => {
            let next_at = slot.lease.next_at;
            commit_or_leave(context, Transaction::new().put(*slot)).await?;
            Ok(Some(next_at))
        }
        AfterDeregistration::Record(slot, writes) => match commit(context, &writes).await? {
            Commit::Written => {
                let slot = slot.written();
                match next_step(&slot) {
                    RetireStep::Terminate(permit) => terminate(context, pool, slot, &permit).await,
                    RetireStep::Nothing | RetireStep::Deregister(_) => Ok(None),
                }
            }
            // Another invocation has recorded more about the slot: read it again.
            Commit::Lost(_) => Ok(Some(context.now())),
        },
    }
}

async fn put_off(context: &Context<'_>, pool: &Pool, slot: Slot, error: GitHubError) -> Result<Next, ReconcileError> {
    tracing::warn!(slot = %slot.id, "slot {} cannot be retired yet: {error}", slot.id);
    record_limit(context, pool.owner.owner(), &error).await?;
    let wait = backoff(pool, slot.lease.tries, &slot.id.to_string());
    let next_at = next_attempt(error.failure(), context.now(), wait);
    commit_or_leave(context, Transaction::new().put(slot.put_off(next_at))).await?;
    Ok(Some(next_at))
}

/// Terminates a slot's machine. A later sweep finds that it has ended.
pub(crate) async fn terminate(
    context: &Context<'_>,
    pool: &Pool,
    slot: Slot,
    permit: &TerminationPermit,
) -> Result<Next, ReconcileError> {
    let instance = permit.instance();
    let next_at = match context.ports.compute.terminate(permit).await {
        Ok(Terminated::Ending | Terminated::NotFound) => {
            let grounds = permit.grounds();
            tracing::info!(%instance, slot = %slot.id, %grounds, "instance {instance} is terminated: {grounds}");
            context.now() + TERMINATE_AGAIN_AFTER
        }
        Err(error) => {
            tracing::warn!(%instance, "instance {instance} cannot be terminated yet: {error}");
            context.now() + backoff(pool, slot.lease.tries, instance.as_str())
        }
    };
    commit_or_leave(context, Transaction::new().put(slot.put_off(next_at))).await?;
    Ok(Some(next_at))
}
