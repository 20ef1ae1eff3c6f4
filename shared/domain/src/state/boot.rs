//! What the control plane leaves for one machine: the only thing a runner machine can ever read from Drover.

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, RepositoryPattern};

/// The boot table's key of a machine: the instance role's `aws:userid`, which is also what STS GetCallerIdentity
/// answers as `UserId` on that machine. The role's policy lets a machine delete this key and do nothing else.
pub fn boot_key(role_id: &str, instance: &InstanceId) -> String {
    format!("{role_id}:{instance}")
}

/// The item under [`boot_key`]. Deleting it returns it: one read, once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootItem {
    /// GitHub's one-use registration secret.
    pub jit_config: String,
    /// The machine powers off this long after it began, whatever it is doing.
    pub max_life_seconds: u64,
    /// Which repositories' jobs this machine may run: `owner/name`, or `owner/*`.
    pub repositories: Vec<RepositoryPattern>,
    /// When DynamoDB may drop it, in epoch seconds. Housekeeping only.
    pub expires_at: i64,
}

impl std::fmt::Debug for BootItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BootItem")
            .field("jit_config", &"<secret>")
            .field("max_life_seconds", &self.max_life_seconds)
            .field("repositories", &self.repositories)
            .finish_non_exhaustive()
    }
}
