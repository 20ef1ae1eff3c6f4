//! Random worlds: the engine runs while faults strike, and then without faults.
//!
//! A seed decides everything: pools, jobs, which kinds of faults are on and how often each strikes. A run is
//! single-threaded and event-driven: time jumps to the next event. Every call of a port has two events, one
//! before and one after the call, each at its own time, so invocations interleave at every call. At each of these events a
//! fault may strike and the invocation may end.

mod agenda;
mod arrival;
mod burst;
mod call_kinds;
mod deliveries;
mod faults;
mod flood;
mod functions;
mod ground_truth;
mod hunt;
mod incidents;
mod inject;
mod invocation;
mod judge;
mod left_over;
mod machine;
mod machines;
mod market;
mod outcome;
mod reports;
mod rollback;
mod run;
mod seed;
mod shape;
mod shape_judge;
mod shrink;
mod timetable;
mod total;

pub use burst::{Burst, Launched, burst};
pub use faults::{Fault, VERSION};
pub use flood::{Flood, Flooded, MOST_DELAY, SCALERS, flood};
pub use hunt::{Hunt, hunt};
pub use outcome::{Convergence, Line, MachineCounts, Options, Outcome, Violation};
pub use run::run;
pub use shape::Groups;
pub(crate) use shape_judge::Asked;
pub use shrink::{Shrunk, shrink};
pub use total::{Percentiles, Total};
