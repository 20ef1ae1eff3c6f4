//! How many calls an invocation makes.

mod story;

use std::collections::BTreeMap;

use domain::wire::Message;
use jiff::SignedDuration;
use simulator::{CallKind, Universe, pool};
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
