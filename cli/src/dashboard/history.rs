//! What the event logs say about the last hours of the pools: waits, demand and machines.

use std::collections::BTreeMap;

use domain::config::{PRICES, Prices};
use domain::ids::PoolName;
use domain::log::{Event, Stream};
use jiff::{SignedDuration, Timestamp};
use platform::table::Table;
use serde::Deserialize;
use serde_json::Value;

use crate::cost::{self, By, Total};
use crate::output::Failure;
use crate::read;

/// The period that waits are shown for.
const PERIOD: SignedDuration = SignedDuration::from_hours(24);

/// The period of the charts.
pub(super) const CHARTED: SignedDuration = SignedDuration::from_hours(6);

/// The time between two points of a chart.
const STEP: SignedDuration = SignedDuration::from_mins(5);

/// Points of a chart.
pub(super) const POINTS: usize = 72;

/// Events read from each pool's log. That can be megabytes, so the result is cached.
const MAX_EVENTS: usize = 5000;

/// What the logs say.
#[derive(Debug, Default)]
pub(super) struct Histories {
    pub(super) by_pool: BTreeMap<PoolName, History>,
    /// What machines cost since midnight, UTC, by pool.
    pub(super) cost_today: BTreeMap<String, Total>,
}

impl Histories {
    pub(super) async fn read(table: &Table, region: &str, now: Timestamp) -> Result<Self, Failure> {
        let pools = read::pools(table, None).await?;
        let mut by_pool = BTreeMap::new();
        for pool in &pools {
            let events = table.events(&Stream::Pool(pool.name.clone()), MAX_EVENTS).await?;
            let oldest = events.last().map(|event| event.at).filter(|_| events.len() >= MAX_EVENTS);
            by_pool.insert(pool.name.clone(), History::of(&events, oldest, now));
        }
        let prices = Prices::parse(PRICES).map_err(|error| Failure::Usage(format!("the built-in prices: {error}")))?;
        let since = SignedDuration::from_secs(now.as_second().rem_euclid(24 * 3600));
        let query = cost::Query { by: By::Pool, since, prices: &prices, region };
        let longest = pools.iter().map(|pool| pool.timings.max_life.duration()).max().unwrap_or_default();
        Ok(Self { by_pool, cost_today: cost::by_pool(table, &query, longest, now).await? })
    }
}

/// The last hours of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct History {
    pub(super) waits: Waits,
    /// Jobs that waited for a runner, at each point of the chart since `charted_since`.
    pub(super) demand: Vec<u32>,
    /// Machines, at the same points.
    pub(super) live: Vec<u32>,
    /// The oldest event read, if the log read does not cover the whole chart.
    pub(super) charted_since: Option<Timestamp>,
}

impl History {
    /// `events` are newest first; `oldest` is the time of the last one if older events were not read.
    fn of(events: &[Event], oldest: Option<Timestamp>, now: Timestamp) -> Self {
        let (mut jobs, mut machines): (BTreeMap<&str, Interval>, BTreeMap<&str, Interval>) = Default::default();
        for after in events.iter().rev().flat_map(|event| event.after.iter().map(move |after| (event.at, after))) {
            let (at, after) = after;
            let time = |name: &str| after.fields.get(name)?.as_str()?.parse::<Timestamp>().ok();
            if after.key.starts_with("JOB#") {
                let Some(queued_at) = time("queued_at") else { continue };
                let ended = time("started_at").or_else(|| time("completed_at"));
                jobs.insert(&after.key, Interval { from: queued_at, until: ended });
            } else if after.key.starts_with("INSTANCE#") {
                let interval = machines.entry(&after.key).or_insert(Interval { from: at, until: None });
                interval.until = interval.until.or_else(|| time("closed_at"));
            }
        }
        let first = oldest.filter(|at| *at > now - CHARTED);
        let newest_first = std::iter::successors(Some(now), |at| Some(*at - STEP)).take(POINTS);
        let mut points: Vec<Timestamp> = newest_first.filter(|at| first.is_none_or(|first| *at >= first)).collect();
        points.reverse();
        let count = |intervals: &BTreeMap<&str, Interval>| {
            let at = |at: &Timestamp| intervals.values().filter(|interval| interval.contains(*at)).count() as u32;
            points.iter().map(at).collect()
        };
        let (demand, live) = (count(&jobs), count(&machines));
        Self { waits: Waits::of(events, oldest, now), demand, live, charted_since: first }
    }
}

