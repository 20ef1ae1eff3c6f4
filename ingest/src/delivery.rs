//! Parses a verified body into a notice.

use domain::ids::DeliveryId;
use domain::wire::{Action, MESSAGE_VERSION as VERSION, Notice};
use jiff::Timestamp;
use platform::workflow_job::WorkflowJob;
use serde::Deserialize;

use crate::verify::Verified;

/// The content of a delivery.
#[derive(Debug)]
pub enum Delivered {
    /// A notice for the scaler.
    Notice(Box<Notice>),
    /// An event that Drover has no use for, and why.
    Ignored(&'static str),
}

/// Why a body that GitHub signed does not have the documented form.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error("the body is not UTF-8")]
    Text,
    /// Not the JSON of a `workflow_job` event.
    #[error("the body is not a workflow_job event: line {line}, column {column}: {what}")]
    Json {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// The reason. serde's own message could quote the body.
        what: &'static str,
    },
    /// A repository name that could change the meaning of a URL.
    #[error("the repository's full_name is not owner/name")]
    Repository,
}

impl From<serde_json::Error> for Malformed {
    fn from(error: serde_json::Error) -> Self {
        let what = match error.classify() {
            serde_json::error::Category::Io => "cannot be read",
            serde_json::error::Category::Syntax => "is not JSON",
            serde_json::error::Category::Data => "a field is missing or of another type",
            serde_json::error::Category::Eof => "ends too early",
        };
        Malformed::Json { line: error.line(), column: error.column(), what }
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
    full_name: String,
    private: bool,
}

#[derive(Deserialize)]
struct Installation {
    id: u64,
}

/// Parses a delivery. `event` is the header `X-GitHub-Event`.
///
/// # Errors
/// [`Malformed`].
pub fn parse(event: &str, body: &Verified, delivery: DeliveryId, now: Timestamp) -> Result<Delivered, Malformed> {
    match event {
        "workflow_job" => {}
        "ping" => return Ok(Delivered::Ignored("ping")),
        _ => return Ok(Delivered::Ignored("another event")),
    }
    let body = std::str::from_utf8(body.bytes()).map_err(|_| Malformed::Text)?;
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
        repository: event.repository.full_name.parse().map_err(|_| Malformed::Repository)?,
        public: !event.repository.private,
        installation: event.installation.map(|installation| installation.id),
        job: event.workflow_job.into(),
    })))
}
