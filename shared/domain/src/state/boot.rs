//! The item that a machine receives its JIT config from. A machine can read nothing else from Drover.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::config::{Market, MicroUsd};
use crate::ids::{InstanceId, InstanceType, RepositoryPattern};

/// A machine's key in the boot table: its `aws:userid`, which STS GetCallerIdentity returns as `UserId` on the machine. The
/// role's policy allows a machine to read and to delete this key, and nothing else.
pub fn boot_key(role_id: &str, instance: &InstanceId) -> String {
    format!("{role_id}:{instance}")
}

/// How long the agent waits for the boot item before it powers its machine off, unless `DROVER_AGENT_WAIT` says otherwise.
pub const AGENT_WAIT: SignedDuration = SignedDuration::from_hours(12);

/// The item under [`boot_key`]. The agent deletes it before anything of a job runs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootItem {
    /// The secret with which GitHub's runner starts.
    pub jit_config: String,
    /// The machine powers off after this time, even if it has a job.
    pub max_life_seconds: u64,
    /// The repositories whose jobs this machine may run.
    pub repositories: Vec<RepositoryPattern>,
    /// Whether this machine may run jobs of public repositories. None, written by older versions: the machine does not check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_public: Option<bool>,
    /// What the summary in the job's log says about the machine. None: the agent does not measure what the job uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<MeasuredMachine>,
    /// DynamoDB's TTL, in epoch seconds.
    pub expires_at: i64,
}

/// A machine whose agent measures what its job uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredMachine {
    pub instance_type: InstanceType,
    pub market: Market,
    /// With its root volume, as its launch was decided. None in a pool without prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_per_hour: Option<MicroUsd>,
}

/// The jobs that a machine may run: a part of its [`BootItem`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedJobs {
    pub repositories: Vec<RepositoryPattern>,
    pub allow_public: Option<bool>,
}

impl BootItem {
    pub fn allowed_jobs(&self) -> AllowedJobs {
        AllowedJobs { repositories: self.repositories.clone(), allow_public: self.allow_public }
    }
}

impl std::fmt::Debug for BootItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BootItem")
            .field("jit_config", &"<secret>")
            .field("max_life_seconds", &self.max_life_seconds)
            .field("repositories", &self.repositories)
            .field("allow_public", &self.allow_public)
            .field("usage", &self.usage)
            .finish_non_exhaustive()
    }
}
