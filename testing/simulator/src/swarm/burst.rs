//! A burst of jobs of one pool under EC2's published limits: how many calls of RunInstances it takes, and how long.
//!
//! Virtual time passes in calls only, so the result does not depend on the speed of the machine that runs it.

use domain::config::Pool;
use jiff::SignedDuration;
use world::ec2::Operation;

use crate::swarm::arrival::{Arrival, ORGANIZATION};
use crate::swarm::flood::{SCALERS, without_faults};
use crate::swarm::outcome::Violation;
use crate::swarm::shape::{BATCH, Groups, Shape};
use crate::swarm::timetable::Timetable;

/// The janitor has read the machines that EC2 offers by then.
const FIRST: SignedDuration = SignedDuration::from_secs(150);

/// A burst of jobs that run for ten minutes.
#[derive(Debug)]
pub struct Burst {
    pub seed: u64,
    pub pool: Pool,
    /// The labels that the jobs have in turn.
    pub labels: Vec<String>,
    pub jobs: usize,
    /// The time between the first job and the last.
    pub within: SignedDuration,
    /// How long it is watched after the first job.
    pub lasts: SignedDuration,
}

/// What came of it.
#[derive(Debug)]
pub struct Launched {
    /// The calls of RunInstances, also those that EC2 throttled.
    pub calls: u64,
    /// From the first job to the launch of each machine, in this order.
    pub after: Vec<SignedDuration>,
    /// The first violation of an invariant.
    pub violation: Option<Violation>,
}

/// Runs a burst without faults.
pub fn burst(burst: &Burst) -> Launched {
    let spacing = burst.within / i32::try_from(burst.jobs).expect("a number of jobs");
    let arrivals = burst.labels.iter().cycle().take(burst.jobs).enumerate().map(|(number, label)| Arrival {
        after: FIRST + spacing * number as i32,
        repository: (ORGANIZATION, "widgets"),
        labels: vec![label.clone()],
        runs_for: SignedDuration::from_mins(10),
    });
    let shape = Shape {
        pools: vec![burst.pool.clone()],
        timetables: vec![Timetable::default()],
        ec2: Default::default(),
        github: Default::default(),
        arrivals: arrivals.collect(),
        stormy: Vec::new(),
        calm_after: FIRST + burst.lasts * 2,
        scalers: SCALERS,
        batch: BATCH,
        groups: Groups::Stated,
        market: None,
    };
    without_faults(burst.seed, &shape, FIRST + burst.lasts, |swarm| {
        let state = swarm.universe.state();
        let first = swarm.began + FIRST;
        let mut after: Vec<SignedDuration> =
            state.ec2.instances().map(|machine| machine.launched_at.duration_since(first)).collect();
        after.sort_unstable();
        let calls = state.ec2.calls().get(&Operation::RunInstances).copied().unwrap_or_default();
        drop(state);
        Launched { calls, after, violation: swarm.violation }
    })
}
