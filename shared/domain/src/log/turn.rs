//! One step of an invocation.

use jiff::Timestamp;

use crate::log::event::Cause;

/// The time and the cause of a decision, and how long its effects belong to the invocation that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub now: Timestamp,
    /// No other invocation performs the decided effects before then.
    pub lease: Timestamp,
    pub cause: Cause,
}
