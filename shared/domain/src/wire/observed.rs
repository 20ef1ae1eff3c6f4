//! Instances and runners as EC2 and GitHub list them.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;

use crate::ids::{BatchTag, DeliveryId, ImageId, InstanceId, PoolName, Repository, RunId, RunnerId, Scope};
use crate::wire::notice::JobNotice;

/// An instance's state in EC2.
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
    /// Whether the instance has not been terminated, and can run a job or be started again.
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
    pub id: InstanceId,
    pub state: MachineState,
    pub launched_at: Timestamp,
    /// None if EC2 does not say which image it was launched from.
    pub image: Option<ImageId>,
    /// The tag `drover:pool`, if it is a valid pool name.
    pub pool: Option<PoolName>,
    /// The tag `drover:batch`, if it is valid.
    pub batch: Option<BatchTag>,
    /// It has the tag `drover:hold`: Drover must leave it alone.
    pub hold: bool,
    /// Why it ended or stopped. EC2 shows it for about an hour.
    pub state_reason: Option<StateReason>,
}

impl ObservedInstance {
    /// Whether its tags name the pool.
    pub fn is_of(&self, pool: &PoolName) -> bool {
        self.pool.as_ref() == Some(pool) || self.batch.as_ref().is_some_and(|batch| batch.pool == *pool)
    }
}

/// Why an instance ended or stopped, as EC2 says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateReason {
    /// For example `Client.InvalidKMSKey.InvalidState`.
    pub code: String,
    pub message: String,
}

impl StateReason {
    /// EC2 took the instance back.
    pub fn is_reclaim(&self) -> bool {
        matches!(
            self.code.as_str(),
            "Server.SpotInstanceTermination" | "Server.SpotInstanceShutdown" | "Server.ScheduledStop"
        )
    }

    /// EC2 accepted the launch, and then had no capacity for it.
    pub fn is_lack_of_capacity(&self) -> bool {
        self.code == "Server.InsufficientInstanceCapacity"
    }

    /// Somebody called TerminateInstances or StopInstances.
    pub fn is_request(&self) -> bool {
        matches!(self.code.as_str(), "Client.UserInitiatedShutdown" | "Client.UserInitiatedHibernate")
    }
}

impl fmt::Display for StateReason {
    /// EC2's messages usually begin with their code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message.starts_with(&self.code) {
            true => f.write_str(&self.message),
            false => write!(f, "{}: {}", self.code, self.message),
        }
    }
}

/// A runner in GitHub's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedRunner {
    pub id: RunnerId,
    pub name: String,
    pub online: bool,
    /// It has a job. `false` may be out of date.
    pub busy: bool,
}

/// One page of GitHub's list of the runners of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerPage {
    /// The runners of the page whose names have the stack's prefix.
    pub runners: Vec<ObservedRunner>,
    /// The items of the page that cannot be read and may be runners of the stack, with their ids if those can be read.
    pub unreadable: Vec<Option<RunnerId>>,
    /// The number of runners on all pages, whosever they are.
    pub total: usize,
    /// How many calls counted towards the account's hourly limit. An unchanged page does not count.
    pub counted: u32,
}

/// GitHub's answer to the deletion of a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deregistered {
    /// 204: it can receive no job from now on.
    Removed,
    /// 404: GitHub does not know it, or the token has lost access to the scope. Only [`NamedRunners`] read with the same
    /// token tells which.
    NotFound(TokenMark),
    /// 422: it has a job.
    Busy,
}

/// Identifies the installation token that a call was made with, without revealing it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenMark(pub u64);

/// The runners of one name in a scope's list, which was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRunners {
    pub scope: Scope,
    pub name: String,
    pub token: TokenMark,
    pub ids: Vec<RunnerId>,
}

/// One attempt by GitHub to deliver a webhook event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// The attempt's id. A redelivery is requested by it.
    pub id: u64,
    /// `X-GitHub-Delivery`, which all attempts of one event share.
    pub guid: DeliveryId,
    pub delivered_at: Timestamp,
    /// The attempt was requested.
    pub redelivery: bool,
    /// The receiver answered with 2xx.
    pub succeeded: bool,
    /// The event is `workflow_job`.
    pub about_a_job: bool,
}

/// One page of GitHub's list of attempts to deliver the app's webhook, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryPage {
    pub attempts: Vec<DeliveryAttempt>,
    /// How many items of the page cannot be read.
    pub unreadable: usize,
    /// Where the next, older page begins; None on the last page.
    pub next: Option<String>,
}

/// The runs of a repository that have not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunsUnderWay {
    /// The runs, with whether their repository is public.
    pub runs: BTreeMap<RunId, bool>,
    /// How many runs cannot be read.
    pub unreadable: usize,
    /// How many calls counted towards the account's hourly limit.
    pub counted: u32,
}

/// The jobs of the latest attempt of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunJobs {
    pub jobs: Vec<JobNotice>,
    /// How many jobs cannot be read.
    pub unreadable: usize,
    /// How many calls counted towards the account's hourly limit.
    pub counted: u32,
}

/// One page of the repositories that an installation may access.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepositoryPage {
    /// The repositories of the page in which workflows can run.
    pub repositories: Vec<Repository>,
    /// How many items of the page cannot be read.
    pub unreadable: usize,
    /// The number of repositories on all pages.
    pub total: usize,
    /// How many calls counted towards the account's hourly limit.
    pub counted: u32,
}

/// A job in GitHub's list of a repository's jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundJob {
    pub job: JobNotice,
    /// Whether its repository is public.
    pub public: bool,
}
