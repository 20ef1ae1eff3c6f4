//! GitHub's accounts, repositories, runs, jobs and runners.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::model_id;

model_id! {
    /// An app installed on an account.
    InstallationId: u64
}
model_id! {
    /// An organisation or a user.
    OwnerId: u64
}
model_id! {
    /// A repository.
    RepositoryId: u64
}
model_id! {
    /// A workflow run. Re-running one of its jobs makes a new attempt of the same run.
    RunId: u64
}
model_id! {
    /// A workflow job. Re-running makes a new id.
    JobId: u64
}
model_id! {
    /// A registered runner.
    RunnerId: u64
}
model_id! {
    /// A runner group of an owner; 1 is the default group.
    GroupId: u64
}
model_id! {
    /// One attempt to deliver a webhook. The deliveries of one event share their guid.
    DeliveryId: u64
}
model_id! {
    /// A check run.
    CheckRunId: u64
}

model_id! {
    /// A user's personal access token.
    UserTokenId: u64
}

/// Every owner's default group.
pub const DEFAULT_GROUP: GroupId = GroupId(1);

/// The kind of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerKind {
    /// It has runners and runner groups of its own.
    Organization,
    /// It has runners only in its repositories.
    User,
}

/// An account.
#[derive(Debug, Clone)]
pub struct Owner {
    pub id: OwnerId,
    /// The name as its owner writes it. Comparisons ignore case.
    pub login: String,
    pub kind: OwnerKind,
    /// The app's installation, if there is one.
    pub installation: Option<InstallationId>,
    /// Since when the installation is suspended. It then has no tokens and sends no webhooks.
    pub suspended_at: Option<Timestamp>,
    /// Whether the installation is for selected repositories. Only what the API says about it is modelled.
    pub has_selected: bool,
    /// When the app was installed, or the account created.
    pub since: Timestamp,
    pub groups: Vec<Group>,
    /// The permissions that the account granted to the app.
    pub granted: BTreeMap<String, String>,
}

/// What a user's token may read. Every token reads public repositories.
#[derive(Debug, Clone, Default)]
pub struct UserAccess {
    /// The accounts whose private repositories it may see.
    pub accounts: BTreeSet<OwnerId>,
    /// Whether it has the permission Actions: read.
    pub actions: bool,
}

/// The caller of an endpoint that apps and users read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    Installation(InstallationId),
    User(UserTokenId),
}

impl From<InstallationId> for Reader {
    fn from(installation: InstallationId) -> Self {
        Reader::Installation(installation)
    }
}

/// A runner group, which restricts the repositories that may use its runners.
#[derive(Debug, Clone)]
pub struct Group {
    pub id: GroupId,
    pub name: String,
    /// The repositories that may use it, or `None` for all repositories of the owner.
    pub repositories: Option<BTreeSet<RepositoryId>>,
    /// Whether public repositories may use it.
    pub allows_public: bool,
}

impl Group {
    /// Whether jobs of a repository may use the group's runners.
    pub fn admits(&self, repository: &Repository) -> bool {
        self.repositories.as_ref().is_none_or(|selected| selected.contains(&repository.id))
            && (self.allows_public || repository.visibility == Visibility::Private)
    }
}

/// Who can see a repository. Jobs of a public repository may run code of any fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    Public,
    Private,
}

/// A repository.
#[derive(Debug, Clone)]
pub struct Repository {
    pub id: RepositoryId,
    pub owner: OwnerId,
    pub owner_login: String,
    /// The name without the owner.
    pub name: String,
    pub visibility: Visibility,
    pub created_at: Timestamp,
}

/// Where a runner is registered. In lower case, because GitHub ignores case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// An organisation. Its runners serve the repositories that their group allows.
    Organization(String),
    /// One repository.
    Repository { owner: String, name: String },
}

impl Scope {
    /// The scope of an organisation.
    pub fn organization(login: &str) -> Self {
        Scope::Organization(login.to_ascii_lowercase())
    }

