//! Reading the configuration of the pools: the first call of every invocation that has not cached it.

use domain::log::Transaction;
use domain::policy::format::{self, TooNew};
use domain::state::{Config, Function, FunctionName, Item, Key};
use jiff::SignedDuration;

use crate::context::Context;
use crate::ports::{CommitError, StoreError};

/// Why the pools are not known.
#[derive(Debug, thiserror::Error)]
pub enum PoolsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no pools are configured: run `drover pools apply`")]
    NotConfigured,
    #[error(transparent)]
    TooNew(#[from] TooNew),
}

/// Reads the pools for a function. The first invocation of another version records the format that it supports, which
/// `drover pools apply` reads. The janitor, which runs every minute, wakes a scaler that has not done so.
///
/// # Errors
/// With [`PoolsError::TooNew`], the function must write nothing.
pub async fn read(context: &Context<'_>, function: FunctionName) -> Result<Config, PoolsError> {
    let keys = [
        Key::Config,
        Key::Catalogue,
        Key::SpotPrices,
        Key::Function(FunctionName::Scaler),
        Key::Function(FunctionName::Janitor),
    ];
    let items = get_readable(context, &keys).await?;
    let config = config_among(&items).cloned();
    if let Some(config) = &config {
        format::check(config)?;
    }
    let now = context.now();
    let report_of = |function| {
        let recorded = items.iter().find_map(|item| match item {
            Item::Function(found) if found.name == function => Some(found),
            _ => None,
        });
        format::report(function, recorded, now)
    };
    let scaler_is_silent = report_of(FunctionName::Scaler).is_some();
    if let Some(report) = report_of(function) {
        record(context, report).await;
    }
    let config = with_machines(config.ok_or(PoolsError::NotConfigured)?, items);
    if function == FunctionName::Janitor && scaler_is_silent {
        wake_scaler(context, &config).await;
    }
    Ok(config)
}

/// The pools as they are now, for an invocation whose own reading may be older. None if there are none any more, or if the
/// function must write nothing.
pub(crate) async fn newest(context: &Context<'_>) -> Result<Option<Config>, StoreError> {
    let items = get_readable(context, &[Key::Config, Key::Catalogue, Key::SpotPrices]).await?;
    let config = config_among(&items).filter(|config| format::check(config).is_ok()).cloned();
    Ok(config.map(|config| with_machines(config, items)))
}

/// A newer version may have written what this one cannot read. Pools without shapes work without knowing EC2's machines.
async fn get_readable(context: &Context<'_>, keys: &[Key]) -> Result<Vec<Item>, StoreError> {
    let read = context.ports.store.get_readable(keys).await?;
    for key in read.unreadable {
        match key {
            Key::Catalogue | Key::SpotPrices => {
                tracing::error!(
                    "{key} cannot be read and is left out; delete the item, and the next sweep writes it again"
                );
            }
            key => return Err(StoreError::new(format!("{key} cannot be read"))),
        }
    }
    Ok(read.items)
}

fn config_among(items: &[Item]) -> Option<&Config> {
    items.iter().find_map(|item| if let Item::Config(config) = item { Some(config) } else { None })
}

/// The configuration with what some of the items say about machines.
pub fn with_machines(config: Config, items: impl IntoIterator<Item = Item>) -> Config {
    let (mut catalogue, mut spot) = (None, None);
    for item in items {
        match item {
            Item::Catalogue(found) => catalogue = Some(found),
            Item::SpotPrices(found) => spot = Some(found),
            _ => {}
        }
    }
    config.with_machines(catalogue, spot)
}

/// Without the record, `drover pools apply` only refuses a newer format until the next invocation has written it.
async fn record(context: &Context<'_>, report: Function) {
    match context.ports.store.commit(&Transaction::new().put(report)).await {
        // Another invocation of the same version was faster.
        Ok(()) | Err(CommitError::Conflict(_)) => {}
        Err(CommitError::Store(error)) => tracing::warn!("the supported format is not recorded: {error}"),
    }
}

/// Makes the scaler run, and so record its format. It runs only when there is a message.
async fn wake_scaler(context: &Context<'_>, config: &Config) {
    if let Some(pool) = config.pools.first()
        && let Err(error) = context.ports.queue.nudge(&pool.name, SignedDuration::ZERO).await
    {
        tracing::warn!("the scaler is not woken: {error}");
    }
}
