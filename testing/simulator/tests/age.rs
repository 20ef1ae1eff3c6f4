//! Jobs that GitHub calls queued for ever.

use std::time::Duration;

use domain::state::{Item, Key, Rank};
use engine::ports::Store;
use futures::executor::block_on;
use jiff::SignedDuration;
use simulator::{Universe, pool};
use world::github::{Immortal, JobId, QueueJob, Webhooks};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn immortal(universe: &Universe, kind: Immortal, age: u64, webhooks: Webhooks) -> JobId {
    universe.github(|github, now| {
        let repository = github.find_repository("octo-org", "widgets").expect("every universe has it").id;
        let job = QueueJob { webhooks, ..QueueJob::new(repository, &["linux"]) };
        github.queue_immortal_job(job, kind, Duration::from_secs(age), now)
    })
}

fn universe() -> Universe {
    let mut pool = pool("linux", 10);
    pool.repositories = vec!["octo-org/widgets".parse().expect("a repository")];
    Universe::new(1, vec![pool])
}

fn launches(universe: &Universe) -> u64 {
    universe.ec2(|ec2, _| ec2.launches())
}

fn check_runs(universe: &Universe, job: JobId) -> Vec<String> {
    universe.github(|github, _| {
        let of_job = github.check_runs().filter(|run| run.now.external_id == Some(job.to_string()));
        of_job.filter_map(|run| Some(run.now.output.as_ref()?.title.clone())).collect()
    })
}

#[test]
fn a_job_that_github_calls_queued_for_months_launches_nothing_and_its_author_is_notified_once() {
    let universe = universe();
    let job = immortal(&universe, Immortal::RunUnderWay, 98 * DAY, Webhooks::Sent);
    universe.run(SignedDuration::from_mins(30));
    assert_eq!(launches(&universe), 0);
    let titles = check_runs(&universe, job);
    assert!(matches!(&titles[..], [title] if title.contains("queued for 98 days")), "{titles:?}");
    universe.run(SignedDuration::from_mins(60));
    assert_eq!(check_runs(&universe, job), titles);
    let Some(Item::Job(facts)) = block_on(universe.store.get(&Key::Job(domain::ids::JobId(job.0)))).expect("the table")
    else {
        panic!("its tombstone")
    };
    assert_eq!((facts.rank, launches(&universe)), (Rank::Done, 0));
}

#[test]
fn a_search_that_finds_an_old_job_launches_nothing() {
    let universe = universe();
    let job = immortal(&universe, Immortal::RunUnderWay, 25 * HOUR, Webhooks::NeverAttempted);
    universe.run(SignedDuration::from_mins(30));
    assert_eq!((launches(&universe), check_runs(&universe, job).len()), (0, 1));
}

#[test]
fn a_job_whose_run_is_over_launches_nothing_more_once_github_says_so() {
    let universe = universe();
    let job = immortal(&universe, Immortal::RunOver, 60, Webhooks::Sent);
    universe.run(SignedDuration::from_mins(90));
    assert_eq!(launches(&universe), 1);
    let titles = check_runs(&universe, job);
    assert!(matches!(&titles[..], [title] if title.contains("its run is over")), "{titles:?}");
    assert_eq!(universe.ec2(|ec2, _| ec2.alive().count()), 0);
}

#[test]
fn a_job_that_nobody_serves_launches_nothing_after_a_day() {
    let universe = universe();
    immortal(&universe, Immortal::RunUnderWay, 23 * HOUR, Webhooks::Sent);
    universe.run(SignedDuration::from_mins(61));
    let within_the_day = launches(&universe);
    assert!(within_the_day > 0);
    universe.run(SignedDuration::from_mins(60));
    assert_eq!(launches(&universe), within_the_day);
}
