//! A pool as one reading of the table shows it: everything a decision may rest on.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::ids::{JobId, SlotId};
use crate::log::Transaction;
use crate::state::{Batch, CheckRun, Item, Key, Meta, Nudge, Rerun, Slot, SlotState, WaitingJob};

/// One reading. `meta` was read **before** the rest: whatever changed in between makes its revision stale, so a decision
/// from a torn reading cannot be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolView {
    /// The pool's own state, and its version.
    pub meta: Meta,
    /// The queued jobs.
    pub waiting: BTreeMap<JobId, WaitingJob>,
    /// The open launches.
    pub batches: BTreeMap<u64, Batch>,
    /// The open slots.
    pub slots: BTreeMap<SlotId, Slot>,
    /// The nudge on its way.
    pub nudge: Option<Nudge>,
    /// What authors are told.
    pub check_runs: BTreeMap<JobId, CheckRun>,
    /// Jobs to be run again.
    pub reruns: BTreeMap<JobId, Rerun>,
}

impl PoolView {
    /// Puts a reading together. A META among `partition` is newer than `meta` and therefore ignored.
    pub fn new(meta: Meta, partition: impl IntoIterator<Item = Item>) -> Self {
        let mut view = Self {
            meta,
            waiting: BTreeMap::new(),
            batches: BTreeMap::new(),
            slots: BTreeMap::new(),
            nudge: None,
            check_runs: BTreeMap::new(),
            reruns: BTreeMap::new(),
        };
        for item in partition {
            if !matches!(item, Item::Meta(_)) {
                view.set(item);
            }
        }
        view
    }

    /// The reading after a transaction of ours was committed: saves reading again.
    pub fn apply(&mut self, transaction: &Transaction) {
        for (key, _) in &transaction.deletes {
            match key {
                Key::Waiting(_, job) => drop(self.waiting.remove(job)),
                Key::Batch(_, version) => drop(self.batches.remove(version)),
                Key::Slot(_, slot) => drop(self.slots.remove(slot)),
                Key::Nudge(_) => self.nudge = None,
                Key::CheckRun(_, job) => drop(self.check_runs.remove(job)),
                Key::Rerun(_, job) => drop(self.reruns.remove(job)),
                Key::Meta(_) | Key::Job(_) | Key::Instance(_) | Key::Config | Key::Limit(_) | Key::Janitor => {}
            }
        }
        for item in &transaction.puts {
            self.set(item.clone().next_revision());
        }
    }

    fn set(&mut self, item: Item) {
        match item {
            Item::Meta(meta) => self.meta = meta,
            Item::Waiting(job) => drop(self.waiting.insert(job.id, job)),
            Item::Batch(batch) => drop(self.batches.insert(batch.version, batch)),
            Item::Slot(slot) => drop(self.slots.insert(slot.id, slot)),
            Item::Nudge(nudge) => self.nudge = Some(nudge),
            Item::CheckRun(check) => drop(self.check_runs.insert(check.job, check)),
            Item::Rerun(rerun) => drop(self.reruns.insert(rerun.job, rerun)),
            Item::Job(_) | Item::Instance(_) | Item::Config(_) | Item::Limit(_) | Item::Janitor(_) => {}
        }
    }

    /// The jobs that want a runner now.
    pub fn demand(&self, now: Timestamp) -> usize {
        self.waiting.values().filter(|job| job.is_demand(now)).count()
    }

    /// The slots that a queued job can count on.
    pub fn supply(&self, now: Timestamp) -> impl Iterator<Item = &Slot> {
        self.slots.values().filter(move |slot| slot.is_supply(now) && (slot.is_live() || self.may_have_run_one(slot)))
    }

    /// Whether a machine that went away may have run one of the jobs that wait: not once GitHub said, later than that, that
    /// every one of them is still queued.
    fn may_have_run_one(&self, slot: &Slot) -> bool {
        slot.gone_at.is_some_and(|gone| self.waiting.values().any(|job| job.open && job.checked_at < gone))
    }

    /// How many slots count against the pool's maximum.
    pub fn live(&self) -> usize {
        self.slots.values().filter(|slot| slot.is_live()).count()
    }

    /// The slots of a batch that still have no instance.
    pub fn planned(&self, version: u64) -> impl Iterator<Item = &Slot> {
        self.slots.values().filter(move |slot| slot.id.version == version && slot.state == SlotState::Planned)
    }
}
