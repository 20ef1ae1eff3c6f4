//! EC2's reports about one instance: a spot interruption, or its end.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::config::Pool;
use crate::ids::{JobId, SlotId};
use crate::log::{Stream, Transaction, Turn, What};
use crate::policy::rerun::{Ended, owed};
use crate::state::{Config, Instance, Job, Ownership, Slot, StopReason};
use crate::wire::InstanceChange;

/// The records about an instance that EC2 reported on.
#[derive(Debug, Clone)]
pub struct Reported {
    pub instance: Instance,
    /// The slot that the instance is bound to, unless it is closed.
    pub slot: Option<Slot>,
    /// The facts of the jobs that were claimed for its runner, as far as they are stored.
    pub jobs: Vec<Job>,
    /// Those of these jobs whose re-run is recorded already.
    pub reruns: BTreeSet<JobId>,
}

/// The slot that the instance is bound to.
pub fn bound_slot(instance: &Instance) -> Option<SlotId> {
    match &instance.ownership {
        Ownership::Bound => instance.slot,
        Ownership::Condemned { .. } | Ownership::Adopted | Ownership::Closed { .. } => None,
    }
}

/// The pool whose instance it is or was.
pub fn pool_of<'a>(config: &'a Config, instance: &Instance) -> Option<&'a Pool> {
    config.pool(instance.pool.as_ref()?)
}

/// Records EC2's report; None if it changes nothing.
pub fn record_change(pool: &Pool, reported: Reported, change: InstanceChange, turn: &Turn) -> Option<Transaction> {
    match change {
        InstanceChange::Other => None,
        InstanceChange::Interrupted(at) => {
            let at = at.unwrap_or_else(|| latest_time(&reported, turn.now));
            record_interruption(pool, reported, at, turn)
        }
        InstanceChange::Ended => {
            let slot = reported.slot.filter(|slot| slot.gone_at.is_none())?;
            let what =
                What::Observed { online: Vec::new(), gone: vec![slot.id], unregistered: Vec::new(), ready: Vec::new() };
            let writes = Transaction::new().put(slot.gone(turn.now));
            Some(writes.emit(Stream::Pool(pool.name.clone()), what, turn))
        }
        // A machine that nobody wanted to stop is the janitor's: it reads EC2's list.
        InstanceChange::Stopped => {
            let slot = reported.slot.filter(|slot| slot.gone_at.is_none())?.ready()?;
            let what =
                What::Observed { online: Vec::new(), gone: Vec::new(), unregistered: Vec::new(), ready: vec![slot.id] };
            Some(Transaction::new().put(slot).emit(Stream::Pool(pool.name.clone()), what, turn))
        }
    }
}

/// The latest time at which EC2 can have interrupted the instance: before Drover learned that it has ended, or now.
fn latest_time(reported: &Reported, now: Timestamp) -> Timestamp {
    let closed_at = match &reported.instance.ownership {
        Ownership::Closed { closed_at, .. } => Some(*closed_at),
        Ownership::Bound | Ownership::Condemned { .. } | Ownership::Adopted => None,
    };
    let gone_at = reported.slot.as_ref().and_then(|slot| slot.gone_at);
    [gone_at, closed_at].into_iter().flatten().fold(now, Timestamp::min)
}

/// Records the interruption in the instance, whatever the state of its slot. A job that has ended already is owed its re-run
/// now. The slot is written even if it does not change: otherwise the end of its job, recorded at the same time from an
/// earlier reading, would not see the interruption.
fn record_interruption(pool: &Pool, reported: Reported, at: Timestamp, turn: &Turn) -> Option<Transaction> {
    let Reported { instance, slot, jobs, reruns: recorded } = reported;
    if instance.interrupted_at.is_some() {
        return None;
    }
    let why = StopReason::Interrupted;
    // An earlier stop does not end a job, and must not hide why the job will fail.
    let stops = |slot: &Slot| {
        slot.gone_at.is_none() && !slot.stop.as_ref().is_some_and(|stop| stop.why == why || stop.why.ends_a_job())
    };
    let gone_at = slot.as_ref().and_then(|slot| slot.gone_at);
    let reruns: Vec<_> = jobs
        .iter()
        .filter(|job| !recorded.contains(&job.id))
        .filter_map(|job| owed(pool, &Ended::of_job(job)?, Some(at), gone_at, turn.now))
        .collect();
    let (slot, what) = match slot {
        Some(slot) if stops(&slot) => {
            let what = What::Stopped { slot: slot.id, why };
            (Some(slot.stopped(why, turn.now, turn.now)), what)
        }
        slot => (slot, What::Interrupted { instance: instance.id.clone() }),
    };
    let instance = Instance { interrupted_at: Some(at), ..instance };
    let writes = Transaction::new().put(instance).put_all(slot).put_all(reruns);
    Some(writes.emit(Stream::Pool(pool.name.clone()), what, turn))
}
