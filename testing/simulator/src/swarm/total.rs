//! The sum of many runs, as text and as JSON.

use std::fmt::Write;

use jiff::SignedDuration;
use serde::Serialize;

use crate::call::CallKind;
use crate::swarm::faults::{Fault, VERSION};
use crate::swarm::outcome::{Convergence, Costs, MachineCounts, Outcome, Violation};

/// The sum of many runs. [`Outcome`] describes what is added up.
#[derive(Debug, Default)]
pub struct Total {
    pub seeds: u64,
    pub jobs: u64,
    pub steps: u64,
    pub struck: Vec<u64>,
    pub interrupted: Vec<[u64; 2]>,
    pub machines: MachineCounts,
    /// In seconds.
    pub waited: Vec<u32>,
    /// In seconds. Without the seeds in which jobs waited longer by design.
    pub converged: Vec<u32>,
    pub late_seeds: u64,
    pub late_jobs: u64,
    pub without_github_seeds: u64,
    pub without_github_pools: u64,
    pub costs: Costs,
    /// Does not depend on the order of the runs.
    pub digest: u64,
    /// By seed.
    pub violations: Vec<(u64, Violation)>,
}

/// The result as JSON.
#[derive(Serialize)]
struct Json<'a> {
    seeds: u64,
    jobs: u64,
    steps: u64,
    digest: String,
    faults_version: u32,
    faults: Vec<JsonFault>,
    reach: Vec<JsonCall>,
    launched: u64,
    extra: u64,
    extra_percent: f64,
    waited_seconds: Percentiles,
    converged_seconds: Percentiles,
    late_seeds: u64,
    late_jobs: u64,
    without_github_seeds: u64,
    without_github_pools: u64,
    violations: Vec<JsonViolation<'a>>,
}

#[derive(Serialize)]
struct JsonFault {
    name: &'static str,
    greatest_intensity: f64,
    struck: u64,
}

#[derive(Serialize)]
struct JsonCall {
    effect: &'static str,
    before: u64,
    after: u64,
}

#[derive(Serialize)]
struct JsonViolation<'a> {
    seed: u64,
    invariant: &'a str,
    what: &'a str,
}

/// Percentiles of times in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    pub p50: u32,
    pub p99: u32,
    pub most: u32,
}

impl Percentiles {
    fn of(numbers: &[u32]) -> Self {
        let mut sorted = numbers.to_vec();
        sorted.sort_unstable();
        let at = |share: usize| sorted.get((sorted.len() * share / 100).min(sorted.len().saturating_sub(1)));
        let at = |share| at(share).copied().unwrap_or_default();
        Self { p50: at(50), p99: at(99), most: at(100) }
    }
}

fn seconds(time: SignedDuration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or_default()
}

