//! A message that makes the scaler reconcile a pool at a certain time.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::PoolName;

/// The record of a nudge on the queue: the item `POOL#<pool>`, `NUDGE`. While it exists, no second nudge is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nudge {
    pub pool: PoolName,
    /// When the message is due. If it has not arrived long after that, it counts as lost.
    pub due_at: Timestamp,
    pub revision: u64,
}
