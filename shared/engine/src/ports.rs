//! What the engine needs of the world. The platform answers with AWS and GitHub, the simulator with models of them.
//!
//! **Architecture Invariant:** no port decides anything. An error says what is known about the effect, never what to do.
//! Secrets have no port: only the platform's GitHub client needs one, and no secret but a JIT config on its way from
//! GitHub to the boot table passes through here.

use async_trait::async_trait;
use domain::config::{Label, Tuple};
use domain::ids::{
    BatchTag, DeliveryId, InstanceId, JobId, Owner, PoolName, Repository, RunId, RunnerId, RunnerName, Scope, StackName,
};
use domain::log::{Event, Stream, Transaction};
pub use domain::policy::launch::ErrorClass;
use domain::state::{Item, Key};
use domain::wire::JobNotice;
pub use domain::wire::{ObservedInstance, ObservedRunner};
use jiff::{SignedDuration, Timestamp};

/// The table.
#[async_trait]
pub trait Store: Send + Sync {
    /// One item, read strongly.
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError>;

    /// Several items, each read strongly, in no order; those that do not exist are left out.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, StoreError>;

    /// Every item under `POOL#<pool>`, each read strongly; the set is **not** isolated from transactions.
    async fn partition(&self, pool: &PoolName) -> Result<Vec<Item>, StoreError>;

    /// Writes all of it or nothing.
    async fn commit(&self, transaction: &Transaction) -> Result<(), CommitError>;

    /// A log, newest first, at most so many events.
    async fn events(&self, stream: &Stream, newest: usize) -> Result<Vec<Event>, StoreError>;
}

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

/// The table could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot use the table: {message}")]
pub struct StoreError {
    /// What is in the way.
    pub trouble: ErrorKind,
    /// In words.
    pub message: String,
}

impl StoreError {
    /// With a [`ErrorKind::Away`].
    pub fn away(message: impl Into<String>) -> Self {
        Self { trouble: ErrorKind::Away, message: message.into() }
    }
}

/// Why a transaction was not written, as far as is known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// Something it rests on has moved on: read again.
    #[error("{0} has changed since it was read")]
    Conflict(String),
    /// Not known to be written: the table is slow, throttled or away.
    #[error(transparent)]
    Store(#[from] StoreError),
}

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

/// GitHub, as the app's installation on the account of the scope.
#[async_trait]
pub trait GitHub: Send + Sync {
    /// generate-jitconfig. The registration exists, offline, from the call on, whether or not the answer arrives.
    async fn register(&self, registration: &Registration) -> Result<Registered, GitHubError>;

    /// Every runner of the scope whose name begins as this stack's do, all pages.
    async fn runners(&self, scope: &Scope, stack: &StackName) -> Result<Vec<ObservedRunner>, GitHubError>;

    /// Removes a runner: the only fence against a job that is just being given to it.
    async fn deregister(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError>;

    /// What GitHub says about a job now; None if it knows none.
    async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError>;

    /// The jobs of the latest attempt of a run.
    async fn run_jobs(&self, repository: &Repository, run: RunId) -> Result<Vec<JobNotice>, GitHubError>;

    /// The jobs of a repository that are not over. Both queued and running runs are searched: a run of which one job runs
    /// is `in_progress`, however many of its jobs are still queued.
    async fn jobs_under_way(&self, repository: &Repository) -> Result<Vec<FoundJob>, GitHubError>;

    /// Every attempt since then to deliver the app's webhook, as the app.
    async fn deliveries(&self, since: Timestamp) -> Result<Vec<DeliveryAttempt>, GitHubError>;

    /// Asks for one more attempt, as the app.
    async fn redeliver(&self, attempt: u64) -> Result<(), GitHubError>;

    /// Makes or changes a check run; gives its id.
    async fn tell(&self, update: &CheckRunUpdate) -> Result<u64, GitHubError>;

    /// Runs a job again, which makes a new one.
    async fn rerun(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError>;

    /// Whether so little of the account's hourly budget is left that only jobs should use it.
    fn is_scarce(&self, owner: &Owner) -> bool;
}

/// A registration to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Where.
    pub scope: Scope,
    /// Under what name.
    pub name: RunnerName,
    /// With which labels.
    pub labels: Vec<Label>,
    /// In which group.
    pub group: u64,
}

/// A registration as GitHub gives it.
#[derive(Clone, PartialEq, Eq)]
pub struct Registered {
    /// GitHub's id.
    pub runner_id: RunnerId,
    /// The one-use secret. Never logged.
    pub jit_config: String,
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registered").field("runner_id", &self.runner_id).field("jit_config", &"<secret>").finish()
    }
}

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deregistered {
    /// 204: it can take no job any more.
    Removed,
    /// 404: nor could it before.
    AlreadyGone,
    /// 422: it has a job.
    Busy,
}

