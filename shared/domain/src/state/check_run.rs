//! The check run that explains to a job's author why the job waits.

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, PoolName, Repository};
use crate::state::lease::{Lease, Leased};

/// What a check run says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The job waits longer than usual.
    Waiting,
    /// An operator must act. Drover keeps trying.
    Failed,
}

/// The check run about one job: the item `POOL#<pool>`, `CHECK#<job>`. It exists from before the first publication until
/// the check run is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRun {
    /// Also the check run's external id.
    pub job: JobId,
    pub pool: PoolName,
    pub repository: Repository,
    /// The job's commit.
    pub head_sha: String,
    /// The job's page on GitHub.
    #[serde(default)]
    pub html_url: String,
    /// What the check run says now; None before GitHub has confirmed one.
    #[serde(rename = "told", default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Stage>,
    /// It says that nothing more is launched for the job.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
    /// GitHub's id of the check run; None before it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    #[serde(flatten)]
    pub lease: Lease,
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
