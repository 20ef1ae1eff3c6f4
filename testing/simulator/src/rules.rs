//! The invariants that can be checked at each write of the table.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use domain::config::Label;
use domain::ids::{InstanceId, JobId, PoolName};
use domain::log::{Event, Stream, Transaction};
use domain::policy::PoolView;
use domain::policy::charge::RELAUNCH_LIMIT;
use domain::state::{BootItem, Config, Item, Key, Phase, SlotState, StoredReport, UnreadSlots};
use engine::memory::{MemoryStore, Replaced};
use engine::ports::{CommitError, Reading, Store, StoreError};
use jiff::{SignedDuration, Timestamp};

use crate::attempts::Attempts;

/// The pools of a simulated world all have the default `relaunch_window`.
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// The default `lease_margin`. A claim outlives its invocation by this time, so a claim that follows it lawfully ends later by
/// this time at least.
pub(crate) const LEASE_MARGIN: SignedDuration = SignedDuration::from_secs(30);

/// Whether the invariants are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    On,
    /// For runs of weeks: the checks take more time than the engine.
    Off,
}

/// The table in memory. A write that violates an invariant panics, unless violations are collected.
#[derive(Debug)]
pub struct Checked {
    table: MemoryStore,
    pub(crate) checks: Checks,
    /// Violations; None if a violation panics.
    violations: Mutex<Option<Vec<String>>>,
    counts: Mutex<BTreeMap<Part, Count>>,
    totals: Mutex<BTreeMap<PoolName, Totals>>,
    /// When launches were charged to a job. Kept here because the item of the job may forget them.
    charges: Mutex<BTreeMap<JobId, Vec<Timestamp>>>,
    /// What EC2 answered to each attempt of a launch.
    pub(crate) attempts: Attempts,
    /// By how much the clocks of two functions may have differed so far.
    clocks_differ_by: Mutex<SignedDuration>,
    /// The items that were read as parts of pools.
    items_read: AtomicU64,
}

impl Checked {
    pub(crate) fn new(table: MemoryStore, checks: Checks) -> Self {
        Self {
            table,
            checks,
            violations: Mutex::new(None),
            counts: Mutex::default(),
            totals: Mutex::default(),
            charges: Mutex::default(),
            attempts: Attempts::default(),
            clocks_differ_by: Mutex::default(),
            items_read: AtomicU64::default(),
        }
    }

    /// The number of items that were read as parts of pools.
    pub(crate) fn items_read(&self) -> u64 {
        self.items_read.load(Ordering::Relaxed)
    }

    fn counted(&self, reading: Reading) -> Reading {
        self.items_read.fetch_add(reading.items.len() as u64, Ordering::Relaxed);
        reading
    }

    /// The clocks of two functions may have differed by so much.
    pub(crate) fn clocks_differ_by(&self, most: SignedDuration) {
        *self.clocks_differ_by.lock().expect("no thread panics while it holds the lock") = most;
    }

    /// Takes a machine's boot item, which it may read once.
    pub fn take_boot_item(&self, key: &str) -> Option<BootItem> {
        self.table.take_boot_item(key)
    }

    /// Writes the boot report under that key.
    pub(crate) fn report_boot(&self, key: &str, report: StoredReport) {
        self.table.report_boot(key, report);
    }

    /// The newest events of one stream, newest first.
    pub fn events(&self, stream: &Stream, newest: usize) -> Vec<Event> {
        self.table.events(stream, newest)
    }

    /// Every item, in order of the keys.
    pub fn items(&self) -> Vec<Item> {
        self.table.items()
    }

    /// See [`MemoryStore::expire`].
    pub(crate) fn expire(&self, role_id: &str, now: Timestamp) {
        self.table.expire(role_id, now);
    }

    /// Deletes everything in the main table.
    pub fn empty(&self) {
        self.table.empty();
        self.counts.lock().expect("no thread panics while it holds the lock").clear();
        self.totals.lock().expect("no thread panics while it holds the lock").clear();
        self.charges.lock().expect("no thread panics while it holds the lock").clear();
    }

    /// Panics if the event log disagrees with the items.
    pub fn check_log(&self) {
        let differences = self.log_differences();
        assert!(differences.is_empty(), "the event log disagrees with the items: {differences:#?}");
    }

