//! The stored records, one per file, and their keys.

mod batch;
mod boot;
mod boot_report;
mod check_run;
mod claim;
mod closed_runner;
mod function;
mod instance;
mod item;
mod janitor;
mod job;
mod key;
mod lease;
mod limit;
mod listing;
mod meta;
mod nudge;
mod pools;
mod rerun;
mod slot;
mod unrouted;
mod usage;
mod waiting;

pub use batch::{ANSWERS_KEPT, Answer, Batch, STUCK_AFTER, bounded};
pub use boot::{AGENT_WAIT, AllowedJobs, BootItem, MeasuredMachine, boot_key};
pub use boot_report::{BootReport, KEEP_REPORTS, StoredReport, UnusableReport};
pub use check_run::{CheckRun, Stage};
pub use claim::{Claim, MAX_CLAIMS};
pub use closed_runner::ClosedRunner;
pub use function::{Function, FunctionName};
pub use instance::{Condemned, Instance, KEEP_CLOSED, Ownership};
pub use item::Item;
pub use janitor::{
    DeliveryReading, FoundJobs, Janitor, ListReading, ListState, MissedReport, ReportingImage, SearchRound,
    SearchedRepository, Suspect, Undelivered, oldest_suspects,
};
pub use job::{Job, KEEP_DONE, MAX_QUEUED, Rank, TRUST_QUEUED_FOR};
pub use key::Key;
pub use lease::{Lease, Leased};
pub use limit::Limit;
pub use listing::Listing;
pub use meta::{Circuit, CircuitCause, ClassState, Cooldown, Failure, LastReading, Meta, Pause, Throttle, UnreadSlots};
pub use nudge::Nudge;
pub use pools::{Config, FORMAT};
pub use rerun::{Cancelled, Rerun};
pub use slot::{
    Boot, CHECK_LOST_JOB_EVERY, GIVE_UP_LOST_JOB_AFTER, Machine, Phase, Runner, Slot, SlotOutcome, SlotState, Stop,
    StopReason, TRUST_BUSY_FOR, WEBHOOK_GRACE,
};
pub use unrouted::{KEEP_UNROUTED, UnroutedJob};
pub use usage::{LONGEST_USAGE, USAGE_POINTS, UnusableUsage, Usage, UsageLine, in_columns, smaller_vcpus};
pub use waiting::{GivenUp, LaterAttempt, Unserved, WaitingJob};