/// One attempt of GitHub to deliver a webhook of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// The attempt's id: what a redelivery is asked for by.
    pub id: u64,
    /// `X-GitHub-Delivery`, which all attempts of one event share.
    pub guid: DeliveryId,
    /// When it was attempted.
    pub delivered_at: Timestamp,
    /// Somebody asked for it.
    pub redelivery: bool,
    /// It was answered with a 2xx.
    pub succeeded: bool,
    /// It is about a workflow job.
    pub about_a_job: bool,
}

/// A job that GitHub has when it is asked for all of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundJob {
    /// The job.
    pub job: JobNotice,
    /// Whether its repository is public.
    pub public: bool,
}

/// What a job's author is told, as a check run on the job's commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckRunUpdate {
    /// Where.
    pub repository: Repository,
    /// On which commit.
    pub head_sha: String,
    /// Our reference: the job's id.
    pub external_id: String,
    /// The check run that was made before, if there is one: it is changed then.
    pub check_run: Option<u64>,
    /// `neutral`, `failure` or `success`.
    pub conclusion: &'static str,
    /// One line.
    pub title: String,
    /// Markdown.
    pub summary: String,
    /// Where to read more; may be empty.
    pub details_url: String,
}

/// What became of a wish to run a job again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rerun {
    /// 201.
    Begun,
    /// 403: its run has not ended yet.
    RunUnderWay,
}

/// Why GitHub did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitHubError {
    /// A rate limit. Nothing of the account may be called before `until`.
    #[error("rate limit until {until}: {message}")]
    Limited {
        /// From `retry-after`, else `x-ratelimit-reset`, else a minute from now.
        until: Timestamp,
        /// GitHub's message.
        message: String,
    },
    /// 401 or 403, or no installation: what it may not see is not what is not there.
    #[error("not allowed: {0}")]
    Denied(String),
    /// 409: a runner of that name exists.
    #[error("the runner's name is taken")]
    NameTaken,
    /// 404 or 422 to a request that should be right: a group that is gone, say.
    #[error("refused: {0}")]
    Refused(String),
    /// 5xx, a time-out, a broken answer: it may have happened.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

impl GitHubError {
    /// Whether GitHub did nothing and would say the same again, unless something changes there.
    pub fn is_refusal(&self) -> bool {
        match self {
            GitHubError::Denied(_) | GitHubError::NameTaken | GitHubError::Refused(_) => true,
            GitHubError::Limited { .. } | GitHubError::Unavailable(_) => false,
        }
    }

    /// Which account to leave alone, and until when.
    pub fn limit(&self, owner: &Owner) -> Option<(Owner, Timestamp)> {
        match self {
            GitHubError::Limited { until, .. } => Some((owner.clone(), *until)),
            GitHubError::Denied(_) | GitHubError::NameTaken | GitHubError::Refused(_) | GitHubError::Unavailable(_) => {
                None
            }
        }
    }
}

/// The queue, as far as the engine writes to it.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Asks for another look at a pool, so long from now (SQS: at most 15 minutes).
    async fn nudge(&self, pool: &PoolName, after: SignedDuration) -> Result<(), QueueError>;
}

/// The queue did not take it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot use the queue: {message}")]
pub struct QueueError {
    /// What is in the way.
    pub trouble: ErrorKind,
    /// In words.
    pub message: String,
}

impl QueueError {
    /// With a [`ErrorKind::Away`].
    pub fn away(message: impl Into<String>) -> Self {
        Self { trouble: ErrorKind::Away, message: message.into() }
    }
}

/// The time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
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
