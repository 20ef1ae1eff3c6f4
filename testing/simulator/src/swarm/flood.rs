//! F1: one repository queues very many jobs at once. How long jobs of other pools then wait for the launch of their machine.
//!
//! Virtual time passes in calls only, so the result does not depend on the speed of the machine that runs it.

use domain::config::Pool;
use domain::ids::Owner;
use domain::state::Key;
use jiff::SignedDuration;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use world::github;

use crate::swarm::arrival::{Arrival, ORGANIZATION, OTHER};
use crate::swarm::faults::Fault;
use crate::swarm::outcome::{Options, Violation};
use crate::swarm::seed::Swarm;
use crate::swarm::shape::{BATCH, Groups, Shape};
use crate::swarm::timetable::Timetable;
use crate::universe::{Universe, pool};

/// A flood delays the launch for a job of another pool by at most this much.
pub const MOST_DELAY: SignedDuration = SignedDuration::from_secs(5);

/// The `ScalerMaximumConcurrency` of the template.
pub const SCALERS: usize = 5;

/// The pools beside the flood, by name and repository: one of the same account, and one of another account.
const QUIET: [(&str, (&str, &str)); 2] = [("quiet", (ORGANIZATION, "gadgets")), ("arm", (OTHER, "tools"))];

/// When the first job of a quiet pool is queued: all of the flood is on the queue. And the time between two of one pool: the
/// machine of the first has ended by then.
const FIRST: SignedDuration = SignedDuration::from_secs(6);
const EVERY: SignedDuration = SignedDuration::from_secs(50);

/// A flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood {
    pub seed: u64,
    /// The jobs that one repository queues within five seconds.
    pub jobs: usize,
    /// How long it is watched.
    pub lasts: SignedDuration,
    pub groups: Groups,
    /// How many scalers may run at a time.
    pub scalers: usize,
}

/// What happened beside the flood.
#[derive(Debug)]
pub struct Flooded {
    /// For each job of a quiet pool, the time from its message on the queue to the launch of its machine; None if it did not
    /// start.
    pub waited: Vec<Option<SignedDuration>>,
    /// The calls to GitHub for the account of the flood that counted towards its hourly limit.
    pub calls: u64,
    /// Whether GitHub limited the account.
    pub limited: bool,
    /// Jobs of the flood that have ended.
    pub served: usize,
    /// The first violation of another invariant.
    pub violation: Option<Violation>,
}

impl Flooded {
    /// The longest wait; None if a job did not start.
    pub fn longest(&self) -> Option<SignedDuration> {
        self.waited.iter().copied().collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

/// Runs a flood without faults.
pub fn flood(flood: &Flood) -> Flooded {
    without_faults(flood.seed, &shape(flood), flood.lasts, |swarm| swarm.beside())
}

/// Runs a world without faults for a while, and looks at what came of it.
pub(super) fn without_faults<T>(
    seed: u64,
    shape: &Shape,
    lasts: SignedDuration,
    look: impl FnOnce(Swarm<'_>) -> T,
) -> T {
    let options = Options {
        seed,
        jobs: shape.arrivals.len(),
        without: Fault::ALL.to_vec(),
        trace: false,
        outcomes_only: false,
        shapes: false,
        mistake: None,
    };
    let universe = Universe::with(seed, shape.pools.clone(), shape.ec2.clone(), shape.github.clone(), None);
    universe.store.collect_violations();
    universe.steps.schedule();
    let mut swarm = Swarm::new(&universe, &options, shape, SmallRng::seed_from_u64(seed));
    let end = swarm.began + lasts;
    while swarm.now < end && swarm.violation.is_none() {
        swarm.step();
    }
    look(swarm)
}

fn shape(flood: &Flood) -> Shape {
    let valid = "a constant that is valid";
    let flooded = Pool { repositories: vec!["octo-org/widgets".parse().expect(valid)], ..pool("flooded", 100) };
    let quiet = QUIET.map(|(name, (owner, repository))| Pool {
        owner: if owner == ORGANIZATION { owner.to_owned() } else { format!("{owner}/{repository}") }
            .parse()
            .expect(valid),
        repositories: vec![format!("{owner}/{repository}").parse().expect(valid)],
        ..pool(name, 20)
    });
    let of_flood = |number: usize| Arrival {
        after: SignedDuration::from_millis((number * 5000 / flood.jobs) as i64),
        repository: (ORGANIZATION, "widgets"),
        labels: vec!["flooded".to_owned()],
        runs_for: SignedDuration::from_secs(60),
    };
    let mut arrivals: Vec<Arrival> = (0..flood.jobs).map(of_flood).collect();
    for (name, repository) in QUIET {
        let mut after = FIRST;
        while after + EVERY < flood.lasts {
            arrivals.push(Arrival {
                after,
                repository,
                labels: vec![name.to_owned()],
                runs_for: SignedDuration::from_secs(5),
            });
            after += EVERY;
        }
    }
    arrivals.sort_by_key(|arrival| arrival.after);
    let pools: Vec<Pool> = [flooded].into_iter().chain(quiet).collect();
    Shape {
        timetables: pools.iter().map(|_| Timetable::default()).collect(),
        pools,
        ec2: Default::default(),
        github: Default::default(),
        arrivals,
        stormy: Vec::new(),
        calm_after: flood.lasts + EVERY,
        scalers: flood.scalers,
        batch: BATCH,
        groups: flood.groups,
        market: None,
    }
}

impl Swarm<'_> {
    fn beside(self) -> Flooded {
        let state = self.universe.state();
        let mut waited = Vec::new();
        for (name, _) in QUIET {
            let label = name.to_owned();
            for job in state.github.jobs().filter(|job| job.labels.contains(&label)) {
                let Some(received) = state.queued_webhooks.get(&job.id) else { continue };
                let runner = job.history.started.first().map(|start| start.runner);
                let mut configured = state.configured.iter();
                let machine = configured.find(|(_, its)| Some(**its) == runner);
                let launched = machine.and_then(|(id, _)| state.ec2.instances().find(|machine| machine.id == *id));
                waited.push(launched.map(|machine| machine.launched_at.duration_since(*received)));
            }
        }
        let of_flood = |job: &&github::Job| job.labels.contains(&"flooded".to_owned());
        let served = state.github.jobs().filter(of_flood).filter(|job| job.state.conclusion().is_some()).count();
        let installation = state.github.find_owner(ORGANIZATION).and_then(|owner| owner.installation);
        let calls = installation.map_or(0, |id| state.github.counted(github::Caller::Installation(id)));
        drop(state);
        let owner: Owner = ORGANIZATION.parse().expect("a valid name");
        let limited = self.universe.item(&Key::Limit(owner)).is_some();
        Flooded { waited, calls, limited, served, violation: self.violation }
    }
}
