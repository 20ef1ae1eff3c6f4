//! Runs the engine against models of EC2, GitHub and SQS in virtual time, without a network, processes or a clock.
//!
//! [`Universe`] implements the engine's ports on the models that the sandbox serves over HTTP. At every call of a port the
//! test may run other invocations first, or drop the invocation, which is what a crash does. On top of it are
//! [`swarm`], random worlds with random faults, and [`exhaustive`], every order of calls in a small world.

mod attempts;
mod call;
mod digest;
pub mod exhaustive;
pub mod mistakes;
pub mod old_version;
pub mod page;
mod rules;
mod steps;
pub mod swarm;
mod universe;

pub use call::{Call, CallKind};
pub use rules::{Checked, Checks};
pub use steps::{Side, Steps};
pub use universe::{Denied, Happenings, Ingest, ROLE, Reports, Runners, SUBNETS, Universe, World, pool, shapes_pool};