    /// Where the event log and the items disagree.
    pub(crate) fn log_differences(&self) -> Vec<String> {
        let differences = self.table.unfolded();
        differences.into_iter().map(|(key, is, logged)| format!("{key} is {is:?}, but {logged:?} in the log")).collect()
    }

    /// See [`MemoryStore::with_config`].
    pub(crate) fn with_config<T>(&self, look: impl FnOnce(Option<&Config>) -> T) -> T {
        self.table.with_config(look)
    }

    /// The number of a pool's waiting jobs.
    pub(crate) fn waiting_jobs(&self, pool: &PoolName) -> usize {
        self.table.waiting_jobs(pool)
    }

    /// The present state of a pool.
    pub fn view(&self, pool: &PoolName) -> PoolView {
        let items = now_or_never(self.table.partition(pool)).expect("the table in memory can be read").items;
        let meta = items.iter().find_map(|item| match item {
            Item::Meta(meta) => Some(meta.clone()),
            _ => None,
        });
        PoolView::new(meta.expect("the pool was applied"), items)
    }

    /// An invariant does not hold: panics, or keeps the violation.
    pub(crate) fn violate(&self, what: String) {
        if self.checks == Checks::Off {
            return;
        }
        match &mut *self.violations.lock().expect("no thread panics while it holds the lock") {
            Some(violations) => violations.push(what),
            None => panic!("{what}"),
        }
    }

    /// From now on violations are collected.
    pub(crate) fn collect_violations(&self) {
        self.violations.lock().expect("no thread panics while it holds the lock").get_or_insert_default();
    }