    /// The scope of a repository.
    pub fn repository(owner: &str, name: &str) -> Self {
        Scope::Repository { owner: owner.to_ascii_lowercase(), name: name.to_ascii_lowercase() }
    }

    /// The login of its account.
    pub fn owner(&self) -> &str {
        match self {
            Scope::Organization(owner) | Scope::Repository { owner, .. } => owner,
        }
    }

    /// Whether runners of this scope may serve a repository.
    pub fn covers(&self, repository: &Repository) -> bool {
        let same_owner = self.owner().eq_ignore_ascii_case(&repository.owner_login);
        match self {
            Scope::Organization(_) => same_owner,
            Scope::Repository { name, .. } => same_owner && name.eq_ignore_ascii_case(&repository.name),
        }
    }
}

/// A workflow run.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: RunId,
    pub repository: RepositoryId,
    /// The number in the repository's list.
    pub number: u64,
    /// The latest attempt, from 1.
    pub attempt: u64,
    /// The commit of the run.
    pub head_sha: String,
    /// The jobs of all attempts.
    pub jobs: Vec<JobId>,
    pub created_at: Timestamp,
}

/// The conclusion of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    Success,
    Failure,
    Cancelled,
}

impl Conclusion {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Conclusion::Success => "success",
            Conclusion::Failure => "failure",
            Conclusion::Cancelled => "cancelled",
        }
    }
}

/// The runner of a job. Stays in the job after the runner is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRunner {
    pub id: RunnerId,
    pub name: String,
    pub group: GroupId,
    pub group_name: String,
}

/// The state of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Waits for the approval of an environment.
    Waiting,
    /// Waits for a runner. An assigned runner has one minute to acquire the job.
    Queued {
        assigned: Option<RunnerId>,
    },
    InProgress {
        runner: JobRunner,
    },
    Completed {
        conclusion: Conclusion,
        /// `None` if it ended before a runner acquired it.
        runner: Option<JobRunner>,
    },
}

impl JobState {
    /// The status in the API.
    pub fn status(&self) -> &'static str {
        match self {
            JobState::Waiting => "waiting",
            JobState::Queued { .. } => "queued",
            JobState::InProgress { .. } => "in_progress",
            JobState::Completed { .. } => "completed",
        }
    }

    /// The conclusion, if the job has ended.
    pub fn conclusion(&self) -> Option<Conclusion> {
        match self {
            JobState::Completed { conclusion, .. } => Some(*conclusion),
            JobState::Waiting | JobState::Queued { .. } | JobState::InProgress { .. } => None,
        }
    }

    /// The runner that runs or ran the job.
    pub fn runner(&self) -> Option<&JobRunner> {
        match self {
            JobState::InProgress { runner } => Some(runner),
            JobState::Completed { runner, .. } => runner.as_ref(),
            JobState::Waiting | JobState::Queued { .. } => None,
        }
    }
}

/// A workflow job.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: JobId,
    pub run: RunId,
    pub attempt: u64,
    pub repository: RepositoryId,
    pub name: String,
    /// The labels that its runner must have.
    pub labels: Vec<String>,
    pub state: JobState,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    /// The run time.
    pub runs_for: Duration,
    /// The conclusion, unless something interrupts the job.
    pub ends: Conclusion,
    pub steps: Steps,
    pub webhooks: Webhooks,
    /// Set if GitHub calls it queued for ever.
    pub immortal: Option<Immortal>,
    pub history: History,
    pub(super) queued_at: Timestamp,
}

/// A job that GitHub calls queued for ever: no runner gets it, no time limit ends it, and it cannot be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Immortal {
    /// Its run has not ended either.
    RunUnderWay,
    /// Its run has ended.
    RunOver,
}

