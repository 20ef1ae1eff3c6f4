//! When schedules are in effect.
//!
//! `data/schedules.jsonl` was written by `data/schedules.py`, which looks at a clock of Python's zoneinfo every minute.

mod common;

use std::collections::BTreeSet;

use common::noon;
use domain::config::{Day, Pool, Schedule, TimeOfDay, TimeZoneName};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde::Deserialize;

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn schedule(days: &[Day], from: &str, to: &str, time_zone: &str) -> Schedule {
    let time = |text: &str| text.parse().expect("a time of day");
    let time_zone = TimeZoneName::known(time_zone).expect("a time zone");
    Schedule { days: days.iter().copied().collect(), from: time(from), to: time(to), time_zone, warm: 5, stopped: 0 }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a moment")
}

#[derive(Deserialize)]
struct Observed {
    schedule: Schedule,
    since: Timestamp,
    until: Timestamp,
    at_first: bool,
    changes: Vec<Timestamp>,
}

#[test]
fn schedules_are_in_effect_when_a_clock_of_another_program_says_so() {
    let observed = include_str!("data/schedules.jsonl").lines();
    let observed = observed.map(|line| serde_json::from_str::<Observed>(line).expect("an observation"));
    let (mut lines, mut changes) = (0, 0);
    for Observed { schedule, since, until, at_first, changes: expected } in observed {
        let is_in_effect = |at| expected.iter().filter(|change| **change <= at).count() % 2 == usize::from(!at_first);
        let steps = std::iter::successors(Some(since), |at| Some(*at + MINUTE * 20)).take_while(|at| *at < until);
        let edges = expected.iter().flat_map(|change| [*change - SECOND, *change, *change + SECOND]);
        for at in steps.chain(edges) {
            let period = schedule.period_at(at);
            assert_eq!(period.is_some(), is_in_effect(at), "{schedule:?} at {at}");
            if let Some(period) = period {
                assert!(period.contains(at) && schedule.period_at(period.to - SECOND) == Some(period), "{period:?}");
            }
        }
        lines += 1;
        changes += expected.len();
    }
    assert!(lines >= 200 && changes >= 1300, "{lines} lines with {changes} changes");
}

#[test]
fn the_count_of_the_pool_holds_outside_of_its_schedules() {
    let day = schedule(&[Day::Mon], "08:00", "18:00", "Europe/Berlin");
    let night = Schedule { warm: 0, ..schedule(&[Day::Mon], "18:00", "06:00", "Europe/Berlin") };
    let pool = Pool { warm: 2, schedules: vec![day, night], ..common::pool() };
    // Monday in winter.
    let counts = [
        ("2026-11-02T06:59:59Z", 2),
        ("2026-11-02T07:00:00Z", 5),
        ("2026-11-02T16:59:59Z", 5),
        ("2026-11-02T17:00:00Z", 0),
        ("2026-11-03T04:59:59Z", 0),
        ("2026-11-03T05:00:00Z", 2),
        ("2026-11-03T12:00:00Z", 2),
    ];
    for (moment, warm) in counts {
        assert_eq!(pool.warm_at(at(moment)), warm, "{moment}");
    }
    let (_, period) = pool.schedule_at(noon()).expect("a schedule is in effect");
    assert_eq!(period.to, at("2026-11-02T17:00:00Z"));
}

#[test]
fn a_schedule_whose_time_zone_is_not_known_has_no_effect() {
    let mut pool = Pool { warm: 1, schedules: vec![schedule(&Day::ALL, "00:00", "24:00", "UTC")], ..common::pool() };
    assert_eq!(pool.warm_at(noon()), 5);
    pool.schedules[0].time_zone = serde_json::from_value("Mars/Olympus".into()).expect("a newer version knows it");
    assert_eq!((pool.warm_at(noon()), pool.schedules[0].periods(noon(), 3)), (1, Vec::new()));
}

#[test]
fn a_schedule_that_clocks_leave_out_has_no_period_on_that_day() {
    // In Berlin clocks go from 02:00 to 03:00 on Sunday, 29 March 2026.
    let gap = schedule(&[Day::Sat, Day::Sun], "02:00", "03:00", "Europe/Berlin");
    let periods = gap.periods(at("2026-03-27T12:00:00Z"), 4);
    assert_eq!(periods.iter().map(|it| it.from).collect::<Vec<_>>(), [at("2026-03-28T01:00:00Z")]);
}

#[test]
fn names_of_time_zones_are_those_of_the_compiled_database() {
    let known = |name: &str| TimeZoneName::known(name).map(|zone| zone.to_string());
    assert_eq!(known("europe/berlin").as_deref(), Some("Europe/Berlin"));
    assert_eq!(known("utc").as_deref(), Some("UTC"));
    for unknown in ["", "Berlin", "+01:00", "CEST", "Etc/Unknown", "Europe/Berlin ", "/etc/localtime", "Local"] {
        assert_eq!(known(unknown), None, "{unknown:?}");
    }
    assert!(TimeZoneName::all().all(|name| known(&name).is_some_and(|it| it.eq_ignore_ascii_case(&name))));
}

#[test]
fn a_time_of_day_has_hours_and_minutes() {
    for text in ["00:00", "08:05", "23:59", "24:00"] {
        assert_eq!(text.parse::<TimeOfDay>().expect("a time of day").to_string(), text);
    }
    for text in ["", "8:00", "08:0", "08:60", "24:01", "25:00", "-1:00", "+8:00", "08:00:00", "0800", "08.00", "08:00 "]
    {
        assert!(text.parse::<TimeOfDay>().is_err(), "{text:?}");
    }
}

