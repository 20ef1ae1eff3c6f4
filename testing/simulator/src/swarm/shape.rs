//! The world that a seed stands for: which pools there are, which jobs are queued, when faults strike.

use std::time::Duration;

use domain::config::{MarketChoice, MicroUsd, Pool};
use domain::policy::route::{Routable, route};
use jiff::SignedDuration;
use rand::Rng;
use rand::rngs::SmallRng;
use world::{ec2, github};

use crate::swarm::arrival::{Arrival, LONGEST_IDLE_GRACE, ORGANIZATION, OTHER, span};
use crate::swarm::market::Market;
use crate::swarm::timetable::Timetable;
use crate::universe::pool;

/// Whether messages are sent with their group, which makes the queue fair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    Stated,
    Missing,
}

#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) pools: Vec<Pool>,
    pub(crate) ec2: ec2::Config,
    pub(crate) github: github::Config,
    pub(crate) arrivals: Vec<Arrival>,
    /// The storms of faults, in order, with pauses between them.
    pub(crate) stormy: Vec<(SignedDuration, SignedDuration)>,
    /// When all faults stop.
    pub(crate) calm_after: SignedDuration,
    /// How many scalers may run at a time.
    pub(crate) scalers: usize,
    /// The most messages in one invocation of a scaler.
    pub(crate) batch: usize,
    pub(crate) groups: Groups,
    /// Of every second world.
    pub(crate) market: Option<Market>,
    /// When each pool keeps how many machines warm.
    pub(crate) timetables: Vec<Timetable>,
}

/// The size of a batch in the template.
pub(crate) const BATCH: usize = 10;

/// The size of a batch in a large world.
const LARGE_BATCH: usize = 300;

/// A large world has a burst of this many times as many jobs as others have in all.
const LARGE_BURST: usize = 3;

/// One world in this many is large. It takes as long as ten others.
const LARGE_EVERY: u128 = 40;

const SECOND: SignedDuration = SignedDuration::from_secs(1);

fn seconds(rng: &mut SmallRng, least: i64, most: i64) -> SignedDuration {
    SignedDuration::from_millis(rng.random_range(least * 1000..=most * 1000))
}

impl Shape {
    /// The world of a seed, with a market if there is to be one. `rng` is seeded with the seed.
    pub(crate) fn of(rng: &mut SmallRng, jobs: usize, seed: u64, with_shapes: bool) -> Self {
        let mut pools = pools(rng);
        let lasting = SignedDuration::from_mins(rng.random_range(25..=40));
        let mut arrivals = Vec::new();
        while arrivals.len() < jobs {
            // One job, or many at once as from a matrix.
            let batch = if rng.random_bool(0.2) { rng.random_range(2..=40) } else { 1 };
            let at = SignedDuration::from_millis(rng.random_range(0..lasting.as_millis() as i64));
            let (repository, labels) = job_for(rng, &pools);
            for _ in 0..batch.min(jobs - arrivals.len()) {
                let long = if rng.random_bool(0.1) { 420 } else { 90 };
                arrivals.push(Arrival {
                    after: at + seconds(rng, 0, 2),
                    repository,
                    labels: labels.clone(),
                    runs_for: seconds(rng, 5, long),
                });
            }
        }
        let mut stormy = Vec::new();
        let mut at = SignedDuration::ZERO;
        while at < lasting {
            let until = at + seconds(rng, 120, 600);
            stormy.push((at, until));
            at = until + seconds(rng, 60, 240);
        }
        let calm_after = stormy.last().map_or(lasting, |(_, until)| *until).max(lasting);
        let ec2 = ec2::Config {
            pending: Duration::from_millis(rng.random_range(3_000..15_000)),
            boot: Duration::from_millis(rng.random_range(8_000..35_000)),
            ..ec2::Config::default()
        };
        // GitHub gives up on a lost runner after about ten minutes. Here often sooner, so that it happens during a storm.
        let lost_runner = Duration::from_secs(rng.random_range(60..=600));
        let github = github::Config { lost_runner, ..github::Config::default() };
        let scalers = rng.random_range(2..=6);
        // Derived and not random, so that the other seeds keep the worlds that they had before there were large ones.
        let is_large = ec2.pending.as_millis().is_multiple_of(LARGE_EVERY);
        if is_large {
            arrivals.extend(burst(rng, &mut pools, jobs * LARGE_BURST, lasting));
        }
        let market = with_shapes.then(|| Market::of(seed, lasting));
        if let Some(market) = &market {
            market.take_jobs(&mut arrivals);
            pools.push(market.pool.clone());
        }
        let timetables = (0..).zip(&mut pools).map(|(number, pool)| Timetable::give(seed, number, pool)).collect();
        arrivals.sort_by_key(|arrival| arrival.after);
        let batch = if is_large { LARGE_BATCH } else { BATCH };
        Self {
            pools,
            ec2,
            github,
            arrivals,
            stormy,
            calm_after,
            scalers,
            batch,
            groups: Groups::Stated,
            market,
            timetables,
        }
    }
}

