//! The pure core of Drover: facts, and the decisions that follow from them.
//!
//! **Architecture Invariant:** nothing here reads a clock, an environment variable or a random number, and nothing is
//! async or does I/O. Time comes in as an argument, effects go out as data. The caller (a Lambda function, the simulator,
//! a test) passes the current time and performs the effects.
//!
//! Layers, each of which may use only those above it: [`ids`], then [`wire`] and [`config`], then [`state`], then [`log`],
//! then [`policy`].

pub mod config;
pub mod ids;
pub mod log;
pub mod policy;
pub mod state;
pub mod wire;
