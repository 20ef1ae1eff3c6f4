//! A message on its way that makes the scaler look at a pool again.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::PoolName;

/// A promise that somebody will look at the pool soon: the item `POOL#<pool>`, `NUDGE`. It keeps a busy pool from having
/// more than one nudge on the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nudge {
    /// The pool.
    pub pool: PoolName,
    /// When the message is due; long after that it counts as lost.
    pub due_at: Timestamp,
    /// How often the item was written.
    pub revision: u64,
}
