//! The configuration of all pools, as `drover pools apply` stored it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Pool;
use crate::ids::PoolName;

/// How the table is written. It only moves on when a version of `drover` that does not know the next one could do harm in it:
/// to the functions it is nothing, they read what either side of a deployment wrote.
pub const FORMAT: u32 = 1;

fn first_format() -> u32 {
    1
}

/// All pools: the item `CONFIG`, `POOLS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The [`FORMAT`] of who wrote it.
    #[serde(default = "first_format")]
    pub format: u32,
    /// The pools, draining ones among them.
    pub pools: Vec<Pool>,
    /// When `drover pools apply` wrote them.
    pub applied_at: Timestamp,
    /// How often the item was written.
    pub revision: u64,
}

impl Config {
    /// The pool of that name.
    pub fn pool(&self, name: &PoolName) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == *name)
    }
}
