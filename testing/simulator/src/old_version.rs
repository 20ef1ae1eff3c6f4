//! Functions of an old version, for upgrades and rollbacks while jobs run.
//!
//! A function of an old version is today's engine behind a table that does to each item what that version did: it does not
//! read the attributes that the version did not have, and so erases them with the next write. The attributes of each version
//! are those of its samples in `shared/domain/tests/samples`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use domain::ids::{InstanceId, PoolName};
use domain::log::Transaction;
use domain::policy::format::{self, VERSION};
use domain::state::{Config, FORMAT, Function, Item, Key, StoredReport, UnreadSlots};
use engine::context::Context;
use engine::ports::{CommitError, Ports, Reading, Store, StoreError};
use futures::FutureExt;
use serde_json::{Map, Value};

use crate::universe::Universe;

/// An old version: the newest format that it supports, and the attributes of each kind of item in its samples.
#[derive(Debug)]
pub struct OldVersion {
    pub format: u32,
    attributes: BTreeMap<&'static str, BTreeSet<String>>,
}

const KINDS: [&str; 18] = [
    "batch",
    "catalogue",
    "checkrun",
    "config",
    "function",
    "instance",
    "janitor",
    "job",
    "limit",
    "listing",
    "market",
    "meta",
    "nudge",
    "rerun",
    "runner",
    "slot",
    "unrouted",
    "waiting",
];

fn kind(item: &Item) -> &'static str {
    match item {
        Item::Batch(_) => "batch",
        Item::Catalogue(_) => "catalogue",
        Item::CheckRun(_) => "checkrun",
        Item::Config(_) => "config",
        Item::Function(_) => "function",
        Item::Instance(_) => "instance",
        Item::Janitor(_) => "janitor",
        Item::Job(_) => "job",
        Item::Limit(_) => "limit",
        Item::Listing(_) => "listing",
        Item::SpotPrices(_) => "market",
        Item::Meta(_) => "meta",
        Item::Nudge(_) => "nudge",
        Item::Rerun(_) => "rerun",
        Item::Runner(_) => "runner",
        Item::Slot(_) => "slot",
        Item::Unrouted(_) => "unrouted",
        Item::Waiting(_) => "waiting",
    }
}

/// The formats of older versions.
const OLD_FORMATS: usize = FORMAT as usize - 1;

impl OldVersion {
    /// The last version of this format, which is older than the present one.
    pub fn of_format(format: u32) -> &'static Self {
        static VERSIONS: [OnceLock<OldVersion>; OLD_FORMATS] = [const { OnceLock::new() }; OLD_FORMATS];
        VERSIONS[format as usize - 1].get_or_init(|| Self::from_samples(format))
    }

    /// The samples of a format have the kinds of items that it changes.
    fn from_samples(format: u32) -> Self {
        let mut attributes: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
        for version in 1..=format {
            let folder = format!("../../shared/domain/tests/samples/v{version}");
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            for kind in KINDS {
                let file = folder.join(format!("{kind}.jsonl"));
                if !file.exists() {
                    continue;
                }
                let text = std::fs::read_to_string(file).expect("the samples");
                let items = text.lines().map(|line| serde_json::from_str::<Map<String, Value>>(line).expect("an item"));
                let names = items.flat_map(|item| item.into_iter().map(|(name, _)| name));
                attributes.entry(kind).or_default().extend(names);
            }
        }
        Self { format, attributes }
    }

    /// Whether its janitor stores what failed in a sweep.
    pub(crate) fn stores_failures(&self) -> bool {
        self.attributes.get("janitor").is_some_and(|known| known.contains("failures"))
    }

    /// The item with the attributes that the version has; None if it did not have this kind of item.
    fn known(&self, item: Item) -> Result<Option<Item>, String> {
        if let Item::Slot(slot) = &item
            && format::of_slot(slot) > self.format
        {
            return Err(format!("a version of format {} cannot read {slot:?}", self.format));
        }
        let Some(known) = self.attributes.get(kind(&item)) else { return Ok(None) };
        let mut attributes = serde_json::to_value(&item).expect("an item");
        attributes.as_object_mut().expect("an object").retain(|name, _| known.contains(name));
        match Item::deserialize(&item.key(), &attributes) {
            Ok(item) => Ok(Some(item)),
            Err(error) => Err(format!("a version of format {} cannot read {item:?}: {error}", self.format)),
        }
    }

    /// What a function of the version records about itself.
    fn name(&self) -> String {
        format!("format {}", self.format)
    }

    /// Today's code compares with its own format and version where the old code compared with those of the old version.
    fn as_todays(&self, item: Item) -> Item {
        match item {
            Item::Config(config) if config.format > self.format => {
                Config { format: FORMAT + (config.format - self.format), ..config }.into()
            }
            Item::Function(function) if function.version.as_ref() == Some(&self.name()) => {
                Function { format: FORMAT, version: Some(VERSION.to_owned()), ..function }.into()
            }
            Item::Function(function) => Function { version: None, ..function }.into(),
            other => other,
        }
    }

    fn as_written(&self, item: Item) -> Item {
        match item {
            Item::Function(function) => Function { format: self.format, version: Some(self.name()), ..function }.into(),
            other => other,
        }
    }
}

