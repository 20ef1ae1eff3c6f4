//! Where the jobs of a trace come from: the stack's event log, or GitHub, which also knows the time before Drover.

pub mod github;
mod journal;
pub mod log;
mod plan;
mod recorded;
mod sample;
mod wanted;

pub use self::journal::Journal;
pub use self::recorded::{Names, Recorded};
pub use self::wanted::Wanted;
