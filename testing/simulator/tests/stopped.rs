//! Machines that are kept stopped until a job needs one.

#[path = "story/steps.rs"]
mod steps;
mod story;

use std::pin::pin;

use domain::config::{MarketChoice, Pool};
use domain::ids::JobId;
use domain::state::{Phase, Slot};
use engine::consume::consume;
use engine::sweep::{Mode, sweep};
use jiff::SignedDuration;
use simulator::{Call, CallKind, Universe, pool};
use steps::steps;
use story::everything_is_over;
use world::ec2::{Code, EndCause, InstanceId, LaunchMatch, OnPowerOff, Operation, Refusal, State, TemplateData, When};
use world::github;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn keeps(stopped: u32, max: u32) -> Pool {
    Pool { stopped, market: MarketChoice::OnDemand, ..pool("linux", max) }
}

/// A world in which the pool has its stopped machines.
fn ready(seed: u64, pool: Pool) -> Universe {
    let (stopped, warm) = (pool.stopped as usize, pool.warm as usize);
    let universe = Universe::new(seed, vec![pool]);
    universe.run(MINUTE * 6);
    assert_eq!((machines(&universe, State::Stopped).len(), machines(&universe, State::Running).len()), (stopped, warm));
    universe
}

fn machines(universe: &Universe, state: State) -> Vec<InstanceId> {
    universe.ec2(|ec2, _| ec2.alive().filter(|it| it.state == state).map(|it| it.id.clone()).collect())
}

fn slots(universe: &Universe) -> Vec<Slot> {
    universe.store.view(&"linux".parse().expect("a pool")).slots.into_values().collect()
}

/// Ends the pool's stopped machines, and checks that nothing is left.
fn end(universe: &Universe) {
    universe.change_pools(|pools| (pools[0].stopped, pools[0].warm) = (0, 0));
    everything_is_over(universe);
}

fn has_started(universe: &Universe, job: JobId) -> bool {
    universe.github(|github, _| github.job(github::JobId(job.0)).is_some_and(|job| !job.history.started.is_empty()))
}

/// The number of jobs that have started.
fn started(universe: &Universe) -> usize {
    universe.github(|github, _| github.jobs().filter(|job| !job.history.started.is_empty()).count())
}

fn launches(universe: &Universe) -> u64 {
    universe.ec2(|ec2, _| ec2.launches())
}

#[test]
fn a_job_starts_a_stopped_machine_and_another_one_takes_its_place() {
    let universe = ready(401, keeps(2, 20));
    let stopped = machines(&universe, State::Stopped);
    let job = universe.queue_job(&["linux"], MINUTE);
    universe.run(SignedDuration::from_secs(30));
    assert!(has_started(&universe, job), "a started machine is sooner than a cold one");
    assert_eq!(machines(&universe, State::Stopped).len(), 1);
    let state = machines(&universe, State::Running).into_iter().find(|it| stopped.contains(it)).expect("its machine");
    universe.run(MINUTE * 8);
    let now = machines(&universe, State::Stopped);
    assert_eq!(now.len(), 2, "it is replaced");
    assert!(!now.contains(&state), "each machine runs one job");
    assert_eq!(launches(&universe), 3);
    end(&universe);
}

#[test]
fn a_burst_takes_warm_machines_first_then_stopped_ones_and_launches_the_rest() {
    let universe = ready(402, Pool { warm: 1, ..keeps(2, 20) });
    let before = launches(&universe);
    for _ in 0..5 {
        universe.queue_job(&["linux"], MINUTE * 3);
    }
    universe.run(MINUTE * 2);
    // Two for the burst, three to be warm and stopped again.
    assert_eq!(launches(&universe) - before, 5);
    let started = started(&universe);
    assert_eq!(started, 5);
    universe.run(MINUTE * 10);
    assert_eq!((machines(&universe, State::Stopped).len(), machines(&universe, State::Running).len()), (2, 1));
    end(&universe);
}

