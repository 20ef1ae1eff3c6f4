//! The jobs that were reported for a slot's runner.

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, Repository};

/// A job whose `in_progress` or `completed` names the slot's runner, from a repository of the pool's owner. Anyone who may
/// register a runner there can forge such a claim, so it permits nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub job: JobId,
    /// None if an older version recorded the claim: then the instance's item has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// GitHub has reported the job's end, or knows nothing of the job.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// The number of claims that a slot keeps. A runner runs one job; the others were forged.
pub const MAX_CLAIMS: usize = 4;

/// The claims and one more. If there are [`MAX_CLAIMS`], it replaces the oldest that has ended; without such a claim nothing
/// changes.
pub(super) fn with_claim(mut claims: Vec<Claim>, new: Claim) -> Vec<Claim> {
    if let Some(known) = claims.iter_mut().find(|claim| claim.job == new.job) {
        known.ended |= new.ended;
    } else if claims.len() < MAX_CLAIMS {
        claims.push(new);
    } else if let Some(ended) = claims.iter().position(|claim| claim.ended) {
        claims.remove(ended);
        claims.push(new);
    }
    claims
}
