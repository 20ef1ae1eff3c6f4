//! The table's port.

use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::ids::{InstanceId, PoolName};
use domain::log::{Transaction, What};
use domain::state::{Item, Key, Rank, StoredReport, UnreadSlots, WaitingJob};
use engine::ports::{CommitError, Reading, Store, StoreError};
use jiff::SignedDuration;
use world::LostReply;
use world::{ec2, github};

use crate::call::Call;
use crate::rules::Checks;
use crate::universe::Universe;
use crate::universe::state::{State, TableFault};

/// How long a job is demand after it was queued, its gate opened or its first webhook arrived late.
const DEMAND_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Nothing is launched for a job that was queued longer ago than this.
const LAUNCHES_END_AFTER: SignedDuration = SignedDuration::from_hours(35 * 24);

/// GitHub's clock may be wrong, and a decision takes a while to be written.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// The store in memory answers at once: its futures are ready when they are first polled.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    futures::FutureExt::now_or_never(future).expect("the table in memory never waits")
}

impl Universe {
    /// Reads, unless a fault strikes the table.
    fn reading<T>(&self, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        // The read locks the state.
        let fault = self.state().table_fault.take();
        match fault {
            Some(_) => Err(StoreError::new("throttled")),
            None => read(),
        }
    }

    /// Fails if one of the items has an unknown form.
    fn readable(&self, keys: &[Key]) -> Result<(), StoreError> {
        let state = self.state();
        match keys.iter().find(|key| state.unreadable.contains(key)) {
            Some(key) => Err(StoreError::new(format!("the item {key} has an unknown form"))),
            None => Ok(()),
        }
    }

    fn without_unreadable(&self, read: Reading) -> Reading {
        let state = self.state();
        if state.unreadable.is_empty() {
            return read;
        }
        let (unreadable, items): (Vec<Item>, Vec<Item>) =
            read.items.into_iter().partition(|item| state.unreadable.contains(&item.key()));
        Reading { items, unreadable: unreadable.iter().map(Item::key).collect() }
    }

    /// A reading of a pool, unless it lacks what the pool cannot be read without.
    fn usable(&self, read: Reading) -> Result<Reading, StoreError> {
        let read = self.without_unreadable(read);
        match read.unreadable.iter().find(|key| !key.is_dispensable()) {
            Some(key) => Err(StoreError::new(format!("the item {key} has an unknown form"))),
            None => Ok(read),
        }
    }