#[test]
fn a_full_pool_serves_its_jobs_with_machines_that_are_being_prepared_or_stopped() {
    // The jobs come at every moment of the way from the launch to the stop.
    for seconds in (0..200).step_by(10) {
        let universe = Universe::new(403, vec![keeps(2, 2)]);
        universe.run(SignedDuration::from_secs(seconds));
        let jobs = [(); 2].map(|()| universe.queue_job(&["linux"], MINUTE));
        universe.run(MINUTE * 3 + SignedDuration::from_secs(10));
        for job in jobs {
            assert!(
                has_started(&universe, job),
                "a job that was queued after {seconds} s waits for more than three minutes"
            );
        }
        universe.run(MINUTE * 3);
        end(&universe);
    }
}

#[test]
fn a_start_that_ec2_refuses_ends_the_machine_and_the_job_gets_another() {
    let universe = ready(404, keeps(1, 20));
    let stopped = machines(&universe, State::Stopped).remove(0);
    universe.ec2(|ec2, _| {
        let code = Code::InsufficientInstanceCapacity;
        ec2.faults.start_refusals.push(Refusal { matches: LaunchMatch::default(), code, when: When::Next(1) });
    });
    universe.queue_job(&["linux"], MINUTE);
    universe.run(MINUTE);
    let started = started(&universe);
    assert_eq!(started, 1, "a cold machine serves it");
    let ended = universe.ec2(|ec2, _| ec2.ended().iter().find(|ended| ended.instance == stopped).map(|it| it.why));
    assert_eq!(ended, Some(EndCause::TerminateCall));
    universe.run(MINUTE * 10);
    assert_eq!(machines(&universe, State::Stopped).len(), 1);
    end(&universe);
}

/// Jobs for all machines of the pool are queued at once. Returns the calls of the invocation that serves them, and the number of
/// times that it is polled from its first registration to its last: each call takes the same time.
fn served_at_once(universe: &Universe, jobs: usize) -> (Vec<Call>, usize) {
    for _ in 0..jobs {
        universe.queue_job(&["linux"], MINUTE * 3);
    }
    for _ in 0..5 {
        universe.tick();
    }
    let registered = || universe.github(|github, _| github.registrations().count());
    let before = registered();
    let (config, messages) = (universe.config(), universe.receive());
    universe.steps.record();
    let mut lasts = 0;
    let mut scaler = pin!(universe.invocation(async |context| {
        consume(context, &config, &messages).await;
    }));
    while !steps(scaler.as_mut(), 0) {
        lasts += usize::from((before + 1..before + jobs).contains(&registered()));
    }
    assert_eq!(registered() - before, jobs);
    (universe.steps.recorded(), lasts)
}

#[test]
fn a_machine_that_ec2_refuses_to_start_does_not_keep_others_from_starting() {
    let universe = ready(415, keeps(3, 20));
    let stopped = machines(&universe, State::Stopped);
    universe.ec2(|ec2, _| {
        // The call for all three is refused, and then that for one alone.
        let (matches, code) = (LaunchMatch::default(), Code::InsufficientInstanceCapacity);
        ec2.faults.start_refusals.push(Refusal { matches, code, when: When::Next(2) });
    });
    served_at_once(&universe, 3);
    universe.run(MINUTE);
    assert_eq!(started(&universe), 3);
    let running = machines(&universe, State::Running);
    assert_eq!(stopped.iter().filter(|it| running.contains(it)).count(), 2, "the others have started");
    universe.run(MINUTE * 10);
    end(&universe);
}

#[test]
fn twenty_four_warm_machines_are_registered_at_a_time() {
    let universe = ready(413, Pool { warm: 24, ..pool("linux", 100) });
    let (_, lasts) = served_at_once(&universe, 24);
    assert!(lasts <= 15, "{lasts} polls, and a registration alone takes six");
    end(&universe);
}

#[test]
fn twenty_four_stopped_machines_are_started_with_one_call_and_registered_at_a_time() {
    let universe = ready(414, keeps(24, 100));
    let (calls, lasts) = served_at_once(&universe, 24);
    let starts = calls.iter().filter(|call| call.kind() == CallKind::StartInstances).count();
    assert_eq!(starts, 1, "EC2 allows five calls at once and two more per second");
    assert!(lasts <= 15, "{lasts} polls, and a registration alone takes six");
    end(&universe);
}

