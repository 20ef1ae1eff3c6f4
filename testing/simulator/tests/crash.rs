//! Crashes and interleaving: an invocation may end, or let another one run, before and after every call of a port.

#[path = "story/steps.rs"]
mod steps;
mod story;

use std::pin::pin;

use domain::config::Pool;
use domain::log::Transaction;
use domain::state::{Item, Key, Nudge, Phase, Slot};
use domain::wire::{Action, Message};
use engine::consume::consume;
use engine::ports::Store;
use engine::sweep::{Mode, sweep};
use futures::FutureExt;
use jiff::SignedDuration;
use simulator::{Universe, pool};
use steps::steps;
use story::everything_is_over;
use world::ec2::{Code, LaunchMatch, Operation, Refusal, When};
use world::github;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// A world in which `jobs` jobs were just queued, and the messages about them. Every grace is `patience`.
fn queued(jobs: usize, seed: u64, patience: SignedDuration) -> (Universe, Vec<Message>) {
    let mut linux = pool("linux", 100);
    let patience = patience.to_string().parse().expect("a length of time");
    linux.timings.idle_grace = patience;
    linux.timings.orphan_grace = patience;
    linux.timings.stale_grace = patience;
    let universe = Universe::new(seed, vec![linux]);
    for _ in 0..jobs {
        universe.queue_job(&["linux"], MINUTE);
    }
    for _ in 0..5 {
        universe.tick();
    }
    let messages = universe.receive();
    assert_eq!(messages.len(), jobs);
    (universe, messages)
}

/// Every call that it takes to serve the jobs, by the beginning of its line in a trace.
fn calls_of_a_launch(jobs: usize) -> Vec<&'static str> {
    // Read together: META, the nudge, and GitHub's limit for the account.
    let mut calls =
        vec!["commit Recorded", "get 3 items", "query linux", "commit Decided", "RunInstances", "commit Bound"];
    for _ in 0..jobs {
        calls.extend(["commit HandedOver", "generate-jitconfig"]);
    }
    calls.sort();
    calls
}

#[test]
fn a_scaler_that_crashes_at_any_call_loses_no_job_and_launches_nothing_twice() {
    for jobs in [1, 2] {
        let mut step = 0;
        loop {
            let (universe, messages) = queued(jobs, 10, 2 * MINUTE);
            let config = universe.config();
            universe.steps.record();
            let finished = {
                let scaler = pin!(universe.invocation(async |context| {
                    consume(context, &config, &messages).await;
                }));
                steps(scaler, step)
            };
            let trace = universe.steps.recorded();
            // The queue delivers messages again that were not acknowledged.
            universe.send(messages);
            everything_is_over(&universe);
            assert_eq!(universe.ec2(|ec2, _| ec2.launches()), jobs as u64, "after a crash at step {step}: {trace:#?}");
            if finished {
                let mut made: Vec<String> = trace.iter().map(ToString::to_string).collect();
                made.sort();
                let expected = calls_of_a_launch(jobs);
                assert_eq!(made.len(), expected.len(), "{made:#?}");
                for (made, expected) in made.iter().zip(expected) {
                    assert!(made.starts_with(expected), "{made} where {expected} was expected");
                }
                break;
            }
            step += 1;
        }
        assert!(step >= 2 * 7, "before and after at least seven calls in a row: {step}");
    }
}

#[test]
fn a_janitor_that_crashes_at_any_call_loses_no_job_and_launches_nothing_twice() {
    for stage in [20, 40, 70, 130] {
        let mut step = 0;
        loop {
            let (universe, messages) = queued(2, 11, 2 * MINUTE);
            universe.send(messages);
            universe.run(SignedDuration::from_secs(stage));
            universe.steps.record();
            let finished = {
                let janitor = pin!(universe.invocation(async |context| sweep(context, Mode::Repair).await));
                steps(janitor, step)
            };
            universe.steps.recorded();
            everything_is_over(&universe);
            if finished {
                break;
            }
            step += 1;
        }
    }
}

