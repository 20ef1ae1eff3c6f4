//! Which of a pool's launch options is tried next, and when.

use jiff::Timestamp;

use crate::config::{Market, Pool, Tuple};
use crate::state::Meta;

/// The first tuple that may be tried now.
pub fn choose_tuple(pool: &Pool, meta: &Meta, now: Timestamp) -> Option<Tuple> {
    pool.tuples().into_iter().find(|tuple| free_at(meta, tuple, now) <= now)
}

/// The first tuple of the market that may be tried now.
pub fn first_free(pool: &Pool, meta: &Meta, market: Market, now: Timestamp) -> Option<Tuple> {
    let mut tuples = pool.tuples().into_iter().filter(|tuple| tuple.market == market);
    tuples.find(|tuple| free_at(meta, tuple, now) <= now)
}

/// When the tuple may be tried.
fn free_at(meta: &Meta, tuple: &Tuple, now: Timestamp) -> Timestamp {
    let cooling = meta.cooldowns.iter().filter(|cooling| cooling.tuple == *tuple).map(|cooling| cooling.until);
    let paused = meta.pauses.iter().filter(|pause| pause.market == tuple.market).map(|pause| pause.until);
    cooling.chain(paused).max().unwrap_or(now).max(now)
}

/// When the first of the pool's tuples may be tried; None if it has none.
pub fn next_free(pool: &Pool, meta: &Meta, now: Timestamp) -> Option<Timestamp> {
    pool.tuples().iter().map(|tuple| free_at(meta, tuple, now)).min()
}
