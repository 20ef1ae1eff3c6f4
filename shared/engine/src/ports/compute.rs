//! EC2.

use async_trait::async_trait;
use domain::config::Tuple;
use domain::ids::{BatchTag, InstanceId};
pub use domain::policy::launch::ErrorClass;
pub use domain::wire::ObservedInstance;
use jiff::{SignedDuration, Timestamp};

use super::ErrorKind;

/// EC2.
#[async_trait]
pub trait Compute: Send + Sync {
    /// RunInstances, once: no retry hides in here.
    async fn launch(&self, launch: &Launch) -> Result<Vec<Launched>, LaunchError>;

    /// The instances that carry this attempt's tag, ended ones among them.
    async fn by_batch(&self, tag: &BatchTag) -> Result<Vec<ObservedInstance>, ComputeError>;

    /// Every instance of the stack that EC2 still shows, all pages.
    async fn census(&self) -> Result<Vec<ObservedInstance>, ComputeError>;

    /// TerminateInstances of one. "Not found" is not an error: so soon after a launch it does not even mean gone.
    async fn terminate(&self, instance: &InstanceId) -> Result<Terminated, ComputeError>;

    /// What an instance wrote to its console, as far as EC2 has it; None if EC2 knows no such instance (any more). EC2 keeps
    /// it for an hour after the end ("Instance console output" in EC2's user guide).
    async fn console(&self, instance: &InstanceId) -> Result<Option<String>, ComputeError>;
}

/// One call of RunInstances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The attempt. Its token and its tags follow from it.
    pub tag: BatchTag,
    /// How.
    pub tuple: Tuple,
    /// At most so many; at least one.
    pub count: u32,
    /// The call must be over within this time, so that no answer arrives after its lease.
    pub within: SignedDuration,
}

/// An instance as RunInstances answers it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Launched {
    /// Its id.
    pub id: InstanceId,
    /// When EC2 launched it.
    pub launched_at: Timestamp,
}

/// What TerminateInstances did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminated {
    /// It is on its way down.
    Ending,
    /// EC2 does not know it (yet, or any more).
    NotFound,
}

/// Why RunInstances launched nothing, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class:?}: {code}: {message}")]
pub struct LaunchError {
    /// What follows from it.
    pub class: ErrorClass,
    /// EC2's code, or a word for a failure on the way.
    pub code: String,
    /// EC2's message.
    pub message: String,
}

/// EC2 did not answer a question.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot use EC2: {message}")]
pub struct ComputeError {
    /// What is in the way.
    pub trouble: ErrorKind,
    /// In words.
    pub message: String,
}

impl ComputeError {
    /// With a [`ErrorKind::Away`].
    pub fn away(message: impl Into<String>) -> Self {
        Self { trouble: ErrorKind::Away, message: message.into() }
    }
}
