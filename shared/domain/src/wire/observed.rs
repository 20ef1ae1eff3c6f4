//! Instances and runners as EC2 and GitHub list them.

use jiff::Timestamp;

use crate::ids::{BatchTag, InstanceId, PoolName, RunnerId};

/// An instance's state, as EC2 says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MachineState {
    Pending,
    Running,
    Stopping,
    Stopped,
    ShuttingDown,
    Terminated,
}

impl MachineState {
    /// Whether it still costs money or can run a job: pending to stopped.
    pub fn is_live(self) -> bool {
        match self {
            MachineState::Pending | MachineState::Running | MachineState::Stopping | MachineState::Stopped => true,
            MachineState::ShuttingDown | MachineState::Terminated => false,
        }
    }
}

/// An instance of the stack, as DescribeInstances shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedInstance {
    /// Its id.
    pub id: InstanceId,
    /// Its state.
    pub state: MachineState,
    /// When EC2 launched it.
    pub launched_at: Timestamp,
    /// Tag `drover:pool`, if it is a pool's name.
    pub pool: Option<PoolName>,
    /// Tag `drover:batch`, if it is one.
    pub batch: Option<BatchTag>,
    /// Tag `drover:hold` is there: an operator wants it untouched.
    pub hold: bool,
}

/// A runner in GitHub's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedRunner {
    /// GitHub's id.
    pub id: RunnerId,
    /// Its name, whole.
    pub name: String,
    /// Connected just now.
    pub online: bool,
    /// Has a job. May be out of date when false.
    pub busy: bool,
}
