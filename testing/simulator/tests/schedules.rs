//! Pools that keep machines warm at some times of the day.

mod story;

use domain::config::{Day, Pool, Schedule, TimeZoneName};
use jiff::SignedDuration;
use simulator::{Universe, pool, shapes_pool};
use story::everything_is_over;
use world::github::JobId;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// On the day on which worlds begin, at noon.
fn schedule(from: &str, to: &str, warm: u32) -> Schedule {
    let time = |text: &str| text.parse().expect("a time of day");
    let time_zone = TimeZoneName::known("UTC").expect("a time zone");
    Schedule { days: [Day::Mon].into(), from: time(from), to: time(to), time_zone, warm, stopped: 0 }
}

fn alive(universe: &Universe) -> usize {
    universe.ec2(|ec2, _| ec2.alive().count())
}

#[test]
fn machines_are_warm_while_a_schedule_is_in_effect_and_end_with_it() {
    let pools = [pool("linux", 10), shapes_pool("any", 10)];
    for (pool, labels) in pools.into_iter().zip([["linux"], ["any/2cpu"]]) {
        let schedules = vec![schedule("12:10", "12:40", 3), schedule("12:40", "13:00", 1)];
        let universe = Universe::new(41, vec![Pool { schedules, ..pool }]);
        universe.run(MINUTE * 10 - SignedDuration::from_secs(1));
        assert_eq!(alive(&universe), 0, "{labels:?}: it is 12:09:59");
        universe.run(MINUTE * 2);
        assert_eq!(alive(&universe), 3, "{labels:?}: they are launched within a minute");
        universe.run(MINUTE * 8);
        let job = JobId(universe.queue_job(&labels, MINUTE).0);
        universe.run(SignedDuration::from_secs(20));
        let state = universe.github(|github, _| github.job(job).map(|job| job.state.status()));
        assert_eq!(state, Some("in_progress"), "{labels:?}: a warm machine runs it");
        universe.run(MINUTE * 8);
        assert_eq!(alive(&universe), 3, "{labels:?}: another machine took the place of the used one");
        // 12:28. The next schedule wants one.
        universe.run(MINUTE * 14);
        assert_eq!(alive(&universe), 1, "{labels:?}: the others end when the schedule ends");
        universe.run(MINUTE * 20);
        assert_eq!(alive(&universe), 0, "{labels:?}: it is after 13:00");
        everything_is_over(&universe);
        assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 4, "{labels:?}");
    }
}

#[test]
fn a_schedule_may_ask_for_fewer_machines_than_its_pool_and_a_drained_pool_keeps_none() {
    let schedules = vec![schedule("12:10", "12:20", 0), schedule("12:30", "14:00", 4)];
    let universe = Universe::new(42, vec![Pool { warm: 2, schedules, ..pool("linux", 10) }]);
    universe.run(MINUTE * 9);
    assert_eq!(alive(&universe), 2);
    universe.run(MINUTE * 5);
    assert_eq!(alive(&universe), 0, "it is 12:14");
    universe.run(MINUTE * 10);
    assert_eq!(alive(&universe), 2, "it is 12:24");
    universe.run(MINUTE * 8);
    assert_eq!(alive(&universe), 4, "it is 12:32");
    universe.drain_only(Some("linux"));
    universe.run(MINUTE * 5);
    assert_eq!(alive(&universe), 0);
    everything_is_over(&universe);
}

#[test]
fn a_schedule_that_begins_does_not_close_a_circuit() {
    let universe =
        Universe::new(43, vec![Pool { schedules: vec![schedule("12:10", "12:40", 1)], ..pool("linux", 10) }]);
    let hash = || universe.config().pools[0].config_hash();
    let before = hash();
    universe.run(MINUTE * 12);
    assert_eq!((alive(&universe), hash()), (1, before));
}
