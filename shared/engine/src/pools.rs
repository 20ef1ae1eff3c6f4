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
/// `drover pools apply` reads.
///
/// # Errors
/// With [`PoolsError::TooNew`], the function must write nothing.
pub async fn read(context: &Context<'_>, function: FunctionName) -> Result<Config, PoolsError> {
    let mut config = None;
    let mut recorded = None;
    for item in context.ports.store.get_many(&[Key::Config, Key::Function(function)]).await? {
        match item {
            Item::Config(found) => config = Some(found),
            Item::Function(found) => recorded = Some(found),
            other => return Err(StoreError::new(format!("{} was not requested", other.key())).into()),
        }
    }
    if let Some(config) = &config {
        format::check(config)?;
    }
    if let Some(report) = format::report(function, recorded.as_ref(), context.now()) {
        record(context, report).await;
    }
    config.ok_or(PoolsError::NotConfigured)
}

/// Without the record, `drover pools apply` only refuses a newer format until the next invocation has written it.
async fn record(context: &Context<'_>, report: Function) {
    match context.ports.store.commit(&Transaction::new().put(report)).await {
        // Another invocation of the same version was faster.
        Ok(()) | Err(CommitError::Conflict(_)) => {}
        Err(CommitError::Store(error)) => tracing::warn!("the supported format is not recorded: {error}"),
    }
}

/// Makes the scaler run, and so record its format, if it has not run since it was deployed. The janitor runs every minute,
/// the scaler only when there is a message.
pub(crate) async fn wake_scaler(context: &Context<'_>, config: &Config) -> Result<(), StoreError> {
    let recorded = match context.ports.store.get(&Key::Function(FunctionName::Scaler)).await? {
        Some(Item::Function(function)) => Some(function),
        _ => None,
    };
    let is_silent = format::report(FunctionName::Scaler, recorded.as_ref(), context.now()).is_some();
    if let Some(pool) = config.pools.first().filter(|_| is_silent)
        && let Err(error) = context.ports.queue.nudge(&pool.name, SignedDuration::ZERO).await
    {
        tracing::warn!("the scaler is not woken: {error}");
    }
    Ok(())
}
