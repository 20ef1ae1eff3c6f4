//! A pool as one reading of the table shows it: the input of every decision.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::config::{Label, MicroUsd};
use crate::ids::{JobId, Repository, SlotId};
use crate::log::Transaction;
use crate::state::{
    ANSWERS_KEPT, Answer, Batch, CheckRun, Failure, Item, Key, Meta, Nudge, Rerun, Slot, SlotState, UnreadSlots,
    WaitingJob,
};

/// How long an answer of EC2 is shown.
const SHOW_ANSWERS_FOR: SignedDuration = SignedDuration::from_hours(1);

/// How long a machine that did not come online is shown.
const SHOW_FAILURES_FOR: SignedDuration = SignedDuration::from_hours(1);

/// Of each repository, only this many of the oldest waiting jobs of a pool are demand. The others are kept, and GitHub is
/// asked about them once an hour, so that one repository cannot use up GitHub's limit for the account.
pub const MAX_DEMAND_PER_REPOSITORY: usize = 1000;

/// Of each repository, jobs of this many classes of a pool are demand. Each class is decided on its own, among hundreds of launch
/// options.
pub const MAX_CLASSES_PER_REPOSITORY: usize = 50;

/// Slots that count towards the pool's limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// How many count towards `max`.
    pub live: usize,
    /// What they cost per hour, as far as it is recorded.
    pub price_per_hour: MicroUsd,
}

impl Elsewhere {
    fn of<'a>(slots: impl Iterator<Item = &'a Slot>) -> Self {
        slots.filter(|slot| slot.is_live()).fold(Self::default(), |sum, slot| Self {
            live: sum.live + 1,
            price_per_hour: sum.price_per_hour + slot.price_per_hour.unwrap_or_default(),
        })
    }
}

/// One reading of a pool. `meta` was read **before** the rest: if another decision was committed in between, the revision of
/// `meta` is out of date, and a decision from this reading cannot be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolView {
    pub meta: Meta,
    pub waiting: BTreeMap<JobId, WaitingJob>,
    /// Unfinished launches, by version.
    pub batches: BTreeMap<u64, Batch>,
    pub slots: BTreeMap<SlotId, Slot>,
    pub nudge: Option<Nudge>,
    pub check_runs: BTreeMap<JobId, CheckRun>,
    pub reruns: BTreeMap<JobId, Rerun>,
    /// The slots that were not read. None if the whole pool was.
    pub unread: Option<UnreadSlots>,
    /// The slots of other classes. Nothing unless this is the part of one class.
    pub elsewhere: Elsewhere,
    /// Jobs that do not count as demand. Nothing unless a decision has set it to [`PoolView::behind`] of the whole pool.
    pub left_out: BTreeSet<JobId>,
}

impl PoolView {
    /// A META in `partition` is newer than `meta`, and is ignored.
    pub fn new(meta: Meta, partition: impl IntoIterator<Item = Item>) -> Self {
        Self::without(None, meta, partition)
    }

