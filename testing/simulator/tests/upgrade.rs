//! Upgrades and rollbacks while jobs run.
//!
//! A function of the first version is today's engine behind a table that does to each item what the first version did: it
//! does not read the attributes that the first version did not have, and so erases them with the next write.

mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use async_trait::async_trait;
use domain::ids::PoolName;
use domain::log::Transaction;
use domain::policy::format::unsupported_by;
use domain::state::{Config, FORMAT, Function, FunctionName, Item, Key, UnreadSlots};
use engine::consume::consume;
use engine::context::Context;
use engine::pools::PoolsError;
use engine::ports::{CommitError, Ports, Reading, Store, StoreError};
use engine::sweep::{Mode, sweep};
use futures::executor::block_on;
use jiff::SignedDuration;
use serde_json::{Map, Value};
use simulator::{Universe, pool};
use story::everything_is_over;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// The attributes of each kind of item in the first version, from its samples.
struct FirstVersion {
    attributes: BTreeMap<&'static str, BTreeSet<String>>,
}

const KINDS: [&str; 12] =
    ["batch", "checkrun", "config", "instance", "janitor", "job", "limit", "meta", "nudge", "rerun", "slot", "waiting"];

fn kind(item: &Item) -> Option<&'static str> {
    match item {
        Item::Batch(_) => Some("batch"),
        Item::CheckRun(_) => Some("checkrun"),
        Item::Config(_) => Some("config"),
        Item::Instance(_) => Some("instance"),
        Item::Janitor(_) => Some("janitor"),
        Item::Job(_) => Some("job"),
        Item::Limit(_) => Some("limit"),
        Item::Meta(_) => Some("meta"),
        Item::Nudge(_) => Some("nudge"),
        Item::Rerun(_) => Some("rerun"),
        Item::Slot(_) => Some("slot"),
        Item::Waiting(_) => Some("waiting"),
        // The first version did not have these.
        Item::Function(_)
        | Item::Listing(_)
        | Item::Runner(_)
        | Item::Unrouted(_)
        | Item::Catalogue(_)
        | Item::SpotPrices(_) => None,
    }
}

impl FirstVersion {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/domain/tests/samples/v1");
        let read = |kind: &'static str| {
            let text = std::fs::read_to_string(folder.join(format!("{kind}.jsonl"))).expect("the samples");
            let lines = text.lines().map(|line| serde_json::from_str::<Map<String, Value>>(line).expect("an item"));
            (kind, lines.flat_map(|item| item.into_iter().map(|(name, _)| name)).collect())
        };
        Self { attributes: KINDS.into_iter().map(read).collect() }
    }

    /// The item as the first version reads it; None if the first version did not have this kind of item.
    fn read(&self, item: Item) -> Option<Item> {
        let known = &self.attributes[kind(&item)?];
        let mut attributes = serde_json::to_value(&item).expect("an item");
        attributes.as_object_mut().expect("an object").retain(|name, _| known.contains(name));
        let read = Item::deserialize(&item.key(), &attributes);
        Some(read.unwrap_or_else(|error| panic!("the first version cannot read {item:#?}: {error}")))
    }
}

/// The table as a function of the first version uses it.
struct FirstVersionStore<'a> {
    table: &'a dyn Store,
    version: &'a FirstVersion,
}

#[async_trait]
impl Store for FirstVersionStore<'_> {
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        Ok(self.table.get(key).await?.and_then(|item| self.version.read(item)))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, StoreError> {
        Ok(self.table.get_many(keys).await?.into_iter().filter_map(|item| self.version.read(item)).collect())
    }

    async fn get_readable(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        Ok(Reading { items: self.get_many(keys).await?, unreadable: Vec::new() })
    }

    async fn partition(&self, pool: &PoolName) -> Result<Reading, StoreError> {
        let read = self.table.partition(pool).await?;
        let items = read.items.into_iter().filter_map(|item| self.version.read(item)).collect();
        Ok(Reading { items, ..read })
    }

    async fn partition_without(
        &self,
        pool: &PoolName,
        unread: &UnreadSlots,
        newest: u64,
    ) -> Result<Reading, StoreError> {
        let read = self.table.partition_without(pool, unread, newest).await?;
        let items = read.items.into_iter().filter_map(|item| self.version.read(item)).collect();
        Ok(Reading { items, ..read })
    }

    async fn unrouted(&self) -> Result<Reading, StoreError> {
        Ok(Reading::default())
    }

    async fn commit(&self, transaction: &Transaction) -> Result<(), CommitError> {
        let puts = transaction.puts.iter().cloned().filter_map(|item| self.version.read(item)).collect();
        let written = Transaction { puts, ..transaction.clone() };
        if written.is_empty() { Ok(()) } else { self.table.commit(&written).await }
    }
}