/// Jobs of one pool that are queued within ten seconds. The pool has room for them.
fn burst(rng: &mut SmallRng, pools: &mut [Pool], jobs: usize, lasting: SignedDuration) -> Vec<Arrival> {
    let at = rng.random_range(0..pools.len());
    pools[at].max = 2 * jobs as u32;
    pools[at].price_per_hour = None;
    let begins = SignedDuration::from_millis(rng.random_range(0..lasting.as_millis() as i64));
    let arrival = |_| {
        let (repository, labels) = job_for(rng, &pools[at..=at]);
        Arrival { after: begins + seconds(rng, 0, 10), repository, labels, runs_for: seconds(rng, 5, 30) }
    };
    (0..jobs).map(arrival).collect()
}

fn pools(rng: &mut SmallRng) -> Vec<Pool> {
    let names = match rng.random_range(0..4) {
        0 => &["linux"][..],
        1 => &["linux", "arm"],
        2 => &["linux", "big"],
        _ => &["linux", "big", "arm"],
    };
    names
        .iter()
        .map(|name| {
            let mut pool = pool(name, rng.random_range(8..=120));
            let valid = "a constant that is valid";
            let (owner, labels, repositories) = match *name {
                "linux" => (ORGANIZATION, &["linux", "x64"][..], &["octo-org/widgets", "octo-org/gadgets"][..]),
                "big" => (ORGANIZATION, &["linux", "x64", "big"][..], &["octo-org/widgets", "octo-org/gadgets"][..]),
                _ => ("mona-inc/tools", &["arm"][..], &[][..]),
            };
            pool.owner = owner.parse().expect(valid);
            pool.labels = labels.iter().map(|label| label.parse().expect(valid)).collect();
            pool.repositories = repositories.iter().map(|repository| repository.parse().expect(valid)).collect();
            pool.priority = if *name == "big" { 200 } else { 100 };
            pool.market = match rng.random_range(0..3) {
                0 => MarketChoice::OnDemand,
                1 => MarketChoice::Spot,
                _ => MarketChoice::SpotThenOnDemand,
            };
            if rng.random_bool(0.5) {
                pool.instance_types.push("m7a.large".into());
            }
            if rng.random_bool(0.3) {
                pool.subnets.truncate(1);
            }
            pool.warm = if rng.random_bool(0.3) { rng.random_range(1..=3) } else { 0 };
            pool.timings.idle_grace = span(rng, 20, LONGEST_IDLE_GRACE.as_secs());
            pool.timings.backoff_max = span(rng, 120, 300);
            pool.timings.notice_after = span(rng, 120, 900);
            if rng.random_bool(0.15) {
                pool.timings.max_life = span(rng, 1500, 2700);
            }
            // Derived and not random, so that a seed keeps the world that it had before this setting existed.
            pool.rerun_on_interruption = pool.max.is_multiple_of(2);
            pool.usage = pool.max.is_multiple_of(3);
            // Enough for a dozen machines, so that the jobs of a world are served in time.
            pool.price_per_hour =
                pool.max.is_multiple_of(5).then(|| MicroUsd(1_500_000 + 20_000 * u64::from(pool.max)));
            pool
        })
        .collect()
}

fn job_for(rng: &mut SmallRng, pools: &[Pool]) -> ((&'static str, &'static str), Vec<String>) {
    let (repository, labels) = static_job_for(rng, pools);
    (repository, labels.into_iter().map(str::to_owned).collect())
}

fn static_job_for(rng: &mut SmallRng, pools: &[Pool]) -> ((&'static str, &'static str), Vec<&'static str>) {
    let repository = if rng.random_bool(0.5) { (ORGANIZATION, "widgets") } else { (ORGANIZATION, "gadgets") };
    match pools[rng.random_range(0..pools.len())].name.as_str() {
        "linux" => (repository, if rng.random_bool(0.5) { vec!["linux"] } else { vec!["linux", "x64"] }),
        "big" => (repository, vec!["linux", "big"]),
        _ => ((OTHER, "tools"), vec!["arm"]),
    }
}

impl Shape {
    /// The pool that serves such a job, if any.
    pub(crate) fn pool_for(&self, repository: (&str, &str), labels: &[String]) -> Option<&Pool> {
        let repository = format!("{}/{}", repository.0, repository.1).parse().ok()?;
        let job = Routable { repository: &repository, public: false, labels };
        route(&self.pools, &job).ok()
    }

    /// The pools, each with what it keeps warm and when.
    pub(crate) fn timetables(&self) -> impl Iterator<Item = (&Pool, &Timetable)> {
        self.pools.iter().zip(&self.timetables)
    }

    /// Whether a storm is under way at that time after the beginning.
    pub(crate) fn stormy_at(&self, since: SignedDuration) -> bool {
        self.stormy.iter().any(|(from, until)| *from <= since && since < *until)
    }
}

/// Up to two seconds.
pub(crate) fn soon(rng: &mut SmallRng) -> SignedDuration {
    SignedDuration::from_millis(rng.random_range(100..2 * SECOND.as_millis() as i64))
}