/// From when until when; no end means until now.
#[derive(Debug, Clone, Copy)]
struct Interval {
    from: Timestamp,
    until: Option<Timestamp>,
}

impl Interval {
    fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && self.until.is_none_or(|until| at < until)
    }
}

/// The waits of jobs that a runner took within the period.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// Shortest first.
    pub(super) sorted: Vec<SignedDuration>,
    /// The oldest event read, if the log read does not cover the whole period.
    pub(super) only_since: Option<Timestamp>,
}

impl Waits {
    /// `events` are newest first; `oldest` is the time of the last one if older events were not read.
    fn of(events: &[Event], oldest: Option<Timestamp>, now: Timestamp) -> Self {
        #[derive(Deserialize)]
        struct StartedJob {
            queued_at: Timestamp,
            started_at: Timestamp,
            /// Absent for a job that was cancelled before a runner took it.
            #[serde(rename = "runner")]
            _runner: Value,
        }
        let mut by_job: BTreeMap<&str, SignedDuration> = BTreeMap::new();
        for after in events.iter().flat_map(|event| &event.after).filter(|after| after.key.starts_with("JOB#")) {
            let job = StartedJob::deserialize(&after.fields);
            if let Some(job) = job.ok().filter(|job| now.duration_since(job.started_at) <= PERIOD) {
                let wait = job.started_at.duration_since(job.queued_at).max(SignedDuration::ZERO);
                // Of several events about a job, the newest counts.
                by_job.entry(&after.key).or_insert(wait);
            }
        }
        let mut sorted: Vec<SignedDuration> = by_job.into_values().collect();
        sorted.sort_unstable();
        Self { sorted, only_since: oldest.filter(|at| now.duration_since(*at) < PERIOD) }
    }

    /// The shortest wait that at least this percentage of jobs did not exceed (nearest rank).
    pub(super) fn percentile(&self, percent: usize) -> Option<SignedDuration> {
        let rank = (self.sorted.len() * percent).div_ceil(100);
        self.sorted.get(rank.checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A chart that showed zero where nothing was read would be wrong.
    #[test]
    fn a_chart_begins_where_the_log_read_begins() {
        let at = |minute: i64| Timestamp::from_second(60 * minute).unwrap();
        let event = json!({
            "v": 1, "stream": "linux", "sequence": "1", "at": at(100), "cause": { "invocation": "a" }, "type": "forgotten", "job": 7,
            "after": [{ "key": "JOB#7", "revision": 1, "is": { "queued_at": at(100) } }], "expires_at": 0,
        });
        let events: Vec<Event> = vec![serde_json::from_value(event).unwrap()];
        let whole = History::of(&events, None, at(130));
        assert_eq!((whole.demand.len(), whole.demand.iter().sum::<u32>(), whole.charted_since), (POINTS, 7, None));
        let part = History::of(&events, Some(at(100)), at(130));
        assert_eq!((part.demand, part.charted_since), (vec![1; 7], Some(at(100))));
    }

    #[test]
    fn a_percentile_is_the_wait_that_this_share_of_jobs_did_not_exceed() {
        let of = |count: i64| Waits { sorted: (1..=count).map(SignedDuration::from_secs).collect(), only_since: None };
        let at = |count, percent| of(count).percentile(percent).map(|wait| wait.as_secs());
        assert_eq!(
            (at(0, 50), at(1, 99), at(4, 50), at(100, 90), at(100, 99)),
            (None, Some(1), Some(2), Some(90), Some(99))
        );
    }
}
