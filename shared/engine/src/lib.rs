//! What scaler, janitor and simulator share: record facts, reconcile pools, sweep.
//!
//! The engine performs calls in order and decides nothing: every decision is a pure function of `domain::policy`.
//!
//! **Architecture Invariant:** nothing here knows AWS, HTTP, tokio or the machine's clock. Everything outside comes in
//! through [`ports`]; so the simulator runs this very code in virtual time.

pub mod consume;
pub mod context;
mod effects;
pub mod error;
pub mod memory;
pub mod metrics;
pub mod ports;
pub mod reconcile;
pub mod record;
pub mod sweep;
pub mod table;
