//! The table.

use async_trait::async_trait;
use domain::ids::PoolName;
use domain::log::{Event, Stream, Transaction};
use domain::state::{Item, Key};

use super::ErrorKind;

/// The table.
#[async_trait]
pub trait Store: Send + Sync {
    /// One item, read strongly.
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError>;

    /// Several items, each read strongly, in no order; those that do not exist are left out.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, StoreError>;

    /// Every item under `POOL#<pool>`, each read strongly; the set is **not** isolated from transactions.
    async fn partition(&self, pool: &PoolName) -> Result<Vec<Item>, StoreError>;

    /// Writes all of it or nothing.
    async fn commit(&self, transaction: &Transaction) -> Result<(), CommitError>;

    /// A log, newest first, at most so many events.
    async fn events(&self, stream: &Stream, newest: usize) -> Result<Vec<Event>, StoreError>;
}

/// The table could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot use the table: {message}")]
pub struct StoreError {
    /// What is in the way.
    pub trouble: ErrorKind,
    /// In words.
    pub message: String,
}

impl StoreError {
    /// With a [`ErrorKind::Away`].
    pub fn away(message: impl Into<String>) -> Self {
        Self { trouble: ErrorKind::Away, message: message.into() }
    }
}

/// Why a transaction was not written, as far as is known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// Something it rests on has moved on: read again.
    #[error("{0} has changed since it was read")]
    Conflict(String),
    /// Not known to be written: the table is slow, throttled or away.
    #[error(transparent)]
    Store(#[from] StoreError),
}
