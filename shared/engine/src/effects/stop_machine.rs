//! Stopping a machine that has prepared itself, until a job needs it.

use domain::config::Pool;
use domain::ids::SlotId;
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::retire::{TagReading, Tags};
use domain::policy::retry::backoff;
use domain::policy::stopped::STOP_AGAIN_AFTER;
use domain::state::{Leased, Slot};

use crate::context::Context;
use crate::effects::{Holder, Next};
use crate::error::ReconcileError;
use crate::table::{claim, commit_or_leave};

/// A job may need the machine meanwhile, and gets it only between two attempts.
fn put_off(context: &Context<'_>, pool: &Pool, slot: Slot) -> Slot {
    let wait = backoff(pool, slot.lease.tries, &slot.id.to_string()).min(STOP_AGAIN_AFTER);
    slot.put_off(context.now() + wait)
}

/// Stops the machine of a slot that was set aside.
///
/// Crash windows: the slot is set aside in the table, so its machine receives no JIT config until it is started again, and stopping
/// a stopped machine changes nothing. The call ends before the lease does, and no job can have the machine before that.
pub(crate) async fn stop_machine(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    tags: &TagReading,
    slot: SlotId,
    holder: Holder,
) -> Result<Next, ReconcileError> {
    let Some(slot) = view.slots.get(&slot) else { return Ok(None) };
    let slot = match holder {
        Holder::This => Some(slot.clone()),
        Holder::None => claim(context, slot.clone(), context.lease(pool)).await?,
    };
    let Some(slot) = slot else { return Ok(None) };
    let Some(machine) = slot.machine() else { return Ok(None) };
    let instance = machine.instance.clone();
    let slot = match tags.of_machine(&instance) {
        Tags::Held => {
            tracing::info!(slot = %slot.id, "slot {} is left alone: an operator holds its machine", slot.id);
            commit_or_leave(context, Transaction::new().put(Slot { held: true, ..slot })).await?;
            return Ok(None);
        }
        Tags::Unknown => put_off(context, pool, slot),
        Tags::Free(_) => match context.ports.compute.stop(&instance, context.longest_call()).await {
            Ok(()) => {
                tracing::info!(%instance, slot = %slot.id, "instance {instance} is stopped until a job needs it");
                slot.stop_accepted(context.now() + STOP_AGAIN_AFTER)
            }
            Err(error) => {
                tracing::warn!(%instance, slot = %slot.id, "instance {instance} cannot be stopped yet: {error}");
                put_off(context, pool, slot)
            }
        },
    };
    let next_at = slot.lease.next_at;
    commit_or_leave(context, Transaction::new().put(slot)).await?;
    Ok(Some(next_at))
}
