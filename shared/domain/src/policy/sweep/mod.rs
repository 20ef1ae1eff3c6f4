//! What a sweep repairs, from three sources: EC2's list of instances, GitHub's lists of runners, and the table.
//!
//! An instance is *abandoned* if and only if nothing in the table will use it again and GitHub cannot give its runner a job.
//! A sweep removes abandoned instances, ends what has outlived its use, and records what EC2 and GitHub show of the rest. A
//! source that could not be read is unknown, never empty: see [`RunnerState::Unread`].

mod judge;
mod plan;

pub use judge::{
    LISTED_AFTER, Recorded, RunnerState, STOPPING_GRACE, SlotSubject, SlotVerdict, UnownedSubject, UnownedVerdict,
    judge_slot, judge_unowned,
};
pub use plan::{Census, MAX_UNVOUCHED, MIN_BELIEVED_EMPTY, Plan, Reap, plan, unowned_instances};
