//! What scaler, janitor and simulator share: record facts, decide, perform what is owed.
//!
//! **Architecture Invariant:** nothing here knows AWS, HTTP, tokio or the clock of the machine. The world comes in through
//! [`ports`]; that is what lets the simulator run this very code in virtual time.

pub mod memory;
pub mod ports;
