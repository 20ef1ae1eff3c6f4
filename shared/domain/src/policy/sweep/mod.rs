//! The decisions of a sweep, from three sources: EC2's list of instances, GitHub's lists of runners, and the table.
//!
//! An instance is *abandoned* if and only if nothing in the table will use it again and GitHub cannot give its runner a job.
//! A sweep removes abandoned instances and unused registrations, stops slots that cannot run a job any more, and records what
//! EC2 and GitHub show about the others. A source that could not be read is unknown, never empty: see
//! [`RunnerState::Unread`].

mod judge;
mod plan;
mod shares;

pub(crate) use judge::may_be_stopped;
pub use judge::{
    LISTED_AFTER, Recorded, RunnerState, STOPPING_GRACE, SlotSubject, SlotVerdict, UnownedSubject, UnownedVerdict,
    judge_slot, judge_unowned,
};
pub use plan::{
    Census, MAX_UNCONFIRMED, MIN_ONLINE_TO_DISTRUST_EMPTY, Plan, Reap, is_current, plan, reclaimed_instances,
    unowned_instances,
};
pub use shares::{Shares, shares};
