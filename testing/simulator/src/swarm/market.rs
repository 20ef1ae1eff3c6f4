//! Worlds with a pool with shapes: its classes, and what EC2 refuses and takes back. Prices change every quarter of an hour.

use domain::config::{MarketChoice, MicroUsd, Order, Pool};
use jiff::SignedDuration;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use world::ec2::{self, Code, TYPES, TypeInfo};

use crate::swarm::arrival::{Arrival, LONGEST_IDLE_GRACE, ORGANIZATION, span};
use crate::universe::shapes_pool;

/// The name of the pool with shapes.
pub(super) const POOL: &str = "any";

/// A world of its own for the market, so that the other pools of a seed stay as they are.
const STREAM: u64 = 0x5348_4150_4553;

/// One job in this many asks for a shape.
const ONE_IN: usize = 2;

#[derive(Debug)]
pub(crate) struct Market {
    pub(crate) pool: Pool,
    /// Five to forty labels.
    pub(crate) classes: Vec<String>,
    pub(super) shortages: Vec<Shortage>,
    /// When EC2 reclaims every spot machine of a type.
    pub(crate) storms: Vec<Storm>,
}

/// What EC2 refuses for a while.
#[derive(Debug)]
pub(super) struct Shortage {
    pub(super) from: SignedDuration,
    pub(super) until: SignedDuration,
    pub(super) matches: Vec<ec2::LaunchMatch>,
    pub(super) code: Code,
}

#[derive(Debug)]
pub(crate) struct Storm {
    pub(crate) at: SignedDuration,
    pub(super) instance_type: &'static str,
}

impl Market {
    pub(crate) fn of(seed: u64, lasting: SignedDuration) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ STREAM);
        let rng = &mut rng;
        let mut pool = shapes_pool(POOL, rng.random_range(8..=120));
        pool.owner = ORGANIZATION.parse().expect("a constant that is valid");
        pool.repositories = ["octo-org/widgets", "octo-org/gadgets"].map(|it| it.parse().expect("a repository")).into();
        pool.market =
            [MarketChoice::OnDemand, MarketChoice::Spot, MarketChoice::SpotThenOnDemand][rng.random_range(0..3)];
        pool.order = if rng.random_bool(0.8) { Order::Price } else { Order::Listed };
        pool.warm = if rng.random_bool(0.3) { rng.random_range(1..=3) } else { 0 };
        pool.timings.idle_grace = span(rng, 20, LONGEST_IDLE_GRACE.as_secs());
        pool.timings.backoff_max = span(rng, 120, 300);
        pool.timings.notice_after = span(rng, 120, 900);
        pool.rerun_on_interruption = rng.random_bool(0.5);
        pool.price_per_hour = rng.random_bool(0.5).then(|| MicroUsd(rng.random_range(6_000_000..20_000_000)));
        let mut classes: Vec<String> = (0..rng.random_range(5..=40)).map(|_| label(rng, pool.market)).collect();
        classes.sort();
        classes.dedup();
        let shortages = (0..rng.random_range(0..=3)).map(|_| Shortage::of(rng, lasting)).collect();
        let storm = |_| Storm { at: within(rng, lasting), instance_type: any_type(rng).name };
        let storms = (0..3).map(storm).collect();
        Self { pool, classes, shortages, storms }
    }

    /// Some of the jobs ask for shapes.
    pub(crate) fn take_jobs(&self, arrivals: &mut [Arrival]) {
        for (index, arrival) in arrivals.iter_mut().enumerate().filter(|(index, _)| index.is_multiple_of(ONE_IN)) {
            arrival.labels = vec![self.classes[index / ONE_IN % self.classes.len()].clone()];
            arrival.repository = (ORGANIZATION, ["widgets", "gadgets"][index / ONE_IN % 2]);
        }
    }
}

fn within(rng: &mut SmallRng, lasting: SignedDuration) -> SignedDuration {
    SignedDuration::from_millis(rng.random_range(0..lasting.as_millis() as i64))
}

fn any_type(rng: &mut SmallRng) -> &'static TypeInfo {
    TYPES.choose(rng).expect("there are types")
}

/// A label that some type satisfies.
fn label(rng: &mut SmallRng, market: MarketChoice) -> String {
    let arm = rng.random_bool(0.3);
    let mut terms = vec![format!("{}cpu", [1, 2, 3, 4, 8][rng.random_range(0..if arm { 2 } else { 5 })])];
    if rng.random_bool(0.5) {
        terms.push(format!("{}gb", [2, 4, 8, 16, 32][rng.random_range(0..if arm { 3 } else { 5 })]));
    }
    if arm {
        terms.push("arm64".to_owned());
    }
    if rng.random_bool(0.3) {
        let markets = market.markets();
        terms.push(markets[rng.random_range(0..markets.len())].to_string());
    }
    if rng.random_bool(0.2) {
        terms.push(format!("{}disk", [40, 100, 500][rng.random_range(0..3)]));
    }
    if rng.random_bool(0.2) {
        terms.reverse();
    }
    format!("{POOL}/{}", terms.join("/"))
}

impl Shortage {
    fn of(rng: &mut SmallRng, lasting: SignedDuration) -> Self {
        let from = within(rng, lasting);
        let until = from + SignedDuration::from_secs(rng.random_range(120..1200));
        let all = |is_short: &dyn Fn(&TypeInfo) -> bool, market| {
            let short = TYPES.iter().filter(|it| is_short(it));
            let of_type =
                |it: &TypeInfo| ec2::LaunchMatch { instance_type: Some(it.name.to_owned()), market, subnet: None };
            short.map(of_type).collect()
        };
        let (matches, code) = match rng.random_range(0..3) {
            0 => {
                let subnet = Some(["subnet-a", "subnet-b"][rng.random_range(0..2)].into());
                (vec![ec2::LaunchMatch { subnet, ..ec2::LaunchMatch::default() }], Code::InsufficientInstanceCapacity)
            }
            // The quota of all spot machines of the family that most types belong to.
            1 => (all(&|it| !it.name.starts_with('g'), Some(ec2::Market::Spot)), Code::MaxSpotInstanceCountExceeded),
            // The launch template of one architecture is broken.
            _ => (all(&|it| it.architecture == "arm64", None), Code::InvalidAmiIdNotFound),
        };
        Self { from, until, matches, code }
    }
}
