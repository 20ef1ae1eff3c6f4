//! GitHub.

use async_trait::async_trait;
use domain::config::Label;
use domain::ids::{DeliveryId, JobId, Owner, Repository, RunId, RunnerId, RunnerName, Scope, StackName};
use domain::wire::JobNotice;
pub use domain::wire::ObservedRunner;
use jiff::Timestamp;

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
