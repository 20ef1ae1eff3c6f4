//! The engine in the models of EC2 and GitHub, in virtual time: no network, no process, no clock.
//!
//! [`Universe`] implements the engine's ports on the very models that the sandbox puts on the wire. Every port call is a
//! step at which whoever drives the engine may let others run first, or drop the engine as a crash would.

pub mod exhaustive;
pub mod mistakes;
pub mod page;
mod ports;
mod rules;
mod steps;
pub mod swarm;
mod universe;

pub use rules::Checked;
pub use steps::{Call, Side, Step};
pub use universe::{Universe, pool};
