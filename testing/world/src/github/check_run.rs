//! The parts of a check run.

use jiff::Timestamp;

use super::{CheckRunId, RepositoryId};

/// A check run.
#[derive(Debug, Clone)]
pub struct CheckRun {
    /// Its id.
    pub id: CheckRunId,
    /// Where.
    pub repository: RepositoryId,
    /// What it is about.
    pub head_sha: String,
    /// What the app changed, last.
    pub now: CheckRunChange,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The part of a check run that its app says. `None` in an update leaves what was there.
#[derive(Debug, Clone, Default)]
pub struct CheckRunChange {
    /// Its name.
    pub name: Option<String>,
    /// The app's own reference: how a repeated call finds what an earlier one made.
    pub external_id: Option<String>,
    /// `queued`, `in_progress` or `completed`.
    pub status: Option<String>,
    /// `success`, `failure`, ...
    pub conclusion: Option<String>,
    /// Where to read more.
    pub details_url: Option<String>,
    /// Title and summary.
    pub output: Option<CheckOutput>,
}

/// What a check run shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckOutput {
    /// One line.
    pub title: String,
    /// Markdown.
    pub summary: String,
}
