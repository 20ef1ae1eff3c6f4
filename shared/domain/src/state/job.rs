//! The facts about a workflow job. Order and repetition of GitHub's reports do not matter: each report is joined with the
//! facts so far.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::{JobId, PoolName, Repository, RunId};
use crate::wire::{Action, Notice, RunnerNotice};

/// The progress of a job. It never decreases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rank {
    /// Needs a runner, now or once a gate has opened.
    Queued,
    Started,
    Done,
}

impl From<Action> for Rank {
    fn from(action: Action) -> Self {
        match action {
            Action::Queued | Action::Waiting => Rank::Queued,
            Action::InProgress => Rank::Started,
            Action::Completed => Rank::Done,
        }
    }
}

/// The facts about one job: the item `JOB#<job>`, `STATE`. Kept for seven days after the job's end. GitHub can redeliver a
/// webhook for three days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    /// The pool that the first notice was routed to. A job moves to another pool only with its repository, if that is
    /// transferred to another owner.
    pub pool: PoolName,
    pub repository: Repository,
    pub public: bool,
    pub run_id: RunId,
    /// From 1; each re-run is one more.
    pub run_attempt: u32,
    /// Written by users.
    pub name: String,
    /// Written by users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// `runs-on`, as written.
    pub labels: Vec<String>,
    #[serde(default)]
    pub head_sha: String,
    /// The job's page on GitHub.
    #[serde(default)]
    pub html_url: String,
    pub rank: Rank,
    /// GitHub reported `waiting` at least once. Webhooks do not show the order of `queued` and `waiting`, so from then on
    /// only GitHub's answer to a request opens the gate.
    pub gated: bool,
    /// The runner that GitHub gave the job to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<RunnerNotice>,
    /// For example `success`, `failure` or `cancelled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conclusion: Option<String>,
    /// When GitHub created the job.
    pub queued_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// When Drover received the first notice about it.
    pub first_seen_at: Timestamp,
    /// When the first webhook `queued` about it arrived. None for a job that was only found by asking GitHub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_webhook_at: Option<Timestamp>,
    /// DynamoDB's TTL, in epoch seconds. Set once the job has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    pub revision: u64,
}

/// How long a finished job's facts are kept.
pub const KEEP_DONE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// For a job that was queued longer ago than this, GitHub is asked before anything is launched. GitHub fails a job after
/// 24 h in the queue, so the notice is most likely a late redelivery.
pub const TRUST_QUEUED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Nothing is launched for a job that was queued longer ago than this. GitHub can call a job `queued` for ever, and ends
/// every run after 35 days.
pub const MAX_QUEUED: SignedDuration = SignedDuration::from_hours(35 * 24);

impl Job {
    /// The facts after the first notice.
    pub fn first(pool: PoolName, notice: &Notice) -> Self {
        let job = &notice.job;
        let facts = Self {
            id: job.id,
            pool,
            repository: notice.repository.clone(),
            public: notice.public,
            run_id: job.run_id,
            run_attempt: job.run_attempt,
            name: job.name.clone(),
            workflow: job.workflow.clone(),
            labels: job.labels.clone(),
            head_sha: job.head_sha.clone(),
            html_url: job.html_url.clone(),
            rank: Rank::Queued,
            gated: false,
            runner: None,
            conclusion: None,
            queued_at: job.created_at,
            started_at: None,
            completed_at: None,
            first_seen_at: notice.received_at,
            queued_webhook_at: None,
            expires_at: None,
            revision: 0,
        };
        facts.join(notice)
    }

    /// The facts after one more notice. Commutative, associative, idempotent.
    #[must_use]
    pub fn join(mut self, notice: &Notice) -> Self {
        let reported = &notice.job;
        let rank = Rank::from(notice.action);
        self.gated |= notice.action == Action::Waiting || reported.status == "waiting";
        self.queued_at = self.queued_at.min(reported.created_at);
        self.first_seen_at = self.first_seen_at.min(notice.received_at);
        if notice.action == Action::Queued && notice.is_webhook() {
            self.queued_webhook_at = earliest(self.queued_webhook_at, Some(notice.received_at));
        }
        if rank >= Rank::Started {
            // For a queued job, `started_at` is the time of its creation.
            self.started_at = earliest(self.started_at, reported.started_at);
            self.runner = max_by_id(self.runner, reported.runner.clone());
        }
        if rank == Rank::Done {
            self.completed_at = earliest(self.completed_at, Some(reported.completed_at.unwrap_or(notice.received_at)));
            self.conclusion = self.conclusion.max(reported.conclusion.clone());
            self.expires_at = self.completed_at.map(|at| (at + KEEP_DONE).as_second());
        }
        self.rank = self.rank.max(rank);
        self
    }

    /// When its first webhook `queued` arrived, if GitHub would have failed the job by then. Further webhooks do not count,
    /// and neither does GitHub's answer to a request: both can be repeated for as long as GitHub calls the job queued.
    pub fn late_webhook_at(&self) -> Option<Timestamp> {
        self.queued_webhook_at.filter(|at| at.duration_since(self.queued_at) >= TRUST_QUEUED_FOR)
    }

    /// The facts of a job that Drover closes although GitHub has not reported its end. They are kept until no notice about
    /// the job could make it demand.
    #[must_use]
    pub fn closed(self, conclusion: &str, now: Timestamp) -> Self {
        let keep_until = (now + KEEP_DONE).max(self.queued_at + MAX_QUEUED);
        Self {
            rank: Rank::Done,
            conclusion: Some(conclusion.to_owned()),
            completed_at: Some(now),
            expires_at: Some(keep_until.as_second()),
            ..self
        }
    }

    /// Whether the notices alone prove that the job needs a runner now. Otherwise GitHub is asked.
    pub fn needs_no_check(&self, now: Timestamp) -> bool {
        !self.gated && now.duration_since(self.queued_at) < TRUST_QUEUED_FOR
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn max_by_id(a: Option<RunnerNotice>, b: Option<RunnerNotice>) -> Option<RunnerNotice> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if (b.id, &b.name, b.group) > (a.id, &a.name, a.group) { b } else { a }),
        (a, b) => a.or(b),
    }
}
