//! Jobs that no pool accepts when they arrive.

mod story;

use domain::ids::JobId;
use jiff::SignedDuration;
use simulator::{Universe, pool};
use story::everything_is_over;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn launches(universe: &Universe) -> u64 {
    universe.ec2(|ec2, _| ec2.launches())
}

fn check_runs(universe: &Universe, job: JobId) -> Vec<(String, String)> {
    universe.github(|github, _| {
        let of_job = github.check_runs().filter(|run| run.now.external_id == Some(job.to_string()));
        of_job.filter_map(|run| Some((run.now.conclusion.clone()?, run.now.output.as_ref()?.title.clone()))).collect()
    })
}

#[test]
fn a_job_that_arrives_before_its_pool_is_applied_runs_within_two_minutes_after_that() {
    let universe = Universe::new(1, vec![pool("linux", 10)]);
    universe.queue_job(&["gpu"], MINUTE);
    universe.run(MINUTE * 10);
    assert_eq!(launches(&universe), 0);
    universe.change_pools(|pools| {
        let linux = pools[0].clone();
        let gpu = pool("gpu", 10);
        pools.push(domain::config::Pool { launch_template: linux.launch_template, ..gpu });
    });
    universe.run(MINUTE * 2);
    assert_eq!(launches(&universe), 1);
    everything_is_over(&universe);
}

#[test]
fn a_job_of_a_drained_pool_is_explained_and_runs_once_the_drain_is_undone() {
    let universe = Universe::new(2, vec![pool("linux", 10)]);
    universe.drain_only(Some("linux"));
    let job = universe.queue_job(&["linux"], MINUTE);
    universe.run(MINUTE * 3);
    let runs = check_runs(&universe, job);
    assert!(matches!(&runs[..], [(how, title)] if how == "neutral" && title.contains("takes no new jobs")), "{runs:?}");
    universe.run(MINUTE * 5);
    assert_eq!((check_runs(&universe, job).len(), launches(&universe)), (1, 0), "its author is notified once");
    universe.drain_only(None);
    universe.run(MINUTE * 2);
    assert_eq!(launches(&universe), 1);
    everything_is_over(&universe);
}

#[test]
fn the_author_of_a_job_that_could_mean_a_pool_learns_why_it_is_ignored() {
    let universe = Universe::new(3, vec![pool("linux", 10)]);
    let group = universe.queue_job(&[], MINUTE);
    let misspelt = universe.queue_job(&["linux-large"], MINUTE);
    let others = [universe.queue_job(&["windows"], MINUTE), universe.queue_job(&["ubuntu-latest"], MINUTE)];
    universe.run(MINUTE * 5);
    let [(_, title)] = &check_runs(&universe, group)[..] else { panic!("one check run") };
    assert!(title.contains("a runner group and no labels"), "{title}");
    let [(_, title)] = &check_runs(&universe, misspelt)[..] else { panic!("one check run") };
    assert!(title.contains("pool linux does not have all of its labels"), "{title}");
    assert!(others.iter().all(|job| check_runs(&universe, *job).is_empty()), "they are meant for other runners");
    assert_eq!(launches(&universe), 0);
}

#[test]
fn a_job_that_another_runner_takes_at_once_needs_no_explanation() {
    let universe = Universe::new(4, vec![pool("linux", 10)]);
    universe.drain_only(Some("linux"));
    universe.github(|github, now| {
        let scope = world::github::Scope::repository("octo-org", "widgets");
        github.add_foreign_runner(scope, "somebody-elses", &["linux"], now)
    });
    let job = universe.queue_job(&["linux"], MINUTE * 5);
    universe.run(MINUTE * 10);
    assert_eq!(check_runs(&universe, job), []);
}