/// EC2 accepts the start, and the machine is stopped again before it runs.
#[test]
fn a_machine_that_ec2_started_in_vain_is_given_up_and_its_job_is_served() {
    let universe = ready(405, keeps(1, 20));
    universe.ec2(|ec2, _| ec2.faults.failed_starts = 1.0);
    universe.queue_job(&["linux"], MINUTE);
    universe.run(MINUTE);
    universe.ec2(|ec2, _| ec2.faults.failed_starts = 0.0);
    universe.run(MINUTE * 10);
    end(&universe);
}

#[test]
fn a_machine_that_ec2_does_not_stop_stays_and_serves_a_job() {
    let universe = Universe::new(406, vec![keeps(1, 1)]);
    for _ in 0..100 {
        universe.ec2(|ec2, _| ec2.faults.errors.push_back((Operation::StopInstances, Code::UnauthorizedOperation)));
    }
    universe.run(MINUTE * 60);
    assert_eq!(launches(&universe), 1, "a missing permission launches nothing again and again");
    assert_eq!(slots(&universe)[0].phase(), Phase::Prepared);
    universe.queue_job(&["linux"], MINUTE);
    universe.run(MINUTE * 2);
    let started = started(&universe);
    assert_eq!(started, 1, "the pool is full, and the machine is of use");
    universe.ec2(|ec2, _| ec2.faults.errors.clear());
    universe.run(MINUTE * 10);
    end(&universe);
}

#[test]
fn a_stopped_machine_that_somebody_starts_is_replaced_unless_it_is_held() {
    for is_held in [false, true] {
        let universe = ready(407, keeps(1, 20));
        let machine = machines(&universe, State::Stopped).remove(0);
        if is_held {
            universe.hold(&machine);
            universe.run(MINUTE * 2);
        }
        universe.ec2(|ec2, now| ec2.start_instances(std::slice::from_ref(&machine), now).map(drop)).expect("it starts");
        universe.run(MINUTE * 20);
        let is_there = universe.ec2(|ec2, _| ec2.alive().any(|it| it.id == machine));
        assert_eq!(is_there, is_held);
        let queued = universe.queue_job(&["linux"], MINUTE);
        universe.run(MINUTE * 3);
        assert!(has_started(&universe, queued));
    }
}

#[test]
fn a_stopped_machine_of_another_image_is_replaced_and_lasts_for_days_otherwise() {
    let universe = ready(408, keeps(1, 20));
    let machine = machines(&universe, State::Stopped).remove(0);
    universe.pass(SignedDuration::from_hours(3 * 24));
    universe.run(MINUTE * 3);
    assert_eq!(
        machines(&universe, State::Stopped),
        std::slice::from_ref(&machine),
        "max_life and recycling are for running machines"
    );
    let template = universe.config().pools[0].launch_template.id.as_str().into();
    let image = TemplateData {
        image: "ami-1".to_owned(),
        instance_type: "m7i.large".to_owned(),
        on_power_off: OnPowerOff::Terminate,
    };
    let version = universe.ec2(|ec2, _| ec2.add_template_version(&template, image)).expect("a template");
    universe.change_pools(|pools| pools[0].launch_template.version = version);
    universe.run(MINUTE * 10);
    let now = machines(&universe, State::Stopped);
    assert!(now.len() == 1 && now != [machine], "it has the old image: {now:?}");
    let recycled = universe.ec2(|ec2, _| ec2.ended().len());
    assert_eq!(recycled, 1);
    end(&universe);
}

#[test]
fn the_lost_event_of_a_stop_is_found_by_a_sweep() {
    let universe = Universe::new(409, vec![keeps(1, 20)]);
    universe.run(SignedDuration::from_secs(25));
    while machines(&universe, State::Stopping).is_empty() {
        universe.run(SignedDuration::from_secs(1));
    }
    while machines(&universe, State::Stopped).is_empty() {
        universe.tick();
        drop(universe.receive());
    }
    assert_eq!(slots(&universe)[0].phase(), Phase::Prepared);
    universe.run(MINUTE * 2);
    assert_eq!(slots(&universe)[0].phase(), Phase::Stopped);
    end(&universe);
}