/// The table as a function of an old version uses it.
#[expect(missing_debug_implementations, reason = "ports do not implement Debug")]
pub struct OldVersionStore<'a> {
    universe: &'a Universe,
    table: &'a dyn Store,
    version: &'a OldVersion,
    checks_format: bool,
    /// Whether the invocation has read a CONFIG. One that began while the table was lost cannot know the format.
    has_read_config: AtomicBool,
}

impl<'a> OldVersionStore<'a> {
    /// The table of an invocation in this universe.
    pub fn new(universe: &'a Universe, context: &Context<'a>, version: &'a OldVersion) -> Self {
        let checks_format = universe.old_versions_check_the_format();
        Self { universe, table: context.ports.store, version, checks_format, has_read_config: AtomicBool::new(false) }
    }

    /// The same invocation, by a function of the old version.
    pub fn context<'b>(&'b self, context: &Context<'b>) -> Context<'b> {
        let Ports { compute, github, queue, clock, .. } = context.ports;
        Context { ports: Ports { store: self, compute, github, queue, clock }, ..*context }
    }

    /// The item as the version reads it.
    fn read(&self, item: Item) -> Result<Option<Item>, StoreError> {
        self.has_read_config.fetch_or(matches!(item, Item::Config(_)), Ordering::Relaxed);
        match self.version.known(item) {
            Ok(Some(item @ Item::Config(_))) if !self.checks_format => Ok(Some(item)),
            Ok(item) => Ok(item.map(|item| self.version.as_todays(item))),
            Err(why) if self.is_too_old() => Err(StoreError::new(why)),
            Err(why) => {
                self.universe.store.violate(format!("P48: {why}"));
                Err(StoreError::new(why))
            }
        }
    }

    fn read_all(&self, items: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        items.into_iter().filter_map(|item| self.read(item).transpose()).collect()
    }

    fn read_each(&self, read: Reading) -> Result<Reading, StoreError> {
        Ok(Reading { items: self.read_all(read.items)?, ..read })
    }

    /// Whether the table is in a format that the version does not support.
    fn is_too_old(&self) -> bool {
        let read = self.universe.store.get(&Key::Config).now_or_never().expect("the table in memory never waits");
        matches!(read, Ok(Some(Item::Config(config))) if config.format > self.version.format)
    }
}

#[async_trait]
impl Store for OldVersionStore<'_> {
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        self.table.get(key).await?.map_or(Ok(None), |item| self.read(item))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, StoreError> {
        self.read_all(self.table.get_many(keys).await?)
    }

    async fn get_readable(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        self.read_each(self.table.get_readable(keys).await?)
    }

    async fn partition(&self, pool: &PoolName) -> Result<Reading, StoreError> {
        self.read_each(self.table.partition(pool).await?)
    }

    async fn partition_without(
        &self,
        pool: &PoolName,
        unread: &UnreadSlots,
        newest: u64,
    ) -> Result<Reading, StoreError> {
        self.read_each(self.table.partition_without(pool, unread, newest).await?)
    }

    async fn unrouted(&self) -> Result<Reading, StoreError> {
        self.read_each(self.table.unrouted().await?)
    }

    /// No old version reads these.
    async fn boot_reports(
        &self,
        _: &str,
        _: &[InstanceId],
    ) -> Result<Option<BTreeMap<InstanceId, StoredReport>>, StoreError> {
        Ok(None)
    }

    async fn commit(&self, transaction: &Transaction) -> Result<(), CommitError> {
        let puts = transaction.puts.iter().cloned().map(|item| self.version.known(self.version.as_written(item)));
        let puts: Result<Vec<Option<Item>>, String> = puts.collect();
        let puts = puts.map_err(StoreError::new)?.into_iter().flatten().collect();
        let written = Transaction { puts, ..transaction.clone() };
        if written.is_empty() {
            return Ok(());
        }
        if self.is_too_old() && self.has_read_config.load(Ordering::Relaxed) {
            let what = format!("P48: a function of format {} writes a table of a newer format", self.version.format);
            self.universe.store.violate(what);
        }
        self.table.commit(&written).await
    }
}
