//! What is still owed: the effects that a reading of a pool calls for. First run, retry, redelivery and recovery from a
//! crash are all this one question.

use jiff::{SignedDuration, Timestamp};

use crate::ids::{JobId, SlotId};
use crate::pool::Pool;
use crate::slot::{Slot, SlotState, StopReason};
use crate::view::PoolView;

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
}

/// Everything that is owed and that nobody has leased.
pub fn due(view: &PoolView, now: Timestamp) -> Vec<Effect> {
    let launches = view
        .batches
        .values()
        .filter(|batch| batch.next_at <= now && !view.meta.is_throttled(now))
        .map(|batch| Effect::Launch(batch.version));
    let slots = view.slots.values().filter(|slot| slot.next_at <= now).filter_map(owed);
    let checks = view.waiting.values().filter(|job| job.check_at <= now).map(|job| Effect::Check(job.id));
    launches.chain(slots).chain(checks).collect()
}

/// What is owed to a slot, if anything, whoever has leased it.
pub fn owed(slot: &Slot) -> Option<Effect> {
    if slot.gone_at.is_some() {
        // Its machine is no more; what is left of its registration is the sweep's.
        return None;
    }
    match (&slot.state, &slot.stop) {
        (SlotState::Launched(_), None) if slot.wanted => Some(Effect::Register(slot.id)),
        (SlotState::Launched(_) | SlotState::Configured { .. } | SlotState::Online { .. }, Some(_)) => {
            Some(Effect::Retire(slot.id))
        }
        // For a runner with a job most stops come too late; these are about its machine, or say that the job is over.
        (SlotState::Busy { .. } | SlotState::Done { .. }, Some(stop)) => match stop.why {
            StopReason::MaxLife | StopReason::RunnerEnded | StopReason::Halted => Some(Effect::Retire(slot.id)),
            StopReason::Surplus
            | StopReason::BootFailure
            | StopReason::Interrupted
            | StopReason::Recycled
            | StopReason::Operator => None,
        },
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

/// How long to wait after so many tries in vain: doubles from the pool's `backoff_min` to its `backoff_max`, less up to a
/// quarter, so that what failed together is not tried again together. `subject` picks how much less; the same subject and
/// try always wait the same.
pub fn backoff(pool: &Pool, tries: u32, subject: &str) -> SignedDuration {
    let least = pool.timings.backoff_min.duration();
    let most = pool.timings.backoff_max.duration();
    spread(least.saturating_mul(1 << tries.min(16)).min(most), tries, subject)
}

/// How long to wait after EC2 throttled a launch: its bucket refills two calls a second.
pub fn throttle_backoff(tries: u32, subject: &str) -> SignedDuration {
    let longest = SignedDuration::from_secs(30);
    spread(SignedDuration::from_secs(2).saturating_mul(1 << tries.min(8)).min(longest), tries, subject)
}

fn spread(wait: SignedDuration, tries: u32, subject: &str) -> SignedDuration {
    let hash = subject
        .bytes()
        .fold(tries.wrapping_mul(0x9e37_79b9), |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    wait - (wait / 4 / 256) * i32::from((hash >> 24) as u8)
}
