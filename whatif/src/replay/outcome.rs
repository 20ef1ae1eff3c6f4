//! The result of a run.

use std::collections::BTreeMap;

use domain::policy::route::Unrouted;
use jiff::SignedDuration;
use serde::Serialize;

use crate::hosted::PRICES;
use crate::replay::assumptions::Assumptions;

/// What came of the jobs of a trace with the pools of one file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Jobs of the trace.
    pub jobs: u64,
    /// Jobs that began to run.
    pub started: u64,
    /// Jobs that were cancelled, or given up by GitHub after a day, before they ran.
    pub never_started: u64,
    /// Jobs that no pool accepts, by the reason.
    pub refused: BTreeMap<Unrouted, u64>,
    /// From queued to started.
    pub waits: Waits,
    pub pools: Vec<PoolOutcome>,
    pub assumptions: Assumptions,
    /// Seconds between two points of [`PoolOutcome::running`].
    pub step_seconds: i64,
}

/// The part of one pool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolOutcome {
    pub name: String,
    /// Jobs that began to run.
    pub started: u64,
    pub never_started: u64,
    pub waits: Waits,
    /// Machines that were launched.
    pub machines: u64,
    pub machine_hours: f64,
    pub spot_hours: f64,
    /// The hours during which the machines ran a job.
    pub job_hours: f64,
    /// Without volumes.
    pub usd: f64,
    /// The same if every machine were on demand.
    pub list_usd: f64,
    pub volume_usd: f64,
    /// Machines without a known price, which are not in the cost.
    pub unpriced: u64,
    /// How often EC2 reclaimed a machine.
    pub interruptions: u64,
    /// What GitHub's own runners would have cost for the jobs that ran.
    pub hosted_usd: f64,
    /// Minutes that GitHub would charge.
    pub hosted_minutes: u64,
    /// Jobs on machines that are larger than any runner of GitHub's, or whose vCPUs are not known. They are not in `hosted_usd`.
    pub hosted_unpriced: u64,
    /// Minutes of the jobs that ran, each job rounded up.
    pub job_minutes: u64,
    /// The average number of machines that ran, for each part of the period.
    pub running: Vec<f64>,
}

/// How long jobs waited, in seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Waits {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub longest: f64,
    /// Sorted.
    #[serde(skip)]
    pub all: Vec<f32>,
}

impl Waits {
    pub(super) fn of(mut all: Vec<f32>) -> Self {
        all.sort_unstable_by(f32::total_cmp);
        let at = |share: f64| {
            // The smallest wait that at least this share of the jobs did not exceed.
            let rank = (all.len() as f64 * share).ceil() as usize;
            let wait = all.get(rank.saturating_sub(1)).copied().unwrap_or_default();
            (f64::from(wait) * 10.0).round() / 10.0
        };
        let (p50, p90, p99, longest) = (at(0.5), at(0.9), at(0.99), at(1.0));
        Self { p50, p90, p99, longest, all }
    }
}

/// Seconds as hours.
pub(super) fn hours(time: f64) -> f64 {
    time / 3600.0
}

impl Outcome {
    fn sum(&self, part: impl Fn(&PoolOutcome) -> f64) -> f64 {
        self.pools.iter().map(part).sum()
    }

    pub fn machines(&self) -> u64 {
        self.pools.iter().map(|pool| pool.machines).sum()
    }

    pub fn machine_hours(&self) -> f64 {
        self.sum(|pool| pool.machine_hours)
    }

    /// The share of the machines' time without a job, from 0 to 1.
    pub fn idle_share(&self) -> f64 {
        let hours = self.machine_hours();
        if hours > 0.0 { (1.0 - self.sum(|pool| pool.job_hours) / hours).max(0.0) } else { 0.0 }
    }

    pub fn usd(&self) -> f64 {
        self.sum(|pool| pool.usd)
    }

    pub fn list_usd(&self) -> f64 {
        self.sum(|pool| pool.list_usd)
    }

    pub fn volume_usd(&self) -> f64 {
        self.sum(|pool| pool.volume_usd)
    }

    pub fn hosted_usd(&self) -> f64 {
        self.sum(|pool| pool.hosted_usd)
    }

    pub fn hosted_minutes(&self) -> u64 {
        self.pools.iter().map(|pool| pool.hosted_minutes).sum()
    }

    pub fn hosted_unpriced(&self) -> u64 {
        self.pools.iter().map(|pool| pool.hosted_unpriced).sum()
    }

    /// What GitHub's announced charge for jobs on self-hosted runners would be. It is not part of the cost.
    pub fn platform_charge_usd(&self) -> f64 {
        let minutes: u64 = self.pools.iter().map(|pool| pool.job_minutes).sum();
        minutes as f64 * PRICES.platform_charge.per_minute
    }

    pub fn unpriced(&self) -> u64 {
        self.pools.iter().map(|pool| pool.unpriced).sum()
    }

    pub fn interruptions(&self) -> u64 {
        self.pools.iter().map(|pool| pool.interruptions).sum()
    }

    pub fn refused(&self) -> u64 {
        self.refused.values().sum()
    }

    /// The reason for which most jobs are refused.
    pub fn commonest_refusal(&self) -> Option<(Unrouted, u64)> {
        self.refused.iter().map(|(reason, jobs)| (*reason, *jobs)).max_by_key(|(_, jobs)| *jobs)
    }

    pub fn step(&self) -> SignedDuration {
        SignedDuration::from_secs(self.step_seconds)
    }
}