/// One of the two functions pauses at each of its steps and lets the other run to its end. Every grace is zero, so that the
/// janitor removes as much as it can. In half of the cases the jobs are cancelled meanwhile.
#[test]
fn scaler_and_janitor_may_interleave_at_any_call() {
    for (cancel, janitor_first) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut step = 0;
        loop {
            let (universe, messages) = queued(2, 12, SignedDuration::ZERO);
            let config = universe.config();
            universe.steps.record();
            let finished = {
                let mut scaler = pin!(universe.invocation(async |context| {
                    consume(context, &config, &messages).await;
                }));
                let mut janitor = pin!(universe.invocation(async |context| {
                    sweep(context, Mode::Repair).await.expect("the table can be read");
                }));
                let finished = if janitor_first { steps(janitor.as_mut(), step) } else { steps(scaler.as_mut(), step) };
                if cancel {
                    universe.github(|github, now| {
                        for job in github.jobs().map(|job| job.id).collect::<Vec<_>>() {
                            github.cancel(job, now);
                        }
                    });
                    for _ in 0..5 {
                        universe.tick();
                    }
                    let cancelled = universe.receive();
                    let other = pin!(universe.invocation(async |context| {
                        consume(context, &config, &cancelled).await;
                    }));
                    assert!(steps(other, 1000));
                }
                if janitor_first {
                    assert!(steps(scaler, 1000));
                    assert!(finished || steps(janitor, 1000));
                } else {
                    assert!(steps(janitor, 1000));
                    assert!(finished || steps(scaler, 1000));
                }
                finished
            };
            universe.steps.recorded();
            everything_is_over(&universe);
            if !cancel {
                assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 2, "interleaved at step {step}");
            }
            if finished {
                break;
            }
            step += 1;
        }
        assert!(step > 5, "interleaved at every call: {step}");
    }
}

/// The scaler pauses at one of its calls, then the janitor at one of its own. The scaler goes on to its end and then the
/// janitor, which has read some of its sources before the scaler's writes and some after.
#[test]
fn a_janitor_that_reads_its_sources_at_different_times_kills_no_job() {
    let mut scaler_step = 0;
    loop {
        let mut janitor_step = 0;
        let finished = loop {
            let (universe, messages) = queued(1, 15, 2 * MINUTE);
            let config = universe.config();
            universe.steps.record();
            let (scaler_finished, janitor_finished) = {
                let mut scaler = pin!(universe.invocation(async |context| {
                    consume(context, &config, &messages).await;
                }));
                let mut janitor = pin!(universe.invocation(async |context| {
                    sweep(context, Mode::Repair).await.expect("the table can be read");
                }));
                let scaler_finished = steps(scaler.as_mut(), scaler_step);
                let janitor_finished = steps(janitor.as_mut(), janitor_step);
                assert!(scaler_finished || steps(scaler, 1000));
                assert!(janitor_finished || steps(janitor, 1000));
                (scaler_finished, janitor_finished)
            };
            universe.steps.recorded();
            everything_is_over(&universe);
            if janitor_finished {
                break scaler_finished;
            }
            janitor_step += 1;
        };
        if finished {
            break;
        }
        scaler_step += 1;
    }
    assert!(scaler_step > 10, "the scaler paused at every call: {scaler_step}");
}

