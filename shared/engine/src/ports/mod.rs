//! The systems that the engine uses, one file per system: the table ([`Store`]), EC2 ([`Compute`]), GitHub ([`GitHub`]),
//! the queue ([`Queue`]) and the clock ([`Clock`]). The platform implements them with AWS and GitHub, the simulator with
//! models.
//!
//! **Architecture Invariant:** a port makes no decisions. It performs one call and returns what the system answered. An
//! error names its system and says what is known about the effect, never what to do about it.
//!
//! The app's secret ([`SecretStore`]) is not one of the [`Ports`] of an invocation: it is read below GitHub's port, by
//! [`AppKey`](crate::app_key::AppKey). The only secret that passes through the engine's effects is a JIT config on its way from
//! GitHub to the boot table.

mod clock;
mod compute;
mod github;
mod queue;
mod secrets;
mod source;
mod store;

pub use self::clock::Clock;
pub use self::compute::{
    Compute, ComputeError, ErrorClass, INSTANCES_PER_READING, Launch, LaunchError, Launched, ObservedInstance,
    Terminated, TerminationPermit,
};
pub use self::github::{
    Budget, CheckRunUpdate, DeliveryAttempt, DeliveryPage, Deregistered, GitHub, GitHubAnswer, GitHubError,
    NamedRunners, ObservedRunner, Registered, Registration, RepositoryPage, Rerun, RunJobs, RunReference, RunnerPage,
    RunsUnderWay, TokenMark,
};
pub use self::queue::{Queue, QueueError};
pub use self::secrets::{SecretError, SecretStore, SecretVersion, StoredSecret};
pub use self::source::Source;
pub use self::store::{CommitError, Reading, Store, StoreError};

/// All ports of one invocation.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "the ports have nothing to show")]
pub struct Ports<'a> {
    pub store: &'a dyn Store,
    pub compute: &'a dyn Compute,
    pub github: &'a dyn GitHub,
    pub queue: &'a dyn Queue,
    pub clock: &'a dyn Clock,
}
