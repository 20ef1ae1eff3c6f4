//! The clock.

use jiff::Timestamp;

/// The time. The simulator's clock is virtual.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}
