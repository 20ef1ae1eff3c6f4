//! A burst of jobs of one pool under EC2's published limits: how many calls of RunInstances it takes, and how long launches and
//! registrations take.
//!
//! Virtual time passes in calls only, so the result does not depend on the speed of the machine that runs it.

use domain::config::Pool;
use domain::policy::MAX_DEMAND_PER_REPOSITORY;
use jiff::{SignedDuration, Timestamp};
use world::ec2::{self, Operation};
use world::github::{self, Limits};

use crate::swarm::arrival::{Arrival, ORGANIZATION};
use crate::swarm::flood::{SCALERS, without_faults};
use crate::swarm::outcome::Violation;
use crate::swarm::shape::{BATCH, Groups, Shape};
use crate::swarm::timetable::Timetable;

/// A burst of jobs that run for ten minutes.
#[derive(Debug)]
pub struct Burst {
    pub seed: u64,
    pub pool: Pool,
    /// The labels that the jobs have in turn.
    pub labels: Vec<String>,
    pub jobs: usize,
    /// When the first job is queued. The janitor needs two minutes to read the machines that EC2 offers, and a pool with stopped
    /// machines six until it has them.
    pub begins: SignedDuration,
    /// The time between the first job and the last.
    pub within: SignedDuration,
    /// How long it is watched after the first job.
    pub lasts: SignedDuration,
    /// Whether EC2 and GitHub limit the rate of calls.
    pub is_limited: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Launched {
    /// The calls of RunInstances, also those that EC2 throttled.
    pub calls: u64,
    /// The items that were read as parts of pools, also by sweeps.
    pub items_read: u64,
    /// From the first job to the launch of each machine, in this order. Machines that were launched before are left out.
    pub after: Vec<SignedDuration>,
    /// From the first job to the registration of each runner, in this order.
    pub registered: Vec<SignedDuration>,
    /// The first violation of an invariant.
    pub violation: Option<Violation>,
}

/// The repositories of the jobs. A pool serves at most [`MAX_DEMAND_PER_REPOSITORY`] waiting jobs of each.
const REPOSITORIES: [&str; 5] = ["widgets", "gadgets", "gears", "levers", "springs"];

/// Runs a burst without faults.
pub fn burst(burst: &Burst) -> Launched {
    let spacing = burst.within / i32::try_from(burst.jobs).expect("a number of jobs");
    let arrivals = burst.labels.iter().cycle().take(burst.jobs).enumerate().map(|(number, label)| Arrival {
        after: burst.begins + spacing * number as i32,
        repository: (ORGANIZATION, REPOSITORIES[number / MAX_DEMAND_PER_REPOSITORY]),
        labels: vec![label.clone()],
        runs_for: SignedDuration::from_mins(10),
    });
    let limits = Limits { enforced: burst.is_limited, ..Limits::default() };
    let shape = Shape {
        pools: vec![burst.pool.clone()],
        timetables: vec![Timetable::default()],
        ec2: ec2::Config { throttle: burst.is_limited, ..ec2::Config::default() },
        github: github::Config { limits, ..github::Config::default() },
        arrivals: arrivals.collect(),
        stormy: Vec::new(),
        calm_after: burst.begins + burst.lasts * 2,
        scalers: SCALERS,
        batch: BATCH,
        groups: Groups::Stated,
        market: None,
    };
    without_faults(burst.seed, &shape, burst.begins + burst.lasts, |swarm| {
        let state = swarm.universe.state();
        let first = swarm.began + burst.begins;
        let since_first = |times: &mut dyn Iterator<Item = Timestamp>| -> Vec<SignedDuration> {
            let mut after: Vec<SignedDuration> =
                times.filter(|at| *at >= first).map(|at| at.duration_since(first)).collect();
            after.sort_unstable();
            after
        };
        let after = since_first(&mut state.ec2.instances().map(|machine| machine.launched_at));
        let runners = state.configured.values().filter_map(|runner| state.github.runner(*runner));
        let registered = since_first(&mut runners.map(|runner| runner.created_at));
        let calls = state.ec2.calls().get(&Operation::RunInstances).copied().unwrap_or_default();
        drop(state);
        let items_read = swarm.universe.store.items_read();
        Launched { calls, items_read, after, registered, violation: swarm.violation }
    })
}
