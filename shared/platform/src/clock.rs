//! The time of the machine.

use engine::ports::Clock;
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};

/// Reads the machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// How far a clock that told this as an HTTP `date`, a moment ago, is ahead of ours. None for what is no date.
pub fn ahead(date: &str) -> Option<SignedDuration> {
    let theirs = rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(theirs.duration_since(SystemClock.now()))
}
