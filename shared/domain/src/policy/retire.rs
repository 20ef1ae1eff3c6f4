//! Retiring a slot or an unowned instance: claim it, read its tags, deregister its runner, terminate it, in this order.
//!
//! GitHub's refusal to delete a busy runner is the only protection of a running job, and the tag `drover:hold` the only
//! protection of a machine that an operator looks at. So a machine is terminated only with a [`TerminationPermit`], and
//! only the functions here grant one. The tags are read before the deregistration, because a machine whose runner is
//! deregistered powers itself off.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::ids::{InstanceId, RunnerId, Scope};
use crate::log::{Stream, Transaction, Turn, What};
use crate::state::{Condemned, Leased, Runner, Slot, SlotState, StopReason, TRUST_BUSY_FOR};
use crate::wire::{NamedRunners, ObservedInstance, TokenMark};

/// A terminated machine that EC2 still lists after this time is terminated again.
pub const TERMINATE_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// Machines' tags, as EC2 listed them in this invocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagReading(BTreeMap<InstanceId, Hold>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Held,
    Free,
}

impl TagReading {
    /// `listed` was read in this invocation.
    pub fn of<'a>(listed: impl IntoIterator<Item = &'a ObservedInstance>) -> Self {
        let hold = |seen: &ObservedInstance| if seen.hold { Hold::Held } else { Hold::Free };
        Self(listed.into_iter().map(|seen| (seen.id.clone(), hold(seen))).collect())
    }

    /// Whether the machine may be retired.
    pub fn of_machine(&self, instance: &InstanceId) -> Tags {
        match self.0.get(instance) {
            Some(Hold::Held) => Tags::Held,
            Some(Hold::Free) => Tags::Free(Unheld { instance: instance.clone() }),
            None => Tags::Unknown,
        }
    }
}

/// What one machine's tags say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags {
    /// An operator holds the machine: leave it alone.
    Held,
    Free(Unheld),
    /// EC2 did not answer, or does not list the machine: try again later.
    Unknown,
}

/// Proof that a machine's tags were read in this invocation, and that no operator holds it. [`TagReading::of_machine`] is the
/// only place that creates one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheld {
    instance: InstanceId,
}

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
    /// GitHub answered 204 to the deregistration of its runner, or 404 with a proof that the runner is not registered.
    Deregistered,
    /// It never received a JIT config, and because of the claim it will not receive one.
    NeverConfigured,
    /// It is past max life, whether or not it is busy.
    MaxLife,
    /// An operator forced it, whether or not it is busy.
    Forced,
}

impl TerminationPermit {
    fn new(unheld: &Unheld, grounds: Grounds) -> Self {
        Self { instance: unheld.instance.clone(), grounds }
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
            Grounds::MaxLife => "it is past max life",
            Grounds::Forced => "an operator forced it",
        })
    }
}

/// What GitHub's answers to a deregistration prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deregistration {
    /// The runner is not registered, and cannot receive a job.
    Confirmed(Confirmation),
    /// The runner has a job.
    Busy,
    /// 404, which GitHub also answers if the app has lost access to the scope: nothing is known about the runner.
    Unproven,
}

/// Proof that a runner is not registered. [`Deregistration::removed`] and [`Deregistration::not_found`] are the only places
/// that create one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation(());

impl Deregistration {
    /// GitHub answered 204.
    pub fn removed() -> Self {
        Deregistration::Confirmed(Confirmation(()))
    }

    /// GitHub answered 404 to a call with this token. The list proves that the runner is not registered if it was read with
    /// the same token and lacks the runner.
    pub fn not_found(scope: &Scope, runner: RunnerId, token: TokenMark, listed: &NamedRunners) -> Self {
        let same_access = listed.token == token && listed.scope == *scope;
        match same_access && !listed.ids.contains(&runner) {
            true => Deregistration::Confirmed(Confirmation(())),
            false => Deregistration::Unproven,
        }
    }
}

/// The next step of a retirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetireStep {
    /// The slot has no machine, or another one.
    Nothing,
    Deregister(Runner),
    Terminate(TerminationPermit),
}

