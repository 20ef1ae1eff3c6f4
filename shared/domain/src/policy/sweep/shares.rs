//! How a sweep divides its time.

use jiff::Timestamp;

/// When each part of a sweep begins nothing more. A part that takes less leaves the rest to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Reading GitHub's lists of runners.
    pub lists: Timestamp,
    /// Recording what the lists show, and removing what should not exist.
    pub removals: Timestamp,
    /// Reconciling the pools.
    pub pools: Timestamp,
    /// Redelivering webhooks. The rest is for searching repositories.
    pub deliveries: Timestamp,
}

/// The shares of a sweep that begins now and begins nothing after `until`.
pub fn shares(now: Timestamp, until: Timestamp) -> Shares {
    let tenth = until.duration_since(now) / 10;
    Shares { lists: now + tenth * 3, removals: now + tenth * 6, pools: now + tenth * 8, deliveries: now + tenth * 9 }
}