/// The janitor pauses at one of its calls, and the scaler records that a job has begun. The janitor still records that the runner
/// of another machine, whose job was cancelled, has connected.
#[test]
fn a_webhook_during_a_sweep_loses_no_observation_of_another_machine() {
    let mut step = 0;
    loop {
        let (universe, messages) = queued(2, 16, 2 * MINUTE);
        universe.scale_with(&messages);
        universe.github(|github, now| {
            let last = github.jobs().last().map(|job| job.id);
            last.into_iter().for_each(|job| github.cancel(job, now));
        });
        while universe.github(|github, _| github.registrations().filter(|runner| runner.online).count()) < 2 {
            universe.tick();
        }
        let begun = |message: &Message| matches!(message, Message::WorkflowJob(it) if it.action == Action::InProgress);
        let webhook = (0..60).find_map(|_| {
            universe.tick();
            universe.receive().into_iter().find(begun)
        });
        let webhook = webhook.expect("a webhook arrives within a minute");
        universe.steps.record();
        let finished = {
            let mut janitor = pin!(universe.invocation(async |context| {
                sweep(context, Mode::Repair).await.expect("the table can be read");
            }));
            let finished = steps(janitor.as_mut(), step);
            universe.scale_with(std::slice::from_ref(&webhook));
            assert!(finished || steps(janitor, 1000));
            finished
        };
        universe.steps.recorded();
        let view = universe.store.view(&"linux".parse().expect("a pool"));
        let phases: Vec<Phase> = view.slots.values().map(Slot::phase).collect();
        assert!(!phases.contains(&Phase::Configured), "interrupted at step {step}: {phases:?}");
        if finished {
            break;
        }
        step += 1;
    }
    assert!(step > 10, "the janitor paused at every call: {step}");
}

/// Two scalers get the same messages at the same time.
#[test]
fn two_scalers_with_the_same_messages_launch_once() {
    let mut step = 0;
    loop {
        let (universe, messages) = queued(2, 13, 2 * MINUTE);
        let config = universe.config();
        universe.steps.record();
        let finished = {
            let mut one = pin!(universe.invocation(async |context| {
                consume(context, &config, &messages).await;
            }));
            let other = pin!(universe.invocation(async |context| {
                consume(context, &config, &messages).await;
            }));
            let finished = steps(one.as_mut(), step);
            assert!(steps(other, 1000));
            assert!(finished || steps(one, 1000));
            finished
        };
        universe.steps.recorded();
        everything_is_over(&universe);
        assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 2, "interleaved at step {step}");
        if finished {
            break;
        }
        step += 1;
    }
}

/// Two invocations with one job each: the first makes some steps, the second some, and both go on to their ends. Returns
/// which of them had ended before that.
fn interleave(before: (usize, usize)) -> (bool, bool) {
    let (universe, messages) = queued(2, 13, 2 * MINUTE);
    let config = universe.config();
    let (first, second) = messages.split_at(1);
    universe.steps.record();
    let ended = {
        let mut one = pin!(universe.invocation(async |context| {
            consume(context, &config, first).await;
        }));
        let mut other = pin!(universe.invocation(async |context| {
            consume(context, &config, second).await;
        }));
        let ended = (steps(one.as_mut(), before.0), steps(other.as_mut(), before.1));
        assert!(ended.0 || steps(one, 1000));
        assert!(ended.1 || steps(other, 1000));
        ended
    };
    universe.steps.recorded();
    // No sweep runs.
    for _ in 0..3 {
        universe.scale();
        universe.tick();
    }
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 2, "interleaved after {before:?} steps");
    ended
}

#[test]
fn of_two_scalers_with_different_jobs_the_slower_one_leaves_its_job_to_a_nudge() {
    for of_first in 0.. {
        let mut is_first_over = false;
        for of_second in 0.. {
            let (first, second) = interleave((of_first, of_second));
            is_first_over = first;
            if second {
                break;
            }
        }
        if is_first_over {
            break;
        }
    }
}

