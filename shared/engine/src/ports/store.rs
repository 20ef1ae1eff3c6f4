//! The table.

use async_trait::async_trait;
use std::collections::BTreeMap;

use domain::ids::{InstanceId, PoolName};
use domain::log::Transaction;
use domain::state::{Item, Key, StoredReport, UnreadSlots};

use crate::ports::source::Source;

/// The main table, the boot table and the reports table.
#[async_trait]
pub trait Store: Send + Sync {
    /// Returns one item, read with strong consistency.
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError>;

    /// Returns several items, each read with strong consistency, in any order. Missing items are left out.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, StoreError>;

    /// Like [`Store::get_many`], but an item that cannot be read does not hide the others.
    async fn get_readable(&self, keys: &[Key]) -> Result<Reading, StoreError>;

    /// Returns every item under `POOL#<pool>`, each read with strong consistency. The set is **not** isolated from
    /// transactions. Items that the pool can be read without are left out if they cannot be read
    /// ([`Key::is_dispensable`]); any other unreadable item is an error.
    async fn partition(&self, pool: &PoolName) -> Result<Reading, StoreError>;

    /// Like [`Store::partition`], without these slots and those of versions after `newest`.
    async fn partition_without(
        &self,
        pool: &PoolName,
        unread: &UnreadSlots,
        newest: u64,
    ) -> Result<Reading, StoreError>;

    /// Returns the newest jobs that no pool accepts, at most a thousand. Items that cannot be read are left out.
    async fn unrouted(&self) -> Result<Reading, StoreError>;

    /// Returns the boot reports of these machines, which have the role with this id. Missing reports are left out. Machines
    /// write their reports themselves. None if the stack has no reports table.
    async fn boot_reports(
        &self,
        role_id: &str,
        machines: &[InstanceId],
    ) -> Result<Option<BTreeMap<InstanceId, StoredReport>>, StoreError>;

    /// Writes the whole transaction or nothing.
    async fn commit(&self, transaction: &Transaction) -> Result<(), CommitError>;
}

/// Several items of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    pub items: Vec<Item>,
    /// The keys of items whose form is unknown. They are not among `items`.
    pub unreadable: Vec<Key>,
}

/// The table could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot use the table: {message}")]
pub struct StoreError {
    pub message: String,
    pub source: Option<Source>,
}

impl StoreError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }
}

/// Why a transaction is not known to be written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// Nothing was written: the item of this key has another revision than the transaction expects.
    #[error("{0} has changed since it was read")]
    Conflict(String),
    /// The table did not confirm the transaction. It may have been written.
    #[error(transparent)]
    Store(#[from] StoreError),
}
