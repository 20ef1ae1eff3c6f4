//! From a verified body to a notice.

use domain::ids::DeliveryId;
use domain::wire::{Action, MESSAGE_VERSION as VERSION, Notice};
use jiff::Timestamp;
use platform::workflow_job::WorkflowJob;
use serde::Deserialize;

use crate::verify::Verified;

/// What a delivery comes to.
#[derive(Debug)]
pub enum Delivered {
    /// Something for the scaler.
    Notice(Box<Notice>),
    /// Nothing that Drover will ever want; why, in a word.
    Ignored(&'static str),
}

/// A body that is signed by GitHub and still not what GitHub documents.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Not UTF-8.
    #[error("the body is not UTF-8")]
    Text,
    /// Not the JSON of a `workflow_job` event.
    #[error("the body is not a workflow_job event: line {line}, column {column}: {what}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong, in our words: serde's could quote the body.
        what: &'static str,
    },
    /// A repository whose name could mean something else in a URL.
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
struct Acted {
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

/// Reads a delivery. `event` is `X-GitHub-Event`.
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
    // The action first: of an action that we do not know, we do not know the form either.
    let Acted { action } = serde_json::from_str(body)?;
    let action = match action.as_str() {
        "queued" => Action::Queued,
        "waiting" => Action::Waiting,
        "in_progress" => Action::InProgress,
        "completed" => Action::Completed,
        _ => return Ok(Delivered::Ignored("unknown action")),
    };
    let told: WorkflowJobEvent = serde_json::from_str(body)?;
    Ok(Delivered::Notice(Box::new(Notice {
        v: VERSION,
        delivery,
        received_at: now,
        action,
        repository: told.repository.full_name.parse().map_err(|_| Malformed::Repository)?,
        public: !told.repository.private,
        installation: told.installation.map(|installation| installation.id),
        job: told.workflow_job.into(),
    })))
}
