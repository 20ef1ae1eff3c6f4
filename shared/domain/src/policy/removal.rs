//! When a pool that the pool file no longer has is gone.

use jiff::{SignedDuration, Timestamp};

use crate::ids::{PoolName, RunnerName};
use crate::state::{Config, Item};
use crate::wire::{ObservedInstance, ObservedRunner};

/// After this time, no function uses the pools of before any more: a scaler keeps them for a minute, and an invocation ends within
/// another one.
const KNOWN_EVERYWHERE_AFTER: SignedDuration = SignedDuration::from_mins(2);

/// What a pool that ends still has to finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Nothing,
    Something,
}

impl Left {
    /// What these items of a pool are.
    pub fn of<'a>(items: impl IntoIterator<Item = &'a Item>) -> Self {
        if items.into_iter().any(is_unfinished) { Self::Something } else { Self::Nothing }
    }
}

/// For how long the functions have known that the file no longer has the pool. None if they do not know it yet.
pub fn known_for(before: &Config, pool: &PoolName, now: Timestamp) -> Option<SignedDuration> {
    before.is_removed(pool).then(|| now.duration_since(before.applied_at))
}

/// Whether a pool that the file no longer has stays in force, and drains. A scaler that does not know the file yet may record a job in
/// the pool, or launch for it. So even an empty pool stays, and a later `apply` drops it.
pub fn stays_in_force(known_for: Option<SignedDuration>, left: Left) -> bool {
    left == Left::Something || known_for.is_none_or(|time| time < KNOWN_EVERYWHERE_AFTER)
}

/// Whether EC2 has a machine of the pool, or GitHub a runner. No sweep looks for them once the pool is dropped. Some belong to no slot,
/// for example a registration whose answer was lost.
pub fn has_traces(pool: &PoolName, machines: &[ObservedInstance], runners: &[ObservedRunner]) -> bool {
    let is_of_pool = |runner: &ObservedRunner| runner.name.parse::<RunnerName>().is_ok_and(|name| name.pool == *pool);
    machines.iter().any(|seen| seen.state.is_live() && seen.is_of(pool)) || runners.iter().any(is_of_pool)
}

/// Whether the item is work that a draining pool still has to finish.
fn is_unfinished(item: &Item) -> bool {
    match item {
        Item::Slot(_) | Item::Batch(_) | Item::Waiting(_) | Item::CheckRun(_) | Item::Rerun(_) => true,
        Item::Meta(_)
        | Item::Nudge(_)
        | Item::Job(_)
        | Item::Instance(_)
        | Item::Config(_)
        | Item::Limit(_)
        | Item::Unrouted(_)
        | Item::Janitor(_)
        | Item::Function(_)
        | Item::Listing(_)
        | Item::Catalogue(_)
        | Item::SpotPrices(_)
        | Item::Runner(_) => false,
    }
}
