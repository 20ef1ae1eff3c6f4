//! Instances and runners as EC2 and GitHub list them.

use jiff::Timestamp;

use crate::ids::{BatchTag, DeliveryId, InstanceId, PoolName, RunnerId};
use crate::wire::notice::JobNotice;

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

/// GitHub's answer to the deletion of a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deregistered {
    /// 204: it can take no job any more.
    Removed,
    /// 404: it could take none before either.
    AlreadyGone,
    /// 422: it has a job.
    Busy,
}

/// One attempt of GitHub to deliver a webhook event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// The attempt's id, which a redelivery is requested with.
    pub id: u64,
    /// `X-GitHub-Delivery`, which all attempts of one event share.
    pub guid: DeliveryId,
    pub delivered_at: Timestamp,
    /// Somebody requested it.
    pub redelivery: bool,
    /// It was answered with a 2xx.
    pub succeeded: bool,
    /// It is about a workflow job.
    pub about_a_job: bool,
}

/// A job in GitHub's list of a repository's jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundJob {
    pub job: JobNotice,
    /// Whether its repository is public.
    pub public: bool,
}
