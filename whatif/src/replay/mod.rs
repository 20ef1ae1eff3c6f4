//! Runs the jobs of a trace through Drover's engine in virtual time.
//!
//! A run is single-threaded and event-driven: time jumps to the next event. The engine, EC2's and GitHub's models and their published
//! limits are the same as in the simulator. The calls within a function take no time; what they take in reality is part of
//! the time of a machine ([`Assumptions`]). The same trace, pools and assumptions give the same outcome.

mod account;
mod assumptions;
mod counted;
mod jobs;
mod machine;
mod machines;
mod outcome;
mod run;
mod state;

pub use assumptions::Assumptions;
pub use outcome::{Outcome, PoolOutcome, Waits};
pub use run::replay;
pub use state::Scenario;
