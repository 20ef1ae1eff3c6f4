//! EC2's reports about one instance: a spot interruption, or its end.

use crate::config::Pool;
use crate::ids::SlotId;
use crate::log::{Stream, Transaction, Turn, What};
use crate::state::{Config, Instance, Ownership, Slot, StopReason};
use crate::wire::InstanceChange;

/// The pool and slot that the instance is bound to.
pub fn bound_slot<'a>(config: &'a Config, instance: &Instance) -> Option<(&'a Pool, SlotId)> {
    let (Ownership::Bound, Some(pool), Some(slot)) = (&instance.ownership, &instance.pool, instance.slot) else {
        return None;
    };
    Some((config.pool(pool)?, slot))
}

/// Records EC2's report in the slot; None if it changes nothing.
pub fn record_change(pool: &Pool, slot: Slot, change: InstanceChange, turn: &Turn) -> Option<Transaction> {
    let id = slot.id;
    let (slot, what) = match change {
        InstanceChange::Other => return None,
        InstanceChange::Interrupted => {
            let why = StopReason::Interrupted;
            // An earlier stop does not end a job, and must not hide why the job will fail.
            if slot.stop.as_ref().is_some_and(|stop| stop.why == why || stop.why.ends_a_job()) {
                return None;
            }
            (slot.stopped(why, turn.now, turn.now), What::Stopped { slot: id, why })
        }
        InstanceChange::Ended if slot.gone_at.is_some() => return None,
        InstanceChange::Ended => {
            let what = What::Observed { online: Vec::new(), gone: vec![id], unregistered: Vec::new() };
            (slot.gone(turn.now), what)
        }
    };
    Some(Transaction::new().put(slot).emit(Stream::Pool(pool.name.clone()), what, turn))
}
