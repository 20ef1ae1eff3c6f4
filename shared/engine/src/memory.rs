//! The table in memory: the simulator's table, and the reference that the DynamoDB store is compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use domain::ids::{InstanceId, JobId, PoolName, SlotId};
use domain::log::{Event, Stream, Transaction, fold, lifecycle};
use domain::state::{BootItem, Config, Item, Key, StoredReport, UnreadSlots, boot_key};
use jiff::Timestamp;
use serde_json::Value;

use crate::ports::{CommitError, Reading, Store, StoreError};

/// The table, the boot table, the reports table and the log.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    items: BTreeMap<Key, Item>,
    /// When each version of an item expires, in epoch seconds. Only that of the present version counts.
    expiring: BTreeSet<(i64, Key)>,
    boot: BTreeMap<String, BootItem>,
    reports: BTreeMap<String, StoredReport>,
    log: Vec<Event>,
}

/// The items that a transaction replaced and deleted, in its order. None where there was no item.
#[derive(Debug)]
pub struct Replaced {
    pub by_puts: Vec<Option<Item>>,
    pub by_deletes: Vec<Option<Item>>,
}

impl Tables {
    /// The items of a pool's partition, ordered by key.
    fn of_pool(&self, pool: &PoolName) -> impl Iterator<Item = (&Key, &Item)> {
        // The keys of pools' items are less than all others.
        let of_pools = self.items.range(..Key::Job(JobId(0)));
        of_pools.filter(move |(key, _)| key.pool() == Some(pool))
    }

    /// A reading of these items of a pool's partition. They are large: they are found first, and then copied to where they stay.
    fn reading_of(&self, pool: &PoolName, is_read: impl Fn(&Key) -> bool) -> Reading {
        let found: Vec<&Item> = self.of_pool(pool).filter(|(key, _)| is_read(key)).map(|(_, item)| item).collect();
        Reading { items: found.into_iter().cloned().collect(), unreadable: Vec::new() }
    }
}

impl MemoryStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().expect("no thread panics while it holds the lock")
    }

    /// Removes and returns a boot item, as a machine reads it.
    pub fn take_boot_item(&self, key: &str) -> Option<BootItem> {
        self.tables().boot.remove(key)
    }

    /// Writes a boot report, as a machine does.
    pub fn report_boot(&self, key: &str, report: StoredReport) {
        self.tables().reports.insert(key.to_owned(), report);
    }

    /// Every item, ordered by key.
    pub fn items(&self) -> Vec<Item> {
        self.tables().items.values().cloned().collect()
    }

    /// The number of a pool's waiting jobs.
    pub fn waiting_jobs(&self, pool: &PoolName) -> usize {
        let [first, last] = [0, u64::MAX].map(|job| Key::Waiting(pool.clone(), JobId(job)));
        self.tables().items.range(first..=last).count()
    }

    /// Looks at the configuration without a copy. None if no pools were applied.
    pub fn with_config<T>(&self, look: impl FnOnce(Option<&Config>) -> T) -> T {
        match self.tables().items.get(&Key::Config) {
            Some(Item::Config(config)) => look(Some(config)),
            Some(_) | None => look(None),
        }
    }

    /// The whole log, oldest first.
    pub fn log(&self) -> Vec<Event> {
        self.tables().log.clone()
    }

    /// The newest events of one stream, newest first.
    pub fn events(&self, stream: &Stream, newest: usize) -> Vec<Event> {
        let mut events: Vec<Event> =
            self.tables().log.iter().filter(|event| event.stream == *stream).cloned().collect();
        events.sort_by(|a, b| b.sequence.cmp(&a.sequence));
        events.truncate(newest);
        events
    }

    /// Deletes expired items, as DynamoDB does, the reports of their machines, and the whole log. A run of weeks then does not
    /// grow.
    pub fn expire(&self, role_id: &str, now: Timestamp) {
        let mut tables = self.tables();
        let Tables { items, expiring, reports, log, .. } = &mut *tables;
        while let Some((_, key)) = expiring.first().filter(|(at, _)| *at <= now.as_second()) {
            let expires_at = items.get(key).and_then(expires_at);
            if expires_at.is_some_and(|at| at <= now.as_second()) {
                items.remove(key);
                if let Key::Instance(machine) = key {
                    reports.remove(&boot_key(role_id, machine));
                }
            }
            expiring.pop_first();
        }
        log.clear();
    }

    /// Deletes every item of the main table, as an operator might do by mistake.
    pub fn empty(&self) {
        let mut tables = self.tables();
        tables.items.clear();
        tables.expiring.clear();
        tables.log.clear();
    }

    /// Writes the transaction like [`Store::commit`], and returns what it replaced.
    pub fn replace(&self, transaction: &Transaction) -> Result<Replaced, CommitError> {
        assert!(transaction.len() <= Transaction::MAX_WRITES, "DynamoDB refuses a transaction of this size");
        let mut tables = self.tables();
        let keys: Vec<Key> = transaction.puts.iter().map(Item::key).collect();
        let put = keys.iter().zip(transaction.puts.iter().map(Item::revision));
        let others = transaction.deletes.iter().chain(&transaction.checks).map(|(key, revision)| (key, *revision));
        for (key, revision) in put.chain(others) {
            if tables.items.get(key).map_or(0, Item::revision) != revision {
                return Err(CommitError::Conflict(key.to_string()));
            }
        }
        let distinct: BTreeSet<&Key> = keys.iter().chain(transaction.deletes.iter().map(|(key, _)| key)).collect();
        assert_eq!(
            distinct.len(),
            keys.len() + transaction.deletes.len(),
            "DynamoDB refuses a transaction that writes an item twice: {keys:?}"
        );
        if let Some((key, item)) = &transaction.boot {
            if tables.boot.contains_key(key) {
                return Err(CommitError::Conflict("the boot item".to_owned()));
            }
            tables.boot.insert(key.clone(), item.clone());
        }
        let mut by_puts = Vec::with_capacity(keys.len());
        for (key, item) in keys.into_iter().zip(&transaction.puts) {
            tables.expiring.extend(expires_at(item).map(|at| (at, key.clone())));
            let before = tables.items.insert(key, item.clone().next_revision());
            if transaction.event.is_none() {
                let before = before.as_ref().and_then(lifecycle);
                assert_eq!(before, lifecycle(item), "a lifecycle field of {} changed without an event", item.key());
            }
            by_puts.push(before);
        }
        let by_deletes = transaction.deletes.iter().map(|(key, _)| tables.items.remove(key)).collect();
        tables.log.extend(transaction.event.clone());
        Ok(Replaced { by_puts, by_deletes })
    }

    /// The lifecycle fields that differ between items and log: `(key, item, log)`. Empty unless there is a bug.
    pub fn unfolded(&self) -> Vec<(String, Option<Value>, Option<Value>)> {
        let tables = self.tables();
        let mut folded = fold(&tables.log);
        let mut differences = Vec::new();
        for item in tables.items.values() {
            let Some(stored) = lifecycle(item) else { continue };
            let key = item.key().to_string();
            let logged = folded.remove(&key);
            if logged.as_ref() != Some(&stored) {
                differences.push((key, Some(stored), logged));
            }
        }
        differences.extend(folded.into_iter().map(|(key, logged)| (key, None, Some(logged))));
        differences
    }
}

