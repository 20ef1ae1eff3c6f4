//! What scaler, janitor and simulator share: record facts, decide, perform what is owed.
//!
//! **Architecture Invariant:** nothing here knows AWS, HTTP, tokio or the clock of the machine. The world comes in through
//! [`ports`]; that is what lets the simulator run this very code in virtual time.

mod check;
pub mod consume;
pub mod context;
pub mod effect;
mod launch;
pub mod memory;
pub mod metrics;
pub mod ports;
pub mod reconcile;
pub mod record;
mod recover;
mod register;
mod rerun;
mod retire;
pub mod sweep;
mod tell;
