//! One step of an invocation.

use jiff::Timestamp;

use crate::log::event::Cause;

/// When a decision is made, until when its effects belong to the invocation that made it, and what caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub now: Timestamp,
    /// No other invocation performs the decided effects before then.
    pub lease: Timestamp,
    pub cause: Cause,
}
