//! The effects that are due for a pool. First run, retry, redelivery and recovery from a crash all call [`due`].

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;

use crate::config::Pool;
use crate::ids::{JobId, SlotId};
use crate::policy::PoolView;
use crate::policy::notify::due_notification;
use crate::state::{Slot, SlotState};

/// A call to EC2 or GitHub that a pool needs, with the writes around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Launch the batch of this version.
    Launch(u64),
    /// Register a runner for the slot and hand its JIT config over to the machine.
    Register(SlotId),
    /// Deregister the slot's runner and terminate its machine, in that order.
    Retire(SlotId),
    /// Ask GitHub whether the job still waits.
    Check(JobId),
    /// Ask GitHub about the job of a slot whose machine has ended.
    CheckLostJob(SlotId),
    /// Publish or update the check run that explains why the job waits.
    Notify(JobId),
    /// Re-run the job, once its run has ended.
    Rerun(JobId),
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Launch(version) => write!(f, "the launch of batch {version}"),
            Effect::Register(slot) => write!(f, "the registration of slot {slot}"),
            Effect::Retire(slot) => write!(f, "the retirement of slot {slot}"),
            Effect::Check(job) => write!(f, "the check of job {job}"),
            Effect::CheckLostJob(slot) => write!(f, "the check of the job of slot {slot}"),
            Effect::Notify(job) => write!(f, "the check run of job {job}"),
            Effect::Rerun(job) => write!(f, "the re-run of job {job}"),
        }
    }
}

/// Every effect that is due and not leased.
pub fn due(pool: &Pool, view: &PoolView, now: Timestamp) -> Vec<Effect> {
    let launches = view
        .batches
        .values()
        .filter(|batch| batch.lease.is_free(now) && !view.meta.is_throttled(now))
        .map(|batch| Effect::Launch(batch.version));
    let slots = view.slots.values().filter(|slot| slot.lease.is_free(now)).filter_map(next_effect);
    let mut checks: BTreeSet<JobId> =
        view.waiting.values().filter(|job| job.check_at <= now).map(|job| job.id).collect();
    checks.extend(possibly_run(view, now));
    let checks = checks.into_iter().map(Effect::Check);
    let jobs: BTreeSet<JobId> = view.waiting.keys().chain(view.check_runs.keys()).copied().collect();
    let notifications =
        jobs.into_iter().filter(|job| due_notification(pool, view, *job, now).is_some()).map(Effect::Notify);
    let reruns = view.reruns.values().filter(|rerun| rerun.lease.is_free(now)).map(|rerun| Effect::Rerun(rerun.job));
    launches.chain(slots).chain(checks).chain(notifications).chain(reruns).collect()
}

/// The jobs that machines without a report most likely ran: for each machine, the two that have waited longest.
fn possibly_run(view: &PoolView, now: Timestamp) -> Vec<JobId> {
    let ended: Vec<Timestamp> =
        view.slots.values().filter(|slot| slot.awaits_report(now)).filter_map(|slot| slot.gone_at).collect();
    let Some(last) = ended.iter().max() else { return Vec::new() };
    let mut jobs: Vec<_> = view.waiting.values().filter(|job| job.open && job.checked_at < *last).collect();
    jobs.sort_by_key(|job| (job.queued_at, job.id));
    jobs.into_iter().take(2 * ended.len()).map(|job| job.id).collect()
}

/// The effect that the slot needs next, whether or not it is leased.
pub fn next_effect(slot: &Slot) -> Option<Effect> {
    match (&slot.state, &slot.stop) {
        (SlotState::Busy { .. }, _) if slot.gone_at.is_some() && !slot.job_check_ended => {
            Some(Effect::CheckLostJob(slot.id))
        }
        // The machine has ended. The sweep removes the registration.
        _ if slot.gone_at.is_some() => None,
        _ if slot.held => None,
        (SlotState::Launched(_), None) if slot.wanted => Some(Effect::Register(slot.id)),
        (SlotState::Launched(_) | SlotState::Configured { .. } | SlotState::Online { .. }, Some(_)) => {
            Some(Effect::Retire(slot.id))
        }
        (SlotState::Busy { .. } | SlotState::Done { .. }, Some(stop)) => {
            (stop.why.ends_a_job() || stop.forced).then_some(Effect::Retire(slot.id))
        }
        (SlotState::Planned, _)
        | (
            SlotState::Launched(_)
            | SlotState::Configured { .. }
            | SlotState::Online { .. }
            | SlotState::Busy { .. }
            | SlotState::Done { .. },
            None,
        ) => None,
    }
}

/// Whether the slot is being retired. A stopped slot is not if its runner has a job that the stop does not end.
pub fn is_being_retired(slot: &Slot) -> bool {
    matches!(next_effect(slot), Some(Effect::Retire(_)))
}
