//! The machine's clock.

use std::time::Duration;

use async_trait::async_trait;
use engine::ports::Clock;
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep_until(&self, at: Timestamp) {
        let left = Duration::try_from(at.duration_since(self.now())).unwrap_or_default();
        tokio::time::sleep(left).await;
    }
}

/// How far another clock is ahead of the machine's clock, by the header `date` of an answer received just now. None if the
/// text is not a date.
pub fn ahead(date: &str) -> Option<SignedDuration> {
    let theirs = rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(theirs.duration_since(SystemClock.now()))
}
