//! How many launches a pool decides. EC2 accepts five calls of RunInstances at once, and two more per second; it throttles the
//! others, and each of them delays the next. So jobs are gathered until a call is accepted, and few calls launch for many jobs.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::policy::{PoolView, nudge};

/// In this time, EC2 accepts one more call.
pub const INTERVAL: SignedDuration = SignedDuration::from_millis(500);

/// The number of calls that EC2 accepts at once. A small pool decides at most this many launches in as many intervals.
const LAUNCHES: i32 = 5;

/// When the next launch may be decided; None if now.
///
/// A large pool is read less often. Each time, it may decide as many launches as EC2 accepts until the next reading.
pub fn resumes_at(view: &PoolView, now: Timestamp) -> Option<Timestamp> {
    let within = (INTERVAL * LAUNCHES).max(nudge::pause(view.size()));
    let most = (within.as_millis() / INTERVAL.as_millis()) as usize;
    let recent = view.slots.values().filter(|slot| now.duration_since(slot.planned_at) < within);
    let launches: BTreeMap<u64, Timestamp> = recent.map(|slot| (slot.id.version, slot.planned_at)).collect();
    let mut decided: Vec<Timestamp> = launches.into_values().collect();
    decided.sort_unstable();
    let oldest = decided.len().checked_sub(most)?;
    Some(decided[oldest] + within)
}