/// Whether GitHub sends webhooks for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Webhooks {
    /// GitHub sends one for each transition.
    Sent,
    /// GitHub never attempts a delivery, and the list of deliveries has none.
    NeverAttempted,
}

/// The steps of a job, as far as they differ after a failed job-started hook. One step takes the job's run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// Steps that run if nothing has failed.
    Ordinary,
    /// Before them an action's `pre` step, and after them a step with `if: always()`. Both run after a failure, too.
    Unconditional,
}

/// What happened to a job.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Each time it was queued, also after a runner did not acquire it.
    pub queued: Vec<Timestamp>,
    /// Each time a runner started it.
    pub started: Vec<Start>,
    /// Names of the steps that its runner began.
    pub steps: Vec<String>,
    /// When it lost its runner while it ran.
    pub killed: Option<Timestamp>,
}

/// The start of a job on a runner.
#[derive(Debug, Clone)]
pub struct Start {
    pub at: Timestamp,
    pub runner: RunnerId,
    pub name: String,
}

impl Job {
    /// Whether it was started exactly once and its runner reported the end.
    pub fn served_once(&self) -> bool {
        self.history.started.len() == 1
            && self.history.killed.is_none()
            && matches!(self.state, JobState::Completed { .. })
    }
}

/// Who operates a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// A process outside the model.
    Process,
    /// The model. Such a runner belongs to another user, is always online and takes any job that matches.
    Model,
}

/// A registered runner.
#[derive(Debug, Clone)]
pub struct Runner {
    pub id: RunnerId,
    pub scope: Scope,
    /// Unique in its scope.
    pub name: String,
    /// The labels of the request. GitHub adds none to a JIT registration.
    pub labels: Vec<String>,
    pub group: GroupId,
    pub group_name: String,
    /// Whether it is removed after one job.
    pub ephemeral: bool,
    pub operator: Operator,
    pub online: bool,
    /// The job that it was offered or runs.
    pub job: Option<JobId>,
    pub created_at: Timestamp,
    pub connected_at: Option<Timestamp>,
    pub(super) offline_since: Timestamp,
    pub(super) busy_since: Option<Timestamp>,
}

impl Runner {
    pub(super) fn as_job_runner(&self) -> JobRunner {
        JobRunner { id: self.id, name: self.name.clone(), group: self.group, group_name: self.group_name.clone() }
    }
}

/// A job offered to a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub runner: RunnerId,
    pub job: JobId,
    /// `owner/name` of the job's repository, the value of `GITHUB_REPOSITORY`.
    pub repository: String,
    pub visibility: Visibility,
    pub runs_for: Duration,
    pub ends: Conclusion,
    pub steps: Steps,
}

/// GitHub does not know the runner, its secret or its job: it was removed, used, or assigned to another runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown to GitHub")]
pub struct Unknown;

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Listed<T> {
    /// The number of items on all pages.
    pub total: usize,
    /// The items on this page.
    pub items: Vec<T>,
}

/// A page of a list, by number and size.
#[derive(Debug, Clone, Copy)]
pub struct Paging {
    /// Starts with 1.
    pub page: usize,
    /// At most 100, by default 30.
    pub per_page: usize,
}

impl Default for Paging {
    fn default() -> Self {
        Self { page: 1, per_page: 30 }
    }
}

impl Paging {
    pub(super) fn of<T>(self, all: impl Iterator<Item = T>) -> Listed<T> {
        let all: Vec<T> = all.collect();
        let per_page = self.per_page.clamp(1, 100);
        let total = all.len();
        let skipped = self.page.max(1).saturating_sub(1).saturating_mul(per_page);
        Listed { total, items: all.into_iter().skip(skipped).take(per_page).collect() }
    }
}

/// What decides which runners a job may have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) repository: RepositoryId,
    pub(super) labels: Vec<String>,
}

impl Wanted {
    pub(super) fn by(job: &Job) -> Self {
        Self { repository: job.repository, labels: job.labels.clone() }
    }
}
