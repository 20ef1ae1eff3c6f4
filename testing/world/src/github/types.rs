//! What GitHub consists of, as far as Actions goes.

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

/// The group every owner has.
pub const DEFAULT_GROUP: GroupId = GroupId(1);

/// What kind of account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerKind {
    /// Has runners and runner groups of its own.
    Organization,
    /// Has runners only on its repositories.
    User,
}

/// An account.
#[derive(Debug, Clone)]
pub struct Owner {
    /// Its id.
    pub id: OwnerId,
    /// Its name as its owner writes it; compared without case.
    pub login: String,
    /// What it is.
    pub kind: OwnerKind,
    /// The app's installation, if the account installed it.
    pub installation: Option<InstallationId>,
    /// Since when that installation is suspended: it exists, but gives no tokens and sends no webhooks.
    pub suspended_at: Option<Timestamp>,
    /// When the app was installed, or the account made.
    pub since: Timestamp,
    /// Its runner groups.
    pub groups: Vec<Group>,
    /// What it granted the app.
    pub granted: BTreeMap<String, String>,
}

/// A runner group: GitHub's fence around who may use a runner.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// The repositories that may use it; `None` is all of the owner's.
    pub repositories: Option<BTreeSet<RepositoryId>>,
    /// Whether public repositories may use it.
    pub allows_public: bool,
}

impl Group {
    /// Whether jobs of that repository may use the group's runners.
    pub fn admits(&self, repository: &Repository) -> bool {
        self.repositories.as_ref().is_none_or(|selected| selected.contains(&repository.id))
            && (self.allows_public || repository.visibility == Visibility::Private)
    }
}

/// Who can see a repository. A public one runs what any fork's pull request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody.
    Public,
    /// Its collaborators.
    Private,
}

/// A repository.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Its id.
    pub id: RepositoryId,
    /// Whose it is.
    pub owner: OwnerId,
    /// The login of that owner.
    pub owner_login: String,
    /// Its name without the owner.
    pub name: String,
    /// Who can see it.
    pub visibility: Visibility,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Where a runner is registered. Lower case, because GitHub compares names without case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// An organisation: its runners serve the repositories their group allows.
    Organization(String),
    /// One repository.
    Repository {
        /// Its owner's login.
        owner: String,
        /// Its name.
        name: String,
    },
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

    /// The login of the account it belongs to.
    pub fn owner(&self) -> &str {
        match self {
            Scope::Organization(owner) | Scope::Repository { owner, .. } => owner,
        }
    }

    /// Whether runners of this scope may serve that repository.
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
    /// Its id.
    pub id: RunId,
    /// Where.
    pub repository: RepositoryId,
    /// Its number in the repository's list.
    pub number: u64,
    /// Its latest attempt, from 1.
    pub attempt: u64,
    /// What was checked out.
    pub head_sha: String,
    /// Its jobs, of all attempts.
    pub jobs: Vec<JobId>,
    /// When it began.
    pub created_at: Timestamp,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// Well.
    Success,
    /// Badly.
    Failure,
    /// By somebody's wish.
    Cancelled,
}

impl Conclusion {
    /// In GitHub's words.
    pub fn as_str(self) -> &'static str {
        match self {
            Conclusion::Success => "success",
            Conclusion::Failure => "failure",
            Conclusion::Cancelled => "cancelled",
        }
    }
}

/// The runner a job was given to, as the job remembers it after the runner is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRunner {
    /// Its id.
    pub id: RunnerId,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: GroupId,
    /// That group's name.
    pub group_name: String,
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Behind the gate of an environment.
    Waiting,
    /// Wants a runner. One that was assigned has a minute to pick it up.
    Queued {
        /// The runner that was told.
        assigned: Option<RunnerId>,
    },
    /// Runs.
    InProgress {
        /// On this runner.
        runner: JobRunner,
    },
    /// Over.
    Completed {
        /// How it ended.
        conclusion: Conclusion,
        /// On which runner, if it ever had one.
        runner: Option<JobRunner>,
    },
}