/// A world with a machine that has reported that it is prepared. The next sweep reads that, sets it aside and stops it.
fn prepared(seed: u64) -> Universe {
    let universe = Universe::new(seed, vec![keeps(1, 20)]);
    universe.sweep();
    for _ in 0..55 {
        universe.tick();
        universe.scale();
    }
    assert!(matches!(slots(&universe).as_slice(), [slot] if slot.phase() == Phase::Launched && slot.boot.is_none()));
    universe
}

/// The janitor of the sweep that sets the machine aside ends before and after each of its calls, StopInstances among them.
#[test]
fn a_janitor_that_crashes_at_any_call_stops_the_machine_once_and_loses_no_job() {
    let mut has_stopped = false;
    for step in 0.. {
        let universe = prepared(410);
        universe.steps.record();
        let finished = {
            let janitor = pin!(universe.invocation(async |context| sweep(context, Mode::Repair).await));
            steps(janitor, step)
        };
        let calls = universe.steps.recorded();
        has_stopped |= calls.iter().any(|call| call.to_string().starts_with("StopInstances"));
        universe.run(MINUTE * 6);
        assert_eq!(machines(&universe, State::Stopped).len(), 1, "after a crash at step {step}: {calls:#?}");
        assert_eq!(launches(&universe), 1, "after a crash at step {step}");
        let job = universe.queue_job(&["linux"], MINUTE);
        universe.run(MINUTE);
        assert!(has_started(&universe, job));
        end(&universe);
        if finished {
            break;
        }
    }
    assert!(has_stopped, "the calls of a stop were interrupted");
}

/// The scaler that starts a machine for a job ends before and after each of its calls.
#[test]
fn a_scaler_that_crashes_at_any_call_of_a_start_serves_the_job_once() {
    let mut interrupted = Vec::new();
    for step in 0.. {
        let universe = ready(411, keeps(1, 20));
        let before = launches(&universe);
        universe.queue_job(&["linux"], MINUTE);
        for _ in 0..5 {
            universe.tick();
        }
        let (config, messages) = (universe.config(), universe.receive());
        universe.steps.record();
        let finished = {
            let scaler = pin!(universe.invocation(async |context| {
                consume(context, &config, &messages).await;
            }));
            steps(scaler, step)
        };
        let calls = universe.steps.recorded();
        universe.send(messages);
        universe.run(MINUTE * 6);
        // The stopped machine serves the job, and one is launched in its place.
        assert_eq!(launches(&universe) - before, 1, "after a crash at step {step}: {calls:#?}");
        end(&universe);
        if finished {
            interrupted = calls.iter().map(ToString::to_string).collect();
            break;
        }
    }
    for call in ["StartInstances", "generate-jitconfig", "commit HandedOver"] {
        assert!(interrupted.iter().any(|made| made.starts_with(call)), "{call} was not made: {interrupted:#?}");
    }
}

/// A job is queued while the janitor stops the machine. The janitor pauses at each of its steps.
#[test]
fn a_machine_whose_stop_is_under_way_is_given_to_no_job() {
    let mut paused_at_stop = false;
    for step in 0.. {
        let universe = prepared(412);
        universe.steps.record();
        let finished = {
            let mut janitor = pin!(universe.invocation(async |context| {
                sweep(context, Mode::Repair).await.expect("the table can be read");
            }));
            let finished = steps(janitor.as_mut(), step);
            let last = universe.steps.recorded().last().map(ToString::to_string).unwrap_or_default();
            paused_at_stop |= !finished && last.starts_with("StopInstances");
            universe.queue_job(&["linux"], MINUTE);
            // Less than the time that the janitor has left.
            for _ in 0..20 {
                universe.tick();
                universe.scale();
            }
            // The model refuses to stop a machine whose runner can be given a job.
            if !finished {
                assert!(steps(janitor.as_mut(), 1000), "the janitor ends");
            }
            finished
        };
        universe.run(MINUTE * 8);
        assert_eq!(started(&universe), 1, "after a pause at step {step}");
        end(&universe);
        if finished {
            break;
        }
    }
    assert!(paused_at_stop, "the job came while the stop was under way");
}