/// The versions that run at a time. While functions are deployed, warm environments of the old version still answer.
#[derive(Clone, Copy, Debug)]
enum Deployed {
    First,
    Both,
    Present,
}

impl Deployed {
    fn is_first(self, turn: i64) -> bool {
        match self {
            Deployed::First => true,
            Deployed::Both => turn % 2 == 0,
            Deployed::Present => false,
        }
    }
}

fn run(universe: &Universe, version: &FirstVersion, deployed: Deployed, time: SignedDuration) {
    for _ in 0..time.as_secs() {
        universe.tick();
        let second = universe.now().as_second();
        if deployed.is_first(second) {
            let config = universe.config();
            universe.scale_in(async |context, messages| {
                let table = FirstVersionStore { table: context.ports.store, version };
                consume(&first_version(context, &table), &config, messages).await.failed.into_keys().collect()
            });
        } else {
            universe.scale();
        }
        if second % 60 == 0 {
            universe
                .invoke(async |context| {
                    let table = FirstVersionStore { table: context.ports.store, version };
                    let first = first_version(context, &table);
                    sweep(if deployed.is_first(second / 60) { &first } else { context }, Mode::Repair).await
                })
                .expect("the table can be read");
        }
    }
}

fn first_version<'a>(context: &Context<'a>, store: &'a dyn Store) -> Context<'a> {
    let Ports { compute, github, queue, clock, .. } = context.ports;
    Context { ports: Ports { store, compute, github, queue, clock }, ..*context }
}

fn set_format(universe: &Universe, format: u32) {
    let config = Config { format, ..universe.config() };
    block_on(universe.store.commit(&Transaction::new().put(config))).expect("nobody else writes");
}

/// Jobs of all kinds: some end soon, some run through every deployment.
fn queue_jobs(universe: &Universe) {
    for minutes in [1, 3, 15] {
        universe.queue_job(&["linux"], MINUTE * minutes);
    }
}

#[test]
fn a_stack_is_upgraded_and_rolled_back_with_jobs_running() {
    for seed in 0..8 {
        let version = FirstVersion::new();
        let universe = Universe::new(700 + seed, vec![pool("linux", 100)]);
        let order =
            [Deployed::First, Deployed::Both, Deployed::Present, Deployed::Both, Deployed::First, Deployed::Present];
        for deployed in order {
            queue_jobs(&universe);
            run(&universe, &version, deployed, MINUTE * 4);
        }
        everything_is_over(&universe);
        assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 3 * order.len() as u64, "seed {seed}");
    }
}

#[test]
fn functions_write_nothing_while_the_format_of_the_table_is_newer_than_theirs() {
    let universe = Universe::new(710, vec![pool("linux", 100)]);
    queue_jobs(&universe);
    universe.run(SignedDuration::from_secs(20));
    set_format(&universe, FORMAT + 1);
    queue_jobs(&universe);
    let before = universe.store.items();
    for _ in 0..90 {
        universe.tick();
        universe.scale();
    }
    let swept = universe.invoke(async |context| sweep(context, Mode::Repair).await);
    assert!(matches!(swept, Err(PoolsError::TooNew(_))), "{swept:?}");
    assert_eq!(universe.store.items(), before);
    set_format(&universe, FORMAT);
    universe.run(MINUTE);
    everything_is_over(&universe);
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 6, "the messages went back to the queue, and none was lost");
}

#[test]
fn both_functions_report_their_format_within_two_minutes_of_their_deployment() {
    let universe = Universe::new(711, vec![pool("linux", 100)]);
    let recorded = |universe: &Universe| -> Vec<Function> {
        let functions = universe.store.items().into_iter();
        functions.filter_map(|item| if let Item::Function(function) = item { Some(function) } else { None }).collect()
    };
    assert_eq!(unsupported_by(FORMAT, &recorded(&universe)), FunctionName::ALL);
    // No job is queued: the janitor wakes the scaler.
    universe.run(MINUTE * 2);
    assert_eq!(unsupported_by(FORMAT, &recorded(&universe)), []);
    let before = universe.store.items();
    universe.run(MINUTE * 2);
    let functions = |items: Vec<Item>| -> Vec<Item> {
        items.into_iter().filter(|item| matches!(item, Item::Function(_))).collect()
    };
    assert_eq!(functions(universe.store.items()), functions(before), "they are written once");
}
