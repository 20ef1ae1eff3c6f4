//! The checks at the end of every story.

use jiff::SignedDuration;
use simulator::Universe;

/// Each job was served once or cancelled, no job was killed, nothing is left, the event log agrees with the items, and a
/// further sweep finds nothing.
pub(crate) fn everything_is_over(universe: &Universe) {
    universe.run(SignedDuration::from_mins(20));
    universe.github(|github, _| {
        for job in github.jobs() {
            let cancelled = job.state.conclusion() == Some(world::github::Conclusion::Cancelled);
            assert!(job.served_once() || cancelled, "not served once: {job:#?}");
        }
        assert_eq!(github.killed().count(), 0, "killed");
        assert_eq!(github.registrations().count(), 0, "{:#?}", github.registrations().collect::<Vec<_>>());
    });
    universe.ec2(|ec2, _| assert_eq!(ec2.alive().count(), 0, "machines left"));
    let report = universe.sweep();
    assert_eq!((report.found, report.failures.len()), (0, 0), "{report:?}");
    universe.store.check_log();
    for pool in universe.config().pools {
        let view = universe.store.view(&pool.name);
        assert!(view.waiting.is_empty() && view.batches.is_empty() && view.slots.is_empty(), "{view:#?}");
    }
}
