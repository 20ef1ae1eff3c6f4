//! Lost webhooks and interrupted machines: lost jobs are found, and machines are replaced.

mod story;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::config::{MarketChoice, Pool};
use domain::ids::{InstanceId, PoolName};
use domain::log::{Cause, Event, Stream, Transaction, Turn, What};
use domain::state::{Item, Key, Leased, StopReason, StoredReport, UnreadSlots};
use domain::wire::{InstanceChange, Message};
use engine::consume::{Consumed, consume};
use engine::context::Context;
use engine::ports::{CommitError, Ports, Reading, Store, StoreError};
use futures::FutureExt;
use jiff::SignedDuration;
use simulator::{Ingest, Universe, pool};
use story::everything_is_over;
use world::github::{self, JobId, QueueJob, Webhooks};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn universe(seed: u64) -> Universe {
    Universe::new(seed, vec![pool("linux", 100)])
}

fn is_running(universe: &Universe, job: JobId) -> bool {
    universe.github(|github, _| github.job(job).is_some_and(|job| job.state.status() == "in_progress"))
}

fn until_running(universe: &Universe, job: JobId) {
    for _ in 0..600 {
        if is_running(universe, job) {
            return;
        }
        universe.run(SignedDuration::from_secs(1));
    }
    panic!("job {job} does not start");
}

#[test]
fn failed_deliveries_are_redelivered_within_a_minute() {
    let universe = universe(40);
    universe.sweep();
    universe.set_ingest(Ingest::Down);
    let jobs: Vec<JobId> = (0..5).map(|_| JobId(universe.queue_job(&["linux"], MINUTE).0)).collect();
    universe.run(SignedDuration::from_secs(30));
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 0);
    universe.set_ingest(Ingest::Up);
    universe.run(MINUTE * 3);
    assert!(
        jobs.iter()
            .all(|job| universe.github(|github, _| github.job(*job).is_some_and(|job| job.started_at.is_some())))
    );
    everything_is_over(&universe);
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 5);
}

#[test]
fn an_event_is_redelivered_three_times_and_as_soon_as_the_receiver_works_again() {
    // A search would find the job, too.
    let without_searches = |seed| {
        let mut pool = pool("linux", 100);
        pool.timings.poll_interval = "24h".parse().expect("a time");
        Universe::new(seed, vec![pool])
    };
    let universe = without_searches(41);
    universe.sweep();
    universe.set_ingest(Ingest::Down);
    let job = JobId(universe.queue_job(&["linux"], MINUTE).0);
    universe.run(MINUTE * 40);
    let attempts = |universe: &Universe| universe.github(|github, _| github.deliveries().count());
    assert_eq!(attempts(&universe), 3, "the webhook, one redelivery at once and one after ten minutes");
    universe.set_ingest(Ingest::Up);
    universe.queue_job(&["linux"], MINUTE);
    universe.run(MINUTE * 3);
    assert!(
        is_running(&universe, job) || universe.github(|github, _| github.job(job).is_some_and(|job| job.served_once()))
    );
    everything_is_over(&universe);

    let universe = without_searches(42);
    universe.sweep();
    universe.set_ingest(Ingest::Down);
    universe.queue_job(&["linux"], MINUTE);
    universe.run(SignedDuration::from_hours(5));
    assert_eq!(attempts(&universe), 4, "never more than three times");
}

/// GitHub gives machines to the oldest jobs, and Drover does not know these.
#[test]
fn a_job_whose_machines_took_long_jobs_does_not_wait_for_their_ends() {
    let mut linux = pool("linux", 100);
    linux.timings.poll_interval = "24h".parse().expect("a time");
    let universe = Universe::new(49, vec![linux]);
    // After that, the repository is not searched for a day.
    universe.queue_job(&["linux"], MINUTE);
    universe.run(MINUTE * 10);
    let unknown = |job| QueueJob { webhooks: Webhooks::NeverAttempted, runs_for: Duration::from_secs(3 * 3600), ..job };
    let others: Vec<JobId> = (0..4).map(|_| JobId(universe.queue(&["linux"], unknown).0)).collect();
    let job = JobId(universe.queue_job(&["linux"], MINUTE).0);
    universe.run(MINUTE * 20);
    assert!(others.iter().all(|other| is_running(&universe, *other)), "they came first");
    assert!(universe.github(|github, _| github.job(job).is_some_and(|job| job.served_once())), "it has run");
    universe.run(SignedDuration::from_hours(4));
    everything_is_over(&universe);
}

