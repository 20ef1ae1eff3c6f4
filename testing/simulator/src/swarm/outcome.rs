//! The options and the result of a run.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::mistakes::Mistake;
use crate::swarm::faults::Fault;

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub seed: u64,
    /// The number of jobs that are queued.
    pub jobs: usize,
    /// Kinds of faults that are off even if the seed turns them on.
    pub without: Vec<Fault>,
    /// Records the story.
    pub trace: bool,
    /// Checks only the invariants about outcomes: a job not served, a machine left, a job killed.
    pub outcomes_only: bool,
    /// Every second seed has a pool with shapes.
    pub shapes: bool,
    /// A deliberate mistake to make.
    pub mistake: Option<Mistake>,
}

/// A line of a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub at: Timestamp,
    /// `scaler 3`, `janitor 4`, `world` or `judge`.
    pub who: String,
    pub what: String,
    pub topic: Topic,
}

/// What a line of a story is about: a shrunk story leaves out the routine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Something outside Drover, a violation, a fault, or the end of an invocation.
    Event,
    /// A call that launches, terminates or deregisters, or a write with an event.
    Change,
    Routine,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} {:<12} {}", self.at, self.who, self.what)
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    /// The same for the same options, on any machine and thread.
    pub digest: u64,
    /// The number of jobs, re-runs among them.
    pub jobs: usize,
    /// The number of events.
    pub steps: u64,
    /// How often each kind of fault struck, in the order of [`Fault::ALL`].
    pub struck: Vec<u64>,
    /// How often an invocation ended before and after each kind of call, in the order of `CallKind::ALL`.
    pub interrupted: Vec<[u64; 2]>,
    pub machines: MachineCounts,
    /// For each served job, the time from queued to started.
    pub waited: Vec<SignedDuration>,
    /// The number of jobs that waited longer by design: their launches were used up, or their pool was full.
    pub late: u64,
    /// The number of pools that were excused because registering and removing runners had used up GitHub's hourly limit.
    pub without_github: u64,
    pub converged: Option<Convergence>,
    pub costs: Costs,
    /// The first violation.
    pub violation: Option<Violation>,
    /// Empty without [`Options::trace`].
    pub story: Vec<Line>,
}

/// What the machines of pools with shapes cost per hour when they were launched, added up, and what they would have cost if they
/// had been chosen in another way. In USD.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Costs {
    pub machines: u64,
    pub paid: f64,
    /// The cheapest machine that suits the job.
    pub hindsight: f64,
    /// The first one that suits, in a fixed order.
    pub listed: f64,
    /// Any that suits.
    pub random: f64,
}

impl Costs {
    pub(super) fn add(&mut self, other: Costs) {
        self.machines += other.machines;
        self.paid += other.paid;
        self.hindsight += other.hindsight;
        self.listed += other.listed;
        self.random += other.random;
    }
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// `S1` to `L4`, or `log`.
    pub invariant: String,
    pub what: String,
    pub at: Timestamp,
}

/// The time from the last fault until everything was in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Convergence(pub SignedDuration);

/// Drover's machines by what they were launched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MachineCounts {
    pub launched: u64,
    /// Ran a job.
    pub used: u64,
    /// Ran no job because of a fault.
    pub spoilt: u64,
    /// Were kept warm.
    pub warm: u64,
    /// Jobs that were cancelled, or taken by another's runner, after a machine was launched for them.
    pub excused: u64,
    /// Ran no job for none of these reasons.
    pub extra: u64,
}
