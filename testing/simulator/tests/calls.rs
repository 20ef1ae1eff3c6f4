//! How many calls an invocation makes.

mod story;

use std::collections::BTreeMap;

use domain::config::Pool;
use domain::log::{Cause, Stream, Transaction, Turn, What};
use domain::state::{Slot, StopReason};
use domain::wire::Message;
use engine::ports::Store;
use futures::FutureExt;
use jiff::SignedDuration;
use simulator::{Call, CallKind, Universe, pool, shapes_pool};
use story::everything_is_over;

const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// The scaler consumes what is on the queue. Returns how often it made each kind of call.
fn scaled(universe: &Universe) -> BTreeMap<CallKind, usize> {
    universe.steps.record();
    universe.scale();
    let mut counts = BTreeMap::new();
    for call in universe.steps.recorded() {
        *counts.entry(call.kind()).or_default() += 1;
    }
    counts
}

fn is_of_table(kind: CallKind) -> bool {
    matches!(kind, CallKind::Get | CallKind::Query | CallKind::CommitUnlogged) || kind.name().starts_with("commit ")
}

#[test]
fn sixty_five_idle_machines_are_retired_with_twenty_calls_to_the_table() {
    const MACHINES: usize = 65;
    let universe = Universe::new(1, vec![pool("linux", 100)]);
    let jobs: Vec<_> = (0..MACHINES).map(|_| universe.queue_job(&["linux"], SECOND * 60)).collect();
    let deliver = || {
        for _ in 0..5 {
            universe.tick();
        }
    };
    deliver();
    universe.scale();
    assert_eq!(universe.github(|github, _| github.registrations().count()), MACHINES);
    for job in jobs {
        universe.github(|github, now| github.cancel(world::github::JobId(job.0), now));
    }
    deliver();
    universe.scale();
    universe.pass(universe.config().pools[0].timings.idle_grace.duration());

    universe.receive();
    universe.send([Message::Nudge { v: 1, pool: "linux".parse().expect("a name") }]);
    let calls = scaled(&universe);
    let made = |kind: CallKind| calls.get(&kind).copied().unwrap_or_default();
    assert_eq!((made(CallKind::DeleteRunner), made(CallKind::TerminateInstances)), (MACHINES, MACHINES), "{calls:?}");
    assert_eq!(made(CallKind::DescribeInstances), 1, "{calls:?}");
    let table: usize = calls.iter().filter(|(kind, _)| is_of_table(**kind)).map(|(_, times)| times).sum();
    assert!(table <= 20, "{table}: {calls:?}");
    everything_is_over(&universe);
}

#[test]
fn a_job_that_is_queued_beside_many_busy_machines_is_decided_about_without_reading_their_slots() {
    let universe = Universe::new(2, vec![pool("linux", 100)]);
    let run = || universe.run(SignedDuration::from_mins(3));
    for _ in 0..40 {
        universe.queue_job(&["linux"], SECOND * 1800);
    }
    run();
    // The first decision after they are busy finds that out.
    universe.queue_job(&["linux"], SECOND * 1800);
    run();
    universe.queue_job(&["linux"], SECOND);
    while universe.store.view(&"linux".parse().expect("a name")).waiting.is_empty() {
        universe.steps.record();
        universe.tick();
        universe.scale();
    }
    let readings: Vec<Call> = universe.steps.recorded().into_iter().filter(is_of_pool).collect();
    assert_eq!(readings, [Call::QueryNeeded("linux".parse().expect("a name"))]);
    universe.run(SECOND * 1800);
    everything_is_over(&universe);
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 42);
}

