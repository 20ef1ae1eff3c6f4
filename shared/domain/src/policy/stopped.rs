//! Machines that are kept stopped until a job needs them.
//!
//! Such a machine is launched like a warm one. Once it has reported that it has prepared itself, it is set aside: the decision
//! that says so makes every later hand-over fail, and EC2 is asked to stop the machine. Only a machine of such a slot that EC2
//! then shows as stopped is ready. Any other stopped machine may have been stopped by hand or by its own failure. A job that
//! needs a machine before that takes it like a warm one.
//!
//! A machine that never reports that it is prepared stays warm. It is used and replaced like one, so a broken preparation never
//! leads to one launch after another.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::config::{Label, Market, Pool, Tuple};
use crate::ids::SlotId;
use crate::policy::PoolView;
use crate::policy::launch_error::{ErrorClass, is_throttling};
use crate::policy::retry::throttle_backoff;
use crate::state::{Slot, SlotState, StopReason};

/// How long a machine is kept stopped. GitHub refuses runners that are older than its newest version by 30 days, and the
/// packages of an old image are old as well.
pub const KEPT_FOR: SignedDuration = SignedDuration::from_hours(14 * 24);

/// How soon EC2 is asked again to stop a machine that it does not show as stopped.
pub const STOP_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// Machines that are started with one call. EC2 allows five calls at once and two more per second.
pub const STARTED_TOGETHER: usize = 24;

/// What to do with machines that a call of StartInstances did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterStartError {
    /// The call is repeated later.
    Again,
    /// EC2 started none because it refuses one of them, which a call for each shows.
    OneByOne,
    /// EC2 refuses the machine, which is of no use: end it, and decide anew what the pool lacks.
    GiveUp,
}

/// How many machines a pool keeps for jobs that have not been queued yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Running machines.
    pub warm: usize,
    /// Running machines that are to be stopped once they are prepared: as many as stopped ones are missing.
    pub preparing: usize,
    /// Stopped machines that are too many.
    pub excess: usize,
    /// Unneeded running machines that cannot be stopped, while others are to be prepared. They are surplus.
    pub spare: usize,
}

/// How many machines the pool keeps warm and stopped now. None while it is drained, and none of one class: they have no class until
/// a job needs them.
pub fn asked_for(pool: &Pool, class: Option<&Label>, now: Timestamp) -> (usize, usize) {
    match pool.draining || class.is_some() {
        true => (0, 0),
        false => (pool.warm_at(now) as usize, pool.stopped_at(now) as usize),
    }
}

/// How many machines are missing if the pool is to keep `stopped` of them stopped.
pub fn missing(view: &PoolView, stopped: usize) -> usize {
    stopped.saturating_sub(aside(view).count())
}

/// Whether the slot of a launch keeps what its machine is launched as: that of a machine that a class may be given, or that may
/// be stopped.
pub fn records_launch(pool: &Pool, slot_is_wanted: bool) -> bool {
    !slot_is_wanted && (pool.shapes.is_some() || pool.has_stopped())
}

/// What the pool keeps, of the wanted numbers of warm and of stopped machines. `taken` are the slots that jobs need now.
pub fn kept(
    view: &PoolView,
    taken: &BTreeSet<SlotId>,
    demand: usize,
    (warm, stopped): (usize, usize),
    now: Timestamp,
) -> Kept {
    let aside = aside(view).filter(|slot| !taken.contains(&slot.id)).count();
    let preparing = stopped.saturating_sub(aside);
    let (wanted, unwanted): (Vec<&Slot>, Vec<&Slot>) = view.supply(now).partition(|slot| slot.wanted);
    let others: Vec<&Slot> = unwanted.into_iter().filter(|slot| !is_stoppable(slot)).collect();
    let spare = others.len().saturating_sub(warm + demand.saturating_sub(wanted.len()));
    // The rest cannot be ended now.
    let idle = others.iter().filter(|slot| is_idle(slot, now)).count();
    let spare = if preparing > 0 { spare.min(idle) } else { 0 };
    Kept { warm, preparing, excess: aside.saturating_sub(stopped), spare }
}

/// The slots whose machines are stopped, or are being stopped, for later jobs.
pub(super) fn aside(view: &PoolView) -> impl Iterator<Item = &Slot> {
    view.slots.values().filter(|slot| slot.is_set_aside() && slot.stop.is_none() && slot.is_live())
}

/// Whether the pool may have stopped machines: it is to keep some, or some have not ended yet.
pub fn keeps_stopped(pool: &Pool, view: &PoolView) -> bool {
    pool.has_stopped() || view.slots.values().any(|slot| slot.is_set_aside() && slot.is_live())
}

/// The slots whose machines are ready to be started. A machine that is being ended, or is still being stopped, is not.
pub fn ready(view: &PoolView) -> impl Iterator<Item = &Slot> {
    aside(view).filter(|slot| matches!(slot.state, SlotState::Stopped(_)))
}

/// Whether the slot has a machine that can be ended now, as far as is known. The launch of one without may be under way.
pub fn is_idle(slot: &Slot, now: Timestamp) -> bool {
    slot.is_live() && slot.state != SlotState::Planned && !slot.is_observed_busy(now) && !slot.held
}

