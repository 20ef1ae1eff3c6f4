//! The invariants, checked at every write of the table.

use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::boot::BootItem;
use domain::decide::{RELAUNCH_LIMIT, RELAUNCH_WINDOW};
use domain::event::{Event, Stream};
use domain::ids::PoolName;
use domain::item::{Item, Key};
use domain::slot::SlotState;
use domain::transaction::Transaction;
use domain::view::PoolView;
use engine::memory::MemoryStore;
use engine::ports::{CommitError, Store, StoreError};

/// The table in memory, which panics when a write breaks an invariant.
#[derive(Debug)]
pub struct Checked {
    table: MemoryStore,
}

impl Checked {
    pub(crate) fn new(table: MemoryStore) -> Self {
        Self { table }
    }

    /// A machine's one read.
    pub fn take_boot_item(&self, key: &str) -> Option<BootItem> {
        self.table.take_boot_item(key)
    }

    /// Every item.
    pub fn items(&self) -> Vec<Item> {
        self.table.items()
    }

    /// Loses the main table.
    pub fn empty(&self) {
        self.table.empty();
    }

    /// The log folds to what the items say.
    pub fn check_log(&self) {
        let differences = self.table.unfolded();
        assert!(differences.is_empty(), "the log does not tell what the items say: {differences:#?}");
    }

    /// A pool as it is now.
    pub fn view(&self, pool: &PoolName) -> PoolView {
        let items = self.items();
        let meta = items.iter().find_map(|item| match item {
            Item::Meta(meta) if meta.pool == *pool => Some(meta.clone()),
            _ => None,
        });
        let pk = Key::pool_pk(pool);
        PoolView::new(meta.expect("the pool was applied"), items.into_iter().filter(|item| item.key().pk() == pk))
    }

    fn check(&self, transaction: &Transaction, before: &BTreeMap<Key, Item>) {
        for item in &transaction.puts {
            match (item, before.get(&item.key())) {
                (Item::Job(after), Some(Item::Job(before))) => {
                    assert!(
                        after.rank >= before.rank,
                        "S4: {} went from {:?} to {:?}",
                        after.id,
                        before.rank,
                        after.rank
                    );
                }
                (Item::Slot(after), Some(Item::Slot(before))) => {
                    assert!(after.rank() >= before.rank(), "S4: slot {} went back", after.id);
                    assert!(before.stop.is_none() || after.stop.is_some(), "a stop of {} was taken back", after.id);
                }
                (Item::Waiting(job), _) => {
                    let last = job.launches.iter().max().copied();
                    let recent = job
                        .launches
                        .iter()
                        .filter(|at| last.is_some_and(|last| last.duration_since(**at) < RELAUNCH_WINDOW));
                    assert!(recent.count() <= RELAUNCH_LIMIT, "S6: job {} was charged too often", job.id);
                }
                _ => {}
            }
        }
    }

    /// S3: what a decision adds is never more than what was asked for.
    fn check_capacity(&self, transaction: &Transaction, before: &PoolView) {
        let Some(config) = self.items().into_iter().find_map(|item| match item {
            Item::Config(config) => Some(config),
            _ => None,
        }) else {
            return;
        };
        let Some(pool) = config.pool(&before.meta.pool) else { return };
        let added: Vec<_> = transaction
            .puts
            .iter()
            .filter_map(|item| match item {
                Item::Slot(slot) if slot.revision == 0 && slot.state == SlotState::Planned => Some(slot),
                _ => None,
            })
            .collect();
        let Some(now) = added.first().map(|slot| slot.planned_at) else { return };
        let supply = before.supply(now).count() + added.len();
        let asked = before.demand(now) + pool.warm as usize;
        assert!(supply <= asked, "S3: supply {supply} after a launch for {asked}");
        let live = before.live() + added.len();
        assert!(live <= pool.max as usize, "S3: {live} machines where {} are allowed", pool.max);
    }
}

#[async_trait]
impl Store for Checked {
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        self.table.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, StoreError> {
        self.table.get_many(keys).await
    }

    async fn partition(&self, pool: &PoolName) -> Result<Vec<Item>, StoreError> {
        self.table.partition(pool).await
    }

    async fn commit(&self, transaction: &Transaction) -> Result<(), CommitError> {
        let before: BTreeMap<Key, Item> = self.items().into_iter().map(|item| (item.key(), item)).collect();
        let view = transaction.puts.iter().find_map(|item| match item {
            Item::Meta(meta) if before.contains_key(&Key::Meta(meta.pool.clone())) => Some(self.view(&meta.pool)),
            _ => None,
        });
        self.table.commit(transaction).await?;
        self.check(transaction, &before);
        if let Some(view) = view {
            self.check_capacity(transaction, &view);
        }
        Ok(())
    }

    async fn events(&self, stream: &Stream, newest: usize) -> Result<Vec<Event>, StoreError> {
        self.table.events(stream, newest).await
    }
}
