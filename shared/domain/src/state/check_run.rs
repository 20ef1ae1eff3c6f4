//! The check run that tells a job's author why the job waits.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{JobId, PoolName, Repository};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It waits longer than is usual.
    Waiting,
    /// It has waited so long that a person must do something. Drover goes on trying.
    Failed,
}

/// The check run about one job: the item `POOL#<pool>`, `CHECK#<job>`. It exists from the first word to the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRun {
    /// The job, which is also our reference at GitHub.
    pub job: JobId,
    /// Its pool.
    pub pool: PoolName,
    /// Where it belongs.
    pub repository: Repository,
    /// Its commit.
    pub head_sha: String,
    /// Its page.
    #[serde(default)]
    pub html_url: String,
    /// What was told last; None while nothing is known to have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Stage>,
    /// GitHub's id of the check run; None if there is none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// How often the next word was tried in vain.
    pub tries: u32,
    /// Nobody else tells before then.
    pub next_at: Timestamp,
    /// How often the item was written.
    pub revision: u64,
}