/// A sweep records the boot report of a warm machine, at any call of the scaler that gives the machine to a job.
#[test]
fn a_boot_report_that_is_recorded_during_a_hand_over_delays_no_job() {
    for step in 0.. {
        let universe = Universe::new(15, vec![Pool { warm: 1, ..pool("linux", 10) }]);
        universe.sweep();
        for _ in 0..40 {
            universe.tick();
        }
        universe.receive();
        let job = universe.queue_job(&["linux"], MINUTE);
        for _ in 0..5 {
            universe.tick();
        }
        let (messages, config) = (universe.receive(), universe.config());
        universe.steps.record();
        let finished = {
            let mut scaler = pin!(universe.invocation(async |context| {
                consume(context, &config, &messages).await;
            }));
            let finished = steps(scaler.as_mut(), step);
            let janitor = pin!(universe.invocation(async |context| {
                sweep(context, Mode::Repair).await.expect("the table can be read");
            }));
            assert!(steps(janitor, 1000));
            assert!(finished || steps(scaler, 1000));
            finished
        };
        universe.steps.recorded();
        // No sweep runs.
        for _ in 0..5 {
            universe.scale();
            universe.tick();
        }
        let has_started = |job: &github::Job| job.state.runner().is_some();
        let job = universe.github(|github, _| github.job(github::JobId(job.0)).is_some_and(has_started));
        assert!(job, "the job waits for a sweep if the report is recorded at step {step}");
        if finished {
            break;
        }
    }
}

#[test]
fn a_lost_table_kills_no_job() {
    let (universe, messages) = queued(6, 14, 2 * MINUTE);
    universe.send(messages);
    universe.run(SignedDuration::from_secs(40));
    let busy = universe.github(|github, _| github.registrations().filter(|runner| runner.job.is_some()).count());
    assert!(busy > 0, "some jobs run when the table is lost");
    // Two others wait: only GitHub knows them afterwards.
    let refusal =
        Refusal { matches: LaunchMatch::default(), code: Code::InsufficientInstanceCapacity, when: When::Chance(1.0) };
    universe.ec2(|ec2, _| ec2.faults.refusals.push(refusal));
    for _ in 0..2 {
        universe.queue_job(&["linux"], MINUTE);
    }
    universe.run(SignedDuration::from_secs(20));
    let pools = universe.config().pools;
    universe.store.empty();
    universe.ec2(|ec2, _| ec2.faults.refusals.clear());
    universe.run(SignedDuration::from_mins(3));
    universe.apply(pools, "e2");
    everything_is_over(&universe);
}

/// The scaler reads a nudge that is due while it calls EC2. Another one answers it meanwhile, and finds nothing due.
#[test]
fn a_throttled_launch_is_repeated_soon_although_the_nudge_was_answered_meanwhile() {
    const SECOND: SignedDuration = SignedDuration::from_secs(1);
    let (universe, messages) = queued(1, 14, 2 * MINUTE);
    let config = universe.config();
    let linux = config.pools[0].name.clone();
    let write = |writes: Transaction| {
        universe.store.commit(&writes).now_or_never().expect("it does not wait").expect("nobody else writes");
    };
    let stored = || match universe.store.get(&Key::Nudge(linux.clone())).now_or_never() {
        Some(Ok(Some(Item::Nudge(nudge)))) => Some(nudge),
        _ => None,
    };
    let due_at = universe.now() + SECOND * 2;
    write(Transaction::new().put(Nudge { pool: linux.clone(), due_at, revision: 0 }));
    let refusal =
        Refusal { matches: LaunchMatch::default(), code: Code::RequestLimitExceeded, when: When::Chance(1.0) };
    universe.ec2(|ec2, _| ec2.faults.refusals.push(refusal));
    universe.steps.record();
    let mut scaler = pin!(universe.invocation(async |context| {
        consume(context, &config, &messages).await;
    }));
    let mut calls = 0;
    while calls == 0 {
        assert!(!steps(scaler.as_mut(), 0), "the scaler calls EC2");
        calls = universe.ec2(|ec2, _| ec2.calls().get(&Operation::RunInstances).copied().unwrap_or_default());
    }
    universe.pass(SECOND * 3);
    write(Transaction::new().delete(stored().expect("the nudge")));
    assert!(steps(scaler.as_mut(), 1000), "the scaler ends");
    let again = stored().expect("another nudge");
    assert!(again.due_at.duration_since(universe.now()) <= SECOND * 5, "{again:?}");
}
