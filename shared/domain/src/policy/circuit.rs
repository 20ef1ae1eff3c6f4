//! The circuit that stops a pool whose machines cannot work from launching more.

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::log::Transaction;
use crate::policy::PoolView;
use crate::policy::tuple::{Budget, next_free};
use crate::state::{Batch, Circuit, CircuitCause, Leased, Meta, Slot};

/// Opens the pool's circuit. A circuit that is open stays open for its present back-off.
pub fn open_circuit(meta: &mut Meta, pool: &Pool, cause: CircuitCause, message: String, now: Timestamp) {
    let (since, backoff_seconds) = match &meta.circuit {
        Circuit::Closed => (now, pool.timings.backoff_min.duration().as_secs()),
        Circuit::Open { since, backoff_seconds, .. } => (*since, *backoff_seconds),
    };
    let until = now + SignedDuration::from_secs(backoff_seconds);
    meta.circuit = Circuit::Open { until, backoff_seconds, since, cause, message };
}

/// When the next probe may be launched: one that is launched now has the time to boot and to fail before.
pub(super) fn after_probe(pool: &Pool, backoff_seconds: i64, now: Timestamp) -> Timestamp {
    now + pool.timings.boot_grace.duration() + SignedDuration::from_secs(backoff_seconds)
}

/// META after these slots were stopped or closed. If one of them is the last probe, which then shows neither that machines come up
/// nor that they fail, the next probe is due at once, with the back-off from before it: a job would wait for an answer that never
/// comes.
#[must_use]
pub(super) fn without_probe<'a>(
    pool: &Pool,
    meta: &Meta,
    slots: impl IntoIterator<Item = &'a Slot>,
    now: Timestamp,
) -> Meta {
    let Circuit::Open { until, backoff_seconds, since, cause, message } = &meta.circuit else { return meta.clone() };
    // A failure, another probe and an operator change `until`.
    let is_last_probe = |slot: &Slot| *until == after_probe(pool, *backoff_seconds, slot.planned_at) && !slot.works();
    if !slots.into_iter().any(is_last_probe) {
        return meta.clone();
    }
    let backoff_seconds = (backoff_seconds / 2).max(pool.timings.backoff_min.duration().as_secs());
    let (until, since) = (now.min(*until), *since);
    let circuit = Circuit::Open { until, backoff_seconds, since, cause: cause.clone(), message: message.clone() };
    Meta { circuit, ..meta.clone() }
}

/// When the open circuit permits a probe and EC2 is expected to accept one; None if the circuit is closed.
pub fn next_probe(pool: &Pool, meta: &Meta, now: Timestamp) -> Option<Timestamp> {
    let Circuit::Open { until, .. } = &meta.circuit else { return None };
    let free = next_free(pool, meta, Budget::UNLIMITED, now).filter(|free| *free > now);
    Some(free.map_or(*until, |free| free.max(*until)))
}

/// Launches that an operator's request resumes at once. The others follow when they are due.
const RESUMED_AT_ONCE: usize = 50;

/// Ends the waits that follow from EC2's refusals and from failed machines: an operator has corrected the cause. An open circuit
/// stays open, and its next probe is due. Empty if nothing waits.
pub fn try_again(view: &PoolView, now: Timestamp) -> Transaction {
    let mut meta = view.meta.clone();
    meta.cooldowns.clear();
    meta.pauses.clear();
    let of_classes = meta.classes.values_mut().map(|class| &mut class.circuit);
    for circuit in of_classes.chain([&mut meta.circuit]) {
        if let Circuit::Open { until, .. } = circuit {
            *until = now.min(*until);
        }
    }
    let waits = |batch: &&Batch| batch.tuple.is_none() && !batch.lease.is_free(now);
    let due = view.batches.values().filter(waits).take(RESUMED_AT_ONCE).map(|batch| batch.clone().put_off(now));
    let writes = Transaction::new().put_all(due);
    if meta == view.meta && writes.puts.is_empty() { writes } else { writes.put(meta) }
}
