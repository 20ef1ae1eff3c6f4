//! The code that scaler, janitor and simulator share: record facts, reconcile pools, sweep.
//!
//! The engine performs calls in order and decides nothing: every decision is a pure function of `domain::policy`.
//!
//! **Architecture Invariant:** nothing here uses AWS, HTTP, tokio or the system clock. The engine reaches the outside
//! through [`ports`] only, so the simulator runs the same code in virtual time.

mod accounts;
pub mod app_key;
pub mod consume;
pub mod context;
mod effects;
pub mod error;
mod instance_change;
pub mod memory;
pub mod metrics;
pub mod pools;
pub mod ports;
pub mod reconcile;
pub mod record;
pub mod sweep;
pub mod table;
mod turnstile;
