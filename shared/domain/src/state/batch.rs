//! An unfinished launch.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Tuple;
use crate::ids::{BatchTag, Epoch, PoolName};
use crate::state::lease::{Lease, Leased};

/// One launch that is not finished: the item `POOL#<pool>`, `BATCH#<version>`. It has every parameter of the call, so
/// that a repeated attempt makes the same call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    pub pool: PoolName,
    /// The pool's version that the decision wrote, which is also part of its slots' ids.
    pub version: u64,
    pub epoch: Epoch,
    /// The number of the attempt, from 1. Each attempt has its own client token.
    pub attempt: u32,
    /// How many instances this attempt requests. Fixed for the attempt: EC2 refuses a token with other parameters.
    pub count: u32,
    /// Fixed for the attempt. None while every tuple is cooling down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuple: Option<Tuple>,
    /// `tries` counts the calls of this attempt.
    #[serde(flatten)]
    pub lease: Lease,
    /// When a look-up by this attempt's tag first found nothing. After an unanswered call, a refusal counts only if a second
    /// look-up, `confirm_gap` later, finds nothing either: until then the unanswered call may have launched instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Timestamp>,
    /// EC2's refusals of earlier attempts, newest last, at most [`REFUSALS_KEPT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refusal>,
    pub planned_at: Timestamp,
    pub revision: u64,
}

/// A launch is stuck after this many tries of one attempt. It is still tried, but an operator should look at it.
pub const STUCK_AFTER: u32 = 5;

/// Older refusals are dropped: they mostly repeat the newer ones.
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
    /// The tag of the instances that this attempt launches.
    pub fn tag(&self) -> BatchTag {
        BatchTag { pool: self.pool.clone(), epoch: self.epoch.clone(), version: self.version, attempt: self.attempt }
    }

    /// See [`STUCK_AFTER`].
    pub fn is_stuck(&self) -> bool {
        self.lease.tries >= STUCK_AFTER
    }
}

/// One refused attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub at: Timestamp,
    pub tuple: Tuple,
    /// EC2's error code.
    pub code: String,
    pub message: String,
}
