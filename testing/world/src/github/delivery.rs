//! One attempt to deliver a webhook, and its outcome.

use std::time::Duration;

use jiff::Timestamp;

use super::{DeliveryId, Job, Owner, Repository};

/// One attempt to deliver one event. A redelivery is another attempt with the same guid.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Which attempt.
    pub id: DeliveryId,
    /// The event's name, `X-GitHub-Delivery`.
    pub guid: String,
    /// Whether somebody asked for it again.
    pub redelivery: bool,
    /// What is told.
    pub event: JobEvent,
    /// What became of it, once that is known.
    pub attempted: Option<Attempted>,
}

/// The outcome of an attempt.
#[derive(Debug, Clone)]
pub struct Attempted {
    /// When.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// What came back.
    pub answer: Answer,
}

/// What came back from the receiver of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// This HTTP status.
    Status(u16),
    /// No connection.
    Unreachable,
    /// Nothing within ten seconds.
    TimedOut,
}

impl Answer {
    /// What GitHub shows: a word and a status.
    pub fn shown(self) -> (&'static str, u16) {
        match self {
            Answer::Status(status @ 200..300) => ("OK", status),
            Answer::Status(status) => ("Invalid HTTP Response", status),
            Answer::Unreachable => ("failed to connect to host", 502),
            Answer::TimedOut => ("timed out", 504),
        }
    }
}

/// Everything a `workflow_job` payload says, as it was when it happened.
#[derive(Debug, Clone)]
pub struct JobEvent {
    /// `queued`, `waiting`, `in_progress` or `completed`.
    pub action: &'static str,
    /// When it happened.
    pub at: Timestamp,
    /// The job, then.
    pub job: Job,
    /// What was checked out.
    pub head_sha: String,
    /// The repository.
    pub repository: Repository,
    /// Its owner.
    pub owner: Owner,
}