    /// Takes the collected violations.
    pub(crate) fn take_violations(&self) -> Vec<String> {
        self.violations
            .lock()
            .expect("no thread panics while it holds the lock")
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// S4 and F1: what is wrong with an item, compared with the item that it replaces.
    fn check_item(item: &Item, before: Option<&Item>, clocks_differ_by: SignedDuration) -> Option<String> {
        match (item, before) {
            (Item::Job(after), Some(Item::Job(before))) => (after.rank < before.rank)
                .then(|| format!("S4: {} went from {:?} to {:?}", after.id, before.rank, after.rank)),
            (Item::Slot(after), Some(Item::Slot(before))) if after.phase() < before.phase() => {
                Some(format!("S4: slot {} went back", after.id))
            }
            (Item::Waiting(after), Some(Item::Waiting(before))) => before
                .asked_until
                .zip(after.asked_until)
                .filter(|(first, second)| {
                    first != second && second.duration_since(*first) < LEASE_MARGIN - clocks_differ_by
                })
                .map(|_| format!("F1: two invocations ask about job {} at the same time", after.id)),
            (Item::Slot(after), Some(Item::Slot(before))) => (before.stop.is_some() && after.stop.is_none())
                .then(|| format!("S4: the stop of {} was withdrawn", after.id)),
            _ => None,
        }
    }

    /// S6: how many launches were charged to a job within an hour. An item that loses a charge and gets another one has
    /// forgotten the first; one that only loses a charge got it back, because nothing was launched or the machine ran another job.
    fn check_charges(&self, item: &Item, before: Option<&Item>) -> Option<String> {
        let Item::Waiting(job) = item else { return None };
        let before = match before {
            Some(Item::Waiting(before)) => before.launches.as_slice(),
            _ => &[],
        };
        let mut charges = self.charges.lock().expect("no thread panics while it holds the lock");
        let charged = charges.entry(job.id).or_default();
        let new: Vec<Timestamp> = job.launches.iter().filter(|at| !before.contains(at)).copied().collect();
        if new.is_empty() {
            charged.retain(|at| job.launches.contains(at) || !before.contains(at));
        }
        charged.extend(new);
        let last = charged.iter().max().copied()?;
        let recent = charged.iter().filter(|at| last.duration_since(**at) < HOUR);
        (recent.count() > RELAUNCH_LIMIT).then(|| format!("S6: job {} was charged too often", job.id))
    }

    /// S3 and S10: a decision adds no more than the demand of a class at the time of its reading, and no more than `max` and the
    /// cap allow.
    ///
    /// The reading took place after the pool's version last changed. Since then jobs may have started and slots may have
    /// ended, so the greatest demand and the smallest supply since that change count.
    fn check_capacity(
        &self,
        transaction: &Transaction,
        before: &[Option<Item>],
        deleted: &[Option<Item>],
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut totals = self.totals.lock().expect("no thread panics while it holds the lock");
        let mut counts = self.counts.lock().expect("no thread panics while it holds the lock");
        let mut launched: BTreeMap<Part, Added> = BTreeMap::new();
        for (after, before) in transaction.puts.iter().zip(before) {
            let Item::Slot(after) = after else { continue };
            let added = launched.entry((after.pool.clone(), after.class.clone()));
            match before {
                None if after.state == SlotState::Planned => added.or_default().launched += 1,
                // A warm machine is given to a class.
                Some(Item::Slot(before)) if before.class != after.class => added.or_default().given += 1,
                Some(Item::Slot(before)) if before.price_per_hour != after.price_per_hour => drop(added.or_default()),
                _ => {}
            }
        }
        let all = before.iter().chain(deleted).flatten().map(|item| (item, -1));
        for (item, sign) in transaction.puts.iter().map(|item| (item, 1)).chain(all) {
            if let Item::Slot(slot) = item
                && slot.is_live()
            {
                let total = totals.entry(slot.pool.clone()).or_default();
                total.live += sign;
                total.price_per_hour += sign * slot.price_per_hour.map_or(0, |price| price.0 as i64);
            }
        }
        for ((pool, class), Added { launched, given }) in launched {
            let Ok(Some(Item::Config(config))) = now_or_never(self.table.get(&Key::Config)) else { continue };
            let Some(pool) = config.pool(&pool) else { continue };
            let count = counts.entry((pool.name.clone(), class.clone())).or_default();
            // Warm and stopped machines have no class. An event has the time of its decision.
            let warm = transaction.event.as_ref().map_or(pool.warm, |event| pool.warm_at(event.at)) + pool.stopped;
            let warm = if class.is_some() { 0 } else { i64::from(warm) };
            let (supply, wanted) = (count.least_supply() + launched + given, count.most_demand() + warm);
            let of_class = class.map(|class| format!(" of {class}")).unwrap_or_default();
            if launched + given > 0 && supply > wanted {
                wrong.push(format!("S3: supply {supply} of pool {}{of_class} after a launch for {wanted}", pool.name));
            }
            let total = totals.entry(pool.name.clone()).or_default();
            if launched > 0 && total.live > i64::from(pool.max) {
                wrong.push(format!("S3: {} machines of pool {} where {} are allowed", total.live, pool.name, pool.max));
            }
            if given == 0
                && let Some(cap) = pool.price_per_hour
                && total.price_per_hour > cap.0 as i64
            {
                let cost = total.price_per_hour;
                wrong.push(format!("S10: pool {} costs {cost} millionths per hour, more than {cap}", pool.name));
            }
        }
        for (item, sign) in transaction
            .puts
            .iter()
            .map(|item| (Some(item), 1))
            .chain(before.iter().chain(deleted).map(|item| (item.as_ref(), -1)))
        {
            match item {
                Some(Item::Waiting(job)) if job.open => {
                    counts.entry((job.pool.clone(), job.class.clone())).or_default().demand += sign;
                }
                Some(Item::Slot(slot)) => {
                    let count = counts.entry((slot.pool.clone(), slot.class.clone())).or_default();
                    let usable = slot.is_live()
                        && slot.stop.is_none()
                        && (!slot.held || slot.runner().is_some())
                        && slot.phase() < Phase::Busy
                        && slot.busy_seen_at.is_none();
                    count.supply += if usable { sign } else { 0 };
                }
                _ => {}
            }
        }
        let decided = transaction.puts.iter().find_map(|item| match item {
            Item::Meta(meta) => Some(&meta.pool),
            _ => None,
        });
        for ((pool, _), count) in counts.iter_mut() {
            count.keep(transaction.event.as_ref().map(|event| event.at), decided == Some(pool));
        }
        wrong
    }
}

/// How long an invocation may decide again from the same reading.
const READING_VALID_FOR: SignedDuration = SignedDuration::from_secs(1);

/// A pool, and a class of a pool with shapes.
pub(crate) type Part = (PoolName, Option<Label>);

/// What a transaction adds to the supply of a class.
#[derive(Debug, Default)]
struct Added {
    launched: i64,
    given: i64,
}

/// What the live slots of a pool add up to.
#[derive(Debug, Default)]
struct Totals {
    live: i64,
    /// In millionths of a dollar.
    price_per_hour: i64,
}

/// What the items of a class add up to, now and since its version last changed, but at least for as long as a reading is valid.
#[derive(Debug, Default)]
struct Count {
    demand: i64,
    supply: i64,
    /// Earlier demand and supply, each with when it began.
    earlier: VecDeque<(Timestamp, i64, i64)>,
}

impl Count {
    fn most_demand(&self) -> i64 {
        self.earlier.iter().map(|(_, demand, _)| *demand).chain([self.demand]).max().unwrap_or_default()
    }

