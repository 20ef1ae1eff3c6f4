//! The configuration of all pools, as `drover pools apply` stored it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Pool;
use crate::ids::PoolName;

/// The format of the table. It increases only if an older `drover` could damage a table of the new format. The functions
/// ignore it: they read what the version before or after them wrote.
pub const FORMAT: u32 = 1;

fn first_format() -> u32 {
    1
}

/// All pools: the item `CONFIG`, `POOLS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The [`FORMAT`] of the `drover` that wrote it.
    #[serde(default = "first_format")]
    pub format: u32,
    /// Includes draining pools.
    pub pools: Vec<Pool>,
    /// When `drover pools apply` wrote the item.
    pub applied_at: Timestamp,
    pub revision: u64,
}

impl Config {
    pub fn pool(&self, name: &PoolName) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == *name)
    }
}
