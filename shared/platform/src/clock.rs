//! The time of the machine.

use engine::ports::Clock;
use jiff::Timestamp;

/// Reads the machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
