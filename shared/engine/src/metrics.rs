//! The metrics. Each name is also on the dashboard and in `docs/metrics.md`.
//!
//! A metric is recorded after the transaction that it describes was committed. Only one invocation can commit it, so a
//! repeated effect is recorded once. An invocation that ends after a commit loses the values that it has not published.
//!
//! The number of dimension values is limited: pools and owners are those of the pool file, outcomes and reasons those of
//! GitHub and this code, results are EC2's error codes. Repositories, jobs and instances are in the log lines and the event
//! log only.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use domain::config::{MicroUsd, Pool};
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::launch::{Refused, RefusedFor};
use domain::policy::record::Recording;
use domain::policy::route::Unrouted;
use domain::policy::stopped;
use domain::state::{BootReport, Item, Job, Rank, Slot, SlotOutcome, Usage, WaitingJob};
use jiff::{SignedDuration, Timestamp};
use metrics::{Label, Unit, counter, histogram};

use crate::sweep::report::Report;

/// A metric with more unpublished values than 100 loses the others. Half of that leaves room for values that are recorded while
/// the others are published.
const PUBLISH_AFTER: usize = 50;

/// The values that were recorded and not published, of all metrics that publish each value.
static UNPUBLISHED: AtomicUsize = AtomicUsize::new(0);

static PUBLISH: OnceLock<fn()> = OnceLock::new();

/// Publishes the metrics with this function during an invocation, too, before one of them has too many values.
pub fn publish_with(publish: fn()) {
    // A process has one collector.
    let _ = PUBLISH.set(publish);
}

fn publish_if_many() {
    if UNPUBLISHED.fetch_add(1, Ordering::Relaxed) + 1 < PUBLISH_AFTER {
        return;
    }
    UNPUBLISHED.store(0, Ordering::Relaxed);
    if let Some(publish) = PUBLISH.get() {
        publish();
    }
}

#[derive(Debug)]
pub struct Metric {
    /// The name in CloudWatch.
    pub name: &'static str,
    /// None if CloudWatch has no unit for it.
    pub unit: Option<Unit>,
    pub dimensions: &'static [&'static str],
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Sums are published, usually one per invocation.
    Sum,
    /// Every value is published.
    Each,
}

