//! What a notice about a workflow job changes: the job's facts, its pool's waiting job, the slot and instance of its
//! runner, and a re-run that becomes due.
//!
//! A job's facts are joined, so notices may be repeated and reordered without changing the result.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::config::Pool;
use crate::ids::{JobId, PoolName, RunnerName, StackName};
use crate::log::{Cause, Statement, Stream, Transaction, Turn, What};
use crate::policy::rerun::{Ended, owed};
use crate::policy::route::{Routable, Unrouted, route};
use crate::policy::unrouted;
use crate::state::{
    Claim, ClosedRunner, Config, Instance, Item, Job, Key, Lease, Meta, Phase, Rank, Rerun, Slot, SlotState,
    StopReason, UnroutedJob, WaitingJob,
};
use crate::wire::{Action, Notice, RunnerNotice};

/// Notices, sorted by how they are recorded. Numbers are indices into the slice of notices.
#[derive(Debug, Default)]
pub struct Sorted<'a> {
    /// All notices of each job.
    pub by_job: BTreeMap<JobId, Vec<usize>>,
    /// Jobs with `queued` notices only, by pool. Most are new: they are written without reading.
    pub likely_new: BTreeMap<&'a PoolName, Vec<(JobId, &'a Pool)>>,
    /// Jobs whose stored records must be read first.
    pub others: Vec<JobId>,
}

pub fn sort<'a>(config: &'a Config, notices: &[Notice]) -> Sorted<'a> {
    let mut sorted = Sorted::default();
    for (index, notice) in notices.iter().enumerate() {
        sorted.by_job.entry(notice.job.id).or_default().push(index);
    }
    for (job, indices) in &sorted.by_job {
        match route_notice(config, &notices[indices[0]]) {
            Ok(pool) if indices.iter().all(|index| notices[*index].action == Action::Queued) => {
                sorted.likely_new.entry(&pool.name).or_default().push((*job, pool));
            }
            Ok(_) | Err(_) => sorted.others.push(*job),
        }
    }
    sorted
}

fn route_notice<'a>(config: &'a Config, notice: &Notice) -> Result<&'a Pool, Unrouted> {
    route(&config.pools, &Routable::of(notice))
}

/// Writes jobs of one pool that are not stored yet. The store refuses the transaction if one of them is.
pub fn record_new(jobs: &[(&Pool, Vec<&Notice>)], now: Timestamp) -> Transaction {
    let mut writes = Transaction::new();
    for (pool, notices) in jobs {
        let job = join(None, pool, notices);
        let waiting = WaitingJob::of(&job, pool.class_of(&job.labels), now, pool.timings.job_check.duration());
        writes = writes.put(job).put(waiting);
    }
    let notices: Vec<&Notice> = jobs.iter().flat_map(|(_, notices)| notices.iter().copied()).collect();
    let Some((pool, _)) = jobs.first() else { return writes };
    writes.emit(Stream::Pool(pool.name.clone()), recorded(&notices), &turn(&notices, now))
}

/// Records the notices of one job that may be stored already.
#[derive(Debug)]
pub struct Recorder<'a> {
    config: &'a Config,
    notices: &'a [&'a Notice],
    routed: Result<&'a Pool, Unrouted>,
    /// The runner that the notices name, and its pool, if it can be one of this stack.
    runner: Option<(&'a Pool, RunnerName)>,
    job: Option<Job>,
    waiting: Option<WaitingJob>,
    slot: Option<Slot>,
    closed: Option<ClosedRunner>,
    instance: Option<Instance>,
    unrouted: Option<UnroutedJob>,
    /// Of the runner's pool.
    meta: Option<Meta>,
}