/// `unheld` is about the slot's machine.
pub fn next_step(slot: &Slot, unheld: &Unheld) -> RetireStep {
    if slot.machine().is_none_or(|machine| machine.instance != unheld.instance) {
        return RetireStep::Nothing;
    }
    let past_max_life = slot.stop.as_ref().is_some_and(|stop| stop.why == StopReason::MaxLife);
    let permit = |grounds| RetireStep::Terminate(TerminationPermit::new(unheld, grounds));
    match &slot.state {
        SlotState::Planned => RetireStep::Nothing,
        SlotState::Launched(_) | SlotState::Prepared(_) | SlotState::Stopped(_) | SlotState::Started(_) => {
            permit(Grounds::NeverConfigured)
        }
        SlotState::Busy { .. } | SlotState::Done { .. } if past_max_life => permit(Grounds::MaxLife),
        // The report of a job's end can be forged, so it is no reason to terminate.
        SlotState::Configured { runner, .. }
        | SlotState::Online { runner, .. }
        | SlotState::Busy { runner, .. }
        | SlotState::Done { runner, .. } => match slot.unregistered_at {
            Some(_) => permit(Grounds::Deregistered),
            None => RetireStep::Deregister(runner.clone()),
        },
    }
}

/// What follows from GitHub's answer to the deregistration of a slot's runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterDeregistration {
    /// Record with [`unregistered`] that the runner is deregistered; then [`next_step`] of the slot as written.
    Record(Box<Slot>),
    Terminate(Box<Slot>, TerminationPermit),
    /// The runner has a job: write the slot, and try again when its lease ends.
    KeepRunning(Box<Slot>),
    /// Nothing is known about the runner: try again later.
    Leave(Box<Slot>),
}

/// `unheld` is about the slot's machine.
pub fn after_deregistration(
    slot: Slot,
    unheld: &Unheld,
    answer: Deregistration,
    now: Timestamp,
) -> AfterDeregistration {
    let stop = slot.stop.as_ref();
    let past_max_life = stop.is_some_and(|stop| stop.why == StopReason::MaxLife);
    let grounds = match answer {
        Deregistration::Confirmed(Confirmation(())) => {
            // The termination follows at once and then needs no write of its own. Should it not take place, it is due again
            // after the same time.
            let slot = Slot { unregistered_at: Some(now), ..slot }.put_off(now + TERMINATE_AGAIN_AFTER);
            return AfterDeregistration::Record(Box::new(slot));
        }
        Deregistration::Busy | Deregistration::Unproven if past_max_life => Grounds::MaxLife,
        Deregistration::Busy | Deregistration::Unproven if stop.is_some_and(|stop| stop.forced) => Grounds::Forced,
        Deregistration::Busy => return AfterDeregistration::KeepRunning(Box::new(busy(slot, now))),
        Deregistration::Unproven => return AfterDeregistration::Leave(Box::new(slot)),
    };
    match slot.machine().is_some_and(|machine| machine.instance == unheld.instance) {
        true => AfterDeregistration::Terminate(Box::new(slot), TerminationPermit::new(unheld, grounds)),
        false => AfterDeregistration::Leave(Box::new(slot)),
    }
}

/// Records that the runners of these slots are deregistered. None without slots.
pub fn unregistered(pool: &Pool, slots: &[Slot], turn: &Turn) -> Option<Transaction> {
    let (first, others) = slots.split_first()?;
    let what = What::Unregistered { slot: first.id, others: others.iter().map(|slot| slot.id).collect() };
    Some(Transaction::new().put_all(slots.iter().cloned()).emit(Stream::Pool(pool.name.clone()), what, turn))
}

fn busy(slot: Slot, now: Timestamp) -> Slot {
    slot.observed_busy(now).put_off(now + TRUST_BUSY_FOR)
}

/// The permit for an instance that belongs to no slot, after GitHub's answers to the deregistrations of all runners that may
/// run on it; a failed call is None. Unless the instance is past max life, every runner must be deregistered.
pub fn permit_unowned(
    unheld: &Unheld,
    why: Condemned,
    deregistrations: &[Option<Deregistration>],
) -> Option<TerminationPermit> {
    let deregistered = deregistrations.iter().all(|answer| match answer {
        Some(Deregistration::Confirmed(Confirmation(()))) => true,
        Some(Deregistration::Busy | Deregistration::Unproven) | None => false,
    });
    let grounds = match (why, deregistered) {
        (Condemned::MaxLife, _) => Grounds::MaxLife,
        (Condemned::Orphan, true) => Grounds::Deregistered,
        (Condemned::Orphan, false) => return None,
    };
    Some(TerminationPermit::new(unheld, grounds))
}
