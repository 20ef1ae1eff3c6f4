//! Repositories that are transferred to another owner while a job waits.

mod story;

use domain::config::Pool;
use domain::ids::PoolName;
use domain::log::{Stream, What};
use jiff::SignedDuration;
use simulator::{Universe, pool};
use story::everything_is_over;
use world::github::JobId;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn name(pool: &str) -> PoolName {
    pool.parse().expect("a pool")
}

/// A pool of `octo-org` that cannot launch, and one of `mona-inc` with this label.
fn universe(seed: u64, label: &str) -> Universe {
    let theirs = Pool {
        owner: "mona-inc".parse().expect("an owner"),
        labels: [label.parse().expect("a label")].into(),
        ..pool("theirs", 10)
    };
    let universe = Universe::new(seed, vec![Pool { max: 0, ..pool("linux", 10) }, theirs]);
    universe.add_account("mona-inc");
    universe
}

/// A job waits in pool `linux`, and its repository is transferred to `mona-inc`.
fn transferred(universe: &Universe) -> JobId {
    let job = JobId(universe.queue_job(&["linux"], MINUTE).0);
    universe.run(MINUTE * 2);
    assert_eq!(universe.store.view(&name("linux")).waiting.len(), 1);
    universe.github(|github, _| {
        let (repository, to) = (github.job(job).map(|job| job.repository), github.find_owner("mona-inc"));
        github.transfer_repository(repository.expect("a repository"), to.expect("an owner").id);
    });
    job
}

fn events(universe: &Universe, pool: &str) -> Vec<What> {
    universe.store.events(&Stream::Pool(name(pool)), 1000).into_iter().map(|event| event.what).collect()
}

#[test]
fn a_waiting_job_moves_with_its_repository_to_a_pool_of_the_new_owner() {
    let universe = universe(60, "linux");
    let job = transferred(&universe);
    universe.run(MINUTE * 30);
    assert!(universe.github(|github, _| github.job(job).is_some_and(|job| job.served_once())));
    assert_eq!(universe.store.view(&name("linux")).waiting.len(), 0);
    let moved = events(&universe, "theirs").into_iter().find_map(|what| match what {
        What::Transferred { from, to, .. } => Some((from.to_string(), to.to_string())),
        _ => None,
    });
    assert_eq!(moved, Some(("octo-org/widgets".to_owned(), "mona-inc/widgets".to_owned())));
    everything_is_over(&universe);
}

#[test]
fn a_job_that_no_pool_of_the_new_owner_accepts_is_reported_and_launches_nothing() {
    let universe = universe(61, "other");
    transferred(&universe);
    universe.run(MINUTE * 30);
    let waiting = universe.store.view(&name("linux")).waiting;
    assert!(waiting.values().all(|job| !job.open && job.unknown_since.is_some()), "{waiting:#?}");
    let reported = events(&universe, "linux");
    let reported =
        reported.iter().filter(|what| matches!(what, What::Checked { status, .. } if status.contains("transferred")));
    assert_eq!(reported.count(), 1, "once");
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 0);
}