impl Total {
    /// Adds one run.
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.jobs += outcome.jobs as u64;
        self.steps += outcome.steps;
        self.struck.resize(Fault::ALL.len(), 0);
        self.interrupted.resize(CallKind::ALL.len(), [0; 2]);
        for (sum, struck) in self.struck.iter_mut().zip(&outcome.struck) {
            *sum += struck;
        }
        for (sum, reached) in self.interrupted.iter_mut().zip(&outcome.interrupted) {
            sum[0] += reached[0];
            sum[1] += reached[1];
        }
        self.machines.launched += outcome.machines.launched;
        self.machines.used += outcome.machines.used;
        self.machines.spoilt += outcome.machines.spoilt;
        self.machines.warm += outcome.machines.warm;
        self.machines.excused += outcome.machines.excused;
        self.machines.extra += outcome.machines.extra;
        self.waited.extend(outcome.waited.iter().map(|waited| seconds(*waited)));
        if outcome.late == 0 {
            self.converged.extend(outcome.converged.map(|Convergence(after)| seconds(after)));
        } else {
            self.late_seeds += 1;
            self.late_jobs += outcome.late;
        }
        self.without_github_seeds += u64::from(outcome.without_github > 0);
        self.without_github_pools += outcome.without_github;
        self.costs.add(outcome.costs);
        self.digest ^= outcome.digest;
        if let Some(violation) = &outcome.violation {
            self.violations.push((outcome.seed, violation.clone()));
            self.violations.sort_by_key(|(seed, _)| *seed);
        }
    }

    /// Adds the sum of another thread.
    pub fn join(&mut self, other: Total) {
        self.seeds += other.seeds;
        self.jobs += other.jobs;
        self.steps += other.steps;
        self.struck.resize(Fault::ALL.len(), 0);
        self.interrupted.resize(CallKind::ALL.len(), [0; 2]);
        for (sum, struck) in self.struck.iter_mut().zip(other.struck) {
            *sum += struck;
        }
        for (sum, reached) in self.interrupted.iter_mut().zip(other.interrupted) {
            sum[0] += reached[0];
            sum[1] += reached[1];
        }
        self.machines.launched += other.machines.launched;
        self.machines.used += other.machines.used;
        self.machines.spoilt += other.machines.spoilt;
        self.machines.warm += other.machines.warm;
        self.machines.excused += other.machines.excused;
        self.machines.extra += other.machines.extra;
        self.waited.extend(other.waited);
        self.converged.extend(other.converged);
        self.late_seeds += other.late_seeds;
        self.late_jobs += other.late_jobs;
        self.without_github_seeds += other.without_github_seeds;
        self.without_github_pools += other.without_github_pools;
        self.costs.add(other.costs);
        self.digest ^= other.digest;
        self.violations.extend(other.violations);
        self.violations.sort_by_key(|(seed, _)| *seed);
    }

    /// The share of machines that were launched and not needed.
    pub fn extra_percent(&self) -> f64 {
        100.0 * self.machines.extra as f64 / self.machines.launched.max(1) as f64
    }

    /// From queued to started.
    pub fn waited(&self) -> Percentiles {
        Percentiles::of(&self.waited)
    }

    /// From the last fault to everything in order.
    pub fn converged(&self) -> Percentiles {
        Percentiles::of(&self.converged)
    }

    /// The report for a terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line =
            |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("writing to a string does not fail");
        line(format_args!(
            "fault intensities, version {VERSION} (greatest chance on one occasion, and how often it struck)"
        ));
        for (fault, struck) in Fault::ALL.iter().zip(&self.struck) {
            line(format_args!("  {:<26} {:>5.2} {struck:>12}", fault.name(), fault.greatest_chance()));
        }
        line(format_args!("calls at which functions ended         before        after"));
        for (kind, [before, after]) in CallKind::ALL.iter().zip(&self.interrupted) {
            line(format_args!("  {:<26} {before:>16} {after:>12}", kind.name()));
        }
        let (waited, converged) = (self.waited(), self.converged());
        line(format_args!(
            "{} seeds, {} jobs, {} steps, {} faults, digest {:016x}",
            self.seeds,
            self.jobs,
            self.steps,
            self.struck.iter().sum::<u64>(),
            self.digest
        ));
        let machines = &self.machines;
        line(format_args!(
            "{} machines launched: {} ran a job, {} were spoilt by a fault, {} were kept warm, {} were extra ({:.2} %)",
            machines.launched,
            machines.used,
            machines.spoilt,
            machines.warm,
            machines.extra,
            self.extra_percent()
        ));
        line(format_args!("{} jobs were cancelled or taken by other runners", machines.excused));
        line(format_args!(
            "from queued to started: p50 {} s, p99 {} s, at most {} s",
            waited.p50, waited.p99, waited.most
        ));
        line(format_args!(
            "from the last fault to everything in order: p50 {} s, p99 {} s, at most {} s",
            converged.p50, converged.p99, converged.most
        ));
        line(format_args!(
            "{} jobs in {} seeds waited longer by design: their launches were used up, or their pool was full",
            self.late_jobs, self.late_seeds
        ));
        line(format_args!(
            "{} pools in {} seeds were excused: registering and removing runners had used up GitHub's hourly limit",
            self.without_github_pools, self.without_github_seeds
        ));
        if self.costs.machines > 0 {
            let Costs { machines, paid, hindsight, listed, random } = self.costs;
            let above = |cost: f64| 100.0 * (cost / hindsight - 1.0);
            line(format_args!(
                "{machines} machines for shapes cost {:.1} % more than the cheapest in hindsight; the first that is listed costs \
                 {:.1} % more, a random one {:.1} %",
                above(paid),
                above(listed),
                above(random)
            ));
        }
        line(format_args!("{} violations", self.violations.len()));
        text
    }

    /// The report for a program.
    pub fn json(&self) -> String {
        let faults = Fault::ALL.iter().zip(&self.struck);
        let calls = CallKind::ALL.iter().zip(&self.interrupted);
        let json = Json {
            seeds: self.seeds,
            jobs: self.jobs,
            steps: self.steps,
            digest: format!("{:016x}", self.digest),
            faults_version: VERSION,
            faults: faults
                .map(|(fault, struck)| JsonFault {
                    name: fault.name(),
                    greatest_intensity: fault.greatest_chance(),
                    struck: *struck,
                })
                .collect(),
            reach: calls
                .map(|(kind, [before, after])| JsonCall { effect: kind.name(), before: *before, after: *after })
                .collect(),
            launched: self.machines.launched,
            extra: self.machines.extra,
            extra_percent: self.extra_percent(),
            waited_seconds: self.waited(),
            converged_seconds: self.converged(),
            late_seeds: self.late_seeds,
            late_jobs: self.late_jobs,
            without_github_seeds: self.without_github_seeds,
            without_github_pools: self.without_github_pools,
            violations: self
                .violations
                .iter()
                .map(|(seed, violation)| JsonViolation {
                    seed: *seed,
                    invariant: &violation.invariant,
                    what: &violation.what,
                })
                .collect(),
        };
        serde_json::to_string_pretty(&json).expect("names and numbers")
    }
}
