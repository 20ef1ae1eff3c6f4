//! The check run that tells a job's author why the job waits.

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, PoolName, Repository};
use crate::state::lease::{Lease, Leased};

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
    /// What the check run says; None until GitHub has confirmed one.
    #[serde(rename = "told", default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Stage>,
    /// GitHub's id of the check run; None if there is none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    #[serde(flatten)]
    pub lease: Lease,
    /// How often the item was written.
    pub revision: u64,
}

impl Leased for CheckRun {
    fn lease_mut(&mut self) -> &mut Lease {
        &mut self.lease
    }

    fn revision_mut(&mut self) -> &mut u64 {
        &mut self.revision
    }
}
