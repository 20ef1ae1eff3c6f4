//! The configuration of all pools, as `drover pools apply` stored it.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{Catalogue, Machines, Pool, SpotPrices};
use crate::ids::PoolName;

/// The newest format of the table that this version supports. [`crate::policy::format`] states the rules.
///
/// - 1: the first format.
/// - 2: the functions respect the format, and may store `job_done` as the reason of a stop.
/// - 3: pools may have shapes and a cap. An older function would launch machines without a class for them.
/// - 4: pools may have schedules. An older function would stop the machines that a newer one keeps warm, and launch them when a
///   schedule asks for fewer.
/// - 5: pools may keep machines stopped. An older function could not read their slots, and would end stopped machines.
pub const FORMAT: u32 = 5;

fn first_format() -> u32 {
    1
}

/// All pools: the item `CONFIG`, `POOLS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The format of the table. A function that does not support it writes nothing.
    #[serde(default = "first_format")]
    pub format: u32,
    /// Includes draining pools.
    pub pools: Vec<Pool>,
    /// Draining pools that the pool file no longer has. Once such a pool is empty, it is not shown.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<PoolName>,
    /// When `drover pools apply` wrote the item.
    pub applied_at: Timestamp,
    pub revision: u64,
}

impl Config {
    /// Whether the pool file no longer has the pool. An empty one is gone as far as an operator is concerned.
    pub fn is_removed(&self, name: &PoolName) -> bool {
        self.removed.contains(name)
    }

    /// The pools with what is known of machines, where they have shapes.
    #[must_use]
    pub fn with_machines(mut self, catalogue: Option<Catalogue>, spot: Option<SpotPrices>) -> Self {
        let machines = catalogue.map(|catalogue| Arc::new(Machines { catalogue, spot }));
        for pool in self.pools.iter_mut().filter(|pool| pool.needs_prices()) {
            pool.machines.clone_from(&machines);
        }
        self
    }

    pub fn pool(&self, name: &PoolName) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == *name)
    }
}
