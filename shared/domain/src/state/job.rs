//! What is known of a workflow job. Facts are joins: any order and any repetition of what GitHub says ends the same.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::{JobId, PoolName, Repository, RunId};
use crate::wire::{Action, Notice, RunnerNotice};

/// How far a job has come. It only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rank {
    /// Wants a runner, or will after a gate.
    Queued,
    /// A runner has it.
    Started,
    /// Over.
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

/// The facts of one job: the item `JOB#<job>`, `STATE`. Kept seven days after it is done, which outlives the three days
/// in which GitHub can redeliver what it said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// GitHub's id.
    pub id: JobId,
    /// The pool it was routed to at first sight. Fixed: a job never moves.
    pub pool: PoolName,
    /// Where it belongs.
    pub repository: Repository,
    /// Whether the repository is public.
    pub public: bool,
    /// Its workflow run.
    pub run_id: RunId,
    /// Which attempt of the run.
    pub run_attempt: u32,
    /// Its name, written by users.
    pub name: String,
    /// Its workflow's name, written by users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// `runs-on`.
    pub labels: Vec<String>,
    /// Its commit.
    #[serde(default)]
    pub head_sha: String,
    /// Its page.
    #[serde(default)]
    pub html_url: String,
    /// How far it has come.
    pub rank: Rank,
    /// GitHub said `waiting` at least once. Monotone; the order of `queued` and `waiting` cannot be trusted, so from then
    /// on only an answer of GitHub's opens the gate.
    pub gated: bool,
    /// The runner that has or had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<RunnerNotice>,
    /// GitHub's word for how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conclusion: Option<String>,
    /// When GitHub made it.
    pub queued_at: Timestamp,
    /// When a runner took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// When Drover first heard of it.
    pub first_seen_at: Timestamp,
    /// When DynamoDB may drop it, in epoch seconds; only once done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// How often the item was written.
    pub revision: u64,
}

/// How long a finished job's facts are kept.
pub const KEEP_DONE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A `queued` older than this is checked with GitHub before anything is launched for it: GitHub fails a job after 24 h
/// in the queue, so an older one is a redelivery, a redrive or a tombstone that expired.
pub const TRUST_QUEUED_FOR: SignedDuration = SignedDuration::from_hours(24);

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
            expires_at: None,
            revision: 0,
        };
        facts.join(notice)
    }

    /// The facts after one more notice. Commutative, associative, idempotent.
    #[must_use]
    pub fn join(mut self, notice: &Notice) -> Self {
        let said = &notice.job;
        let rank = Rank::from(notice.action);
        self.gated |= notice.action == Action::Waiting || said.status == "waiting";
        self.queued_at = self.queued_at.min(said.created_at);
        self.first_seen_at = self.first_seen_at.min(notice.received_at);
        if rank >= Rank::Started {
            // GitHub fills `started_at` of a queued job with the time it was made: only these tell when it started.
            self.started_at = earliest(self.started_at, said.started_at);
            self.runner = self.runner.max_by_id(said.runner.clone());
        }
        if rank == Rank::Done {
            self.completed_at = earliest(self.completed_at, Some(said.completed_at.unwrap_or(notice.received_at)));
            self.conclusion = self.conclusion.max(said.conclusion.clone());
            self.expires_at = self.completed_at.map(|at| (at + KEEP_DONE).as_second());
        }
        self.rank = self.rank.max(rank);
        self
    }

    /// Whether it is plain from what was said alone that a runner is wanted now.
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

trait MaxById {
    fn max_by_id(self, other: Self) -> Self;
}
impl MaxById for Option<RunnerNotice> {
    fn max_by_id(self, other: Self) -> Self {
        match (self, other) {
            (Some(a), Some(b)) => Some(if (b.id, &b.name) > (a.id, &a.name) { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}
