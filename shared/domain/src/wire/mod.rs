//! Data from outside: queue messages, and the lists of EC2 and GitHub.

mod notice;
mod observed;

pub use notice::{
    Action, InstanceChange, JobNotice, Message, MessageError, Notice, RunnerNotice, VERSION as MESSAGE_VERSION,
};
pub use observed::{
    DeliveryAttempt, DeliveryPage, Deregistered, FoundJob, MachineState, NamedRunners, ObservedInstance,
    ObservedRunner, RepositoryPage, RunJobs, RunnerPage, RunsUnderWay, StateReason, TokenMark,
};
