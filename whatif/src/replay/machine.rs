//! The programs on a machine.

use domain::ids::InstanceType;
use jiff::Timestamp;
use world::github::RunnerId;

/// A machine whose programs have started.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) pool: usize,
    pub(super) instance_type: InstanceType,
    pub(super) life: Life,
}

#[derive(Debug)]
pub(super) enum Life {
    /// The agent looks for its registration.
    Waiting,
    /// The runner starts.
    Starting,
    /// The runner is connected. Since when it runs a job, if it does.
    Runner(RunnerId, Option<Timestamp>),
    /// No program runs any more.
    Over,
}

/// What a machine does next.
#[derive(Debug)]
pub(super) enum Doing {
    /// The agent has prepared its machine, and reports that.
    Prepare(Timestamp),
    /// The agent takes its registration.
    Read,
    /// The runner connects with this JIT config.
    Connect(String),
    PowerOff,
    /// EC2 warns that it will reclaim the machine.
    Interrupt,
}
