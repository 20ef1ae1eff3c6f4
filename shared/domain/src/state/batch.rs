//! An unfinished launch.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{Label, Tuple, is_zero};
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
    /// The class of the jobs that it is for. None in a pool without shapes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Label>,
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
    /// How many calls of this attempt got no complete answer. From the third one on, none is made any more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unanswered: u32,
    /// How many calls of this attempt EC2 answered with an error after which no machine exists. If it answered all of them, the
    /// next refusal counts at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub answered: u32,
    /// EC2's latest answers that reported no launch, newest last, at most [`ANSWERS_KEPT`].
    #[serde(rename = "refusals", default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    pub planned_at: Timestamp,
    pub revision: u64,
}

/// A launch goes elsewhere after this many calls without an answer, once no machine of theirs can be found.
const CALLS_WITHOUT_ANSWER: u32 = 3;

/// A launch is stuck after this many tries of one attempt. It is still tried, but an operator should look at it.
pub const STUCK_AFTER: u32 = 5;

/// Older answers are dropped: they mostly repeat the newer ones.
pub const ANSWERS_KEPT: usize = 3;

/// The largest part of a message that is kept, in bytes. An encoded authorization failure alone has several thousand.
const MESSAGE_KEPT: usize = 500;

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

    /// Whether EC2 has left so many calls without an answer that this attempt makes no more.
    pub fn is_unanswered(&self) -> bool {
        self.unanswered >= CALLS_WITHOUT_ANSWER
    }

    /// See [`STUCK_AFTER`].
    pub fn is_stuck(&self) -> bool {
        self.lease.tries >= STUCK_AFTER
    }
}

/// An answer of EC2 that reported no launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub at: Timestamp,
    pub tuple: Tuple,
    /// EC2's error code, or a name for a call without a complete answer.
    pub code: String,
    pub message: String,
}

impl Answer {
    /// Adds the answer to the latest ones.
    pub fn keep(self, latest: &mut Vec<Answer>) {
        latest.push(self);
        let excess = latest.len().saturating_sub(ANSWERS_KEPT);
        latest.drain(..excess);
    }
}

/// The beginning of a message, which is kept.
pub fn bounded(message: &str) -> String {
    message[..message.floor_char_boundary(MESSAGE_KEPT)].to_owned()
}