#[test]
fn a_repository_that_a_pool_names_is_searched_from_the_beginning() {
    let named = Pool { repositories: vec!["octo-org/widgets".parse().expect("a repository")], ..pool("linux", 10) };
    let universe = Universe::new(45, vec![named]);
    universe.queue(&["linux"], |job| QueueJob { webhooks: Webhooks::NeverAttempted, ..job });
    universe.run(MINUTE * 3);
    everything_is_over(&universe);
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 1);
}

#[test]
fn repositories_that_github_does_not_know_keep_no_other_from_being_searched() {
    // Searched in the order of their names at first.
    let names = ["a-1", "a-2", "a-3", "a-4", "widgets"];
    let repositories = names.map(|name| format!("octo-org/{name}").parse().expect("a repository"));
    let universe = Universe::new(46, vec![Pool { repositories: repositories.into(), ..pool("linux", 10) }]);
    let job = universe.queue(&["linux"], |job| QueueJob { webhooks: Webhooks::NeverAttempted, ..job });
    universe.run(MINUTE * 5);
    assert!(universe.github(|github, _| github.job(JobId(job.0)).is_some_and(|job| job.served_once())));
    assert_eq!(universe.sweep().failures.len(), 3, "each sweep says that some cannot be searched");
}

#[test]
fn a_job_without_any_webhook_is_found_behind_many_newer_runs() {
    let named = Pool { repositories: vec!["octo-org/widgets".parse().expect("a repository")], ..pool("linux", 10) };
    let universe = Universe::new(47, vec![named]);
    let unheard = universe.queue(&["linux"], |job| QueueJob { webhooks: Webhooks::NeverAttempted, ..job });
    for _ in 0..350 {
        universe.queue(&["of-nobody"], |job| job);
    }
    universe.run(MINUTE * 5);
    assert!(universe.github(|github, _| github.job(JobId(unheard.0)).is_some_and(|job| job.served_once())));
}

#[test]
fn a_job_without_any_webhook_is_found_by_a_search() {
    let universe = universe(42);
    // The repository is known from a job with a webhook.
    universe.queue_job(&["linux"], MINUTE);
    everything_is_over(&universe);
    let unheard = universe.queue(&["linux"], |job| QueueJob { webhooks: Webhooks::NeverAttempted, ..job });
    universe.run(MINUTE * 13);
    let done = universe.github(|github, _| github.job(JobId(unheard.0)).is_some_and(|job| job.served_once()));
    assert!(done, "found within ten minutes and served within two");
    everything_is_over(&universe);
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 2);
    let log = universe.store.events(&Stream::Stack, 1000);
    let recovered: usize = log
        .iter()
        .map(|event| match &event.what {
            What::Swept { recovered, .. } => *recovered,
            _ => 0,
        })
        .sum();
    assert_eq!(recovered, 1, "the sweep's event counts it");
    let Some(Item::Janitor(janitor)) = universe.item(&Key::Janitor) else { panic!("there were sweeps") };
    assert!(janitor.found.is_some_and(|found| (found.jobs, found.example.0) == (1, unheard.0)), "doctor shows it");
}

#[test]
fn a_job_whose_completed_webhook_is_lost_is_polled_and_its_slot_closes() {
    let universe = universe(43);
    let job = JobId(universe.queue_job(&["linux"], MINUTE).0);
    until_running(&universe, job);
    universe.run(SignedDuration::from_secs(5));
    universe.github(|github, _| github.faults.never_attempted = 1.0);
    universe.run(MINUTE * 3);
    universe.github(|github, _| github.faults.never_attempted = 0.0);
    everything_is_over(&universe);
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 1);
}

fn spot(rerun: bool) -> Universe {
    let pool = Pool { market: MarketChoice::Spot, rerun_on_interruption: rerun, ..pool("linux", 10) };
    Universe::new(44, vec![pool])
}

fn interrupt_all(universe: &Universe) {
    universe.ec2(|ec2, now| {
        for id in ec2.alive().map(|instance| instance.id.clone()).collect::<Vec<_>>() {
            ec2.interrupt_spot(&id, now);
        }
    });
}

#[test]
fn a_machine_reclaimed_before_its_job_started_is_replaced_at_once() {
    let universe = spot(false);
    universe.queue_job(&["linux"], MINUTE);
    while universe.ec2(|ec2, _| ec2.launches()) == 0 {
        universe.run(SignedDuration::from_secs(1));
    }
    interrupt_all(&universe);
    universe.run(SignedDuration::from_secs(5));
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 2, "before the next sweep");
    universe.run(MINUTE * 20);
    universe.github(|github, _| {
        assert!(github.jobs().all(|job| job.served_once()));
        assert_eq!(github.killed().count(), 0);
    });
}

