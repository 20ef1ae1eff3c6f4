//! What many seeds came to, and how it is shown.

use std::fmt::Write;

use jiff::SignedDuration;
use serde::Serialize;

use super::*;

/// Seeds added up.
#[derive(Debug, Default)]
pub struct Total {
    /// How many.
    pub seeds: u64,
    /// Jobs that came.
    pub jobs: u64,
    /// Things that happened.
    pub steps: u64,
    /// Faults by kind.
    pub struck: Vec<u64>,
    /// Ends by effect, before it and after it.
    pub reach: Vec<[u64; 2]>,
    /// Machines.
    pub machines: judge::Machines,
    /// Waits, in seconds.
    pub waited: Vec<u32>,
    /// Convergence, in seconds, of the seeds in which no job waits longer by design.
    pub converged: Vec<u32>,
    /// Seeds with jobs that do, and how many those are.
    pub late: (u64, u64),
    /// Digests joined, in whatever order the seeds were run.
    pub digest: u64,
    /// What did not hold, by seed.
    pub violations: Vec<(u64, Violation)>,
}

#[derive(Serialize)]
struct Shown<'a> {
    seeds: u64,
    jobs: u64,
    steps: u64,
    digest: String,
    faults_version: u32,
    faults: Vec<ShownFault>,
    reach: Vec<ShownEffect>,
    launched: u64,
    extra: u64,
    extra_percent: f64,
    waited_seconds: Percentiles,
    converged_seconds: Percentiles,
    late_seeds: u64,
    late_jobs: u64,
    violations: Vec<ShownViolation<'a>>,
}

#[derive(Serialize)]
struct ShownFault {
    name: &'static str,
    greatest_intensity: f64,
    struck: u64,
}

#[derive(Serialize)]
struct ShownEffect {
    effect: &'static str,
    before: u64,
    after: u64,
}

#[derive(Serialize)]
struct ShownViolation<'a> {
    seed: u64,
    invariant: &'a str,
    what: &'a str,
}

/// Of many numbers.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    /// Half are at most that.
    pub p50: u32,
    /// All but one of a hundred.
    pub p99: u32,
    /// All.
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
    /// One more seed.
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.jobs += outcome.jobs as u64;
        self.steps += outcome.steps;
        self.struck.resize(Fault::ALL.len(), 0);
        self.reach.resize(EFFECTS.len(), [0; 2]);
        for (sum, struck) in self.struck.iter_mut().zip(&outcome.struck) {
            *sum += struck;
        }
        for (sum, reached) in self.reach.iter_mut().zip(&outcome.reach) {
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
            self.late = (self.late.0 + 1, self.late.1 + outcome.late);
        }
        self.digest ^= outcome.digest;
        if let Some(violation) = &outcome.violation {
            self.violations.push((outcome.seed, violation.clone()));
            self.violations.sort_by_key(|(seed, _)| *seed);
        }
    }

    /// Adds what another thread has added up.
    pub fn join(&mut self, other: Total) {
        self.seeds += other.seeds;
        self.jobs += other.jobs;
        self.steps += other.steps;
        self.struck.resize(Fault::ALL.len(), 0);
        self.reach.resize(EFFECTS.len(), [0; 2]);
        for (sum, struck) in self.struck.iter_mut().zip(other.struck) {
            *sum += struck;
        }
        for (sum, reached) in self.reach.iter_mut().zip(other.reach) {
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
        self.late = (self.late.0 + other.late.0, self.late.1 + other.late.1);
        self.digest ^= other.digest;
        self.violations.extend(other.violations);
        self.violations.sort_by_key(|(seed, _)| *seed);
    }

    /// Machines that were idle for nothing, of a hundred launched.
    pub fn extra_percent(&self) -> f64 {
        100.0 * self.machines.extra as f64 / self.machines.launched.max(1) as f64
    }

    /// How long served jobs waited.
    pub fn waited(&self) -> Percentiles {
        Percentiles::of(&self.waited)
    }

    /// How long after the last fault everything was in order.
    pub fn converged(&self) -> Percentiles {
        Percentiles::of(&self.converged)
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |words: std::fmt::Arguments<'_>| writeln!(text, "{words}").expect("a string takes everything");
        line(format_args!(
            "fault intensities, version {VERSION} (greatest chance at one occasion, and how often it struck)"
        ));
        for (fault, struck) in Fault::ALL.iter().zip(&self.struck) {
            line(format_args!("  {:<26} {:>5.2} {struck:>12}", fault.name(), fault.most()));
        }
        line(format_args!("where functions ended                  before        after"));
        for (effect, [before, after]) in EFFECTS.iter().zip(&self.reach) {
            line(format_args!("  {effect:<26} {before:>16} {after:>12}"));
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
            "{} machines launched: {} ran a job, {} were spoilt by a fault, {} kept warm; {} jobs were cancelled or taken by others; {} extra ({:.2} %)",
            machines.launched,
            machines.used,
            machines.spoilt,
            machines.warm,
            machines.excused,
            machines.extra,
            self.extra_percent()
        ));
        line(format_args!("start latency p50 {} s, p99 {} s, at most {} s", waited.p50, waited.p99, waited.most));
        line(format_args!(
            "in order after the last fault: p50 {} s, p99 {} s, at most {} s",
            converged.p50, converged.p99, converged.most
        ));
        line(format_args!(
            "in {} seeds {} jobs had to wait longer: their relaunches were used up, or their pool was at its maximum",
            self.late.0, self.late.1
        ));
        line(format_args!("{} violations", self.violations.len()));
        text
    }

    /// For a program.
    pub fn json(&self) -> String {
        let faults = Fault::ALL.iter().zip(&self.struck);
        let reach = EFFECTS.iter().zip(&self.reach);
        let shown = Shown {
            seeds: self.seeds,
            jobs: self.jobs,
            steps: self.steps,
            digest: format!("{:016x}", self.digest),
            faults_version: VERSION,
            faults: faults
                .map(|(fault, struck)| ShownFault {
                    name: fault.name(),
                    greatest_intensity: fault.most(),
                    struck: *struck,
                })
                .collect(),
            reach: reach
                .map(|(effect, [before, after])| ShownEffect { effect, before: *before, after: *after })
                .collect(),
            launched: self.machines.launched,
            extra: self.machines.extra,
            extra_percent: self.extra_percent(),
            waited_seconds: self.waited(),
            converged_seconds: self.converged(),
            late_seeds: self.late.0,
            late_jobs: self.late.1,
            violations: self
                .violations
                .iter()
                .map(|(seed, violation)| ShownViolation {
                    seed: *seed,
                    invariant: &violation.invariant,
                    what: &violation.what,
                })
                .collect(),
        };
        serde_json::to_string_pretty(&shown).expect("names and numbers")
    }
}
