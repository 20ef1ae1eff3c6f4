//! Items of an unknown form: each is left out and counted, and none hides another.

mod story;

use domain::ids::PoolName;
use domain::state::{Item, Key};
use jiff::SignedDuration;
use simulator::{Ingest, Universe, pool, shapes_pool};
use story::everything_is_over;
use world::github::{self, DEFAULT_GROUP, JitRequest, JobId, Malformed, QueueJob, Scope, Webhooks};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn universe(seed: u64) -> Universe {
    Universe::new(seed, vec![pool("linux", 10), pool("big", 10)])
}

fn name(pool: &str) -> PoolName {
    pool.parse().expect("a pool")
}

fn has_started(universe: &Universe, job: JobId) -> bool {
    universe.github(|github, _| github.job(job).is_some_and(|job| !job.history.started.is_empty()))
}

fn until_started(universe: &Universe, job: JobId) {
    for _ in 0..600 {
        if has_started(universe, job) {
            return;
        }
        universe.run(SignedDuration::from_secs(1));
    }
    panic!("job {job} does not start");
}

fn queue(universe: &Universe, label: &str, runs_for: SignedDuration) -> JobId {
    JobId(universe.queue_job(&[label], runs_for).0)
}

#[test]
fn a_runner_of_an_unknown_form_is_unknown_and_hides_no_other() {
    for form in [Malformed::State, Malformed::All] {
        let universe = universe(201);
        let job = queue(&universe, "linux", MINUTE * 30);
        until_started(&universe, job);
        let (busy, stale) = universe.github(|github, now| {
            let busy = github.registrations().next().expect("a runner").id;
            github.faults.malformed_runners.insert(busy, form);
            let installation = github.find_owner("octo-org").and_then(|owner| owner.installation).expect("installed");
            let name = "drover_sim_linux_e1_999_0_1".to_owned();
            let request = JitRequest { name, group: DEFAULT_GROUP, labels: vec!["linux".to_owned()] };
            let made = github.generate_jit(installation, &Scope::organization("octo-org"), request, now);
            (busy, made.expect("a free name").runner.id)
        });
        universe.run(MINUTE * 12);
        assert_eq!(universe.sweep().unreadable, 1, "{form:?}: it is counted");
        let registered = |id| universe.github(|github, _| github.runner(id).is_some());
        assert!(!registered(stale), "{form:?}: the unused registration is removed all the same");
        assert!(registered(busy), "{form:?}");
        let slots = universe.store.view(&name("linux")).slots;
        assert!(slots.values().all(|slot| slot.stop.is_none()), "{form:?}: unknown is not absent: {slots:#?}");
        universe.run(MINUTE * 30);
        universe.github(|github, _| github.faults.malformed_runners.clear());
        everything_is_over(&universe);
    }
}

#[test]
fn a_job_of_an_unknown_form_does_not_hide_the_other_jobs_of_its_repository() {
    let universe = universe(202);
    queue(&universe, "linux", MINUTE);
    everything_is_over(&universe);
    let unsent = |job| QueueJob { webhooks: Webhooks::NeverAttempted, ..job };
    let malformed = JobId(universe.queue(&["nobodys"], unsent).0);
    universe.github(|github, _| github.faults.malformed_jobs.insert(malformed));
    let job = JobId(universe.queue(&["linux"], unsent).0);
    universe.run(MINUTE * 13);
    assert!(has_started(&universe, job), "found by a search");
    universe.github(|github, now| github.cancel(malformed, now));
    everything_is_over(&universe);
}

#[test]
fn a_delivery_of_an_unknown_form_does_not_hide_the_other_failed_ones() {
    let universe = universe(203);
    universe.sweep();
    universe.set_ingest(Ingest::Down);
    let job = queue(&universe, "linux", MINUTE);
    let foreign = queue(&universe, "nobodys", MINUTE);
    universe.run(SignedDuration::from_secs(30));
    universe.set_ingest(Ingest::Up);
    universe.github(|github, _| {
        let of_foreign = github.deliveries().find(|delivery| delivery.event.job.id == foreign).expect("it failed").id;
        github.faults.malformed_deliveries.insert(of_foreign);
    });
    universe.run(MINUTE * 3);
    assert!(has_started(&universe, job));
    universe.github(|github, now| github.cancel(foreign, now));
    everything_is_over(&universe);
}

