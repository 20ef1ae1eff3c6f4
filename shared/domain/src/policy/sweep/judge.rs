//! The decision about one instance, as a total function of what the three sources show about it.

use jiff::{SignedDuration, Timestamp};

use crate::config::Timings;
use crate::policy::due::is_being_retired;
use crate::state::{Condemned, Slot, SlotState, StopReason};
use crate::wire::MachineState;

/// An instance that has been `stopping` for this long counts as stopped. One that should be stopped may take as long.
pub const STOPPING_GRACE: SignedDuration = SignedDuration::from_mins(10);

/// EC2's list is eventually consistent: a younger instance may be missing from it.
pub const LISTED_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// For how many times `confirm_gap` every list must show the same number of runners that may run on an instance without a slot, none of
/// them with a job. GitHub lists runners in pages, counted from the beginning: if one is removed between two pages, a later one is on
/// neither. Nothing else protects such an instance, because the runner that the list lacks is not deregistered.
const UNOWNED_CONFIRM_GAPS: i32 = 2;

/// What GitHub shows about an instance's runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunnerState {
    /// GitHub's list could not be read, or is not trusted.
    Unread,
    /// Not listed, in every reading for this long.
    Unregistered(SignedDuration),
    /// Registered and not connected, in every reading for this long. The time is measured only for a runner that was
    /// online before.
    Offline(SignedDuration),
    /// Connected and idle, in every reading for this long. The list may be out of date. The time is measured only for a
    /// slot whose runner should have a job.
    Idle(SignedDuration),
    /// Has a job.
    Busy,
}

/// The instance of an open slot.
#[derive(Debug, Clone, Copy)]
pub struct SlotSubject<'a> {
    pub slot: &'a Slot,
    /// EC2's state; None if EC2 has not listed the instance for `unlisted_for`.
    pub state: Option<MachineState>,
    pub unlisted_for: SignedDuration,
    /// Since its launch, or since it was started again.
    pub age: SignedDuration,
    pub stopping_for: SignedDuration,
    /// For how long EC2 has not shown it as stopped although it was. Zero for every other slot: EC2 is asked again and again to
    /// stop a machine, and a job may have it meanwhile.
    pub running_for: SignedDuration,
    /// An operator's tag is on the instance.
    pub hold: bool,
    pub runner: RunnerState,
    /// It has not reported that it booted, and would have: see [`crate::policy::boot`].
    pub lacks_report: bool,
    pub timings: &'a Timings,
    /// The format of the table.
    pub format: u32,
}

/// What to do about the instance of an open slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotVerdict {
    /// Nothing is wrong, or it is too early to know.
    Normal,
    /// An operator holds it: leave it alone, whatever is wrong.
    Held,
    /// The instance has ended.
    Gone,
    /// Stop the slot, deregister its runner, terminate the instance.
    Stop(StopReason),
}

/// The first row that matches; every combination has exactly one verdict.
pub fn judge_slot(subject: &SlotSubject<'_>, now: Timestamp) -> SlotVerdict {
    let SlotSubject { slot, timings, .. } = *subject;
    let Some(state) = subject.state.filter(|state| state.is_live()) else {
        return judge_gone(subject);
    };
    if subject.hold {
        return SlotVerdict::Held;
    }
    if slot.is_set_aside() {
        let is_late = subject.running_for.max(subject.stopping_for) >= STOPPING_GRACE;
        return if is_late { stop_for(slot, StopReason::NotReady) } else { SlotVerdict::Normal };
    }
    if subject.age >= timings.max_life.duration() {
        return stop_for(slot, StopReason::MaxLife);
    }
    if let SlotState::Done { done_at, runner, .. } = &slot.state {
        // GitHub removes a registration with its job. One that has not connected yet cannot have had a job: the report was
        // forged, and the machine may still boot.
        let is_booting = matches!(subject.runner, RunnerState::Offline(_))
            && now.duration_since(runner.configured_at) < timings.boot_grace.duration();
        let is_over = now.duration_since(*done_at) >= timings.done_grace.duration() && !is_booting;
        return if is_over { stop_for(slot, StopReason::after_job(subject.format)) } else { SlotVerdict::Normal };
    }
    if is_halted(state, subject.stopping_for) && !may_be_stopped(slot, now) {
        return stop_for(slot, StopReason::Halted);
    }
    if slot.runner().is_none() { judge_boot(subject, state) } else { judge_runner(subject, now) }
}

