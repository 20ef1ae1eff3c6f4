//! The parts of a check run.

use jiff::Timestamp;

use super::{CheckRunId, RepositoryId};

/// A check run.
#[derive(Debug, Clone)]
pub struct CheckRun {
    pub id: CheckRunId,
    pub repository: RepositoryId,
    /// The commit of the check.
    pub head_sha: String,
    /// The current values.
    pub now: CheckRunChange,
    pub created_at: Timestamp,
}

/// The values that the app sets. In an update, `None` keeps the previous value.
#[derive(Debug, Clone, Default)]
pub struct CheckRunChange {
    pub name: Option<String>,
    /// The app's own reference.
    pub external_id: Option<String>,
    /// `queued`, `in_progress` or `completed`.
    pub status: Option<String>,
    /// `success`, `failure`, ...
    pub conclusion: Option<String>,
    pub details_url: Option<String>,
    pub output: Option<CheckOutput>,
}

/// The text of a check run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckOutput {
    /// One line.
    pub title: String,
    /// Markdown.
    pub summary: String,
}
