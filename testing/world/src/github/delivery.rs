//! One attempt to deliver a webhook, and its outcome.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{DeliveryId, Job, Owner, Repository};

/// One attempt to deliver one event. A redelivery is another attempt with the same guid.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub id: DeliveryId,
    /// Id of the event, `X-GitHub-Delivery`.
    pub guid: String,
    /// Whether it was requested through the API.
    pub redelivery: bool,
    pub event: Arc<JobEvent>,
    /// The outcome, once it is known.
    pub attempted: Option<Attempted>,
}

/// The outcome of an attempt.
#[derive(Debug, Clone)]
pub struct Attempted {
    pub at: Timestamp,
    pub took: Duration,
    pub answer: Answer,
}

/// The answer of the receiver of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// An HTTP status.
    Status(u16),
    /// No connection.
    Unreachable,
    /// No answer within ten seconds.
    TimedOut,
}

impl Answer {
    /// Status text and status code in the list of deliveries.
    pub fn shown(self) -> (&'static str, u16) {
        match self {
            Answer::Status(status @ 200..300) => ("OK", status),
            Answer::Status(status) => ("Invalid HTTP Response", status),
            Answer::Unreachable => ("failed to connect to host", 502),
            Answer::TimedOut => ("timed out", 504),
        }
    }
}

/// The content of a `workflow_job` payload, at the time of the event.
#[derive(Debug, Clone)]
pub struct JobEvent {
    /// `queued`, `waiting`, `in_progress` or `completed`.
    pub action: &'static str,
    pub at: Timestamp,
    pub job: Job,
    /// The commit of the run.
    pub head_sha: String,
    pub repository: Repository,
    pub owner: Owner,
}