impl<'a> Recorder<'a> {
    /// `notices` is not empty, and all of them are about the same job.
    pub fn new(stack: &StackName, config: &'a Config, notices: &'a [&'a Notice]) -> Self {
        let routed = route_notice(config, notices[0]);
        let runner = runner_of_stack(stack, config, notices);
        Self {
            config,
            notices,
            routed,
            runner,
            job: None,
            waiting: None,
            slot: None,
            closed: None,
            instance: None,
            unrouted: None,
            meta: None,
        }
    }

    fn id(&self) -> JobId {
        self.notices[0].job.id
    }

    /// The records to read first.
    pub fn first_keys(&self) -> Vec<Key> {
        let mut keys = vec![Key::Job(self.id())];
        keys.extend(self.routed.as_ref().ok().map(|pool| Key::Waiting(pool.name.clone(), self.id())));
        if self.routed.is_err() && unrouted::may_be_kept(self.config, self.notices[0]) {
            keys.push(Key::Unrouted(self.id()));
        }
        if let Some((_, name)) = &self.runner {
            keys.extend([Key::Slot(name.pool.clone(), name.slot), Key::Meta(name.pool.clone())]);
        }
        keys
    }

    /// Adds a record that was read. Returns the record's key as an error if it is of an unexpected kind.
    pub fn add(&mut self, item: Item) -> Result<(), Key> {
        match item {
            Item::Job(job) => self.job = Some(*job),
            Item::Waiting(waiting) => self.waiting = Some(waiting),
            Item::Slot(slot) => self.slot = Some(slot),
            Item::Runner(runner) => self.closed = Some(runner),
            Item::Instance(instance) => self.instance = Some(instance),
            Item::Unrouted(job) => self.unrouted = Some(*job),
            Item::Meta(meta) => self.meta = Some(meta),
            other => return Err(other.key()),
        }
        Ok(())
    }

    /// The key of the waiting job in another pool, if the job was routed before the pools changed: a job never moves. Forgets what
    /// was read of the pool that it would be routed to now.
    pub fn other_waiting_key(&mut self) -> Option<Key> {
        let job = self.job.as_ref()?;
        if self.routed.as_ref().is_ok_and(|pool| pool.name == job.pool) {
            return None;
        }
        self.waiting = None;
        Some(Key::Waiting(job.pool.clone(), job.id))
    }

    /// The key of the runner that the notices name, if its slot is closed.
    pub fn closed_runner_key(&self) -> Option<Key> {
        let (_, name) = self.runner.as_ref().filter(|_| self.slot.is_none())?;
        Some(Key::Runner(name.clone()))
    }

    /// The instance to read, if the notices concern its runner: it is given a job, or it shows whether EC2 reclaimed the machine.
    pub fn instance_key(&self, now: Timestamp) -> Option<Key> {
        match (&self.slot, &self.closed) {
            (Some(before), _) => {
                let claimed = self.claimed_slot(now)?;
                let is_new = before.claimed_jobs().iter().all(|claim| claim.job != self.id());
                let (pool, _) = self.runner.as_ref()?;
                let machine = claimed.machine().filter(|_| is_new || pool.rerun_on_interruption)?;
                Some(Key::Instance(machine.instance.clone()))
            }
            (None, Some(closed)) => self.late_claims().next().map(|_| Key::Instance(closed.instance.clone())),
            (None, None) => None,
        }
    }

    /// The claims that the notices make on a runner whose slot is closed.
    fn late_claims(&self) -> impl Iterator<Item = Claim> {
        let of_runner = self.runner.iter().zip(&self.closed);
        of_runner.flat_map(|((pool, _), closed)| {
            self.notices.iter().filter_map(|notice| claim(pool, notice, |named| closed.is_named_by(named)))
        })
    }

    /// The pool that owns the job.
    fn pool(&self) -> Option<&'a Pool> {
        match &self.job {
            Some(job) if !self.was_transferred() => self.config.pool(&job.pool),
            Some(_) | None => self.routed.as_ref().ok().copied(),
        }
    }

    /// Whether the job waits, and its repository was transferred to another owner of whom a pool accepts it. Only GitHub's
    /// answer to a request shows that: a webhook may be from the time before.
    fn was_transferred(&self) -> bool {
        let has_moved =
            |job: &Job| job.rank == Rank::Queued && job.repository.owner != self.notices[0].repository.owner;
        let is_answer = self.notices.iter().all(|notice| !notice.is_webhook() && notice.action != Action::Completed);
        self.routed.is_ok() && is_answer && self.job.as_ref().is_some_and(has_moved)
    }

    /// The slot with the claims that the notices make; None if they change nothing.
    fn claimed_slot(&self, now: Timestamp) -> Option<Slot> {
        let (pool, _) = self.runner.as_ref()?;
        let slot = self.slot.as_ref()?;
        self.notices.iter().fold(None, |claimed: Option<Slot>, notice| {
            claimed_by(claimed.as_ref().unwrap_or(slot), pool, notice, now).or(claimed)
        })
    }