fn judge_gone(subject: &SlotSubject<'_>) -> SlotVerdict {
    let is_certain = match subject.state {
        Some(_) => true,
        None => subject.age >= LISTED_AFTER && subject.unlisted_for >= subject.timings.confirm_gap.duration(),
    };
    if subject.slot.gone_at.is_none() && is_certain { SlotVerdict::Gone } else { SlotVerdict::Normal }
}

/// Whether EC2 may show the slot's machine as stopped although nothing is wrong: it is set aside, or has just been started.
pub(crate) fn may_be_stopped(slot: &Slot, now: Timestamp) -> bool {
    let started_at = slot.machine().and_then(|machine| machine.started_at);
    slot.is_set_aside() || started_at.is_some_and(|at| now.duration_since(at) < LISTED_AFTER)
}

fn is_halted(state: MachineState, stopping_for: SignedDuration) -> bool {
    match state {
        MachineState::Stopped => true,
        MachineState::Stopping => stopping_for >= STOPPING_GRACE,
        MachineState::Pending | MachineState::Running | MachineState::ShuttingDown | MachineState::Terminated => false,
    }
}

/// The verdict on a machine without a runner.
fn judge_boot(subject: &SlotSubject<'_>, state: MachineState) -> SlotVerdict {
    let is_starting = matches!(state, MachineState::Pending | MachineState::Running);
    if is_starting && subject.lacks_report && subject.age >= subject.timings.boot_grace.duration() {
        stop_for(subject.slot, StopReason::BootFailure)
    } else {
        SlotVerdict::Normal
    }
}

fn judge_runner(subject: &SlotSubject<'_>, now: Timestamp) -> SlotVerdict {
    let SlotSubject { slot, timings, .. } = *subject;
    let Some(runner) = slot.runner() else { return SlotVerdict::Normal };
    match subject.runner {
        RunnerState::Unregistered(since) if since >= timings.confirm_gap.duration() => {
            stop_for(slot, StopReason::RunnerEnded)
        }
        // The connection may come back. GitHub gives the runner no job meanwhile.
        RunnerState::Offline(since) if matches!(slot.state, SlotState::Online { .. }) => {
            if since >= timings.boot_grace.duration() && !slot.is_observed_busy(now) {
                stop_for(slot, StopReason::Disconnected)
            } else {
                SlotVerdict::Normal
            }
        }
        RunnerState::Offline(_) if matches!(slot.state, SlotState::Configured { .. }) => {
            let waited = now.duration_since(runner.configured_at);
            let boot_grace = timings.boot_grace.duration();
            // A machine that had booted before it received its JIT config only needs to connect.
            let is_up = subject.age - waited >= boot_grace;
            let wait = if is_up { boot_grace / 4 } else { boot_grace };
            if waited >= wait && !slot.is_observed_busy(now) {
                stop_for(slot, StopReason::BootFailure)
            } else {
                SlotVerdict::Normal
            }
        }
        // GitHub does not list a job for it: the report of its job was forged, or the list is out of date. The
        // deregistration shows which.
        RunnerState::Idle(since) if since >= timings.confirm_gap.duration() => has_no_job(subject, now),
        RunnerState::Offline(since) if since >= timings.boot_grace.duration() => has_no_job(subject, now),
        RunnerState::Unread
        | RunnerState::Unregistered(_)
        | RunnerState::Offline(_)
        | RunnerState::Idle(_)
        | RunnerState::Busy => SlotVerdict::Normal,
    }
}