/// Whether EC2 can stop the slot's machine and start it again. It cannot do that with a spot machine of a one-time request.
pub fn is_stoppable(slot: &Slot) -> bool {
    slot.warm_as.as_ref().is_some_and(|tuple| tuple.market == Market::OnDemand)
}

/// What a failed call of StartInstances means. `code` is EC2's; None if EC2 did not answer.
///
/// A machine that is still being stopped, `IncorrectInstanceState`, can be started soon. EC2's list shows whether a machine that
/// EC2 does not find has ended.
pub fn after_start_error(code: Option<&str>, machines: usize) -> AfterStartError {
    let Some(code) = code else { return AfterStartError::Again };
    let is_temporary = matches!(
        code,
        "IncorrectInstanceState"
            | "InvalidInstanceID.NotFound"
            | "InternalError"
            | "InternalFailure"
            | "Unavailable"
            | "ServiceUnavailable"
    );
    match ErrorClass::of(400, Some(code)) {
        ErrorClass::Throttled | ErrorClass::Caller | ErrorClass::Ambiguous => AfterStartError::Again,
        ErrorClass::Capacity | ErrorClass::Quota | ErrorClass::TokenUsed | ErrorClass::Refusal => match machines {
            0 | 1 if is_temporary => AfterStartError::Again,
            0 | 1 => AfterStartError::GiveUp,
            _ => AfterStartError::OneByOne,
        },
    }
}

/// How soon EC2 is asked again to start the slot's machine.
pub fn start_again_after(code: Option<&str>, slot: &Slot) -> SignedDuration {
    match code {
        Some(code) if is_throttling(code) => throttle_backoff(slot.lease.tries + 1, &slot.id.to_string()),
        // It may just be stopping, which takes some seconds.
        _ => SignedDuration::from_secs(5),
    }
}

/// Sets aside prepared machines that are not needed running. Of the machines that are up, as many stay as are to be warm.
pub fn set_aside(
    view: &PoolView,
    taken: &BTreeSet<SlotId>,
    kept: &Kept,
    now: Timestamp,
    lease: Timestamp,
) -> Vec<Slot> {
    let is_up = |slot: &&Slot| !slot.wanted && slot.is_live() && slot.boot.is_some() && !taken.contains(&slot.id);
    let up = view.supply(now).filter(is_up).count();
    let is_prepared = |slot: &&Slot| slot.boot.is_some_and(|boot| boot.report.prepared_at.is_some());
    let unneeded = kept.preparing.min(up.saturating_sub(kept.warm));
    let prepared = view.supply(now).filter(is_up).filter(is_prepared);
    let able = prepared.filter(|slot| is_stoppable(slot) && !slot.held);
    able.take(unneeded).filter_map(|slot| slot.clone().set_aside(now, lease)).collect()
}

/// Ends stopped machines that are too many, oldest first.
pub fn surplus<'a>(
    view: &'a PoolView,
    taken: &'a BTreeSet<SlotId>,
    excess: usize,
    now: Timestamp,
    lease: Timestamp,
) -> impl Iterator<Item = Slot> + 'a {
    let aside = aside(view).filter(|slot| !slot.held && !taken.contains(&slot.id));
    aside.take(excess).map(move |slot| slot.clone().stopped(StopReason::Surplus, now, lease))
}

/// Ends stopped machines of another image than the pool's, and those that are too old.
pub fn outdated<'a>(
    pool: &'a Pool,
    view: &'a PoolView,
    taken: &'a BTreeSet<SlotId>,
    now: Timestamp,
    lease: Timestamp,
) -> impl Iterator<Item = Slot> + 'a {
    let is_old = move |slot: &&Slot| {
        let age = slot.machine().map(|machine| now.duration_since(machine.launched_at));
        age.is_some_and(|age| age >= KEPT_FOR) || slot.warm_as.as_ref().is_some_and(|it| !has_image_of(pool, it))
    };
    let aside = aside(view).filter(|slot| !slot.held && !taken.contains(&slot.id));
    aside.filter(is_old).map(move |slot| slot.clone().stopped(StopReason::Recycled, now, lease))
}

/// Whether the pool launches from the same version of the same launch template, which names the image.
fn has_image_of(pool: &Pool, tuple: &Tuple) -> bool {
    let shapes = pool.shapes.iter().flat_map(|shapes| shapes.launch_templates.values());
    let mut templates = std::iter::once(&pool.launch_template).chain(shapes);
    templates.any(|it| it.id == tuple.template && it.version == tuple.template_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_one_machine_gives_it_up() {
        let codes = [
            (None, AfterStartError::Again, AfterStartError::Again),
            (Some("RequestLimitExceeded"), AfterStartError::Again, AfterStartError::Again),
            (Some("ExpiredToken"), AfterStartError::Again, AfterStartError::Again),
            (Some("IncorrectInstanceState"), AfterStartError::Again, AfterStartError::OneByOne),
            (Some("InvalidInstanceID.NotFound"), AfterStartError::Again, AfterStartError::OneByOne),
            (Some("InsufficientInstanceCapacity"), AfterStartError::GiveUp, AfterStartError::OneByOne),
            (Some("VcpuLimitExceeded"), AfterStartError::GiveUp, AfterStartError::OneByOne),
        ];
        for (code, alone, together) in codes {
            assert_eq!((after_start_error(code, 1), after_start_error(code, 2)), (alone, together), "{code:?}");
        }
    }
}