    /// The re-run that the job is owed, if the notices are the first to report its end.
    fn owed_rerun(&self, pool: &Pool, slot: &Slot, now: Timestamp) -> Option<Rerun> {
        let ended = Ended::of_notice(self.end(&slot.claimed_jobs())?)?;
        let recorded = self.instance.as_ref().and_then(|instance| instance.interrupted_at);
        // Older versions record the interruption in the slot only.
        let stop = slot.stop.as_ref().filter(|stop| stop.why == StopReason::Interrupted);
        owed(pool, &ended, recorded.or(stop.map(|stop| stop.at)), slot.gone_at, now)
    }

    /// The notice that the job has ended, if it is the first one.
    fn end(&self, claims: &[Claim]) -> Option<&'a Notice> {
        let is_known = self.job.as_ref().is_some_and(|job| job.rank == Rank::Done);
        let was_ended = claims.iter().any(|claim| claim.job == self.id() && claim.ended);
        self.notices.iter().copied().find(|notice| notice.action == Action::Completed && !is_known && !was_ended)
    }

    /// The writes for a job of a runner whose slot is closed, and the runner's pool: the instance gets the claim, so that a
    /// later report about the instance finds the job, and the job's end finds an earlier one. The instance is written in any
    /// case: otherwise an interruption that is recorded at the same time would not see the end of the job.
    fn record_late(&self, now: Timestamp) -> Option<(Transaction, &'a Pool)> {
        let ((pool, _), closed, instance) = (self.runner.as_ref()?, self.closed.as_ref()?, self.instance.as_ref()?);
        let mut claims = self.late_claims().peekable();
        claims.peek()?;
        let claimed = claims.fold(instance.clone(), Instance::claimed);
        let ended = self.end(&instance.claims).and_then(Ended::of_notice);
        let rerun = ended.and_then(|ended| owed(pool, &ended, instance.interrupted_at, closed.gone_at, now));
        Some((Transaction::new().put(claimed).put_all(rerun), pool))
    }

    /// The writes for a job that no pool accepts: it is kept while it is queued. Empty if nothing changes.
    pub fn keep_unrouted(&self, now: Timestamp) -> Transaction {
        let kept = unrouted::kept(self.config, self.notices, now);
        match (kept, self.unrouted.clone()) {
            (Some(kept), None) if self.job.is_none() => Transaction::new().put(kept),
            (None, Some(before)) => Transaction::new().delete(before),
            (Some(_) | None, _) => Transaction::new(),
        }
    }

    /// Computes the writes. All records that were read must have been added.
    pub fn record(self, now: Timestamp) -> Result<Recording, Unrouted> {
        let mut pools = Vec::new();
        let mut writes = Transaction::new();
        let mut after = None;
        let mut what = recorded(self.notices);
        if let Some(pool) = self.pool() {
            let mut job = join(self.job.clone(), pool, self.notices);
            pools.push(pool.name.clone());
            if let Some(before) = self.job.as_ref().filter(|_| self.was_transferred()) {
                let (from, to) = (before.repository.clone(), self.notices[0].repository.clone());
                (job.pool, job.repository) = (pool.name.clone(), to.clone());
                if before.pool != pool.name {
                    pools.push(before.pool.clone());
                }
                what = What::Transferred { job: job.id, from, to };
            }
            writes = self.change_waiting(writes, pool, &job, now);
            if self.job.as_ref() != Some(&job) {
                writes = writes.put(job.clone());
            }
            after = Some(job);
        } else if let Some(job) = self.after_its_pool() {
            pools.push(job.pool.clone());
            writes = writes.put(job.clone());
            after = Some(job);
        }
        let mut taken_by = None;
        if let (Some((pool, _)), Some(before), Some(slot)) = (&self.runner, &self.slot, self.claimed_slot(now)) {
            writes = writes.put_all(self.owed_rerun(pool, before, now));
            writes = writes.put_all(self.mapped_instance(&slot));
            if !pools.contains(&slot.pool) {
                pools.push(slot.pool.clone());
            }
            let had_no_job = self.slot.as_ref().is_some_and(|slot| slot.job().is_none());
            taken_by = had_no_job.then(|| slot.clone());
            writes = writes.put(slot);
        }
        if let Some((late, pool)) = self.record_late(now) {
            writes = late.puts.into_iter().fold(writes, Transaction::put);
            if !pools.contains(&pool.name) {
                pools.push(pool.name.clone());
            }
        }
        if !pools.is_empty() && self.pool().is_none() {
            // A runner of this stack took the job of no pool.
            writes = self.unrouted.clone().into_iter().fold(writes, Transaction::delete);
        }
        let Some(first) = pools.first() else { return Err(self.routed.err().unwrap_or(Unrouted::NoPools)) };
        if needs_event(&writes) {
            let stream = Stream::Pool(first.clone());
            writes = writes.emit(stream, what, &turn(self.notices, now));
        }
        if self.leaves_nothing_to_decide(&pools, &writes, now) {
            pools.clear();
        }
        let is_new = self.job.is_none() && after.is_some();
        Ok(Recording { writes, pools, before: self.job, after, taken_by, is_new })
    }

    /// The job that no longer waits, if its pool was dropped meanwhile and the notices change it. The report of its end may come after
    /// its machine has ended, and with it the last of the pool.
    fn after_its_pool(&self) -> Option<Job> {
        let before = self.job.as_ref().filter(|job| self.config.pool(&job.pool).is_none())?;
        let job = self.notices.iter().fold(before.clone(), |job, notice| job.join(notice));
        (job.rank != Rank::Queued && job != *before).then_some(job)
    }

    /// Whether no decision about a pool follows from the writes, so that none of them needs to be read: a slot takes a job that
    /// it was there for, or the job of a slot ends. What this overlooks, the janitor's next run decides.
    fn leaves_nothing_to_decide(&self, pools: &[PoolName], writes: &Transaction, now: Timestamp) -> bool {
        let (Some((pool, _)), Some(meta), Some(before)) = (&self.runner, &self.meta, &self.slot) else { return false };
        let Some(after) = self.claimed_slot(now) else { return false };
        let is_of_pool = *pools == [pool.name.clone()] && self.pool().is_some_and(|own| own.name == pool.name);
        let is_rerun = writes.puts.iter().any(|item| matches!(item, Item::Rerun(_)));
        let is_ending = before.stop.is_some() || before.gone_at.is_some() || before.held;
        if !is_of_pool || !meta.is_settled() || is_rerun || is_ending {
            return false;
        }
        match &self.waiting {
            // Its check run, if there is one, must be closed.
            Some(waiting) if now.duration_since(waiting.waits_since()) >= pool.timings.notice_after.duration() => false,
            Some(waiting) => {
                let was_removed =
                    writes.deletes.iter().any(|(key, _)| *key == Key::Waiting(pool.name.clone(), waiting.id));
                was_removed && waiting.is_demand(now) && before.is_supply(now)
            }
            None => before.phase() == Phase::Busy && after.phase() == Phase::Done,
        }
    }

    /// Creates, changes or deletes the waiting job, which exists if and only if the job's rank is Queued.
    fn change_waiting(&self, writes: Transaction, pool: &Pool, job: &Job, now: Timestamp) -> Transaction {
        match (job.rank, self.waiting.clone()) {
            (Rank::Queued, None) => {
                writes.put(WaitingJob::of(job, pool.class_of(&job.labels), now, pool.timings.job_check.duration()))
            }
            (Rank::Queued, Some(waiting)) if self.was_transferred() => {
                let moved = WaitingJob {
                    pool: pool.name.clone(),
                    repository: job.repository.clone(),
                    open: job.needs_no_check(now),
                    check_at: now,
                    unknown_since: None,
                    ..waiting.clone()
                };
                match moved.pool == waiting.pool {
                    true => writes.put(moved),
                    false => writes.put(WaitingJob { revision: 0, ..moved }).delete(waiting),
                }
            }
            (Rank::Queued, Some(waiting)) => {
                let before = self.job.as_ref();
                let newly_gated = job.gated && !before.is_some_and(|before| before.gated);
                let late = job.late_webhook_at().filter(|_| before.is_some_and(|job| job.late_webhook_at().is_none()));
                // A further notice about a gated job may mean that the gate opened or closed: ask GitHub.
                let is_news = job.gated && self.notices.iter().any(|notice| notice.received_at > waiting.checked_at);
                if newly_gated || is_news || late.is_some() {
                    let (open, opened_at) = (waiting.open && !newly_gated, waiting.opened_at.max(late));
                    writes.put(WaitingJob { open, opened_at, check_at: now, ..waiting })
                } else {
                    writes
                }
            }
            (Rank::Started | Rank::Done, Some(waiting)) => writes.delete(waiting),
            (Rank::Started | Rank::Done, None) => writes,
        }
    }

    /// The slot's instance with the jobs that were claimed for its runner; None if it has them. That one of them has ended is in the
    /// slot, until it is closed.
    fn mapped_instance(&self, slot: &Slot) -> Option<Instance> {
        let instance = self.instance.as_ref()?;
        let claimed: Vec<JobId> = slot.claims.iter().map(|claim| claim.job).collect();
        if instance.job.is_some() && instance.claimed_jobs() == claimed {
            return None;
        }
        let (job, repository) = match instance.job {
            Some(job) => (job, instance.repository.clone()),
            None => (self.id(), Some(self.notices[0].repository.clone())),
        };
        Some(Instance { job: Some(job), repository, claims: slot.claims.clone(), ..instance.clone() })
    }
}

