//! When a failed attempt is repeated.

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;

/// The kinds of failed calls to GitHub, by when the next call makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A rate limit: no call for this account before `until`.
    Limited { until: Timestamp },
    /// GitHub did nothing, and repeats the answer until somebody changes something there.
    Refused,
    /// GitHub may have performed the call.
    Unavailable,
}

/// When to try again: when the limit ends, otherwise after `wait`.
pub fn next_attempt(failure: Failure, now: Timestamp, wait: SignedDuration) -> Timestamp {
    match failure {
        Failure::Limited { until } => until,
        Failure::Refused | Failure::Unavailable => now + wait,
    }
}

/// The wait after `tries` failed attempts in a row. It doubles from the pool's `backoff_min` to its `backoff_max`. Up to a
/// quarter is subtracted, so that attempts that failed together are not repeated together. The amount depends only on
/// `subject` and `tries`.
pub fn backoff(pool: &Pool, tries: u32, subject: &str) -> SignedDuration {
    let least = pool.timings.backoff_min.duration();
    let most = pool.timings.backoff_max.duration();
    spread(least.saturating_mul(1 << tries.min(16)).min(most), tries, subject)
}

/// The wait after EC2 throttled `times` launches in a row. EC2 allows a burst of five RunInstances calls and two more per
/// second, so the limit recovers within three seconds unless other users of the account call RunInstances too.
pub fn throttle_backoff(times: u32, subject: &str) -> SignedDuration {
    let longest = SignedDuration::from_secs(10);
    let wait = SignedDuration::from_secs(2).saturating_mul(1 << times.saturating_sub(1).min(8));
    spread(wait.min(longest), times, subject)
}

fn spread(wait: SignedDuration, tries: u32, subject: &str) -> SignedDuration {
    let hash = subject
        .bytes()
        .fold(tries.wrapping_mul(0x9e37_79b9), |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    wait - (wait / 4 / 256) * i32::from((hash >> 24) as u8)
}
