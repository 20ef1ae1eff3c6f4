//! GitHub.

use std::fmt;

use async_trait::async_trait;
use domain::config::Label;
use domain::ids::{JobId, Owner, Repository, RunId, RunnerId, RunnerName, Scope, StackName};
pub use domain::policy::budget::Budget;
pub use domain::policy::notify::CheckRunUpdate;
use domain::policy::retry::Failure;
use domain::wire::JobNotice;
pub use domain::wire::{
    DeliveryAttempt, DeliveryPage, Deregistered, NamedRunners, ObservedRunner, RepositoryPage, RunJobs, RunnerPage,
    RunsUnderWay, TokenMark,
};
use jiff::Timestamp;

use crate::ports::source::Source;

/// GitHub's API. Unless stated otherwise, a call uses the app's installation on the account of the scope or repository.
#[async_trait]
pub trait GitHub: Send + Sync {
    /// Calls generate-jitconfig. From the call on the registration exists and is offline, even if no answer arrives.
    async fn register(&self, registration: &Registration) -> Result<Registered, GitHubError>;

    /// Returns one page of the scope's runners, counted from 1, with those whose names have this stack's prefix.
    async fn runners(&self, scope: &Scope, stack: &StackName, page: usize) -> Result<RunnerPage, GitHubError>;

    /// Returns the runners of one name in the scope's list, all pages.
    async fn runners_named(&self, scope: &Scope, name: &str) -> Result<NamedRunners, GitHubError>;

    /// Removes a runner. Nothing else prevents GitHub from assigning a job to the runner at the same time.
    async fn deregister(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError>;

    /// Returns a job's present state, or None if GitHub does not know the job.
    async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError>;

    /// Returns one page of the repositories that the installation on an organisation may access, counted from 1.
    async fn repositories(&self, owner: &Owner, page: usize) -> Result<RepositoryPage, GitHubError>;

    /// Returns the jobs of the latest attempt of a run.
    async fn run_jobs(&self, repository: &Repository, run: RunId) -> Result<RunJobs, GitHubError>;

    /// Whether the run has completed. A job of such a run may nevertheless be called queued.
    async fn is_run_over(&self, run: &RunReference) -> Result<bool, GitHubError>;

    /// Returns the newest queued and running runs of a repository. As soon as one job of a run is running, the run is
    /// `in_progress`, no matter how many of its jobs are still queued.
    async fn runs_under_way(&self, repository: &Repository) -> Result<RunsUnderWay, GitHubError>;

    /// Returns one page of the attempts to deliver the app's webhook, newest first. `from` is an earlier page's
    /// [`DeliveryPage::next`]; None is the newest page. Authenticates as the app.
    async fn deliveries(&self, from: Option<&str>) -> Result<DeliveryPage, GitHubError>;

    /// Requests one more delivery of what an earlier attempt delivered. Authenticates as the app.
    async fn redeliver(&self, attempt: u64) -> Result<(), GitHubError>;

    /// Creates or updates a check run and returns its id.
    async fn write_check_run(&self, update: &CheckRunUpdate) -> Result<u64, GitHubError>;

    /// Re-runs a job. GitHub creates a new job for it.
    async fn rerun(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError>;

    /// A webhook named the app's installation on the account. It may be out of date. Makes no call.
    fn note_installation(&self, _owner: &Owner, _installation: u64) {}

    /// Returns what is left of the account's rate limit for the current hour, as GitHub last reported it to this process.
    /// None if GitHub has not reported it, or if that hour is over. Makes no call.
    fn budget(&self, owner: &Owner) -> Option<Budget>;
}

/// One attempt of a workflow run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReference {
    pub repository: Repository,
    pub run: RunId,
    /// From 1; each re-run is one more.
    pub attempt: u32,
    /// The run's commit, by which GitHub finds the run in its list.
    pub head_sha: String,
}

/// A runner to register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub scope: Scope,
    pub name: RunnerName,
    pub labels: Vec<Label>,
    /// Id of the runner group.
    pub group: u64,
}

