//! How many launches a pool decides. EC2 accepts five calls of RunInstances at once, and two more per second; it throttles the
//! others, and each of them delays the next. So jobs are gathered until a call is accepted, and few calls launch for many jobs.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::policy::PoolView;

/// The most launches that a pool decides within [`WITHIN`].
const LAUNCHES: usize = 5;

/// In this time, EC2 accepts [`LAUNCHES`] more calls.
const WITHIN: SignedDuration = SignedDuration::from_millis(2500);

/// When the next launch may be decided; None if now.
pub fn resumes_at(view: &PoolView, now: Timestamp) -> Option<Timestamp> {
    let recent = view.slots.values().filter(|slot| now.duration_since(slot.planned_at) < WITHIN);
    let launches: BTreeMap<u64, Timestamp> = recent.map(|slot| (slot.id.version, slot.planned_at)).collect();
    let mut decided: Vec<Timestamp> = launches.into_values().collect();
    decided.sort_unstable();
    let oldest = decided.len().checked_sub(LAUNCHES)?;
    Some(decided[oldest] + WITHIN)
}
