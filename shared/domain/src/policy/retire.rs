//! Retiring a slot or an unowned instance: claim it, deregister its runner, terminate it, in this order.
//!
//! GitHub's refusal to delete a busy runner is the only protection of a running job. So a machine is terminated only with
//! a [`TerminationPermit`], and only the functions here grant one.

use std::fmt;

use jiff::Timestamp;

use crate::config::Pool;
use crate::ids::{InstanceId, RunnerId};
use crate::log::{Stream, Transaction, Turn, What};
use crate::state::{Condemned, Leased, Slot, SlotState, StopReason, TRUST_BUSY_FOR};
use crate::wire::Deregistered;

/// Allows the termination of one instance. The fields are private: [`next_step`], [`after_deregistration`] and
/// [`permit_unowned`] are the only places that create one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminationPermit {
    instance: InstanceId,
    grounds: Grounds,
}

/// The reason that allows a termination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grounds {
    /// GitHub answered 204 or 404 to the deregistration of its runner.
    Deregistered,
    /// It never received a JIT config, and because of the claim it will not receive one.
    NeverConfigured,
    /// GitHub reported the end of its job.
    JobDone,
    /// It is past max life, whether or not it is busy.
    MaxLife,
    /// An operator forced it, whether or not it is busy.
    Forced,
}

impl TerminationPermit {
    fn new(instance: &InstanceId, grounds: Grounds) -> Self {
        Self { instance: instance.clone(), grounds }
    }

    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    pub fn grounds(&self) -> Grounds {
        self.grounds
    }
}

impl fmt::Display for Grounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Grounds::Deregistered => "its runner is deregistered",
            Grounds::NeverConfigured => "it never had a runner",
            Grounds::JobDone => "its job is done",
            Grounds::MaxLife => "it is past max life",
            Grounds::Forced => "an operator forced it",
        })
    }
}

/// The next step of a retirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetireStep {
    /// The slot has no machine.
    Nothing,
    Deregister(RunnerId),
    Terminate(TerminationPermit),
}

pub fn next_step(slot: &Slot) -> RetireStep {
    let past_max_life = slot.stop.as_ref().is_some_and(|stop| stop.why == StopReason::MaxLife);
    let permit = |instance: &InstanceId, grounds| RetireStep::Terminate(TerminationPermit::new(instance, grounds));
    match &slot.state {
        SlotState::Planned => RetireStep::Nothing,
        SlotState::Launched(machine) => permit(&machine.instance, Grounds::NeverConfigured),
        SlotState::Done { machine, .. } => permit(&machine.instance, Grounds::JobDone),
        SlotState::Busy { machine, .. } if past_max_life => permit(&machine.instance, Grounds::MaxLife),
        SlotState::Configured { machine, runner }
        | SlotState::Online { machine, runner, .. }
        | SlotState::Busy { machine, runner, .. } => match slot.unregistered_at {
            Some(_) => permit(&machine.instance, Grounds::Deregistered),
            None => RetireStep::Deregister(runner.runner_id),
        },
    }
}

/// What follows from GitHub's answer to the deregistration of a slot's runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterDeregistration {
    /// Record that the runner is deregistered; then [`next_step`] of the slot as written.
    Record(Box<Slot>, Box<Transaction>),
    Terminate(Box<Slot>, TerminationPermit),
    /// The runner has a job: write the slot, and try again when its lease ends.
    KeepRunning(Box<Slot>),
}

pub fn after_deregistration(pool: &Pool, slot: Slot, answer: Deregistered, turn: &Turn) -> AfterDeregistration {
    let stop = slot.stop.as_ref();
    let grounds = match answer {
        Deregistered::Removed | Deregistered::AlreadyGone => {
            let slot = Slot { unregistered_at: Some(turn.now), ..slot };
            let what = What::Unregistered { slot: slot.id };
            let writes = Transaction::new().put(slot.clone()).emit(Stream::Pool(pool.name.clone()), what, turn);
            return AfterDeregistration::Record(Box::new(slot), Box::new(writes));
        }
        Deregistered::Busy if stop.is_some_and(|stop| stop.why == StopReason::MaxLife) => Grounds::MaxLife,
        Deregistered::Busy if stop.is_some_and(|stop| stop.forced) => Grounds::Forced,
        Deregistered::Busy => return AfterDeregistration::KeepRunning(Box::new(busy(slot, turn.now))),
    };
    match slot.machine().map(|machine| TerminationPermit::new(&machine.instance, grounds)) {
        Some(permit) => AfterDeregistration::Terminate(Box::new(slot), permit),
        None => AfterDeregistration::KeepRunning(Box::new(busy(slot, turn.now))),
    }
}

fn busy(slot: Slot, now: Timestamp) -> Slot {
    slot.observed_busy(now).put_off(now + TRUST_BUSY_FOR)
}

/// The permit for an instance that belongs to no slot, after GitHub's answers to the deregistrations of all runners that may
/// run on it; a failed call is None. Unless the instance is past max life, every runner must be deregistered.
pub fn permit_unowned(
    instance: &InstanceId,
    why: Condemned,
    deregistrations: &[Option<Deregistered>],
) -> Option<TerminationPermit> {
    let deregistered = deregistrations.iter().all(|answer| match answer {
        Some(Deregistered::Removed | Deregistered::AlreadyGone) => true,
        Some(Deregistered::Busy) | None => false,
    });
    let grounds = match (why, deregistered) {
        (Condemned::MaxLife, _) => Grounds::MaxLife,
        (Condemned::Orphan, true) => Grounds::Deregistered,
        (Condemned::Orphan, false) => return None,
    };
    Some(TerminationPermit::new(instance, grounds))
}
