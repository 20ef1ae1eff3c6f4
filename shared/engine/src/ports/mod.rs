//! What the engine needs of the world. The platform answers with AWS and GitHub, the simulator with models of them.
//!
//! **Architecture Invariant:** no port decides anything. An error says what is known about the effect, never what to do.
//! Secrets have no port: only the platform's GitHub client needs one, and no secret but a JIT config on its way from
//! GitHub to the boot table passes through here.

mod clock;
mod compute;
mod github;
mod queue;
mod store;

pub use self::clock::Clock;
pub use self::compute::{
    Compute, ComputeError, ErrorClass, Launch, LaunchError, Launched, ObservedInstance, Terminated,
};
pub use self::github::{
    CheckRunUpdate, DeliveryAttempt, Deregistered, FoundJob, GitHub, GitHubError, ObservedRunner, Registered,
    Registration, Rerun,
};
pub use self::queue::{Queue, QueueError};
pub use self::store::{CommitError, Store, StoreError};

/// What is in the way, as far as a person does different things about it. The engine does the same about each: it tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// There are no credentials, or none that are valid (any more).
    Credentials,
    /// Whoever asks may not.
    NotAllowed,
    /// There is nothing of that name in this account and region.
    NotThere,
    /// It is there, and not as this version writes it.
    Unreadable,
    /// Everything else: away, slow, throttled.
    Away,
}

/// Everything together.
#[expect(missing_debug_implementations, reason = "the ports have nothing to show")]
pub struct Ports<'a> {
    /// The table.
    pub store: &'a dyn Store,
    /// EC2.
    pub compute: &'a dyn Compute,
    /// GitHub.
    pub github: &'a dyn GitHub,
    /// The queue.
    pub queue: &'a dyn Queue,
    /// The time.
    pub clock: &'a dyn Clock,
}
