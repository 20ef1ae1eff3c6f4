//! Jobs run, whether messages about them are repeated, reordered or late.

mod story;

use domain::wire::Message;
use jiff::SignedDuration;
use simulator::{Call, Universe, pool};
use story::everything_is_over;
use world::github;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

#[test]
fn jobs_run_and_nothing_is_left() {
    let universe = Universe::new(1, vec![pool("linux", 100)]);
    for _ in 0..10 {
        universe.queue_job(&["linux"], MINUTE);
    }
    everything_is_over(&universe);
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 10, "one machine per job");
}

#[test]
fn every_message_five_times_launches_nothing_extra() {
    let universe = Universe::new(2, vec![pool("linux", 100)]);
    for _ in 0..7 {
        universe.queue_job(&["linux"], MINUTE);
    }
    for _ in 0..240 {
        universe.tick();
        let messages = universe.receive();
        for _ in 0..5 {
            universe.send(messages.clone());
            universe.scale();
        }
    }
    everything_is_over(&universe);
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 7);
}

#[test]
fn completed_before_queued_launches_nothing() {
    let universe = Universe::new(3, vec![pool("linux", 100)]);
    universe.queue_job(&["linux"], MINUTE);
    let job = universe.github(|github, _| github.jobs().next().expect("a job").id);
    universe.github(|github, now| github.cancel(job, now));
    for _ in 0..10 {
        universe.tick();
    }
    let mut messages = universe.receive();
    messages.sort_by_key(|message| match message {
        Message::WorkflowJob(notice) => std::cmp::Reverse(domain::state::Rank::from(notice.action)),
        Message::Nudge { .. } | Message::Instance { .. } => std::cmp::Reverse(domain::state::Rank::Queued),
    });
    for message in messages {
        universe.send([message]);
        universe.scale();
    }
    universe.run(SignedDuration::from_mins(5));
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 0);
}

#[test]
fn a_runner_taken_by_another_job_is_replaced() {
    let universe = Universe::new(
        4,
        vec![pool("linux", 100), {
            let mut other = pool("other", 100);
            other.labels.insert("linux".parse().expect("a label"));
            other.priority = 200;
            other
        }],
    );
    for _ in 0..6 {
        universe.queue_job(&["linux"], MINUTE);
        universe.queue_job(&["linux", "other"], MINUTE);
    }
    everything_is_over(&universe);
}

#[test]
fn a_runner_listed_as_busy_before_its_job_is_recorded_is_not_replaced() {
    let universe = Universe::new(10, vec![pool("linux", 100)]);
    let job = github::JobId(universe.queue_job(&["linux"], MINUTE).0);
    let is_running =
        || universe.github(|github, _| github.job(job).is_some_and(|job| job.state.status() == "in_progress"));
    while !is_running() {
        universe.tick();
        universe.scale();
    }
    // The janitor lists the runner before the scaler has received `in_progress`.
    universe.sweep();
    everything_is_over(&universe);
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 1);
}

#[test]
fn a_pool_keeps_to_its_maximum_and_serves_the_jobs_that_wait() {
    let universe = Universe::new(5, vec![pool("linux", 3)]);
    for _ in 0..9 {
        universe.queue_job(&["linux"], MINUTE);
    }
    universe.run(SignedDuration::from_mins(10));
    everything_is_over(&universe);
}

#[test]
fn a_gated_job_launches_nothing_until_github_says_it_is_queued() {
    let universe = Universe::new(6, vec![pool("linux", 3)]);
    let job = universe.queue_gated_job(&["linux"]);
    universe.run(SignedDuration::from_mins(12));
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 0);
    universe.github(|github, now| github.approve(world::github::JobId(job.0), now));
    everything_is_over(&universe);
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 1);
}

#[test]
fn a_cancelled_job_leaves_no_machine() {
    let universe = Universe::new(7, vec![pool("linux", 30)]);
    for _ in 0..5 {
        universe.queue_job(&["linux"], MINUTE);
    }
    universe.run(SignedDuration::from_secs(15));
    universe.github(|github, now| {
        for job in github.jobs().map(|job| job.id).collect::<Vec<_>>() {
            github.cancel(job, now);
        }
    });
    everything_is_over(&universe);
}

#[test]
fn a_thousand_jobs_take_few_calls() {
    let universe = Universe::new(8, vec![pool("linux", 2000)]);
    universe.steps.record();
    for _ in 0..10 {
        for _ in 0..100 {
            universe.queue_job(&["linux"], MINUTE);
        }
        universe.run(SignedDuration::from_secs(1));
    }
    universe.run(SignedDuration::from_mins(30));
    let is_reading = |call: &&Call| matches!(call, Call::Query(_) | Call::QueryNeeded(_));
    let readings = universe.steps.recorded().iter().filter(is_reading).count();
    assert!(readings <= 100, "the pool is read {readings} times for 3,000 reports about jobs");
    everything_is_over(&universe);
    let runs = universe.ec2(|ec2, _| ec2.calls()[&world::ec2::Operation::RunInstances]);
    assert!(runs <= 60, "{runs} calls of RunInstances for 1,000 jobs");
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 1000);
}