impl JobState {
    /// The status in GitHub's words.
    pub fn status(&self) -> &'static str {
        match self {
            JobState::Waiting => "waiting",
            JobState::Queued { .. } => "queued",
            JobState::InProgress { .. } => "in_progress",
            JobState::Completed { .. } => "completed",
        }
    }

    /// How it ended, if it did.
    pub fn conclusion(&self) -> Option<Conclusion> {
        match self {
            JobState::Completed { conclusion, .. } => Some(*conclusion),
            JobState::Waiting | JobState::Queued { .. } | JobState::InProgress { .. } => None,
        }
    }

    /// The runner that has or had it.
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
    /// Its id.
    pub id: JobId,
    /// The run it belongs to.
    pub run: RunId,
    /// The attempt of that run.
    pub attempt: u64,
    /// Where.
    pub repository: RepositoryId,
    /// Its name.
    pub name: String,
    /// What it asks of a runner.
    pub labels: Vec<String>,
    /// Where it is.
    pub state: JobState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last began to run.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// How long it takes a runner.
    pub runs_for: Duration,
    /// How it will end if nothing happens to it.
    pub ends: Conclusion,
    /// Whether GitHub sends webhooks for it.
    pub webhooks: Webhooks,
    /// What happened to it, for the verdict.
    pub history: History,
    pub(super) queued_at: Timestamp,
}

/// Whether GitHub tells us about a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Webhooks {
    /// Each transition is delivered.
    Sent,
    /// GitHub never attempts a delivery; none shows in the list of deliveries either.
    NeverAttempted,
}

/// What happened to a job: the model's own knowledge, which no bug of Drover can colour.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Each time it was queued, a runner's failure to pick it up included.
    pub queued: Vec<Timestamp>,
    /// Each time a runner began it.
    pub started: Vec<Start>,
    /// Its runner vanished while running it.
    pub killed: Option<Timestamp>,
}

/// A runner began a job.
#[derive(Debug, Clone)]
pub struct Start {
    /// When.
    pub at: Timestamp,
    /// Which runner.
    pub runner: RunnerId,
    /// Its name.
    pub name: String,
}

impl Job {
    /// Served: begun exactly once, by one runner that lived to report the end.
    pub fn served_once(&self) -> bool {
        self.history.started.len() == 1
            && self.history.killed.is_none()
            && matches!(self.state, JobState::Completed { .. })
    }
}

/// Who operates a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// A process outside the model which connects, picks up and reports.
    Process,
    /// The model: somebody else's runner, always on, which takes any job that matches. How jobs get stolen.
    Model,
}

/// A registration.
#[derive(Debug, Clone)]
pub struct Runner {
    /// Its id.
    pub id: RunnerId,
    /// Where it is registered.
    pub scope: Scope,
    /// Its name, unique in its scope.
    pub name: String,
    /// Exactly the labels it was given: GitHub adds none to a JIT registration.
    pub labels: Vec<String>,
    /// Its group.
    pub group: GroupId,
    /// That group's name.
    pub group_name: String,
    /// Whether it is removed after one job.
    pub ephemeral: bool,
    /// Who operates it.
    pub operator: Operator,
    /// Whether it is connected.
    pub online: bool,
    /// The job it was told of or runs.
    pub job: Option<JobId>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it last connected, if it ever did.
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
    /// To whom.
    pub runner: RunnerId,
    /// What.
    pub job: JobId,
    /// `owner/name` of the job's repository, which the runner's processes see as `GITHUB_REPOSITORY`.
    pub repository: String,
    /// How long it will take.
    pub runs_for: Duration,
    /// How it will end.
    pub ends: Conclusion,
}

/// The runner, its secret or its job is not what the caller believes: it was removed, used, or given to somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown to GitHub")]
pub struct Unknown;

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Listed<T> {
    /// How many there are on all pages.
    pub total: usize,
    /// What is on this one.
    pub items: Vec<T>,
}

/// Which page of a list.
#[derive(Debug, Clone, Copy)]
pub struct Paging {
    /// From 1.
    pub page: usize,
    /// At most 100; 30 when not said.
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
