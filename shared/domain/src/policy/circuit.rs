//! The circuit that stops a pool whose machines cannot work from launching more.

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::policy::tuple::next_free;
use crate::state::{Circuit, CircuitCause, Meta};

/// Opens the pool's circuit. A circuit that is open stays open for its present back-off.
pub fn open_circuit(meta: &mut Meta, pool: &Pool, cause: CircuitCause, message: String, now: Timestamp) {
    let (since, backoff_seconds) = match &meta.circuit {
        Circuit::Closed => (now, pool.timings.backoff_min.duration().as_secs()),
        Circuit::Open { since, backoff_seconds, .. } => (*since, *backoff_seconds),
    };
    let until = now + SignedDuration::from_secs(backoff_seconds);
    meta.circuit = Circuit::Open { until, backoff_seconds, since, cause, message };
}

/// When the open circuit permits a probe and EC2 is expected to accept one; None if the circuit is closed.
pub fn next_probe(pool: &Pool, meta: &Meta, now: Timestamp) -> Option<Timestamp> {
    let Circuit::Open { until, .. } = &meta.circuit else { return None };
    let free = next_free(pool, meta, now).filter(|free| *free > now);
    Some(free.map_or(*until, |free| free.max(*until)))
}
