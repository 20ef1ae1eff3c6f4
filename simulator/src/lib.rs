//! The engine in the models of EC2 and GitHub, in virtual time: no network, no process, no clock.
//!
//! [`Universe`] implements the engine's ports on the very models that the sandbox puts on the wire. Every port call is a
//! step at which whoever drives the engine may let others run first, or drop the engine as a crash would.

mod ports;
mod rules;
mod universe;

pub use ports::{Call, Step};
pub use rules::Checked;
pub use universe::{Universe, pool};
