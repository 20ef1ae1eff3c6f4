//! Mistakes at the table's port.

use std::collections::BTreeMap;
use std::sync::MutexGuard;

use async_trait::async_trait;
use domain::ids::{InstanceId, PoolName, SlotId};
use domain::log::{Transaction, Turn, What};
use domain::state::{Item, Key, Lease, Leased, Meta, Rank, StoredReport, UnreadSlots};
use engine::ports::{CommitError, Reading, Store, StoreError};
use jiff::{SignedDuration, Timestamp};

use crate::mistakes::kinds::Mistake;
use crate::mistakes::ports::{Answer, MistakenPorts};

#[async_trait]
impl Store for MistakenPorts<'_> {
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        if self.mistake == Mistake::LimitUnread && matches!(key, Key::Limit(_)) {
            return Ok(None);
        }
        if self.mistake == Mistake::LateAnswer && matches!(key, Key::Nudge(_)) {
            *self.answer() = Answer::Read;
        }
        Ok(self.world.store.get(key).await?.map(|item| self.without_unread_machines(item)))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, StoreError> {
        let mut items = self.world.store.get_many(keys).await?;
        if self.mistake == Mistake::LimitUnread {
            items.retain(|item| !matches!(item, Item::Limit(_)));
        }
        Ok(items.into_iter().map(|item| self.without_unread_machines(item)).collect())
    }

    async fn get_readable(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        let read = self.world.store.get_readable(keys).await?;
        let items = read.items.into_iter().map(|item| self.without_unread_machines(item)).collect();
        Ok(Reading { items, ..read })
    }

    async fn partition(&self, pool: &PoolName) -> Result<Reading, StoreError> {
        let read = self.world.store.partition(pool).await;
        let late = std::mem::take(&mut *self.answer());
        if let Answer::Due(deletion) = late {
            // Whoever was faster has read the pool, too.
            let _ = self.world.store.commit(&deletion).await;
        }
        self.read(read)
    }

    async fn partition_without(
        &self,
        pool: &PoolName,
        unread: &UnreadSlots,
        newest: u64,
    ) -> Result<Reading, StoreError> {
        self.read(self.world.store.partition_without(pool, unread, newest).await)
    }

    async fn unrouted(&self) -> Result<Reading, StoreError> {
        self.world.store.unrouted().await
    }

    async fn boot_reports(
        &self,
        role_id: &str,
        machines: &[InstanceId],
    ) -> Result<Option<BTreeMap<InstanceId, StoredReport>>, StoreError> {
        let mut read = self.world.store.boot_reports(role_id, machines).await?;
        if self.mistake == Mistake::NeverMissed
            && let Some(read) = &mut read
        {
            for machine in machines {
                // An unusable report shows only that there is one.
                read.entry(machine.clone()).or_default();
            }
        }
        Ok(read)
    }

    async fn commit(&self, transaction: &Transaction) -> Result<(), CommitError> {
        let store = self.world.store;
        if self.mistake == Mistake::NoDoorbell && transaction.puts.iter().any(|item| matches!(item, Item::Nudge(_))) {
            return Err(CommitError::Conflict("somebody else seems to have sent one".to_owned()));
        }
        if self.mistake == Mistake::LateAnswer
            && transaction.deletes.iter().any(|(key, _)| matches!(key, Key::Nudge(_)))
        {
            let mut answer = self.answer();
            if matches!(*answer, Answer::Read) {
                *answer = Answer::Due(Box::new(transaction.clone()));
                return Ok(());
            }
        }
        if self.mistake == Mistake::StopUnclaimed && transaction.puts.iter().any(is_set_aside) {
            let mut rest = transaction.clone();
            rest.puts.retain(|item| !is_set_aside(item));
            return if rest.puts.is_empty() { Ok(()) } else { store.commit(&rest).await };
        }
        if self.mistake == Mistake::NoTombstone && transaction.puts.iter().any(is_tombstone) {
            let rest = without_tombstones(transaction);
            return if rest.puts.is_empty() { Ok(()) } else { store.commit(&rest).await };
        }
        if self.mistake == Mistake::NoLease {
            let now = self.world.clock.now();
            return store.commit(&without_leases(transaction, self.lease, now)).await;
        }
        if self.mistake == Mistake::FixedName {
            return store.commit(&with_the_first_registration(transaction)).await;
        }
        if self.mistake == Mistake::SilentSweep {
            return store.commit(&without_failures(transaction)).await;
        }
        let answer = store.commit(transaction).await;
        if self.mistake == Mistake::NoVersionCheck
            && matches!(answer, Err(CommitError::Conflict(_)))
            && let Some(forced) = over_the_new_version(store, transaction).await?
        {
            return store.commit(&forced).await;
        }
        answer
    }
}

