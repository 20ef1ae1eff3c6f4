//! Machines that ended before their runner came online: which of them count as failures of their pool, and when the pool's
//! circuit opens.
//!
//! Such a machine counts if nobody asked for its end, EC2 had capacity for it and did not take it back, and no waiting job
//! that GitHub was asked about afterwards turned out to have run on it. A machine that has finished its job looks the same as
//! long as its webhooks are missing.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::config::{Label, Pool};
use crate::ids::InstanceId;
use crate::policy::PoolView;
use crate::policy::circuit::open_circuit;
use crate::state::{CircuitCause, Failure, Machine, Meta, Slot, SlotState, bounded};
use crate::wire::StateReason;

/// The pool's circuit opens after this many machines in a row that did not come online.
pub const FAILURES_ALLOWED: u32 = 3;

/// How many lines of a console's end are shown.
const CONSOLE_LINES: usize = 5;

/// After this many times `job_check`, GitHub is not expected to say which jobs ran.
const CHECKS_AWAITED: i32 = 2;

/// Whether the slot's machine ended by itself and, as far as is known, before its runner came online.
fn is_early(slot: &Slot) -> bool {
    let is_before_online = match &slot.state {
        SlotState::Launched(_) | SlotState::Started(_) | SlotState::Configured { .. } => true,
        // The machine had come up before it was stopped.
        SlotState::Prepared(_) | SlotState::Stopped(_) => false,
        SlotState::Planned | SlotState::Online { .. } | SlotState::Busy { .. } | SlotState::Done { .. } => false,
    };
    is_before_online && slot.gone_at.is_some() && slot.stop.is_none() && !slot.held && slot.busy_seen_at.is_none()
}

/// Whether a waiting job that GitHub was not asked about since the end may have run on the machine.
fn may_have_run_a_job(view: &PoolView, slot: &Slot) -> bool {
    slot.runner().is_some() && view.may_have_run_one(slot)
}

/// Whether the slot can be closed. The slot of a machine that ended early stays until it is known whether it counts.
/// `reasons` are EC2's for the ends of machines; None if EC2's list was not read.
pub fn can_close(
    pool: &Pool,
    view: &PoolView,
    slot: &Slot,
    reasons: Option<&BTreeMap<InstanceId, StateReason>>,
    now: Timestamp,
) -> bool {
    let patience = pool.timings.job_check.duration() * CHECKS_AWAITED;
    let is_late = slot.gone_at.is_some_and(|gone| now.duration_since(gone) >= patience);
    !is_early(slot) || (reasons.is_some() && (is_late || !may_have_run_a_job(view, slot)))
}

/// The failure that the slot's end counts as; None if it does not count.
pub fn failure(
    view: &PoolView,
    slot: &Slot,
    reason: Option<&StateReason>,
    console: Option<&str>,
    now: Timestamp,
) -> Option<Failure> {
    let machine = slot.machine().filter(|_| is_early(slot) && !may_have_run_a_job(view, slot))?;
    if reason.is_some_and(|reason| reason.is_reclaim() || reason.is_request() || reason.is_lack_of_capacity()) {
        return None;
    }
    Some(Failure {
        at: now,
        instance: Some(machine.instance.clone()),
        launched_at: machine.runs_since(),
        reason: reason.map_or_else(|| "EC2 gives no reason".to_owned(), StateReason::to_string),
        console: console.map(last_lines).unwrap_or_default(),
    })
}

/// Whether EC2 accepted the launch of the slot's machine and then had no capacity for it.
pub fn lacked_capacity(slot: &Slot, reason: &StateReason) -> bool {
    is_early(slot) && reason.is_lack_of_capacity()
}

/// The last lines with text, bounded.
fn last_lines(console: &str) -> String {
    let lines: Vec<&str> = console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(CONSOLE_LINES)..].iter().map(|line| bounded(line));
    last.collect::<Vec<_>>().join("\n")
}

/// META after these failures. The third in a row opens the circuit.
pub fn count(pool: &Pool, meta: &Meta, failures: &[Failure], cause: CircuitCause, now: Timestamp) -> Meta {
    let mut meta = meta.clone();
    meta.boot_failures = meta.boot_failures.saturating_add(u32::try_from(failures.len()).unwrap_or(u32::MAX));
    for failure in failures {
        failure.clone().keep(&mut meta.failures);
    }
    if let Some(last) = failures.last().filter(|_| meta.boot_failures >= FAILURES_ALLOWED) {
        let message = format!("{} machines in a row {}", meta.boot_failures, describe(&cause, last));
        open_circuit(&mut meta, pool, cause, message, now);
    }
    meta
}

/// META after these failures of machines of one class.
pub fn counted(
    pool: &Pool,
    meta: &Meta,
    class: Option<&Label>,
    failures: &[Failure],
    cause: CircuitCause,
    now: Timestamp,
) -> Meta {
    match class {
        None => count(pool, meta, failures, cause, now),
        Some(class) => meta.with_class(class, count(pool, &meta.of_class(class), failures, cause, now)),
    }
}

fn describe(cause: &CircuitCause, last: &Failure) -> String {
    match cause {
        CircuitCause::BootFailures => {
            "never came online: look at the image, the agent's log and the network".to_owned()
        }
        CircuitCause::EndedEarly | CircuitCause::RegistrationRefused | CircuitCause::LaunchRefused(_) => {
            let machine = last.instance.as_ref().map(|id| format!("{id}: ")).unwrap_or_default();
            let console = match last.console.is_empty() {
                true => String::new(),
                false => format!("; its console ends with: {}", last.console.replace('\n', " / ")),
            };
            format!("ended before their runner came online; the last one, {machine}{}{console}", last.reason)
        }
    }
}

/// Whether a machine works that was launched or started after the last machine that failed, or since the circuit opened if none has.
pub fn is_online_again(view: &PoolView, meta: &Meta, opened: Timestamp) -> bool {
    works_since(view, last_failure(meta).unwrap_or(opened))
}

fn last_failure(meta: &Meta) -> Option<Timestamp> {
    meta.failures.iter().map(|failure| failure.launched_at).max()
}

/// Whether a machine launched or started at `since` or later works: its runner has been online or busy.
fn works_since(view: &PoolView, since: Timestamp) -> bool {
    view.slots
        .values()
        .filter(|slot| slot.works())
        .filter_map(Slot::machine)
        .any(|machine| machine.runs_since() >= since)
}

/// META without the failures before a machine that works.
pub fn forget_if_works(view: &PoolView, meta: &mut Meta) {
    if meta.boot_failures > 0 && last_failure(meta).is_some_and(|last| works_since(view, last)) {
        meta.boot_failures = 0;
    }
}

/// Whether the pool must wait with its launches: with the machines that ended early and are not counted yet, there would be
/// too many failures in a row.
pub fn must_wait(view: &PoolView, meta: &Meta, now: Timestamp) -> bool {
    let newest = view.slots.values().filter(|slot| slot.works()).filter_map(Slot::machine);
    let newest = newest.map(Machine::runs_since).max();
    let is_in_a_row = |slot: &&Slot| slot.machine().map(Machine::runs_since) > newest;
    // A machine that ended a moment ago has most likely finished a job.
    let counts_as_supply = |slot: &Slot| slot.is_supply(now) && view.may_have_run_one(slot);
    let ended = view.slots.values().filter(|slot| is_early(slot) && !counts_as_supply(slot)).filter(is_in_a_row);
    let uncounted = u32::try_from(ended.count()).unwrap_or(u32::MAX);
    uncounted > 0 && meta.boot_failures.saturating_add(uncounted) >= FAILURES_ALLOWED
}