/// DynamoDB's TTL, in epoch seconds.
fn expires_at(item: &Item) -> Option<i64> {
    match item {
        Item::Job(job) => job.expires_at,
        Item::Instance(instance) => instance.expires_at,
        Item::Runner(runner) => Some(runner.expires_at),
        Item::Unrouted(job) => Some(job.expires_at),
        Item::Meta(_)
        | Item::Waiting(_)
        | Item::Batch(_)
        | Item::Slot(_)
        | Item::Nudge(_)
        | Item::CheckRun(_)
        | Item::Rerun(_)
        | Item::Config(_)
        | Item::Limit(_)
        | Item::Janitor(_)
        | Item::Function(_)
        | Item::Listing(_)
        | Item::Catalogue(_)
        | Item::SpotPrices(_) => None,
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        Ok(self.tables().items.get(key).cloned())
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, StoreError> {
        let tables = self.tables();
        Ok(keys.iter().filter_map(|key| tables.items.get(key).cloned()).collect())
    }

    async fn get_readable(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        Ok(Reading { items: self.get_many(keys).await?, unreadable: Vec::new() })
    }

    async fn partition(&self, pool: &PoolName) -> Result<Reading, StoreError> {
        Ok(self.tables().reading_of(pool, |_| true))
    }

    async fn partition_without(
        &self,
        pool: &PoolName,
        unread: &UnreadSlots,
        newest: u64,
    ) -> Result<Reading, StoreError> {
        let is_left_out = |slot: &SlotId| unread.contains(*slot) || slot.version > newest;
        let is_read = |key: &Key| !matches!(key, Key::Slot(_, slot) if is_left_out(slot));
        Ok(self.tables().reading_of(pool, is_read))
    }

    async fn unrouted(&self) -> Result<Reading, StoreError> {
        let tables = self.tables();
        let all = tables.items.range(Key::Unrouted(JobId(0))..=Key::Unrouted(JobId(u64::MAX)));
        let items = all.map(|(_, item)| item.clone());
        Ok(Reading { items: items.collect(), unreadable: Vec::new() })
    }

    async fn boot_reports(
        &self,
        role_id: &str,
        machines: &[InstanceId],
    ) -> Result<Option<BTreeMap<InstanceId, StoredReport>>, StoreError> {
        let tables = self.tables();
        let read = machines
            .iter()
            .filter_map(|machine| Some((machine.clone(), tables.reports.get(&boot_key(role_id, machine))?.clone())));
        Ok(Some(read.collect()))
    }

    async fn commit(&self, transaction: &Transaction) -> Result<(), CommitError> {
        self.replace(transaction).map(drop)
    }
}
