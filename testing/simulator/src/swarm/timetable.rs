//! Schedules of the simulated pools, and the judge's own account of them.
//!
//! The judge knows from when to when each one is in effect, in time since the world began. It does not ask Drover.

use domain::config::{Day, MarketChoice, Pool, Schedule, TimeZoneName};
use jiff::SignedDuration;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A world of its own for schedules, so that everything else of a seed stays as it is.
const STREAM: u64 = 0x5343_4845_4455;

/// One pool in this many has schedules.
const ONE_IN: u64 = 3;

/// The worlds begin at noon, UTC, on a Monday of November, when these zones are that many minutes ahead.
const NOON: i64 = 12 * 60;
const ZONES: [(&str, i64); 4] =
    [("UTC", 0), ("America/New_York", -5 * 60), ("Asia/Kathmandu", 5 * 60 + 45), ("Pacific/Auckland", 13 * 60)];

/// From when to when a pool keeps another number of machines warm.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: SignedDuration,
    until: SignedDuration,
    warm: u32,
}

/// What a pool keeps warm, and when.
#[derive(Debug, Default)]
pub(crate) struct Timetable {
    windows: Vec<Window>,
}

impl Timetable {
    /// Lets some pools keep machines stopped, and gives some schedules: one or two, which begin and end while faults strike, or later.
    pub(crate) fn give(seed: u64, number: u64, pool: &mut Pool) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ STREAM ^ (number << 48));
        let rng = &mut rng;
        let mut timetable = Self::default();
        if rng.random_range(0..ONE_IN) == 0 && pool.market != MarketChoice::Spot {
            pool.stopped = rng.random_range(1..=3);
        }
        if rng.random_range(0..ONE_IN) > 0 {
            return timetable;
        }
        let (zone, ahead) = ZONES[rng.random_range(0..ZONES.len())];
        // Some are in effect when the world begins, some until long after it has ended.
        let mut minute = rng.random_range(-30..50);
        for _ in 0..rng.random_range(1..=2) {
            let lasts = if rng.random_bool(0.3) { rng.random_range(300..1200) } else { rng.random_range(10..50) };
            let window = Window {
                from: SignedDuration::from_mins(minute),
                until: SignedDuration::from_mins(minute + lasts),
                warm: rng.random_range(0..=4),
            };
            let schedule = schedule(zone, NOON + ahead + minute, lasts, window.warm);
            pool.schedules.push(Schedule { stopped: pool.stopped, ..schedule });
            timetable.windows.push(window);
            minute += lasts + if rng.random_bool(0.5) { 0 } else { rng.random_range(1..20) };
        }
        timetable
    }

    /// The most machines that the pool keeps warm at some time of this span.
    pub(crate) fn most(&self, pool: &Pool, from: SignedDuration, until: SignedDuration) -> u32 {
        let within = self.windows.iter().filter(|window| window.from <= until && from < window.until);
        let most = within.map(|window| window.warm).max().unwrap_or_default();
        let is_always_covered = self.windows.iter().any(|window| window.from <= from && until < window.until);
        if is_always_covered { most } else { most.max(pool.warm) }
    }

    /// The fewest.
    pub(crate) fn fewest(&self, pool: &Pool, from: SignedDuration, until: SignedDuration) -> u32 {
        let within = self.windows.iter().filter(|window| window.from <= until && from < window.until);
        let fewest = within.map(|window| window.warm).min();
        let is_always_covered = self.windows.iter().any(|window| window.from <= from && until < window.until);
        fewest.map_or(pool.warm, |fewest| if is_always_covered { fewest } else { fewest.min(pool.warm) })
    }
}

/// A schedule that begins `begins` minutes after the midnight before the world's noon.
fn schedule(zone: &str, begins: i64, lasts: i64, warm: u32) -> Schedule {
    const DAY: i64 = 24 * 60;
    let clock = |minutes: i64| {
        let of_day = minutes.rem_euclid(DAY);
        format!("{:02}:{:02}", of_day / 60, of_day % 60).parse().expect("a time of day")
    };
    // The world begins on a Monday.
    let day = Day::ALL[begins.div_euclid(DAY).rem_euclid(7) as usize];
    let time_zone = TimeZoneName::known(zone).expect("a time zone");
    Schedule { days: [day].into(), from: clock(begins), to: clock(begins + lasts), time_zone, warm, stopped: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::universe::pool;

    /// The judge and Drover agree, minute by minute.
    #[test]
    fn the_schedules_are_in_effect_when_the_judge_says_so() {
        let began: jiff::Timestamp = "2026-11-02T12:00:00Z".parse().expect("a time");
        let mut with_schedules = 0;
        for seed in 0..200 {
            let mut pool = Pool { warm: 1, ..pool("linux", 10) };
            let timetable = Timetable::give(seed, 0, &mut pool);
            with_schedules += usize::from(!pool.schedules.is_empty());
            for minute in 0..180 {
                let since = SignedDuration::from_mins(minute);
                assert_eq!(timetable.most(&pool, since, since), pool.warm_at(began + since), "seed {seed}, {minute}");
                assert_eq!(timetable.fewest(&pool, since, since), pool.warm_at(began + since), "seed {seed}, {minute}");
            }
        }
        assert!((40..100).contains(&with_schedules), "{with_schedules}");
    }
}