/// What the notices of one job change.
#[derive(Debug)]
pub struct Recording {
    pub writes: Transaction,
    /// Pools about which there may be something to decide now, first the job's own.
    pub pools: Vec<PoolName>,
    pub before: Option<Job>,
    pub after: Option<Job>,
    /// The slot that had no job before, and whose runner has this one.
    pub taken_by: Option<Slot>,
    /// Whether the job was not stored before.
    pub is_new: bool,
}

/// A waiting job that is only changed has no lifecycle fields, and no event describes it.
fn needs_event(writes: &Transaction) -> bool {
    !writes.deletes.is_empty() || writes.puts.iter().any(|item| !matches!(item, Item::Waiting(_)))
}

fn join(before: Option<Job>, pool: &Pool, notices: &[&Notice]) -> Job {
    let first = before.unwrap_or_else(|| Job::first(pool.name.clone(), notices[0]));
    notices.iter().fold(first, |job, notice| job.join(notice))
}

/// The runner that the notices name, and its pool, if it can be one of this stack. The job's repository must be in the
/// scope in which the pool registers, because anyone may register a runner with the same name elsewhere.
fn runner_of_stack<'a>(stack: &StackName, config: &'a Config, notices: &[&Notice]) -> Option<(&'a Pool, RunnerName)> {
    notices.iter().find_map(|notice| {
        let name: RunnerName = notice.job.runner.as_ref()?.name.parse().ok()?;
        let pool = config.pool(&name.pool)?;
        (name.stack == *stack && pool.owner.covers(&notice.repository)).then_some((pool, name))
    })
}

