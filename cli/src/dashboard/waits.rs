//! How long jobs waited, computed from the event logs of the pools.

use std::collections::BTreeMap;

use domain::ids::PoolName;
use domain::log::{Event, Stream};
use jiff::{SignedDuration, Timestamp};
use platform::table::Table;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::output::Failure;
use crate::read;

/// The period that waits are shown for.
const PERIOD: SignedDuration = SignedDuration::from_hours(24);

/// Events read from each pool's log. That can be megabytes, so the result is cached.
const MAX_EVENTS: usize = 5000;

const CACHED_FOR: SignedDuration = SignedDuration::from_secs(60);

/// The waits of all pools, with the time when they were computed.
#[derive(Default)]
pub(super) struct WaitCache(Mutex<Option<(Timestamp, BTreeMap<PoolName, Waits>)>>);

impl WaitCache {
    pub(super) async fn get(&self, table: &Table, now: Timestamp) -> Result<BTreeMap<PoolName, Waits>, Failure> {
        let mut cached = self.0.lock().await;
        if let Some((at, waits)) = &*cached
            && now.duration_since(*at) < CACHED_FOR
        {
            return Ok(waits.clone());
        }
        let mut waits = BTreeMap::new();
        for pool in read::pools(table, None).await? {
            let events = table.events(&Stream::Pool(pool.name.clone()), MAX_EVENTS).await?;
            let oldest = events.last().map(|event| event.at).filter(|_| events.len() >= MAX_EVENTS);
            waits.insert(pool.name, Waits::of(&events, oldest, now));
        }
        *cached = Some((now, waits.clone()));
        Ok(waits)
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
    use super::*;

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
