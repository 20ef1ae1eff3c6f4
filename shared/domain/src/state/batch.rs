//! A launch that is not finished.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Tuple;
use crate::ids::{BatchTag, Epoch, PoolName};
use crate::state::lease::{Lease, Leased};

/// One launch that is still owed: the item `POOL#<pool>`, `BATCH#<version>`. It has everything the call needs, so that
/// whoever repeats it makes the same call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The pool.
    pub pool: PoolName,
    /// The decision, and the version part of its slots' ids.
    pub version: u64,
    /// The pool's epoch at the decision.
    pub epoch: Epoch,
    /// Which attempt this is, from 1. Another attempt has another token.
    pub attempt: u32,
    /// How many instances this attempt asks for: fixed for the attempt, as EC2 refuses a token with other parameters.
    pub count: u32,
    /// How this attempt launches; fixed for the attempt. None while every way is cooling down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuple: Option<Tuple>,
    /// Tries count the calls of this attempt.
    #[serde(flatten)]
    pub lease: Lease,
    /// When a look-up of this attempt's tag first found nothing. A refusal counts only if a second one, a confirm gap
    /// later, finds nothing either: until then an earlier call without an answer may still have launched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Timestamp>,
    /// What EC2 answered to earlier attempts, newest last, at most [`REFUSALS_KEPT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refusal>,
    /// When it was decided.
    pub planned_at: Timestamp,
    /// How often the item was written.
    pub revision: u64,
}

/// A launch that has been tried this often is stuck: still tried, but a person should look.
pub const STUCK_AFTER: u32 = 5;

/// More would only repeat themselves.
pub const REFUSALS_KEPT: usize = 12;

impl Leased for Batch {
    fn lease_mut(&mut self) -> &mut Lease {
        &mut self.lease
    }

    fn revision_mut(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

impl Batch {
    /// The tag that this attempt's instances carry.
    pub fn tag(&self) -> BatchTag {
        BatchTag { pool: self.pool.clone(), epoch: self.epoch.clone(), version: self.version, attempt: self.attempt }
    }

    /// Whether a person should look at it.
    pub fn is_stuck(&self) -> bool {
        self.lease.tries >= STUCK_AFTER
    }
}

/// One refused attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// When.
    pub at: Timestamp,
    /// What was asked for.
    pub tuple: Tuple,
    /// EC2's code.
    pub code: String,
    /// EC2's message.
    pub message: String,
}
