//! Parses a verified body into a notice.

use domain::ids::DeliveryId;
use domain::wire::{Action, MESSAGE_VERSION as VERSION, Notice};
use jiff::Timestamp;
use platform::workflow_job::WorkflowJob;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::verify::Verified;

/// The content of a delivery.
#[derive(Debug)]
pub enum Delivered {
    /// A notice for the scaler.
    Notice(Box<Notice>),
    /// An event that Drover has no use for, and why.
    Ignored(&'static str),
    /// A `workflow_job` event that lacks what Drover needs, and why. Delivered again, it would be the same.
    Unusable(Unusable),
}

/// The body is not JSON.
#[derive(Debug, thiserror::Error)]
pub enum NotJson {
    #[error("the body is not UTF-8")]
    Text,
    #[error("the body is not JSON: line {line}, column {column}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
}

/// Why JSON is not a `workflow_job` event that Drover can use. Quotes nothing from the body.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("not a usable workflow_job: line {line}, column {column}: a field is missing or has another type")]
    Form {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// A name that could change the meaning of a URL.
    #[error("not a usable workflow_job: the repository's full_name is not owner/name")]
    Repository,
}

impl From<serde_json::Error> for Unusable {
    /// serde's own message could quote the body.
    fn from(error: serde_json::Error) -> Self {
        Unusable::Form { line: error.line(), column: error.column() }
    }
}

#[derive(Deserialize)]
struct ActionOnly {
    action: String,
}

#[derive(Deserialize)]
struct WorkflowJobEvent {
    workflow_job: WorkflowJob,
    repository: Repository,
    #[serde(default)]
    installation: Option<Installation>,
}

#[derive(Deserialize)]
struct Repository {
    #[serde(default)]
    id: Option<u64>,
    full_name: String,
    #[serde(default)]
    private: Option<bool>,
    /// `public`, `private` or `internal`.
    #[serde(default)]
    visibility: Option<String>,
}

impl Repository {
    /// A repository that does not say what it is counts as public: a pool that serves no public repositories must not run
    /// the code of a fork because a field is missing.
    fn is_public(&self) -> bool {
        match (self.private, self.visibility.as_deref()) {
            (Some(private), _) => !private,
            (None, Some("private" | "internal")) => false,
            (None, _) => true,
        }
    }
}

#[derive(Deserialize)]
struct Installation {
    id: u64,
}

/// Parses a delivery. `event` is the header `X-GitHub-Event`.
///
/// # Errors
/// [`NotJson`].
pub fn parse(event: &str, body: &Verified, delivery: DeliveryId, now: Timestamp) -> Result<Delivered, NotJson> {
    match event {
        "workflow_job" => {}
        "ping" => return Ok(Delivered::Ignored("ping")),
        _ => return Ok(Delivered::Ignored("another event")),
    }
    let body = std::str::from_utf8(body.bytes()).map_err(|_| NotJson::Text)?;
    if let Err(error) = serde_json::from_str::<IgnoredAny>(body) {
        return Err(NotJson::Syntax { line: error.line(), column: error.column() });
    }
    Ok(usable(body, delivery, now).unwrap_or_else(Delivered::Unusable))
}

/// `body` is JSON.
fn usable(body: &str, delivery: DeliveryId, now: Timestamp) -> Result<Delivered, Unusable> {
    // The action first: the rest of an event with an unknown action may have an unknown form.
    let ActionOnly { action } = serde_json::from_str(body)?;
    let action = match action.as_str() {
        "queued" => Action::Queued,
        "waiting" => Action::Waiting,
        "in_progress" => Action::InProgress,
        "completed" => Action::Completed,
        _ => return Ok(Delivered::Ignored("unknown action")),
    };
    let event: WorkflowJobEvent = serde_json::from_str(body)?;
    Ok(Delivered::Notice(Box::new(Notice {
        v: VERSION,
        delivery,
        received_at: now,
        action,
        repository: event.repository.full_name.parse().map_err(|_| Unusable::Repository)?,
        repository_id: event.repository.id,
        public: event.repository.is_public(),
        installation: event.installation.map(|installation| installation.id),
        job: event.workflow_job.notice(now),
    })))
}