#[test]
fn a_late_stop_does_not_hide_that_ec2_reclaimed_the_machine() {
    let universe = spot(true);
    let job = JobId(universe.queue_job(&["linux"], MINUTE * 30).0);
    until_running(&universe, job);
    universe.run(SignedDuration::from_secs(5));
    let slots = universe.store.view(&"linux".parse().expect("a pool")).slots;
    let [slot] = &slots.values().collect::<Vec<_>>()[..] else { panic!("one slot: {slots:#?}") };
    let stopped = (*slot).clone().stopped(StopReason::Surplus, universe.now(), universe.now());
    let what = What::Stopped { slot: slot.id, why: StopReason::Surplus };
    let cause = Cause::Invocation("a sweep that was late".to_owned());
    let turn = Turn { now: universe.now(), lease: universe.now(), cause };
    let writes = Transaction::new().put(stopped).emit(Stream::Pool(slot.pool.clone()), what, &turn);
    universe.store.commit(&writes).now_or_never().expect("ready").expect("written");
    interrupt_all(&universe);
    universe.run(SignedDuration::from_secs(5));
    let log = universe.store.events(&Stream::Pool("linux".parse().expect("a pool")), 1000);
    let interrupted = |event: &Event| matches!(event.what, What::Stopped { why: StopReason::Interrupted, .. });
    assert!(log.iter().any(interrupted));
    universe.run(MINUTE * 60);
    assert_eq!(universe.github(|github, _| github.jobs().count()), 2, "it is re-run");
}

#[test]
fn a_job_that_lost_its_machine_is_re_run_once_if_the_pool_asks_for_it() {
    for rerun in [false, true] {
        let universe = spot(rerun);
        let job = JobId(universe.queue_job(&["linux"], MINUTE * 30).0);
        until_running(&universe, job);
        universe.run(SignedDuration::from_secs(5));
        interrupt_all(&universe);
        universe.run(MINUTE * 90);
        let (jobs, unfinished) = universe.github(|github, _| {
            (github.jobs().count(), github.jobs().filter(|job| job.state.conclusion().is_none()).count())
        });
        assert_eq!((jobs, unfinished), (if rerun { 2 } else { 1 }, 0), "rerun: {rerun}");
        let view = universe.store.view(&"linux".parse().expect("a pool"));
        assert!(view.reruns.is_empty() && view.slots.is_empty() && view.waiting.is_empty(), "{view:#?}");
        universe.store.check_log();
    }
}

/// A table that does not take every commit: `refuses` says which, and why.
struct Contended<'a, F> {
    table: &'a dyn Store,
    refuses: F,
}

/// Another write came first.
fn conflict() -> CommitError {
    CommitError::Conflict("another write".to_owned())
}

fn is_decision(transaction: &Transaction) -> bool {
    transaction.event.as_ref().is_some_and(|it| matches!(it.what, What::Decided { .. }))
}

#[async_trait]
impl<F: Fn(&Transaction) -> Option<CommitError> + Send + Sync> Store for Contended<'_, F> {
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
        self.table.partition(pool).await
    }

    async fn partition_without(
        &self,
        pool: &PoolName,
        unread: &UnreadSlots,
        newest: u64,
    ) -> Result<Reading, StoreError> {
        self.table.partition_without(pool, unread, newest).await
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
        match (self.refuses)(transaction) {
            Some(error) => Err(error),
            None => self.table.commit(transaction).await,
        }
    }
}

/// Runs the scaler with a table that does not take every commit.
fn consume_refused(
    universe: &Universe,
    messages: &[Message],
    refuses: impl Fn(&Transaction) -> Option<CommitError> + Send + Sync,
) -> Consumed {
    let config = universe.config();
    universe.invoke(async |context| {
        let table = Contended { table: context.ports.store, refuses: &refuses };
        let ports = Ports { store: &table, ..context.ports };
        consume(&Context { ports, ..*context }, &config, messages).await
    })
}

const BURST: u64 = 60;

/// A world in which more jobs were just queued than one decision launches machines for, and the messages about them.
fn burst(seed: u64) -> (Universe, Vec<Message>) {
    let universe = universe(seed);
    universe.sweep();
    for _ in 0..BURST {
        universe.queue_job(&["linux"], MINUTE);
    }
    (0..10).for_each(|_| universe.tick());
    let messages = universe.receive();
    (universe, messages)
}

