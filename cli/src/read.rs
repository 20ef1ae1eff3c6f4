//! Reads the pool configuration and the state of pools from the table, for every command that needs them.

use domain::config::Pool;
use domain::ids::PoolName;
use domain::log::{Event, Stream};
use domain::policy::PoolView;
use domain::policy::format::{self, TooNew};
use domain::state::{Config, Item, Janitor, Key};
use engine::pools;
use engine::ports::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use platform::table::Table;

use crate::output::Failure;

/// The janitor runs every minute.
const LONGEST_SINCE_SWEEP: SignedDuration = SignedDuration::from_mins(5);

/// How late the sweeps are. Each is None if it is as it should be.
pub(crate) struct Lateness {
    /// How long ago the last sweep was.
    pub(crate) last: Option<SignedDuration>,
    /// For how long none has ended.
    pub(crate) unfinished: Option<SignedDuration>,
}

impl Lateness {
    pub(crate) fn of(janitor: &Janitor, now: Timestamp) -> Self {
        let late = |since: Timestamp| Some(now.duration_since(since)).filter(|since| *since > LONGEST_SINCE_SWEEP);
        Self { last: late(janitor.until), unfinished: janitor.unfinished_since.and_then(late) }
    }
}

/// The pool configuration in force.
///
/// # Errors
/// The table cannot be read, or no configuration was ever applied.
pub async fn config(table: &impl Store) -> Result<Config, Failure> {
    let none = || Failure::Usage("no pools are configured -> drover pools apply FILE".to_owned());
    config_if_any(table).await?.ok_or_else(none)
}

/// The pool configuration in force; None before the first `drover pools apply`. Fails if a newer version wrote the table, so
/// that this one neither misreads nor overwrites it.
pub(crate) async fn config_if_any(table: &impl Store) -> Result<Option<Config>, Failure> {
    match table.get(&Key::Config).await? {
        Some(Item::Config(config)) => match format::check(&config) {
            Ok(()) => Ok(Some(with_machines(table, config).await?)),
            Err(TooNew { found }) => Err(Failure::Newer { format: found }),
        },
        _ => Ok(None),
    }
}

/// The configuration with what is known of machines, if a pool needs it.
async fn with_machines(table: &impl Store, config: Config) -> Result<Config, Failure> {
    if !config.pools.iter().any(Pool::needs_prices) {
        return Ok(config);
    }
    Ok(pools::with_machines(config, table.get_many(&[Key::Catalogue, Key::SpotPrices]).await?))
}

/// Every pool in force, or only the named one.
///
/// # Errors
/// The table cannot be read, or there is no such pool.
pub async fn pools(table: &impl Store, only: Option<&PoolName>) -> Result<Vec<Pool>, Failure> {
    select(&config(table).await?, only)
}

/// Every pool, or only the named one.
pub(crate) fn select(config: &Config, only: Option<&PoolName>) -> Result<Vec<Pool>, Failure> {
    match only {
        None => Ok(config.pools.clone()),
        Some(name) => match config.pool(name) {
            Some(pool) => Ok(vec![pool.clone()]),
            None => Err(no_such_pool(name)),
        },
    }
}

pub(crate) fn no_such_pool(name: &PoolName) -> Failure {
    Failure::Usage(format!("there is no pool {:?} -> drover pools lists the pools", name.as_str()))
}

/// The state of a pool, read in the same order as for a decision: META, then the partition. None if the pool has none.
pub(crate) async fn state(table: &impl Store, pool: &PoolName) -> Result<Option<PoolView>, StoreError> {
    match table.get(&Key::Meta(pool.clone())).await? {
        Some(Item::Meta(meta)) => Ok(Some(PoolView::new(meta, table.partition(pool).await?.items))),
        _ => Ok(None),
    }
}

/// The state of a pool that must have one.
pub(crate) async fn view(table: &impl Store, pool: &PoolName) -> Result<PoolView, Failure> {
    let without = || Failure::Usage(format!("pool {pool} has no state -> drover pools apply FILE"));
    state(table, pool).await?.ok_or_else(without)
}

/// The events since a time, and perhaps some older ones, newest first.
pub(crate) async fn log_since(store: &Table, stream: &Stream, from: Timestamp) -> Result<Vec<Event>, Failure> {
    let mut newest = if from == Timestamp::MIN { usize::MAX } else { FIRST_READING };
    loop {
        let events = store.events(stream, newest).await?;
        if events.len() < newest || events.last().is_none_or(|event| event.at < from) {
            return Ok(events);
        }
        newest = newest.saturating_mul(4);
    }
}

/// Events of a pool that are read at first. Each further reading has four times as many.
const FIRST_READING: usize = 1000;