impl Metric {
    const fn sum(name: &'static str, dimensions: &'static [&'static str]) -> Self {
        Self { name, unit: Some(Unit::Count), dimensions, kind: Kind::Sum }
    }

    const fn each(name: &'static str, unit: Unit, dimensions: &'static [&'static str]) -> Self {
        Self { name, unit: Some(unit), dimensions, kind: Kind::Each }
    }

    /// Records a value. `values` are the values of the dimensions, in their order. Does nothing without a recorder.
    pub fn record(&self, value: f64, values: &[&str]) {
        debug_assert_eq!(values.len(), self.dimensions.len(), "{}", self.name);
        let labels: Vec<Label> =
            self.dimensions.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        match self.kind {
            Kind::Sum => counter!(self.name, labels).increment(value as u64),
            Kind::Each => {
                histogram!(self.name, labels).record(value);
                publish_if_many();
            }
        }
    }

    fn record_duration(&self, from: Timestamp, to: Timestamp, pool: &str) {
        // The times may come from two clocks.
        self.record(to.duration_since(from).max(SignedDuration::ZERO).as_secs_f64(), &[pool]);
    }
}

/// All metrics, in the order of `docs/metrics.md`.
pub const ALL: [&Metric; 34] = [
    &QUEUE_TIME,
    &WEBHOOK_TIME,
    &DECIDE_TIME,
    &LAUNCH_TIME,
    &REGISTER_TIME,
    &JOBS_COMPLETED,
    &JOBS_STOLEN,
    &MESSAGES_IGNORED,
    &LAUNCHES,
    &LAUNCHES_REFUSED,
    &RUNNERS_UNUSED,
    &BOOT_TIME,
    &MACHINE_TIME,
    &JOB_COST,
    &CPU_USED,
    &MEMORY_USED,
    &DEMAND,
    &SUPPLY,
    &LIVE,
    &STOPPED,
    &WAITING_JOBS,
    &LONGEST_WAIT,
    &UNSERVED_JOBS,
    &STUCK_LAUNCHES,
    &OPEN_CIRCUITS,
    &GITHUB_BUDGET,
    &IMAGE_AGE,
    &RUNNER_AGE,
    &REAPED,
    &SWEEP_FAILURES,
    &DELIVERIES_REDELIVERED,
    &JOBS_RECOVERED,
    &SIGNATURES_REJECTED,
    &DELIVERIES_UNUSABLE,
];

const QUEUE_TIME: Metric = Metric::each("QueueTime", Unit::Seconds, &["Pool"]);
const WEBHOOK_TIME: Metric = Metric::each("WebhookTime", Unit::Seconds, &["Pool"]);
const DECIDE_TIME: Metric = Metric::each("DecideTime", Unit::Seconds, &["Pool"]);
const LAUNCH_TIME: Metric = Metric::each("LaunchTime", Unit::Seconds, &["Pool"]);
const REGISTER_TIME: Metric = Metric::each("RegisterTime", Unit::Seconds, &["Pool"]);
const JOBS_COMPLETED: Metric = Metric::sum("JobsCompleted", &["Pool", "Outcome"]);
const JOBS_STOLEN: Metric = Metric::sum("JobsStolen", &["Pool"]);
const MESSAGES_IGNORED: Metric = Metric::sum("MessagesIgnored", &["Reason"]);
const LAUNCHES: Metric = Metric::sum("Launches", &["Pool", "Result"]);
const LAUNCHES_REFUSED: Metric = Metric::sum("LaunchesRefused", &[]);
const RUNNERS_UNUSED: Metric = Metric::sum("RunnersUnused", &["Pool"]);
const BOOT_TIME: Metric = Metric::each("BootTime", Unit::Seconds, &["Pool"]);
const MACHINE_TIME: Metric = Metric::each("MachineTime", Unit::Seconds, &["Pool"]);
/// USD, for which CloudWatch has no unit.
const JOB_COST: Metric = Metric { name: "JobCost", unit: None, dimensions: &["Pool"], kind: Kind::Each };
const CPU_USED: Metric = Metric::each("CpuUsed", Unit::Percent, &["Pool"]);
const MEMORY_USED: Metric = Metric::each("MemoryUsed", Unit::Percent, &["Pool"]);
const DEMAND: Metric = Metric::each("Demand", Unit::Count, &["Pool"]);
const SUPPLY: Metric = Metric::each("Supply", Unit::Count, &["Pool"]);
const LIVE: Metric = Metric::each("Live", Unit::Count, &["Pool"]);
const STOPPED: Metric = Metric::each("Stopped", Unit::Count, &["Pool"]);
const WAITING_JOBS: Metric = Metric::each("WaitingJobs", Unit::Count, &[]);
const LONGEST_WAIT: Metric = Metric::each("LongestWait", Unit::Seconds, &[]);
const UNSERVED_JOBS: Metric = Metric::each("UnservedJobs", Unit::Count, &[]);
const STUCK_LAUNCHES: Metric = Metric::each("StuckLaunches", Unit::Count, &[]);
const OPEN_CIRCUITS: Metric = Metric::each("OpenCircuits", Unit::Count, &[]);
/// Recorded by GitHub's client: an owner's remaining calls, in percent.
pub const GITHUB_BUDGET: Metric = Metric::each("GitHubBudget", Unit::Percent, &["Owner"]);
/// Recorded by the janitor, for the oldest image that a pool launches.
pub const IMAGE_AGE: Metric = Metric::each("ImageAge", Unit::Seconds, &[]);
/// Recorded by the janitor: time since GitHub published the oldest runner in such an image.
pub const RUNNER_AGE: Metric = Metric::each("RunnerAge", Unit::Seconds, &[]);
const REAPED: Metric = Metric::sum("Reaped", &["Reason"]);
const SWEEP_FAILURES: Metric = Metric::sum("SweepFailures", &[]);
const DELIVERIES_REDELIVERED: Metric = Metric::sum("DeliveriesRedelivered", &[]);
const JOBS_RECOVERED: Metric = Metric::sum("JobsRecovered", &[]);
/// Recorded by ingest: requests whose signature is missing or wrong.
pub const SIGNATURES_REJECTED: Metric = Metric::sum("SignaturesRejected", &[]);
/// Recorded by ingest: events that GitHub signed and that are no usable `workflow_job`.
pub const DELIVERIES_UNUSABLE: Metric = Metric::sum("DeliveriesUnusable", &[]);

/// New jobs were recorded.
pub(crate) fn jobs_recorded(writes: &Transaction) {
    for item in &writes.puts {
        if let Item::Job(job) = item {
            job_changed(None, job);
        }
    }
}

/// Notices about one job were recorded.
pub(crate) fn job_recorded(recording: &Recording) {
    if let Some(job) = &recording.after {
        job_changed(recording.before.as_ref(), job);
    }
    if let Some(slot) = &recording.taken_by {
        job_taken(slot, recording.after.as_ref());
    }
}

fn job_changed(before: Option<&Job>, job: &Job) {
    let pool = job.pool.as_str();
    if before.is_none() {
        WEBHOOK_TIME.record_duration(job.queued_at, job.first_seen_at, pool);
    }
    // For a job that never had a runner, GitHub reports the time at which it was given up.
    let started_at = |job: &Job| job.started_at.filter(|_| job.runner.is_some());
    if let (None, Some(at)) = (before.and_then(started_at), started_at(job)) {
        QUEUE_TIME.record_duration(job.queued_at, at, pool);
    }
    if job.rank == Rank::Done && before.is_none_or(|before| before.rank < Rank::Done) {
        JOBS_COMPLETED.record(1.0, &[pool, job.conclusion.as_deref().unwrap_or("unknown")]);
    }
}

/// The runner of a slot received a job. `job` is None if the job belongs to no pool.
fn job_taken(slot: &Slot, job: Option<&Job>) {
    let pool = slot.pool.as_str();
    let Some(job) = job.filter(|job| job.pool == slot.pool) else {
        return JOBS_STOLEN.record(1.0, &[pool]);
    };
    DECIDE_TIME.record_duration(job.first_seen_at, slot.planned_at, pool);
    let (Some(machine), Some(runner)) = (slot.machine(), slot.runner()) else { return };
    LAUNCH_TIME.record_duration(slot.planned_at, machine.launched_at, pool);
    REGISTER_TIME.record_duration(machine.launched_at, runner.configured_at, pool);
}

/// What EC2 and GitHub show about slots was recorded.
pub(crate) fn observed(before: &PoolView, writes: &Transaction) {
    for item in &writes.puts {
        if let Item::Slot(slot) = item
            && let (Some(boot), Some(before)) = (slot.boot, before.slots.get(&slot.id))
        {
            booted(before, Some(&boot.report));
        }
    }
}

/// The boot report of the slot's machine was recorded. It counts once.
pub(crate) fn booted(before: &Slot, report: Option<&BootReport>) {
    if let (Some(report), Some(machine), None) = (report, before.machine(), before.boot) {
        BOOT_TIME.record_duration(machine.launched_at, report.reported_at, before.pool.as_str());
    }
}

/// No pool serves the job of a message.
pub fn ignored(why: Unrouted) {
    MESSAGES_IGNORED.record(1.0, &[why.as_str()]);
}

/// EC2 launched the instances that `bound` binds to slots.
pub(crate) fn launched(pool: &Pool, bound: &Transaction) {
    let instances = bound.puts.iter().filter(|item| matches!(item, Item::Instance(_))).count();
    LAUNCHES.record(instances as f64, &[pool.name.as_str(), "Launched"]);
}

/// EC2 launched nothing, or gave no clear answer.
pub(crate) fn not_launched(pool: &Pool, code: &str) {
    LAUNCHES.record(1.0, &[pool.name.as_str(), code]);
}

/// EC2 refused definitively. An operator must raise a quota or correct a configuration. Lack of capacity is not counted: Drover
/// tries other launch options, and later the same ones again.
pub(crate) fn launch_refused(pool: &Pool, why: &Refused) {
    not_launched(pool, &why.code);
    if matches!(why.about, RefusedFor::Quota | RefusedFor::Tuple) {
        LAUNCHES_REFUSED.record(1.0, &[]);
    }
}

/// A slot was closed; `cost` is that of its machine, if the price is known.
pub(crate) fn slot_closed(slot: &Slot, cost: Option<MicroUsd>, now: Timestamp) {
    let Some(machine) = slot.machine() else { return };
    MACHINE_TIME.record_duration(machine.launched_at, slot.gone_at.unwrap_or(now), slot.pool.as_str());
    match (slot.outcome(), cost) {
        (SlotOutcome::JobDone, Some(cost)) => JOB_COST.record(cost.usd(), &[slot.pool.as_str()]),
        (SlotOutcome::JobDone, None) => {}
        (SlotOutcome::Stopped(_) | SlotOutcome::InstanceLost | SlotOutcome::NeverLaunched, _) => {
            RUNNERS_UNUSED.record(1.0, &[slot.pool.as_str()]);
        }
    }
}

/// What a job used of its machine, as the machine reported it.
pub(crate) fn used(slot: &Slot, usage: Option<&Usage>) {
    let Some((cpu, memory)) = usage.map(Usage::shares) else { return };
    CPU_USED.record(cpu, &[slot.pool.as_str()]);
    MEMORY_USED.record(memory, &[slot.pool.as_str()]);
}

/// The state of the pools, as a sweep has read it.
pub(crate) fn state(pools: &[(Pool, PoolView)], now: Timestamp) {
    for (pool, view) in pools {
        let name = [pool.name.as_str()];
        DEMAND.record(view.demand(now) as f64, &name);
        SUPPLY.record(view.supply(now).count() as f64, &name);
        LIVE.record(view.live() as f64, &name);
        // CloudWatch charges for each metric of a pool.
        if stopped::keeps_stopped(pool, view) {
            STOPPED.record(stopped::ready(view).count() as f64, &name);
        }
    }
    let views = || pools.iter().map(|(_, view)| view);
    let is_waiting = |job: &&WaitingJob| job.open && job.given_up(now).is_none();
    let jobs = || views().flat_map(|view| view.waiting.values()).filter(is_waiting);
    let longest = jobs().map(|job| now.duration_since(job.waits_since())).max().unwrap_or_default();
    WAITING_JOBS.record(jobs().count() as f64, &[]);
    LONGEST_WAIT.record(longest.max(SignedDuration::ZERO).as_secs_f64(), &[]);
    UNSERVED_JOBS.record(jobs().filter(|job| job.unserved.is_some()).count() as f64, &[]);
    let stuck = views().flat_map(|view| view.batches.values()).filter(|batch| batch.is_stuck()).count();
    STUCK_LAUNCHES.record(stuck as f64, &[]);
    OPEN_CIRCUITS.record(views().filter(|view| view.meta.has_open_circuit()).count() as f64, &[]);
}

/// A sweep has ended.
pub(crate) fn swept(report: &Report) {
    for (why, times) in &report.reaped {
        REAPED.record(*times as f64, &[why]);
    }
    SWEEP_FAILURES.record(report.failures.len() as f64, &[]);
    DELIVERIES_REDELIVERED.record(report.redelivered as f64, &[]);
    JOBS_RECOVERED.record(report.recovered as f64, &[]);
}