#[test]
fn a_notice_that_loses_write_races_is_recorded_in_the_same_invocation() {
    let universe = spot(true);
    let job = JobId(universe.queue_job(&["linux"], MINUTE * 30).0);
    until_running(&universe, job);
    universe.run(SignedDuration::from_secs(5));
    let machine = universe.ec2(|ec2, _| ec2.alive().next().expect("one machine").id.clone());
    let id = InstanceId::from(machine.as_str());
    let notice = Message::Instance { id: id.clone(), change: InstanceChange::Interrupted(None) };
    let left = AtomicUsize::new(3);
    let loses = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    let consumed = consume_refused(&universe, &[notice], |_| loses().then(conflict));
    assert!(consumed.failed.is_empty(), "{:?}", consumed.failed);
    let stored = universe.store.items().into_iter().find_map(|item| match item {
        Item::Instance(instance) if instance.id == id => instance.interrupted_at,
        _ => None,
    });
    assert_eq!(stored, Some(universe.now()));
}

/// A function whose clock is ahead takes a launch over, and the one that decided it reads the pool again before it launches.
#[test]
fn a_launch_that_another_invocation_has_claimed_is_left_to_it() {
    let (universe, messages) = burst(46);
    let (decisions, claimed) = (AtomicUsize::new(0), OnceLock::new());
    let is_claimed = |transaction: &Transaction| {
        if !is_decision(transaction) || decisions.fetch_add(1, Ordering::Relaxed) != 1 {
            return None;
        }
        let batch = universe.store.items().into_iter().find_map(|item| match item {
            Item::Batch(batch) => Some(batch.claimed(universe.now() + MINUTE * 2)),
            _ => None,
        });
        let batch = claimed.get_or_init(|| batch.expect("a launch was decided"));
        let writes = Transaction::new().put(batch.clone());
        universe.store.commit(&writes).now_or_never().expect("ready").expect("written");
        Some(conflict())
    };
    consume_refused(&universe, &messages, is_claimed);
    let tag = claimed.get().expect("there was a second decision").tag().to_string();
    let tags = universe.ec2(|ec2, _| ec2.instances().map(|it| it.tags["drover:batch"].clone()).collect::<Vec<_>>());
    assert!(!tags.is_empty() && !tags.contains(&tag), "{tag} among {tags:?}");
    universe.run(MINUTE * 5);
    everything_is_over(&universe);
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), BURST);
}

#[test]
fn what_was_decided_is_launched_at_once_though_the_table_fails_at_the_next_decision() {
    let (universe, messages) = burst(48);
    let decisions = AtomicUsize::new(0);
    consume_refused(&universe, &messages, |transaction| {
        let is_second = is_decision(transaction) && decisions.fetch_add(1, Ordering::Relaxed) == 1;
        is_second.then(|| StoreError::new("throttled").into())
    });
    let launches = || universe.ec2(|ec2, _| ec2.launches());
    assert!((1..BURST).contains(&launches()), "{} machines", launches());
    universe.run(MINUTE * 5);
    everything_is_over(&universe);
    assert_eq!(launches(), BURST);
}

#[test]
fn a_notice_that_comes_after_the_slot_was_closed_still_re_runs_the_job() {
    let pool = Pool { market: MarketChoice::Spot, rerun_on_interruption: true, ..pool("linux", 10) };
    // GitHub gives the runner up so soon that the machine does not clearly end before the job.
    let github = github::Config { lost_runner: Duration::from_secs(5), ..github::Config::default() };
    let universe = Universe::with_github(45, vec![pool], github);
    let job = JobId(universe.queue_job(&["linux"], MINUTE * 30).0);
    until_running(&universe, job);
    let machine = universe.ec2(|ec2, now| {
        let machine = ec2.alive().next().expect("one machine").id.clone();
        ec2.fail_host(&machine, now);
        machine
    });
    let announced = universe.now();
    universe.run(MINUTE * 10);
    assert!(universe.store.view(&"linux".parse().expect("a pool")).slots.is_empty(), "the slot is closed");
    assert_eq!(universe.github(|github, _| github.jobs().count()), 1, "nothing shows that EC2 reclaimed the machine");
    let change = InstanceChange::Interrupted(Some(announced));
    universe.send([Message::Instance { id: machine.as_str().into(), change }]);
    universe.run(MINUTE * 40);
    universe.github(|github, _| {
        assert_eq!(github.jobs().count(), 2, "it is re-run");
        assert!(github.jobs().all(|job| job.state.conclusion().is_some()));
    });
    universe.store.check_log();
}