    fn writing(&self, transaction: &Transaction) -> Result<(), CommitError> {
        let fault = self.state().table_fault.take();
        match fault {
            Some(TableFault::Conflict) => {
                return Err(CommitError::Conflict("another transaction was under way and it".to_owned()));
            }
            Some(TableFault::Unavailable(LostReply::NotApplied)) => {
                return Err(StoreError::new("throttled").into());
            }
            Some(TableFault::Unavailable(LostReply::Applied)) | None => {}
        }
        now_or_never(self.store.commit(transaction))?;
        // Items are written whole.
        let written =
            transaction.puts.iter().map(Item::key).chain(transaction.deletes.iter().map(|(key, _)| key.clone()));
        let mut state = self.state();
        for key in written {
            state.unreadable.remove(&key);
        }
        drop(state);
        match self.store.checks {
            Checks::On => self.check_written(transaction),
            Checks::Off => self.note_hand_over(transaction),
        }
        match fault {
            Some(_) => Err(StoreError::new("no reply").into()),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Store for Universe {
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        let get = || {
            self.reading(|| self.readable(std::slice::from_ref(key)).and_then(|()| now_or_never(self.store.get(key))))
        };
        self.steps.around(|| Call::Get(key.clone()), get).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, StoreError> {
        let get = || self.reading(|| self.readable(keys).and_then(|()| now_or_never(self.store.get_many(keys))));
        self.steps.around(|| Call::GetMany(keys.len()), get).await
    }

    async fn get_readable(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        let get =
            || self.reading(|| now_or_never(self.store.get_readable(keys)).map(|read| self.without_unreadable(read)));
        self.steps.around(|| Call::GetMany(keys.len()), get).await
    }

    async fn partition(&self, pool: &PoolName) -> Result<Reading, StoreError> {
        let query = || self.reading(|| self.usable(now_or_never(self.store.partition(pool))?));
        self.steps.around(|| Call::Query(pool.clone()), query).await
    }

    async fn partition_without(
        &self,
        pool: &PoolName,
        unread: &UnreadSlots,
        newest: u64,
    ) -> Result<Reading, StoreError> {
        let query = || self.reading(|| self.usable(now_or_never(self.store.partition_without(pool, unread, newest))?));
        self.steps.around(|| Call::QueryNeeded(pool.clone()), query).await
    }

    async fn unrouted(&self) -> Result<Reading, StoreError> {
        let query = || self.reading(|| now_or_never(self.store.unrouted()).map(|read| self.without_unreadable(read)));
        self.steps.around(|| Call::QueryUnrouted, query).await
    }

    async fn boot_reports(
        &self,
        role_id: &str,
        machines: &[InstanceId],
    ) -> Result<Option<BTreeMap<InstanceId, StoredReport>>, StoreError> {
        let get = || self.reading(|| now_or_never(self.store.boot_reports(role_id, machines)));
        self.steps.around(|| Call::GetReports(machines.len()), get).await
    }

    async fn commit(&self, transaction: &Transaction) -> Result<(), CommitError> {
        self.steps.around(|| Call::commit(transaction), || self.writing(transaction)).await
    }
}

impl Universe {
    /// Notes which machine a JIT config was handed over to.
    fn note_hand_over(&self, transaction: &Transaction) {
        if let Some((key, _)) = &transaction.boot {
            let machine = key.split_once(':').map_or("", |(_, instance)| instance);
            self.state().handed_over.push(machine.into());
        }
    }

    /// S4, S5, S8 and P191: compares what was written with what GitHub and the machines know.
    fn check_written(&self, transaction: &Transaction) {
        let mut state = self.state();
        let mut wrong = self.store.with_config(|config| state.check_early_ends(config, transaction));
        wrong.extend(state.given_up_too_early(transaction));
        if let Some((key, item)) = &transaction.boot {
            let machine = key.split_once(':').map_or("", |(_, instance)| instance);
            let machine: ec2::InstanceId = machine.into();
            let runner = state.secrets.get(&item.jit_config).copied();
            match runner {
                None => wrong.push(format!("S5: {machine} was given a JIT config that GitHub never issued")),
                Some(runner) => {
                    if state.configured.values().any(|other| *other == runner) {
                        wrong.push(format!("S5: the JIT config of runner {runner} was given out twice"));
                    }
                    if state.configured.insert(machine.clone(), runner).is_some() {
                        wrong.push(format!("S5: {machine} was given a second JIT config"));
                    }
                    state.handed_over.push(machine);
                }
            }
        }
        for job in charged(transaction) {
            wrong.extend(state.launched_for_an_old_job(job));
        }
        for item in &transaction.puts {
            if let Item::Limit(limit) = item {
                let now = state.now;
                state.limits.insert(limit.owner.clone(), (now, limit.backoff_until));
            }
            let Item::Job(job) = item else { continue };
            let Some(truth) = state.github.job(github::JobId(job.id.0)) else { continue };
            let is_closed =
                truth.immortal.is_some() && state.now.duration_since(truth.created_at) >= LAUNCHES_END_AFTER;
            if is_closed {
                continue;
            }
            let most = match &truth.state {
                github::JobState::Waiting | github::JobState::Queued { .. } => Rank::Queued,
                github::JobState::InProgress { .. } => Rank::Started,
                github::JobState::Completed { .. } => Rank::Done,
            };
            // A job that GitHub calls queued for ever is given up, and closed once GitHub does not know it.
            if job.rank > most && truth.immortal.is_none() {
                wrong.push(format!("S4: job {} is {:?} in the table, but {}", job.id, job.rank, truth.state.status()));
            }
        }
        drop(state);
        for wrong in wrong {
            self.store.violate(wrong);
        }
    }
}

/// The jobs that the decision charges launches to.
fn charged(transaction: &Transaction) -> impl Iterator<Item = &WaitingJob> {
    let decided = transaction.event.as_ref().filter(|event| matches!(event.what, What::Decided { .. }));
    let at = decided.map(|event| event.at);
    transaction.puts.iter().filter_map(move |item| match item {
        Item::Waiting(job) if at.is_some() && job.launches.last().copied() == at => Some(job),
        _ => None,
    })
}

impl State {
    /// S8: compares a job that a launch is charged to with what GitHub knows.
    fn launched_for_an_old_job(&self, job: &WaitingJob) -> Option<String> {
        let truth = self.github.job(github::JobId(job.id.0))?;
        let queued_at = truth.created_at;
        let late_webhook = self.queued_webhooks.get(&truth.id).filter(|at| at.duration_since(queued_at) >= DEMAND_FOR);
        let opened = truth.history.queued.first();
        let since = late_webhook.into_iter().chain(opened).copied().fold(queued_at, std::cmp::Ord::max);
        let (age, wait) = (self.now.duration_since(queued_at), self.now.duration_since(since));
        (age > LAUNCHES_END_AFTER + TOLERANCE || wait > DEMAND_FOR + TOLERANCE)
            .then(|| format!("S8: a launch for job {}, which was queued {age:#} ago", job.id))
    }
}
