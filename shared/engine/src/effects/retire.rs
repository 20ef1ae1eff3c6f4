//! Retiring a slot that was stopped: deregister, then terminate.

use domain::config::Pool;
use domain::ids::{InstanceId, SlotId};
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::due::Effect;
use domain::policy::retire::{
    AfterDeregistration, RetireStep, TagReading, Tags, TerminationPermit, Unheld, after_deregistration, next_step,
};
use domain::policy::retry::{Failure, backoff, next_attempt};
use domain::state::{Leased, Slot};
use jiff::SignedDuration;

use crate::context::Context;
use crate::effects::deregister::deregister;
use crate::effects::{Holder, Next};
use crate::error::ReconcileError;
use crate::ports::{INSTANCES_PER_READING, Terminated};
use crate::table::{Commit, claim, commit, commit_or_leave};

/// A terminated machine that EC2 still lists after this time is terminated again.
const TERMINATE_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// Reads the tags of the machines of all retirements among the effects. Machines that cannot be read are left out, and are
/// not terminated.
pub(crate) async fn read_tags<'a>(
    context: &Context<'_>,
    view: &PoolView,
    effects: impl IntoIterator<Item = &'a Effect>,
) -> TagReading {
    let machines: Vec<InstanceId> = effects
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Retire(slot) => Some(view.slots.get(slot)?.machine()?.instance.clone()),
            Effect::Launch(_)
            | Effect::Register(_)
            | Effect::Check(_)
            | Effect::CheckLostJob(_)
            | Effect::Notify(_)
            | Effect::Rerun(_) => None,
        })
        .collect();
    let mut listed = Vec::new();
    for ids in machines.chunks(INSTANCES_PER_READING) {
        match context.ports.compute.instances(ids).await {
            Ok(instances) => listed.extend(instances),
            Err(error) => tracing::warn!("tags cannot be read, and these machines are left alone: {ids:?}: {error}"),
        }
    }
    TagReading::of(&listed)
}

/// Retires a stopped slot.
///
/// Crash windows: the stop is in the table, so the slot receives no JIT config and is not supply. GitHub answers a repeated
/// deregistration with 404 and lists no such runner, and a repeated termination changes nothing.
pub(crate) async fn retire(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    tags: &TagReading,
    slot: SlotId,
    holder: Holder,
) -> Result<Next, ReconcileError> {
    let Some(slot) = view.slots.get(&slot).cloned() else { return Ok(None) };
    let slot = match holder {
        Holder::This => Some(slot),
        Holder::None => claim(context, slot, context.lease(pool)).await?,
    };
    let Some(slot) = slot else { return Ok(None) };
    let Some(machine) = slot.machine() else { return Ok(None) };
    let unheld = match tags.of_machine(&machine.instance) {
        Tags::Free(unheld) => unheld,
        Tags::Held => {
            tracing::info!(slot = %slot.id, "slot {} is left alone: an operator holds its machine", slot.id);
            commit_or_leave(context, Transaction::new().put(Slot { held: true, ..slot })).await?;
            return Ok(None);
        }
        Tags::Unknown => {
            return put_off(context, pool, slot, Failure::Unavailable, "EC2 does not show its machine's tags").await;
        }
    };
    match next_step(&slot, &unheld) {
        RetireStep::Nothing => Ok(None),
        RetireStep::Terminate(permit) => terminate(context, pool, slot, &permit).await,
        RetireStep::Deregister(runner) => {
            match deregister(context, &pool.owner, runner.runner_id, &runner.runner_name).await {
                Ok(answer) => {
                    let after = after_deregistration(pool, slot, &unheld, answer, &context.turn(pool));
                    act_on_answer(context, pool, &unheld, after).await
                }
                Err(error) => put_off(context, pool, slot, error.failure(), &error.to_string()).await,
            }
        }
    }
}

async fn act_on_answer(
    context: &Context<'_>,
    pool: &Pool,
    unheld: &Unheld,
    after: AfterDeregistration,
) -> Result<Next, ReconcileError> {
    match after {
        AfterDeregistration::Terminate(slot, permit) => terminate(context, pool, *slot, &permit).await,
        AfterDeregistration::KeepRunning(slot) => {
            let next_at = slot.lease.next_at;
            commit_or_leave(context, Transaction::new().put(*slot)).await?;
            Ok(Some(next_at))
        }
        AfterDeregistration::Leave(slot) => {
            let why = "GitHub does not know its runner, and does not show that it is not registered";
            put_off(context, pool, *slot, Failure::Refused, why).await
        }
        AfterDeregistration::Record(slot, writes) => match commit(context, &writes).await? {
            Commit::Written => {
                let slot = slot.written();
                match next_step(&slot, unheld) {
                    RetireStep::Terminate(permit) => terminate(context, pool, slot, &permit).await,
                    RetireStep::Nothing | RetireStep::Deregister(_) => Ok(None),
                }
            }
            // Another invocation has recorded more about the slot: read it again.
            Commit::Lost(_) => Ok(Some(context.now())),
        },
    }
}

async fn put_off(
    context: &Context<'_>,
    pool: &Pool,
    slot: Slot,
    failure: Failure,
    why: &str,
) -> Result<Next, ReconcileError> {
    tracing::warn!(slot = %slot.id, "slot {} cannot be retired yet: {why}", slot.id);
    let wait = backoff(pool, slot.lease.tries, &slot.id.to_string());
    let next_at = next_attempt(failure, context.now(), wait);
    commit_or_leave(context, Transaction::new().put(slot.put_off(next_at))).await?;
    Ok(Some(next_at))
}

/// Terminates a slot's machine. A later sweep finds that it has ended.
async fn terminate(
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
