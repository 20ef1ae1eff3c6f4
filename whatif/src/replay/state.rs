//! The state of a run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use domain::config::{Pool, Rates};
use domain::ids::{Repository, Scope};
use jiff::{SignedDuration, Timestamp};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use simulator::{Checks, Universe, World};
use world::ec2::{self, InstanceId, Offering, TypeInfo};
use world::github::{self, Conclusion, JobId, RunId, RunnerId};

use crate::offline;
use crate::replay::account::Account;
use crate::replay::assumptions::Assumptions;
use crate::replay::counted::Counted;
use crate::replay::jobs::{Planned, Progress, plan};
use crate::replay::machine::{Doing, Machine};
use crate::trace::{Trace, hidden};

/// Every webhook arrives, so nobody looks for an old one. A long list of them takes time to read.
const DELIVERIES_KEPT: Duration = Duration::from_secs(300);

/// EC2 calls a machine `running` this long after its launch or start.
const PENDING: Duration = Duration::from_secs(3);

/// What is to be tried.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// As in the pool file: without what only AWS knows.
    pub pools: Vec<Pool>,
    pub region: String,
    /// The types that pools with shapes may launch.
    pub types: Vec<TypeInfo>,
    /// Labels of jobs that count as another label: old and new.
    pub labels: Vec<(String, String)>,
    pub assumptions: Assumptions,
}

/// An event that is due.
#[derive(Debug)]
pub(super) enum Due {
    /// A job is queued.
    Queue(usize),
    /// Somebody cancels a job.
    Cancel(usize),
    /// A job that no pool accepts has ended elsewhere.
    EndElsewhere(usize),
    /// A runner's job ends.
    Finish(RunnerId, JobId, Conclusion),
    Machine(InstanceId, Doing),
    /// The schedule starts the janitor.
    Janitor,
    Forget,
}

/// What GitHub's own runners would have cost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hosted {
    pub(super) minutes: u64,
    pub(super) usd: f64,
    pub(super) unpriced: u64,
    /// Minutes of every job, with or without a price.
    pub(super) all_minutes: u64,
}

pub(super) struct Run<'t> {
    pub(super) trace: &'t Trace,
    pub(super) assumptions: Assumptions,
    pub(super) pools: Vec<Pool>,
    pub(super) plan: Vec<Planned>,
    pub(super) progress: Vec<Progress>,
    /// Jobs that have not ended.
    pub(super) open: usize,
    /// Sweeps in a row that found nothing to do.
    pub(super) quiet_sweeps: u32,
    pub(super) universe: Universe,
    pub(super) rng: SmallRng,
    pub(super) now: Timestamp,
    pub(super) agenda: BTreeMap<(Timestamp, u64), Due>,
    pub(super) planned: u64,
    /// When scalers may begin again.
    pub(super) scalers_at: Timestamp,
    /// The model's runs by those of the trace.
    pub(super) runs: HashMap<(u64, u32), RunId>,
    pub(super) ids: HashMap<usize, JobId>,
    pub(super) machines: BTreeMap<InstanceId, Machine>,
    pub(super) runs_on: BTreeMap<RunnerId, InstanceId>,
    pub(super) account: Account,
    pub(super) counted: Counted,
    /// By pool.
    pub(super) job_seconds: Vec<f64>,
    pub(super) interruptions: Vec<u64>,
    pub(super) hosted: Vec<Hosted>,
}

