//! What other pools would have cost, and how long jobs would have waited: recorded jobs, run through Drover's engine in
//! virtual time.

pub mod collect;
pub mod day;
pub mod hosted;
pub mod needs;
pub mod offline;
pub mod replay;
pub mod trace;
