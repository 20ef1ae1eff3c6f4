//! The clock.

use async_trait::async_trait;
use jiff::Timestamp;

/// The time. The simulator's clock is virtual.
#[async_trait]
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;

    /// Returns at this time. In the simulator it never returns: the simulator itself ends invocations.
    async fn sleep_until(&self, at: Timestamp);
}