/// The claim that the notice makes on a runner of the pool, if it names the runner.
fn claim(pool: &Pool, notice: &Notice, names: impl Fn(&RunnerNotice) -> bool) -> Option<Claim> {
    let ended = match notice.action {
        Action::Queued | Action::Waiting => return None,
        Action::InProgress => false,
        Action::Completed => true,
    };
    let is_named = notice.job.runner.as_ref().is_some_and(names) && pool.owner.covers(&notice.repository);
    is_named.then(|| Claim { job: notice.job.id, repository: Some(notice.repository.clone()), ended })
}

/// The slot with the claim that the notice makes, if the notice is about its runner and changes anything. Scope, runner id,
/// name and, if stated, group must all be those of the registration. The slot's job is done once every claimed one is.
fn claimed_by(slot: &Slot, pool: &Pool, notice: &Notice, now: Timestamp) -> Option<Slot> {
    let runner = slot.runner()?.clone();
    let machine = slot.machine()?.clone();
    let claims = slot.claims_with(claim(pool, notice, |named| runner.is_named_by(named))?);
    let job = slot.job().unwrap_or(notice.job.id);
    let next = match claims.iter().all(|claim| claim.ended) {
        true => SlotState::Done { machine, runner, job, done_at: now },
        false => SlotState::Busy { machine, runner, job },
    };
    match SlotState::advanced(&slot.state, next) {
        Some(state) => {
            Some(Slot { state, claims, busy_seen_at: None, busy_since: None, lease: Lease::due(now), ..slot.clone() })
        }
        None => (claims != slot.claimed_jobs()).then(|| Slot { claims, ..slot.clone() }),
    }
}

fn turn(notices: &[&Notice], now: Timestamp) -> Turn {
    let mut deliveries: Vec<_> = notices.iter().map(|notice| notice.delivery.clone()).collect();
    deliveries.dedup();
    Turn { now, lease: now, cause: Cause::Deliveries(deliveries) }
}

fn recorded(notices: &[&Notice]) -> What {
    let mut statements: Vec<Statement> = notices.iter().map(|notice| Statement::of(notice)).collect();
    statements.dedup();
    What::Recorded { statements }
}
