//! Random worlds: the engine while faults strike, and then while none does any more.
//!
//! A seed decides everything: pools, jobs, which kinds of faults are on and how often each strikes. A run is
//! single-threaded and event-driven: time jumps to the next thing that is due. Every call of a port is two of those
//! things, before and after the call, each at a time of its own, so invocations interleave at every call. At each of the
//! two a fault may strike and the invocation may end.

mod agenda;
mod call_kinds;
mod deliveries;
mod faults;
mod functions;
mod ground_truth;
mod hunt;
mod incidents;
mod inject;
mod invocation;
mod judge;
mod machine;
mod machines;
mod outcome;
mod run;
mod seed;
mod shape;
mod shrink;
mod total;

pub use faults::{Fault, VERSION};
pub use hunt::{Hunt, hunt};
pub use outcome::{Convergence, Line, MachineCounts, Options, Outcome, Violation};
pub use run::run;
pub use shrink::{Shrunk, shrink};
pub use total::{Percentiles, Total};