    /// Like [`PoolView::new`], for a partition that was read without these slots.
    pub fn without(unread: Option<UnreadSlots>, meta: Meta, partition: impl IntoIterator<Item = Item>) -> Self {
        let mut view = Self {
            meta,
            unread,
            elsewhere: Elsewhere::default(),
            left_out: BTreeSet::new(),
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

    /// Whether a slot is newer than META: the reading mixes two states, and a decision from it cannot be committed.
    pub fn is_torn(&self) -> bool {
        self.slots.keys().any(|slot| slot.version > self.meta.revision)
    }

    /// Applies a committed transaction, which saves another reading.
    pub fn apply(&mut self, transaction: &Transaction) {
        for (key, _) in &transaction.deletes {
            match key {
                Key::Waiting(_, job) => drop(self.waiting.remove(job)),
                Key::Batch(_, version) => drop(self.batches.remove(version)),
                Key::Slot(_, slot) => drop(self.slots.remove(slot)),
                Key::Nudge(_) => self.nudge = None,
                Key::CheckRun(_, job) => drop(self.check_runs.remove(job)),
                Key::Rerun(_, job) => drop(self.reruns.remove(job)),
                Key::Meta(_)
                | Key::Job(_)
                | Key::Instance(_)
                | Key::Runner(_)
                | Key::Config
                | Key::Limit(_)
                | Key::Unrouted(_)
                | Key::Janitor
                | Key::Function(_)
                | Key::Listing(_)
                | Key::Catalogue
                | Key::SpotPrices => {}
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
            Item::Job(_)
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

    /// The number of jobs that need a runner now, of each repository at most [`MAX_DEMAND_PER_REPOSITORY`].
    pub fn demand(&self, now: Timestamp) -> usize {
        let mut counts: BTreeMap<&Repository, usize> = BTreeMap::new();
        for job in self.waiting.values().filter(|job| self.is_demand(job, now)) {
            *counts.entry(&job.repository).or_default() += 1;
        }
        counts.into_values().map(|count| count.min(MAX_DEMAND_PER_REPOSITORY)).sum()
    }

    /// Whether the job needs a runner now and does not have to wait for older ones of its repository.
    pub(super) fn is_demand(&self, job: &WaitingJob, now: Timestamp) -> bool {
        job.is_demand(now) && !self.left_out.contains(&job.id)
    }

    /// The jobs that do not count as demand because older jobs of their repository wait in the pool:
    /// [`MAX_DEMAND_PER_REPOSITORY`] of them, or some of [`MAX_CLASSES_PER_REPOSITORY`] other classes.
    pub fn behind(&self, now: Timestamp) -> BTreeSet<JobId> {
        let classes: BTreeSet<Option<&Label>> = self.waiting.values().map(|job| job.class.as_ref()).collect();
        if self.waiting.len() <= MAX_DEMAND_PER_REPOSITORY && classes.len() <= MAX_CLASSES_PER_REPOSITORY {
            return BTreeSet::new();
        }
        let mut jobs: Vec<&WaitingJob> = self.waiting.values().filter(|job| job.is_demand(now)).collect();
        jobs.sort_by(|one, other| {
            let order = |job: &WaitingJob| (job.queued_at, job.id);
            one.repository.cmp(&other.repository).then_with(|| order(one).cmp(&order(other)))
        });
        let mut behind = BTreeSet::new();
        for of_repository in jobs.chunk_by(|one, next| one.repository == next.repository) {
            let mut classes: BTreeSet<Option<&Label>> = BTreeSet::new();
            let mut count = 0;
            for job in of_repository {
                let class = job.class.as_ref();
                let has_room = classes.len() < MAX_CLASSES_PER_REPOSITORY || classes.contains(&class);
                if count < MAX_DEMAND_PER_REPOSITORY && has_room {
                    classes.insert(class);
                    count += 1;
                } else {
                    behind.insert(job.id);
                }
            }
        }
        behind
    }

    /// The number of items that were read.
    pub fn size(&self) -> usize {
        self.waiting.len() + self.batches.len() + self.slots.len() + self.check_runs.len() + self.reruns.len()
    }

    /// META and one launch with its slots: what is needed after EC2 has launched it, and much less than the whole of a large
    /// pool.
    #[must_use]
    pub fn of_batch(&self, version: u64) -> Self {
        let ids = SlotId { version, index: 0 }..=SlotId { version, index: u8::MAX };
        Self {
            meta: self.meta.clone(),
            waiting: BTreeMap::new(),
            batches: self.batches.get(&version).map(|batch| (version, batch.clone())).into_iter().collect(),
            slots: self.slots.range(ids).map(|(id, slot)| (*id, slot.clone())).collect(),
            nudge: None,
            check_runs: BTreeMap::new(),
            reruns: BTreeMap::new(),
            unread: None,
            elsewhere: Elsewhere::default(),
            left_out: BTreeSet::new(),
        }
    }

    /// The class of each slot and of each waiting job that is not left out; None for those without a shape.
    pub fn classes(&self) -> BTreeSet<Option<&Label>> {
        let waiting =
            self.waiting.values().filter(|job| !self.left_out.contains(&job.id)).map(|job| job.class.as_ref());
        waiting.chain(self.slots.values().map(|slot| slot.class.as_ref())).collect()
    }

    /// The part of a class, which is decided like a pool of its own. `max` counts the slots of the others, too.
    #[must_use]
    pub fn of_class(&self, class: Option<&Label>) -> Self {
        self.part(class, class.map_or_else(|| self.meta.clone(), |class| self.meta.of_class(class)))
    }

    /// Like [`PoolView::of_class`], with this META.
    pub(super) fn part(&self, class: Option<&Label>, meta: Meta) -> Self {
        let slots: BTreeMap<_, _> =
            self.slots.iter().filter(|(_, slot)| slot.class.as_ref() == class).map(own).collect();
        let waiting: BTreeMap<_, _> =
            self.waiting.iter().filter(|(_, job)| job.class.as_ref() == class).map(own).collect();
        Self {
            meta,
            batches: self.batches.iter().filter(|(_, batch)| batch.class.as_ref() == class).map(own).collect(),
            nudge: self.nudge.clone(),
            check_runs: self.check_runs.iter().filter(|(job, _)| waiting.contains_key(job)).map(own).collect(),
            reruns: BTreeMap::new(),
            // Their class is not known. They are no supply, and count towards `max`.
            unread: self.unread.clone(),
            elsewhere: Elsewhere::of(self.slots.values().filter(|slot| slot.class.as_ref() != class)),
            left_out: self.left_out.clone(),
            waiting,
            slots,
        }
    }

    /// Whether nothing in the pool is left to finish.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
            && self.batches.is_empty()
            && self.slots.is_empty()
            && self.check_runs.is_empty()
            && self.reruns.is_empty()
    }

    /// The slots that can run a queued job, or run one whose webhook has not arrived.
    pub fn supply(&self, now: Timestamp) -> impl Iterator<Item = &Slot> {
        self.slots
            .values()
            .filter(move |slot| slot.is_supply(now) && (slot.is_live() || self.may_have_run_demand(slot, now)))
    }

    /// Whether a machine that has ended may have run one of the waiting jobs. It has not if GitHub was asked about every open
    /// job since then.
    pub(super) fn may_have_run_one(&self, slot: &Slot) -> bool {
        let may_have_run =
            |gone: Timestamp, job: &WaitingJob| job.open && job.class == slot.class && job.checked_at < gone;
        slot.gone_at.is_some_and(|gone| self.waiting.values().any(|job| may_have_run(gone, job)))
    }

    /// Whether it may have run one of those that are still demand.
    fn may_have_run_demand(&self, slot: &Slot, now: Timestamp) -> bool {
        let may_have_run = |gone: Timestamp, job: &WaitingJob| {
            job.open && job.class == slot.class && job.given_up(now).is_none() && job.checked_at < gone
        };
        slot.gone_at.is_some_and(|gone| self.waiting.values().any(|job| may_have_run(gone, job)))
    }

    /// Whether jobs wait for machines that are not on their way: there are fewer slots than jobs, or EC2 has refused a launch
    /// that is not given up.
    pub fn is_short(&self, now: Timestamp) -> bool {
        self.supply(now).count() < self.demand(now) || self.batches.values().any(|batch| !batch.answers.is_empty())
    }

    /// EC2's latest answers that reported no launch, newest last. Older ones are not shown: the launch has worked since, or
    /// nothing was launched.
    pub fn latest_answers(&self, now: Timestamp) -> Vec<&Answer> {
        let all = self.meta.answers.iter().chain(self.batches.values().flat_map(|batch| &batch.answers));
        let mut recent: Vec<&Answer> = all.filter(|it| now.duration_since(it.at) < SHOW_ANSWERS_FOR).collect();
        recent.sort_by_key(|answer| (answer.at, &answer.tuple));
        recent.dedup();
        recent.split_off(recent.len().saturating_sub(ANSWERS_KEPT))
    }

    /// The latest machines that did not come online, in the order of their launches.
    pub fn latest_failures(&self, now: Timestamp) -> impl Iterator<Item = &Failure> {
        self.meta.failures.iter().filter(move |failure| now.duration_since(failure.at) < SHOW_FAILURES_FOR)
    }

    /// The number of slots that count towards the pool's `max`. If some were not read, it may be less.
    pub fn live(&self) -> usize {
        let unread = self.unread.as_ref().map_or(0, |unread| unread.live as usize);
        self.slots.values().filter(|slot| slot.is_live()).count() + unread + self.elsewhere.live
    }

    /// What the pool's machines cost per hour, as recorded when their launches were decided.
    pub fn price_per_hour(&self) -> MicroUsd {
        let unread = self.unread.as_ref().map_or(MicroUsd(0), |unread| unread.price_per_hour);
        Elsewhere::of(self.slots.values()).price_per_hour + unread + self.elsewhere.price_per_hour
    }

    /// The slots of a batch that have no instance yet.
    pub fn planned(&self, version: u64) -> impl Iterator<Item = &Slot> {
        self.slots.values().filter(move |slot| slot.id.version == version && slot.state == SlotState::Planned)
    }
}

fn own<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}