#[test]
fn an_item_that_a_pool_can_be_read_without_hides_no_other_job() {
    let universe = universe(204);
    // The pool has room for one machine at a time, so the second job waits.
    let waiting = universe.queue(&["linux"], |job| QueueJob { webhooks: Webhooks::NeverAttempted, ..job });
    universe.github(|github, now| github.cancel(github::JobId(waiting.0), now));
    let long = queue(&universe, "linux", MINUTE * 5);
    until_started(&universe, long);
    for key in [
        Key::Waiting(name("linux"), domain::ids::JobId(4)),
        Key::CheckRun(name("linux"), domain::ids::JobId(4)),
        Key::Rerun(name("linux"), domain::ids::JobId(4)),
        Key::Nudge(name("linux")),
    ] {
        assert!(key.is_dispensable(), "{key}");
    }
    let next = queue(&universe, "linux", MINUTE);
    while !universe.store.view(&name("linux")).waiting.contains_key(&domain::ids::JobId(next.0)) {
        universe.run(SignedDuration::from_secs(1));
    }
    universe.malform_item(Key::Waiting(name("linux"), domain::ids::JobId(next.0)));
    assert_eq!(universe.sweep().unreadable, 1, "it is counted");
    let other = queue(&universe, "linux", MINUTE);
    universe.run(MINUTE * 3);
    assert!(has_started(&universe, other), "another job of the pool starts");
    universe.repair_items();
    everything_is_over(&universe);
}

#[test]
fn an_unreadable_slot_batch_or_meta_stops_only_its_own_pool() {
    let universe = universe(205);
    let job = queue(&universe, "linux", MINUTE * 40);
    until_started(&universe, job);
    let pool = name("linux");
    let slot = *universe.store.view(&pool).slots.keys().next().expect("a slot");
    for key in [Key::Slot(pool.clone(), slot), Key::Meta(pool.clone())] {
        universe.malform_item(key.clone());
        let launched = universe.ec2(|ec2, _| ec2.launches());
        let (stopped, other) = (queue(&universe, "linux", MINUTE), queue(&universe, "big", MINUTE));
        universe.run(MINUTE * 4);
        assert!(has_started(&universe, other), "{key}: the other pool works");
        assert!(!has_started(&universe, stopped), "{key}: nothing is decided for this pool");
        assert_eq!(universe.ec2(|ec2, _| ec2.launches()), launched + 1, "{key}");
        assert!(universe.github(|github, _| github.killed().next().is_none()), "{key}: and nothing is removed");
        universe.repair_items();
        universe.run(MINUTE * 4);
        assert!(has_started(&universe, stopped), "{key}: repaired");
    }
    universe.run(MINUTE * 40);
    everything_is_over(&universe);
}

#[test]
fn a_machine_whose_record_cannot_be_read_is_left_alone_and_others_are_judged() {
    let universe = universe(206);
    let jobs = [queue(&universe, "linux", MINUTE * 30), queue(&universe, "linux", MINUTE)];
    jobs.into_iter().for_each(|job| until_started(&universe, job));
    let records: Vec<Key> = universe.store.items().iter().map(Item::key).collect();
    for key in records.into_iter().filter(|key| matches!(key, Key::Instance(_))) {
        universe.malform_item(key);
    }
    universe.run(MINUTE * 10);
    assert!(universe.github(|github, _| github.killed().next().is_none()));
    let third = queue(&universe, "linux", MINUTE);
    universe.run(MINUTE * 4);
    assert!(has_started(&universe, third));
    universe.repair_items();
    universe.run(MINUTE * 30);
    everything_is_over(&universe);
}

#[test]
fn unreadable_machines_and_prices_stop_no_pool_that_needs_none() {
    let universe = Universe::new(207, vec![pool("linux", 10), shapes_pool("any", 10)]);
    universe.run(MINUTE * 2);
    for key in [Key::Catalogue, Key::SpotPrices] {
        assert!(universe.store.items().iter().any(|item| item.key() == key), "{key} is there");
        universe.malform_item(key);
    }
    let job = queue(&universe, "linux", MINUTE);
    universe.run(MINUTE * 3);
    assert!(has_started(&universe, job));
    assert_eq!(universe.sweep().failures, [] as [&str; 0]);
}
