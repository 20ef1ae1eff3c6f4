//! What is still owed: the effects that a reading of a pool calls for. First run, retry, redelivery and recovery from a
//! crash are all this one question.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::ids::{JobId, SlotId};
use crate::policy::PoolView;
use crate::policy::notify::due_notification;
use crate::state::{Slot, SlotState};

/// One thing that somebody should do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Launch the batch of that version.
    Launch(u64),
    /// Register a runner for the slot and leave its machine the JIT config.
    Register(SlotId),
    /// Deregister the slot's runner and terminate its machine, in that order.
    Retire(SlotId),
    /// Ask GitHub whether the job still waits.
    Check(JobId),
    /// Ask GitHub what became of the job of a slot whose machine is gone.
    Ask(SlotId),
    /// Tell the job's author what is to be known.
    Tell(JobId),
    /// Run the job again, once its run has ended.
    Rerun(JobId),
}

/// Everything that is owed and that nobody has leased.
pub fn due(pool: &Pool, view: &PoolView, now: Timestamp) -> Vec<Effect> {
    let launches = view
        .batches
        .values()
        .filter(|batch| batch.next_at <= now && !view.meta.is_throttled(now))
        .map(|batch| Effect::Launch(batch.version));
    let slots = view.slots.values().filter(|slot| slot.next_at <= now).filter_map(owed);
    let mut checks: BTreeSet<JobId> =
        view.waiting.values().filter(|job| job.check_at <= now).map(|job| job.id).collect();
    checks.extend(perhaps_done(view, now));
    let checks = checks.into_iter().map(Effect::Check);
    let told: BTreeSet<JobId> = view.waiting.keys().chain(view.check_runs.keys()).copied().collect();
    let words = told.into_iter().filter(|job| due_notification(pool, view, *job, now).is_some()).map(Effect::Tell);
    let reruns = view.reruns.values().filter(|rerun| rerun.next_at <= now).map(|rerun| Effect::Rerun(rerun.job));
    launches.chain(slots).chain(checks).chain(words).chain(reruns).collect()
}

/// The jobs that machines which went away without a word most likely ran: two for each, those that wait longest.
fn perhaps_done(view: &PoolView, now: Timestamp) -> Vec<JobId> {
    let silent: Vec<Timestamp> =
        view.slots.values().filter(|slot| slot.is_fate_unknown(now)).filter_map(|slot| slot.gone_at).collect();
    let Some(last) = silent.iter().max() else { return Vec::new() };
    let mut jobs: Vec<_> = view.waiting.values().filter(|job| job.open && job.checked_at < *last).collect();
    jobs.sort_by_key(|job| (job.queued_at, job.id));
    jobs.into_iter().take(2 * silent.len()).map(|job| job.id).collect()
}

/// What is owed to a slot, if anything, whoever has leased it.
pub fn owed(slot: &Slot) -> Option<Effect> {
    match (&slot.state, &slot.stop) {
        (SlotState::Busy { .. }, _) if slot.gone_at.is_some() && !slot.lost_sight => Some(Effect::Ask(slot.id)),
        // Its machine is no more; what is left of its registration is the sweep's.
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

/// Whether its stop is being carried out. That of a runner which turned out to have a job is not: it came too late.
pub fn is_being_retired(slot: &Slot) -> bool {
    matches!(owed(slot), Some(Effect::Retire(_)))
}

/// How long to wait after so many tries in vain: doubles from the pool's `backoff_min` to its `backoff_max`, less up to a
/// quarter, so that what failed together is not tried again together. `subject` picks how much less; the same subject and
/// try always wait the same.
pub fn backoff(pool: &Pool, tries: u32, subject: &str) -> SignedDuration {
    let least = pool.timings.backoff_min.duration();
    let most = pool.timings.backoff_max.duration();
    spread(least.saturating_mul(1 << tries.min(16)).min(most), tries, subject)
}

/// How long to wait after EC2 throttled a launch so often in a row. Its bucket of five calls refills two a second: it is full
/// again after three seconds, unless others of the account empty it.
pub fn throttle_backoff(times: u32, subject: &str) -> SignedDuration {
    let longest = SignedDuration::from_secs(10);
    spread(
        SignedDuration::from_secs(2).saturating_mul(1 << times.saturating_sub(1).min(8)).min(longest),
        times,
        subject,
    )
}

fn spread(wait: SignedDuration, tries: u32, subject: &str) -> SignedDuration {
    let hash = subject
        .bytes()
        .fold(tries.wrapping_mul(0x9e37_79b9), |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    wait - (wait / 4 / 256) * i32::from((hash >> 24) as u8)
}