/// A registered runner.
#[derive(Clone, PartialEq, Eq)]
pub struct Registered {
    pub runner_id: RunnerId,
    /// The secret that lets one machine act as this runner. Never logged.
    pub jit_config: String,
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("runner_id", &self.runner_id).field("jit_config", &"<secret>").finish()
    }
}

/// The outcome of a request to re-run a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rerun {
    /// 201.
    Begun,
    /// 403: the job's run has not ended yet.
    RunUnderWay,
}

/// Why GitHub did not confirm a call.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GitHubError {
    /// A rate limit. The account must not be called before `until`.
    #[error("GitHub limits requests until {until}: {message}")]
    Limited {
        /// From `retry-after`, else `x-ratelimit-reset`, else a minute from now.
        until: Timestamp,
        message: String,
    },
    /// 401 or 403, or the app is not installed. What the app may not see may exist nevertheless.
    #[error("GitHub denies access: {0}")]
    Denied(GitHubAnswer),
    /// 409: a runner with that name exists.
    #[error("GitHub already has a runner with this name")]
    NameTaken,
    /// 404 or 422 to a valid request, because a runner group was deleted, for example.
    #[error("GitHub refused the request: {0}")]
    Refused(GitHubAnswer),
    /// 5xx, a time-out or an unreadable answer. The call may have had its effect.
    #[error("GitHub is unavailable: {message}")]
    Unavailable { message: String, source: Option<Source> },
    /// The app's secret could not be read, so GitHub was not called.
    #[error("cannot read the app's secret: {message}")]
    SecretUnreadable { message: String, source: Option<Source> },
    /// The app's secret holds no usable key, so GitHub was not called.
    #[error("the app's secret is unusable: {0}")]
    SecretUnusable(String),
}

/// GitHub's reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitHubAnswer {
    /// The HTTP status. None if the platform reached the conclusion itself.
    pub code: Option<u16>,
    pub message: String,
}

impl fmt::Display for GitHubAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{code}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl From<String> for GitHubAnswer {
    fn from(message: String) -> Self {
        Self { code: None, message }
    }
}

impl GitHubError {
    pub fn unavailable(message: impl Into<String>) -> Self {
        GitHubError::Unavailable { message: message.into(), source: None }
    }

    /// Whether GitHub answered 404: what the call is about does not exist, or the app has no access to it.
    pub fn is_not_found(&self) -> bool {
        match self {
            GitHubError::Refused(answer) => answer.code == Some(404),
            GitHubError::Limited { .. }
            | GitHubError::Denied(_)
            | GitHubError::NameTaken
            | GitHubError::Unavailable { .. }
            | GitHubError::SecretUnreadable { .. }
            | GitHubError::SecretUnusable(_) => false,
        }
    }

    /// Whether the call had no effect and would be refused again, unless something changes at GitHub.
    pub fn is_refusal(&self) -> bool {
        match self {
            GitHubError::Denied(_)
            | GitHubError::NameTaken
            | GitHubError::Refused(_)
            | GitHubError::SecretUnusable(_) => true,
            GitHubError::Limited { .. } | GitHubError::Unavailable { .. } | GitHubError::SecretUnreadable { .. } => {
                false
            }
        }
    }

    /// What it says about the next attempt.
    pub fn failure(&self) -> Failure {
        match self {
            GitHubError::Limited { until, .. } => Failure::Limited { until: *until },
            GitHubError::Denied(_)
            | GitHubError::NameTaken
            | GitHubError::Refused(_)
            | GitHubError::SecretUnusable(_) => Failure::Refused,
            GitHubError::Unavailable { .. } | GitHubError::SecretUnreadable { .. } => Failure::Unavailable,
        }
    }

    /// Whether every call for the account fails like this one.
    pub fn concerns_account(&self) -> bool {
        match self {
            GitHubError::Limited { .. } | GitHubError::Denied(_) | GitHubError::SecretUnusable(_) => true,
            GitHubError::NameTaken
            | GitHubError::Refused(_)
            | GitHubError::Unavailable { .. }
            | GitHubError::SecretUnreadable { .. } => false,
        }
    }
}