#[test]
fn ten_jobs_of_one_class_take_as_many_calls_as_ten_of_a_pool_without_shapes() {
    const JOBS: usize = 10;
    let made = |pool: Pool, label: &str| {
        let universe = Universe::new(3, vec![pool]);
        universe.sweep();
        // The message by which the janitor wakes a scaler that has not stated its version.
        universe.scale();
        for _ in 0..JOBS {
            universe.queue_job(&[label], SECOND * 60);
        }
        (0..5).for_each(|_| universe.tick());
        universe.steps.record();
        universe.scale();
        let kinds: Vec<CallKind> = universe.steps.recorded().iter().map(Call::kind).collect();
        everything_is_over(&universe);
        kinds
    };
    let kinds = made(shapes_pool("any", 100), "any/2cpu/8gb");
    let before = kinds.iter().take_while(|kind| **kind != CallKind::RunInstances).count();
    // The first one reads the pools, which a scaler otherwise has cached.
    assert!(before <= 1 + 4, "{kinds:?}");
    assert!(kinds.len() <= 2 * JOBS + 8, "{kinds:?}");
    let mut others = made(pool("linux", 100), "linux");
    let mut kinds = kinds;
    others.sort();
    kinds.sort();
    assert_eq!(kinds, others);
}

#[test]
fn a_job_takes_eight_transactions_with_an_event_until_its_slot_is_closed() {
    let universe = Universe::new(4, vec![pool("linux", 100)]);
    universe.run(SECOND * 90);
    universe.queue_job(&["linux"], SECOND * 20);
    universe.steps.record();
    everything_is_over(&universe);
    let of_job = |call: &Call| match call {
        Call::Commit(what) if call.kind() != CallKind::CommitSwept => Some((call.kind().name(), what.clone())),
        _ => None,
    };
    let written: Vec<_> = universe.steps.recorded().iter().filter_map(of_job).collect();
    let names: Vec<&str> = written.iter().map(|(name, _)| *name).collect();
    let until_registered = ["commit Recorded", "commit Decided", "commit Bound", "commit HandedOver"];
    // Its start, the end of its machine, and its own end, which GitHub reports a little later.
    let until_closed = ["commit Recorded", "commit Observed", "commit Recorded", "commit Closed"];
    assert_eq!(names, [until_registered, until_closed].concat(), "{written:#?}");
}

/// Deregistrations take seconds, in which an operator may put a hold on a machine whose tags were read before.
#[test]
fn a_machine_that_never_had_a_runner_is_ended_before_others_are_deregistered() {
    let universe = Universe::new(6, vec![Pool { warm: 1, ..pool("linux", 100) }]);
    universe.run(SECOND * 120);
    // The warm machine is registered for it, and another one is launched to be warm.
    universe.queue_job(&["linux"], SECOND * 60);
    while universe.ec2(|ec2, _| ec2.launches()) < 2 {
        universe.tick();
        universe.scale();
    }
    let (linux, now) = (universe.config().pools[0].name.clone(), universe.now());
    let slots = universe.store.view(&linux).slots.into_values();
    let stopped: Vec<Slot> = slots.map(|slot| slot.stopped(StopReason::Operator, now, now)).collect();
    let what = What::Stopped { slot: stopped[0].id, why: StopReason::Operator };
    let turn = Turn { now, lease: now, cause: Cause::Operator("alex".to_owned()) };
    let writes = Transaction::new().put_all(stopped).emit(Stream::Pool(linux.clone()), what, &turn);
    assert!(universe.store.commit(&writes).now_or_never().is_some_and(|written| written.is_ok()));
    universe.receive();
    universe.send([Message::Nudge { v: 1, pool: linux }]);
    universe.steps.record();
    universe.scale();
    let made: Vec<CallKind> = universe.steps.recorded().iter().map(Call::kind).collect();
    let first = |kind| made.iter().position(|made| *made == kind);
    let (ended, deregistered) = (first(CallKind::TerminateInstances), first(CallKind::DeleteRunner));
    assert!(ended.is_some() && deregistered.is_some(), "both end: {made:?}");
    assert!(ended < deregistered, "{made:?}");
}

fn is_of_pool(call: &Call) -> bool {
    matches!(call, Call::Query(_) | Call::QueryNeeded(_))
}
