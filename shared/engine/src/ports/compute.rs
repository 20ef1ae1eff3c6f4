//! EC2.

use std::collections::BTreeSet;

use async_trait::async_trait;
use domain::config::{ObservedMachines, ObservedPrice, Tuple};
use domain::ids::{BatchTag, InstanceId, InstanceType, SubnetId};
pub use domain::policy::launch_error::{ErrorClass, LaunchError};
pub use domain::policy::retire::TerminationPermit;
pub use domain::wire::ObservedInstance;
use jiff::{SignedDuration, Timestamp};

use crate::ports::source::Source;

/// The number of instances that one DescribeInstances reads by id. EC2 allows 200 values in a filter.
pub const INSTANCES_PER_READING: usize = 100;

/// EC2, as far as it holds instances of this stack.
#[async_trait]
pub trait Compute: Send + Sync {
    /// Calls RunInstances once, without retries.
    async fn launch(&self, launch: &Launch) -> Result<Vec<Launched>, LaunchError>;

    /// Returns the instances that carry the tag of one launch attempt, terminated ones included.
    async fn by_batch(&self, tag: &BatchTag) -> Result<Vec<ObservedInstance>, ComputeError>;

    /// Returns every instance of the stack that EC2 still lists, all pages.
    async fn census(&self) -> Result<Vec<ObservedInstance>, ComputeError>;

    /// Returns those of the given instances, at most [`INSTANCES_PER_READING`], that belong to the stack and that EC2 lists.
    async fn instances(&self, ids: &[InstanceId]) -> Result<Vec<ObservedInstance>, ComputeError>;

    /// Calls TerminateInstances for the instance of the permit. "Not found" is an outcome and not an error; shortly after a launch it
    /// does not even mean that the instance is gone.
    async fn terminate(&self, permit: &TerminationPermit) -> Result<Terminated, ComputeError>;

    /// Calls StopInstances for one instance, whose data EC2 keeps. Stopping one that is stopped changes nothing.
    /// The call is made once, and must end within this time: a late one could stop a machine that has been started again.
    async fn stop(&self, instance: &InstanceId, within: SignedDuration) -> Result<(), ComputeError>;

    /// Calls StartInstances for these instances. Starting one that runs changes nothing. If EC2 cannot start one of them, for example
    /// because it has no capacity, it starts none.
    async fn start(&self, instances: &[InstanceId]) -> Result<(), ComputeError>;

    /// Returns the region's instance types and the zones of these subnets, all pages.
    async fn machines(&self, subnets: &BTreeSet<SubnetId>) -> Result<ObservedMachines, ComputeError>;

    /// Returns the spot prices of these types for Linux at `now`, which is the present time; all pages.
    async fn spot_prices(
        &self,
        types: &BTreeSet<InstanceType>,
        now: Timestamp,
    ) -> Result<Vec<ObservedPrice>, ComputeError>;

    /// Returns what an instance wrote to its console, or None if EC2 does not know the instance. EC2 keeps the output for
    /// an hour after the instance has ended ("Instance console output" in EC2's user guide).
    async fn console(&self, instance: &InstanceId) -> Result<Option<String>, ComputeError>;
}

/// One call of RunInstances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The attempt. The client token and the tags follow from it.
    pub tag: BatchTag,
    pub tuple: Tuple,
    /// The largest number of instances to launch. At least one.
    pub count: u32,
    /// The call must end within this time, so that no answer arrives after the lease has expired.
    pub within: SignedDuration,
}

/// One instance in the answer of RunInstances.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Launched {
    pub id: InstanceId,
    pub launched_at: Timestamp,
}

/// What TerminateInstances did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminated {
    /// The instance is shutting down, or has ended already.
    Ending,
    /// EC2 does not know the instance: it does not show it yet, or no longer.
    NotFound,
}

/// EC2 did not answer a call, or refused it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot use EC2: {}{message}", code.as_ref().map(|code| format!("{code}: ")).unwrap_or_default())]
pub struct ComputeError {
    /// EC2's error code. None if EC2 did not answer.
    pub code: Option<String>,
    pub message: String,
    pub source: Option<Source>,
}

impl ComputeError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: None, message: message.into(), source: None }
    }
}