    fn least_supply(&self) -> i64 {
        self.earlier.iter().map(|(_, _, supply)| *supply).chain([self.supply]).min().unwrap_or_default()
    }

    /// Keeps what they add up to after a write. Without an event, the write is as old as the last one that has one.
    fn keep(&mut self, at: Option<Timestamp>, is_decision: bool) {
        let Some(now) = at.or_else(|| self.earlier.back().map(|(at, ..)| *at)) else { return };
        if self.earlier.back().is_none_or(|(_, demand, supply)| (*demand, *supply) != (self.demand, self.supply)) {
            self.earlier.push_back((now, self.demand, self.supply));
        }
        // The first one that is kept began before, and was valid until the second one.
        let is_old = |next: &(Timestamp, i64, i64)| next.0 <= now - READING_VALID_FOR;
        while is_decision && self.earlier.get(1).is_some_and(is_old) {
            self.earlier.pop_front();
        }
    }
}

/// The table in memory answers at once.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    futures::FutureExt::now_or_never(future).expect("the table in memory never waits")
}

#[async_trait]
impl Store for Checked {
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        self.table.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, StoreError> {
        self.table.get_many(keys).await
    }

    async fn get_readable(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        self.table.get_readable(keys).await
    }

    async fn partition(&self, pool: &PoolName) -> Result<Reading, StoreError> {
        self.table.partition(pool).await.map(|reading| self.counted(reading))
    }

    async fn partition_without(
        &self,
        pool: &PoolName,
        unread: &UnreadSlots,
        newest: u64,
    ) -> Result<Reading, StoreError> {
        self.table.partition_without(pool, unread, newest).await.map(|reading| self.counted(reading))
    }

    async fn unrouted(&self) -> Result<Reading, StoreError> {
        self.table.unrouted().await
    }

    async fn boot_reports(
        &self,
        role_id: &str,
        machines: &[InstanceId],
    ) -> Result<Option<BTreeMap<InstanceId, StoredReport>>, StoreError> {
        self.table.boot_reports(role_id, machines).await
    }

    async fn commit(&self, transaction: &Transaction) -> Result<(), CommitError> {
        if self.checks == Checks::Off {
            return self.table.commit(transaction).await;
        }
        let Replaced { by_puts: before, by_deletes: deleted } = self.table.replace(transaction)?;
        let clocks = *self.clocks_differ_by.lock().expect("no thread panics while it holds the lock");
        let capacity = self.check_capacity(transaction, &before, &deleted);
        let wrong = transaction
            .puts
            .iter()
            .zip(&before)
            .filter_map(|(item, before)| Self::check_item(item, before.as_ref(), clocks));
        let charges = transaction.puts.iter().zip(&before);
        let charges = charges.filter_map(|(item, before)| self.check_charges(item, before.as_ref()));
        let batches = before.iter().chain(&deleted).flatten();
        let attempts = batches.filter_map(|before| self.attempts.check(before, transaction, clocks));
        for wrong in wrong.chain(charges).chain(attempts).chain(capacity) {
            self.violate(wrong);
        }
        Ok(())
    }
}