/// The verdict on a slot whose runner is listed without a job.
fn has_no_job(subject: &SlotSubject<'_>, now: Timestamp) -> SlotVerdict {
    match &subject.slot.state {
        SlotState::Busy { .. } if !subject.slot.is_observed_busy(now) => {
            stop_for(subject.slot, StopReason::after_job(subject.format))
        }
        SlotState::Planned
        | SlotState::Launched(_)
        | SlotState::Prepared(_)
        | SlotState::Stopped(_)
        | SlotState::Started(_)
        | SlotState::Configured { .. }
        | SlotState::Online { .. }
        | SlotState::Busy { .. }
        | SlotState::Done { .. } => SlotVerdict::Normal,
    }
}

/// The reason of a slot that is being retired is replaced by max life only.
fn stop_for(slot: &Slot, why: StopReason) -> SlotVerdict {
    match &slot.stop {
        Some(stop) if stop.why == why => SlotVerdict::Normal,
        Some(_) if why != StopReason::MaxLife && is_being_retired(slot) => SlotVerdict::Normal,
        Some(_) | None => SlotVerdict::Stop(why),
    }
}

/// What the table says about an instance that belongs to no open slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// There is no record.
    Nothing,
    /// There is no record, but the batch that launched it is still open and will bind it.
    BatchOpen,
    Adopted,
    Condemned,
    /// It is closed, or bound to a slot that does not exist any more.
    Closed,
}

/// An instance that belongs to no open slot.
#[derive(Debug, Clone, Copy)]
pub struct UnownedSubject<'a> {
    pub recorded: Recorded,
    pub state: MachineState,
    /// Since its launch.
    pub age: SignedDuration,
    pub stopping_for: SignedDuration,
    /// An operator's tag is on the instance.
    pub hold: bool,
    /// The busiest of the runners that may run on it. The times are those for which none of them has been busy, in every reading.
    pub runner: RunnerState,
    pub timings: &'a Timings,
}

/// What to do about an instance that belongs to no open slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnownedVerdict {
    /// Nothing is wrong, or it is too early to know.
    Normal,
    /// An operator holds it: leave it alone, whatever is wrong.
    Held,
    /// Its runner has a job: record that, and leave it alone.
    Adopt,
    /// Claim it, deregister the runners that may run on it, terminate it.
    Condemn(Condemned),
}

/// The first row that matches; every combination has exactly one verdict.
pub fn judge_unowned(subject: &UnownedSubject<'_>) -> UnownedVerdict {
    let timings = subject.timings;
    if !subject.state.is_live() {
        return UnownedVerdict::Normal;
    }
    if subject.hold {
        return UnownedVerdict::Held;
    }
    if subject.age >= timings.max_life.duration() {
        return UnownedVerdict::Condemn(Condemned::MaxLife);
    }
    let has_no_job_for = match subject.runner {
        RunnerState::Unread => return UnownedVerdict::Normal,
        RunnerState::Busy => None,
        RunnerState::Unregistered(time) | RunnerState::Offline(time) | RunnerState::Idle(time) => Some(time),
    };
    let is_busy = has_no_job_for.is_none();
    let is_certain = has_no_job_for.is_some_and(|time| time >= timings.confirm_gap.duration() * UNOWNED_CONFIRM_GAPS);
    let is_young = subject.age < timings.orphan_grace.duration() && !is_halted(subject.state, subject.stopping_for);
    match subject.recorded {
        Recorded::Nothing | Recorded::Closed if is_busy => UnownedVerdict::Adopt,
        // The launch that is still open finds its instances by their tag.
        Recorded::BatchOpen => UnownedVerdict::Normal,
        Recorded::Adopted if is_busy => UnownedVerdict::Normal,
        // An earlier sweep claimed it and did not finish. The deregistration shows whether it has a job.
        Recorded::Condemned if is_busy => UnownedVerdict::Condemn(Condemned::Orphan),
        Recorded::Nothing if is_young => UnownedVerdict::Normal,
        Recorded::Nothing | Recorded::Closed | Recorded::Adopted | Recorded::Condemned if is_certain => {
            UnownedVerdict::Condemn(Condemned::Orphan)
        }
        Recorded::Nothing | Recorded::Closed | Recorded::Adopted | Recorded::Condemned => UnownedVerdict::Normal,
    }
}