impl<'t> Run<'t> {
    pub(super) fn new(trace: &'t Trace, scenario: &Scenario) -> Self {
        let Scenario { pools, region, types, labels, assumptions } = scenario;
        let mut pools: Vec<Pool> = pools.iter().cloned().map(offline::resolved).collect();
        if trace.header.anonymous {
            pools.iter_mut().for_each(hide);
        }
        let plan = plan(trace, &pools, labels);
        let seconds = Duration::from_secs_f64;
        let launched = assumptions.launch_seconds + assumptions.boot_seconds;
        let started = assumptions.launch_seconds + assumptions.start_seconds;
        let ec2 = ec2::Config {
            pending: PENDING.min(seconds(launched)),
            boot: seconds(launched).saturating_sub(PENDING),
            start_pending: PENDING.min(seconds(started)),
            start_boot: seconds(started).saturating_sub(PENDING),
            region: region.clone(),
            offering: Offering::Uniform { types: types.clone(), spot_share: assumptions.spot_share },
            ..ec2::Config::default()
        };
        let world = World {
            seed: assumptions.seed,
            began: trace.header.from,
            ec2,
            github: github::Config { deliveries_kept: DELIVERIES_KEPT, ..github::Config::default() },
            repositories: repositories(&plan, &pools),
            checks: Checks::Off,
        };
        let (from, until) = (trace.header.from, trace.header.until);
        let counted = Counted::of(&trace.header.days);
        let rates = Rates::of(region.clone());
        let launch = assumptions.launch();
        let account = Account::new(rates, assumptions.spot_share, launch, (from, until), counted.clone(), pools.len());
        let mut run = Self {
            trace,
            assumptions: *assumptions,
            progress: vec![Progress::default(); plan.len()],
            open: plan.len(),
            quiet_sweeps: 0,
            universe: Universe::in_world(world, pools.clone()),
            rng: SmallRng::seed_from_u64(assumptions.seed),
            now: from,
            agenda: BTreeMap::new(),
            planned: 0,
            scalers_at: from,
            runs: HashMap::new(),
            ids: HashMap::new(),
            machines: BTreeMap::new(),
            runs_on: BTreeMap::new(),
            account,
            counted,
            job_seconds: vec![0.0; pools.len()],
            interruptions: vec![0; pools.len()],
            hosted: vec![Hosted::default(); pools.len()],
            pools,
            plan,
        };
        run.plan_at(from, Due::Janitor);
        run.plan_at(from, Due::Forget);
        for index in 0..run.plan.len() {
            if !run.plan[index].follows {
                run.plan_at(run.plan[index].queued_at, Due::Queue(index));
            }
        }
        run
    }

    pub(super) fn plan_at(&mut self, at: Timestamp, due: Due) {
        self.planned += 1;
        self.agenda.insert((at, self.planned), due);
    }

    pub(super) fn plan_in(&mut self, after: SignedDuration, due: Due) {
        self.plan_at(self.now + after, due);
    }
}

/// Replaces the names of a pool's owner and repositories, as those of the trace were.
fn hide(pool: &mut Pool) {
    let valid = "hexadecimal digits are a valid name";
    let hide_repository = |it: &Repository| -> Repository {
        format!("{}/{}", hidden(it.owner.as_str()), hidden(it.name())).parse().expect(valid)
    };
    pool.owner = match &pool.owner {
        Scope::Organization(owner) => hidden(owner.as_str()).parse().expect(valid),
        Scope::Repository(repository) => Scope::Repository(hide_repository(repository)),
    };
    pool.repositories = pool.repositories.iter().map(hide_repository).collect();
}

/// Every repository that a job or a pool names, each once, and one for each owner.
fn repositories(plan: &[Planned], pools: &[Pool]) -> Vec<Repository> {
    let of_jobs = plan.iter().filter(|job| job.pool.is_ok()).filter_map(|job| job.repository.clone());
    let of_owner = |pool: &Pool| match &pool.owner {
        Scope::Organization(owner) => format!("{owner}/{owner}").parse().expect("a name is valid twice"),
        Scope::Repository(repository) => repository.clone(),
    };
    let named = pools.iter().flat_map(|pool| pool.repositories.iter().cloned());
    let all: BTreeSet<Repository> = of_jobs.chain(named).chain(pools.iter().map(of_owner)).collect();
    all.into_iter().collect()
}