impl MistakenPorts<'_> {
    fn answer(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().expect("no thread panics while it holds the lock")
    }

    fn without_unread_machines(&self, mut item: Item) -> Item {
        if self.mistake == Mistake::UncountedMachines
            && let Item::Meta(Meta { unread: Some(unread), .. }) = &mut item
        {
            unread.live = 0;
        }
        item
    }

    /// A reading of a pool, with the mistake.
    fn read(&self, answer: Result<Reading, StoreError>) -> Result<Reading, StoreError> {
        match answer {
            Ok(reading) if self.mistake == Mistake::AllOrNothing && !reading.unreadable.is_empty() => {
                Err(StoreError::new(format!("{} has an unknown form", reading.unreadable[0])))
            }
            Ok(mut reading) if self.mistake == Mistake::NoAgeLimit => {
                let now = self.world.clock.now();
                reading.items.iter_mut().for_each(|item| make_young(item, now));
                Ok(reading)
            }
            Ok(mut reading) if self.mistake == Mistake::UnclaimedCheck => {
                reading.items.iter_mut().for_each(forget_claim);
                Ok(reading)
            }
            answer => answer,
        }
    }
}

/// A waiting job, as if it had been queued within the last hour.
fn make_young(item: &mut Item, now: Timestamp) {
    if let Item::Waiting(job) = item {
        job.queued_at = job.queued_at.max(now - SignedDuration::from_hours(1));
    }
}

/// A waiting job that nobody asks about.
fn forget_claim(item: &mut Item) {
    if let Item::Waiting(job) = item {
        job.asked_until = None;
    }
}

/// A slot whose machine EC2 is asked to stop until a job needs it.
fn is_set_aside(item: &Item) -> bool {
    matches!(item, Item::Slot(slot) if slot.is_set_aside())
}

/// The first write of a job that is already over.
fn is_tombstone(item: &Item) -> bool {
    matches!(item, Item::Job(job) if job.revision == 0 && job.rank == Rank::Done)
}

fn without_tombstones(transaction: &Transaction) -> Transaction {
    let mut rest = transaction.clone();
    rest.puts.retain(|item| !is_tombstone(item));
    rest
}

/// The same writes, with each lease already over.
fn without_leases(transaction: &Transaction, lease: Timestamp, now: Timestamp) -> Transaction {
    let expire = |held: &mut Lease| {
        if held.next_at == lease {
            *held = held.put_off(now);
        }
    };
    let mut writes = transaction.clone();
    for item in &mut writes.puts {
        match item {
            Item::Batch(batch) => expire(&mut batch.lease),
            Item::Slot(slot) => expire(&mut slot.lease),
            Item::CheckRun(check_run) => expire(&mut check_run.lease),
            Item::Rerun(rerun) => expire(rerun.lease_mut()),
            Item::Meta(_)
            | Item::Waiting(_)
            | Item::Nudge(_)
            | Item::Job(_)
            | Item::Instance(_)
            | Item::Runner(_)
            | Item::Config(_)
            | Item::Limit(_)
            | Item::Unrouted(_)
            | Item::Janitor(_)
            | Item::Function(_)
            | Item::Listing(_)
            | Item::Catalogue(_)
            | Item::SpotPrices(_) => {}
        }
    }
    writes
}

/// The same writes, without the failures of a sweep.
fn without_failures(transaction: &Transaction) -> Transaction {
    let mut writes = transaction.clone();
    for item in &mut writes.puts {
        if let Item::Janitor(janitor) = item {
            *janitor = janitor.clone().keep_failures(&[]);
        }
    }
    writes
}

/// The same writes, with no slot past its first registration.
fn with_the_first_registration(transaction: &Transaction) -> Transaction {
    let mut writes = transaction.clone();
    for item in &mut writes.puts {
        if let Item::Slot(slot) = item {
            slot.registration = slot.registration.min(1);
        }
    }
    writes
}

/// A decision that lost the race, as if it had been made from the version that won. None if it is not a decision.
///
/// The jobs that it charges are overwritten, too: they alone would reveal that another decision was faster.
async fn over_the_new_version(store: &dyn Store, transaction: &Transaction) -> Result<Option<Transaction>, StoreError> {
    let Some(event) = transaction.event.clone().filter(|event| matches!(event.what, What::Decided { .. })) else {
        return Ok(None);
    };
    let mut forced = Transaction { event: None, ..transaction.clone() };
    let mut version = 0;
    // META is the first of them.
    for item in &mut forced.puts {
        if let Item::Meta(meta) = item {
            meta.revision = revision(store, Key::Meta(meta.pool.clone())).await?;
            version = meta.revision + 1;
        } else if let Item::Waiting(job) = item {
            job.revision = revision(store, Key::Waiting(job.pool.clone(), job.id)).await?;
        } else if let Item::Batch(batch) = item {
            batch.version = version;
        } else if let Item::Slot(slot) = item
            && slot.revision == 0
        {
            slot.id = SlotId { version, ..slot.id };
        }
    }
    let turn = Turn { now: event.at, lease: event.at, cause: event.cause };
    Ok(Some(forced.emit(event.stream, event.what, &turn)))
}

async fn revision(store: &dyn Store, key: Key) -> Result<u64, StoreError> {
    Ok(store.get(&key).await?.map_or(0, |item| item.revision()))
}
