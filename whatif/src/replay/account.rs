//! Adds up how long machines ran, and what that costs.

use std::collections::HashMap;

use domain::config::{MicroUsd, Rates};
use domain::ids::InstanceType;
use jiff::{SignedDuration, Timestamp};
use world::ec2::{Entered, InstanceId, Market, State};

use crate::offline::VOLUME_GIB;
use crate::replay::counted::{Counted, Part};

/// EC2 charges at least this much of a run.
const LEAST_CHARGED: SignedDuration = SignedDuration::from_secs(60);

/// What a GiB of gp3 costs per month, and the hours that AWS counts in it. us-east-1; other regions cost up to half as much again.
const GIB_MONTH_USD: f64 = 0.08;
const MONTH_HOURS: f64 = 730.0;

/// The most points of a chart over time.
const MOST_POINTS: i64 = 168;

/// A machine that exists.
#[derive(Debug)]
struct Life {
    pool: usize,
    instance_type: InstanceType,
    is_spot: bool,
    created_at: Timestamp,
    /// Since when it runs. None while it is stopped.
    runs_since: Option<Timestamp>,
}

/// What the machines of a pool add up to.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums {
    pub(super) machines: u64,
    pub(super) seconds: f64,
    pub(super) spot_seconds: f64,
    /// At the price that is paid, and at the list price. Both without volumes.
    pub(super) cost: MicroUsd,
    pub(super) list_cost: MicroUsd,
    pub(super) volume_usd: f64,
    /// Machines without a known price.
    pub(super) unpriced: u64,
    /// The average number of machines that ran, for each part of the period.
    pub(super) running: Vec<f64>,
}

/// What the machines of a run have cost so far.
#[derive(Debug)]
pub(super) struct Account {
    rates: Rates,
    spot_share: f64,
    /// A call of RunInstances takes this long before there is a machine.
    launch: SignedDuration,
    from: Timestamp,
    step: SignedDuration,
    counted: Counted,
    /// When machines got their jobs.
    jobs_since: HashMap<InstanceId, Timestamp>,
    lives: HashMap<InstanceId, Life>,
    /// By pool.
    pub(super) sums: Vec<Sums>,
}

impl Account {
    pub(super) fn new(
        rates: Rates,
        spot_share: f64,
        launch: SignedDuration,
        (from, until): Part,
        counted: Counted,
        pools: usize,
    ) -> Self {
        let step = SignedDuration::from_secs((until.duration_since(from).as_secs() / MOST_POINTS).max(60));
        let sums = vec![Sums::default(); pools];
        let (jobs_since, lives) = Default::default();
        Self { rates, spot_share, launch, from, step, counted, jobs_since, lives, sums }
    }

    /// The time between two points of a chart.
    pub(super) fn step(&self) -> SignedDuration {
        self.step
    }

    /// A machine has a job.
    pub(super) fn begin_job(&mut self, instance: &InstanceId, at: Timestamp) {
        self.jobs_since.insert(instance.clone(), at);
    }

    /// A state change of a machine. `describe` says its pool, type and market.
    pub(super) fn enter(
        &mut self,
        entered: Entered,
        describe: impl FnOnce(&InstanceId) -> Option<(usize, String, Market)>,
    ) {
        let Entered { instance, state, at } = entered;
        match state {
            State::Pending => {
                if let Some(life) = self.lives.get_mut(&instance) {
                    life.runs_since = Some(at + self.launch);
                } else if let Some((pool, instance_type, market)) = describe(&instance) {
                    let begins = at + self.launch;
                    let instance_type = InstanceType::from(instance_type);
                    let is_spot = market == Market::Spot;
                    let life = Life { pool, instance_type, is_spot, created_at: begins, runs_since: Some(begins) };
                    self.lives.insert(instance, life);
                }
            }
            State::Running => {}
            State::Stopping => self.stop(&instance, at),
            State::ShuttingDown | State::Stopped => {
                self.stop(&instance, at);
                if state == State::ShuttingDown {
                    self.remove(&instance, at);
                }
            }
            State::Terminated => self.remove(&instance, at),
        }
    }

    /// The run has ended, and machines that are left are counted until then.
    pub(super) fn close(&mut self, at: Timestamp) {
        let mut left: Vec<InstanceId> = self.lives.keys().cloned().collect();
        left.sort_unstable();
        for instance in left {
            self.stop(&instance, at);
            self.remove(&instance, at);
        }
    }

    fn stop(&mut self, instance: &InstanceId, at: Timestamp) {
        let Some(life) = self.lives.get_mut(instance) else { return };
        let Some(since) = life.runs_since.take() else { return };
        let parts = self.counted.parts(since, at, self.jobs_since.get(instance).copied());
        if parts.is_empty() {
            return;
        }
        let time: SignedDuration = lengths(&parts).sum();
        let sums = &mut self.sums[life.pool];
        sums.seconds += time.as_secs_f64();
        let list = self.rates.cost(&life.instance_type, time.max(LEAST_CHARGED)).unwrap_or_default();
        sums.list_cost = sums.list_cost + list;
        let paid = match life.is_spot {
            true => MicroUsd((list.0 as f64 * self.spot_share).round() as u64),
            false => list,
        };
        sums.cost = sums.cost + paid;
        if life.is_spot {
            sums.spot_seconds += time.as_secs_f64();
        }
        for (begin, end) in parts {
            spread(&mut sums.running, self.from, self.step, begin, end);
        }
    }

    fn remove(&mut self, instance: &InstanceId, at: Timestamp) {
        let Some(life) = self.lives.remove(instance) else { return };
        let parts = self.counted.parts(life.created_at, at, self.jobs_since.remove(instance));
        if parts.is_empty() {
            return;
        }
        let sums = &mut self.sums[life.pool];
        sums.machines += 1;
        sums.unpriced += u64::from(self.rates.hour(&life.instance_type).is_none());
        let hours = lengths(&parts).sum::<SignedDuration>().as_secs_f64() / 3600.0;
        sums.volume_usd += hours * f64::from(VOLUME_GIB) * GIB_MONTH_USD / MONTH_HOURS;
    }
}

fn lengths(parts: &[Part]) -> impl Iterator<Item = SignedDuration> {
    parts.iter().map(|(begin, end)| end.duration_since(*begin))
}

/// Adds a machine that ran for some time to the average number of machines of each part of the period.
fn spread(running: &mut Vec<f64>, from: Timestamp, step: SignedDuration, since: Timestamp, until: Timestamp) {
    let step = step.as_secs_f64();
    let seconds = |at: Timestamp| at.duration_since(from).as_secs_f64().max(0.0);
    let (begin, end) = (seconds(since), seconds(until));
    let mut at = begin;
    while at < end {
        let index = (at / step) as usize;
        let next = ((index + 1) as f64 * step).min(end);
        if running.len() <= index {
            running.resize(index + 1, 0.0);
        }
        running[index] += (next - at) / step;
        if next <= at {
            break;
        }
        at = next;
    }
}
