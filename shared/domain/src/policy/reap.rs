//! The claims that a sweep writes before it removes a slot or an instance that belongs to no slot.

use crate::config::Pool;
use crate::ids::{PoolName, SlotId};
use crate::log::{Stream, Transaction, Turn, What};
use crate::policy::PoolView;
use crate::policy::boot::awaited;
use crate::policy::due::is_being_retired;
use crate::policy::early_end::counted;
use crate::policy::sweep::may_be_stopped;
use crate::state::{CircuitCause, Condemned, Failure, Instance, Key, Ownership, Phase, Slot, SlotState, StopReason};
use crate::wire::ObservedInstance;

/// What to do with a slot that the sweep plans to stop, decided from a reading that is newer than the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopSlot {
    /// The slot was deleted, or its machine has ended.
    AlreadyGone,
    /// The reason does not apply any more: for example, the runner has a job now.
    Spare,
    /// Write the claim, then retire the slot.
    Claim(Box<Transaction>),
}

pub fn stop_slot(pool: &Pool, view: &PoolView, id: SlotId, why: StopReason, turn: &Turn) -> StopSlot {
    let Some(slot) = view.slots.get(&id).filter(|slot| slot.gone_at.is_none()) else {
        return StopSlot::AlreadyGone;
    };
    if !still_applies(pool, slot, why, turn) {
        return StopSlot::Spare;
    }
    let mut writes = Transaction::new().put(slot.clone().stopped(why, turn.now, turn.lease));
    if why == StopReason::BootFailure {
        let failure = slot.machine().map(|machine| Failure {
            at: turn.now,
            instance: Some(machine.instance.clone()),
            launched_at: machine.runs_since(),
            reason: match slot.runner() {
                Some(_) => "its runner did not come online within boot_grace".to_owned(),
                None => "its agent did not report within boot_grace that the machine has booted".to_owned(),
            },
            console: String::new(),
        });
        writes = writes.put(counted(
            pool,
            &view.meta,
            slot.class.as_ref(),
            failure.as_slice(),
            CircuitCause::BootFailures,
            turn.now,
        ));
    }
    let writes = writes.emit(Stream::Pool(pool.name.clone()), What::Stopped { slot: id, why }, turn);
    StopSlot::Claim(Box::new(writes))
}

fn still_applies(pool: &Pool, slot: &Slot, why: StopReason, turn: &Turn) -> bool {
    match why {
        StopReason::BootFailure => match &slot.state {
            SlotState::Launched(_) => slot.boot.is_none() && awaited(pool, slot, turn.now).is_some(),
            // It may have been given its JIT config since the plan was made.
            SlotState::Configured { runner, .. } => {
                let waited = turn.now.duration_since(runner.configured_at);
                waited >= pool.timings.boot_grace.duration() / 4 && slot.stop.is_none()
            }
            SlotState::Planned
            | SlotState::Prepared(_)
            | SlotState::Stopped(_)
            | SlotState::Started(_)
            | SlotState::Online { .. }
            | SlotState::Busy { .. }
            | SlotState::Done { .. } => false,
        },
        // It may have been set aside or started since the plan was made.
        StopReason::Halted if may_be_stopped(slot, turn.now) => false,
        StopReason::NotReady => slot.is_set_aside() && slot.stop.is_none(),
        StopReason::Disconnected => slot.phase() == Phase::Online && slot.stop.is_none(),
        StopReason::RunnerEnded | StopReason::Halted | StopReason::JobDone => !is_being_retired(slot),
        StopReason::MaxLife => true,
        StopReason::Surplus | StopReason::Interrupted | StopReason::Recycled | StopReason::Operator => {
            slot.stop.is_none()
        }
    }
}

/// The claim that condemns an instance; None if it is condemned already.
pub fn condemn(
    instance: &ObservedInstance,
    recorded: Option<&Instance>,
    why: Condemned,
    turn: &Turn,
) -> Option<Transaction> {
    if recorded.is_some_and(|recorded| matches!(recorded.ownership, Ownership::Condemned { .. })) {
        return None;
    }
    let what = What::Condemned { instance: instance.id.clone(), why };
    Some(claim_unowned(instance, recorded, Ownership::Condemned { why }, what, turn))
}

/// The record of an instance that belongs to no slot and whose runner has a job.
pub fn adopt(instance: &ObservedInstance, recorded: Option<&Instance>, turn: &Turn) -> Transaction {
    let what = What::Adopted { instance: instance.id.clone() };
    claim_unowned(instance, recorded, Ownership::Adopted, what, turn)
}

/// An instance that is recorded as bound belongs to no slot only if its slot was deleted. The transaction checks that,
/// because the instance may have been bound after the pools were read.
fn claim_unowned(
    instance: &ObservedInstance,
    recorded: Option<&Instance>,
    ownership: Ownership,
    what: What,
    turn: &Turn,
) -> Transaction {
    let item = Instance::unowned(instance, recorded, ownership, turn.now);
    let stream = item.pool.clone().map_or(Stream::Stack, Stream::Pool);
    let writes = match bound_to(recorded) {
        Some((pool, slot)) => Transaction::new().check_absent(Key::Slot(pool.clone(), slot)),
        None => Transaction::new(),
    };
    writes.put(item).emit(stream, what, turn)
}

fn bound_to(recorded: Option<&Instance>) -> Option<(&PoolName, SlotId)> {
    let Instance { ownership: Ownership::Bound, pool: Some(pool), slot: Some(slot), .. } = recorded? else {
        return None;
    };
    Some((pool, *slot))
}