#[test]
fn schedules_overlap_over_midnight_and_from_sunday_to_monday() {
    let of = |days: &[Day], from, to| schedule(days, from, to, "Europe/Berlin");
    let (mon, sun) = (of(&[Day::Mon], "00:00", "02:00"), of(&[Day::Sun], "22:00", "01:00"));
    let time = |text: &str| text.parse::<TimeOfDay>().expect("a time of day");
    for (one, other) in [(&mon, &sun), (&sun, &mon)] {
        assert_eq!(one.overlap(other), Some((Day::Mon, time("00:00"), time("01:00"))));
    }
    let tue = of(&[Day::Tue, Day::Sat], "20:00", "24:00");
    assert_eq!(tue.overlap(&of(&[Day::Mon], "23:00", "22:00")), Some((Day::Tue, time("20:00"), time("22:00"))));
    assert_eq!(tue.overlap(&of(&[Day::Sat], "23:00", "06:00")), Some((Day::Sat, time("23:00"), time("24:00"))));
    for apart in [of(&[Day::Sun], "00:00", "02:00"), of(&[Day::Tue], "18:00", "20:00"), mon, sun] {
        assert_eq!(tue.overlap(&apart), None, "{apart:?}");
    }
}

prop_compose! {
    fn schedules()(
        days in prop::collection::btree_set(prop::sample::select(&Day::ALL[..]), 1..=7),
        from in prop_oneof![0..24 * 60_u32, 0..4 * 60_u32],
        to in prop_oneof![0..=24 * 60_u32, 0..=4 * 60_u32],
        zone in prop::sample::select(TimeZoneName::all().collect::<Vec<_>>()),
    ) -> Schedule {
        let time = |minutes: u32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let to = if to == from { 24 * 60 } else { to };
        let days: Vec<Day> = BTreeSet::into_iter(days).collect();
        schedule(&days, &time(from), &time(to), &zone)
    }
}

/// Moments, many of them near a change of the zone's clocks.
fn moment(zone: &TimeZone, minutes_since_2020: i64, near_a_change: bool) -> Timestamp {
    let any = at("2020-01-01T00:00:00Z") + MINUTE * (minutes_since_2020 as i32);
    match zone.following(any).next().filter(|_| near_a_change) {
        Some(change) => change.timestamp() + MINUTE * ((minutes_since_2020 % 600 - 300) as i32),
        None => any,
    }
}

/// Whether the latest time that the clock has shown, looking every minute, is in the schedule.
fn by_looking(schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> bool {
    let looks = (0..26 * 60).map(|minutes| zone.to_datetime(now - MINUTE * minutes));
    let latest = looks.max().expect("it looks");
    let minute = u32::from(latest.hour() as u8) * 60 + u32::from(latest.minute() as u8);
    let begins_on = |days_ago: i8| {
        let day = (latest.date().weekday().to_monday_zero_offset() + 7 - days_ago) % 7;
        schedule.days.contains(&Day::ALL[day as usize])
    };
    let minutes = |time: TimeOfDay| {
        let text = time.to_string();
        text[..2].parse::<u32>().expect("hours") * 60 + text[3..].parse::<u32>().expect("minutes")
    };
    let (from, to) = (minutes(schedule.from), minutes(schedule.to));
    match from < to {
        true => begins_on(0) && from <= minute && minute < to,
        false => begins_on(0) && from <= minute || begins_on(1) && minute < to,
    }
}

proptest! {
    #[test]
    fn a_schedule_is_in_effect_while_the_clock_shows_its_times_and_no_time_counts_twice(
        schedule in schedules(), minutes in 0..9_000_000_i64, near_a_change in any::<bool>(),
    ) {
        let zone = TimeZoneDatabase::bundled().get(&schedule.time_zone.to_string()).expect("a time zone");
        let now = moment(&zone, minutes, near_a_change);
        prop_assert_eq!(schedule.period_at(now).is_some(), by_looking(&schedule, &zone, now), "{} in {:?}", now, schedule);
    }

    #[test]
    fn schedules_that_do_not_overlap_on_paper_are_never_in_effect_together(
        one in schedules(), other in schedules(), minutes in 0..9_000_000_i64, near_a_change in any::<bool>(),
    ) {
        let other = Schedule { time_zone: one.time_zone.clone(), ..other };
        let zone = TimeZoneDatabase::bundled().get(&one.time_zone.to_string()).expect("a time zone");
        let now = moment(&zone, minutes, near_a_change);
        let together = one.periods(now, 8).into_iter().flat_map(|own| {
            other.periods(now, 8).into_iter().filter(move |it| own.from < it.to && it.from < own.to).map(move |it| (own, it))
        });
        let together: Vec<_> = together.collect();
        prop_assert_eq!(one.overlap(&other).is_none(), other.overlap(&one).is_none());
        match one.overlap(&other) {
            None => prop_assert_eq!(together, vec![]),
            // A change of the clocks may leave out the common time.
            Some(_) => {
                let change = zone.following(now - MINUTE * (3 * 24 * 60)).next().map(|change| change.timestamp());
                let may_be_left_out = change.is_some_and(|change| change < now + MINUTE * (12 * 24 * 60));
                prop_assert!(!together.is_empty() || may_be_left_out);
            }
        }
    }

    #[test]
    fn a_stored_schedule_reads_back(schedule in schedules()) {
        let stored = serde_json::to_value(&schedule).expect("a schedule");
        prop_assert_eq!(serde_json::from_value::<Schedule>(stored).expect("a schedule"), schedule);
    }
}
