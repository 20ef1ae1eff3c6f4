//! How many launches a pool decides. EC2 accepts five calls of RunInstances at once, and two more per second; it throttles the
//! others, and each of them delays the next. So jobs are gathered until a call is accepted, and few calls launch for many jobs.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};

use crate::policy::{PoolView, nudge};

/// In this time, EC2 accepts one more call.
pub const INTERVAL: SignedDuration = SignedDuration::from_millis(500);

/// The number of calls that EC2 accepts at once.
const AT_ONCE: i32 = 5;

/// Calls that a pool leaves unused once it has made the first [`AT_ONCE`]. A call reaches EC2 up to some seconds after its decision, so
/// decisions at the right distance are not calls at that distance.
const UNUSED: i32 = 2;

/// When the next launch may be decided; None if now. The launches that were decided before are known from their slots.
///
/// A large pool is read less often. Each time, it may decide as many more launches as EC2 accepts until the next reading.
pub fn resumes_at(view: &PoolView, now: Timestamp) -> Option<Timestamp> {
    let at_once = AT_ONCE + (nudge::pause(view.size()).as_millis() / INTERVAL.as_millis()) as i32;
    // One slot of each launch. The clock of the function that decided it may be ahead.
    let mut launches: Vec<(u64, Timestamp)> =
        view.slots.values().map(|slot| (slot.id.version, slot.planned_at.min(now))).collect();
    launches.dedup_by_key(|(version, _)| *version);
    launches.sort_unstable_by_key(|(_, at)| Reverse(*at));
    // `number` launches were decided at `at` or later. For each beyond the first ones, EC2 needs an interval.
    let too_many = launches.into_iter().zip(1..).filter(|(_, number)| *number >= at_once);
    let next = too_many.map(|((_, at), number)| at + INTERVAL * (number + 1 + UNUSED - at_once)).max()?;
    (next > now).then_some(next)
}
