//! Proves that the checks can fail: an invariant must reveal each deliberate mistake. In a world without faults, no mistake may
//! break one.

use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::mistakes::Mistake;
use crate::swarm::faults::Fault;
use crate::swarm::outcome::{Options, Violation};
use crate::swarm::run::{has_market, run};
use crate::swarm::shape::Shape;

/// Seeds without any fault in which a mistake must do no harm.
const HARMLESS_SEEDS: usize = 5;

/// The search for a mistake.
#[derive(Debug)]
pub struct Hunt {
    /// The invariant that revealed it, and after how many seeds; None if nothing did.
    pub found: Option<(u64, Violation)>,
    /// What it broke in a world without faults. Such a mistake proves nothing about the search for rare violations.
    pub harm_without_faults: Option<Violation>,
}

/// Whether the seed's world has no warm machines and no schedules, no two pools whose runners can take each other's jobs, and no market in which
/// EC2 refuses something.
fn is_plain(seed: u64, with_market: bool) -> bool {
    let shape = Shape::of(&mut SmallRng::seed_from_u64(seed), 1, seed, with_market);
    let is_calm = shape.market.as_ref().is_none_or(|market| market.shortages.is_empty());
    is_calm
        && shape
            .pools
            .iter()
            .all(|pool| pool.name.as_str() != "big" && pool.warm + pool.stopped == 0 && pool.schedules.is_empty())
}

/// Makes the mistake in up to `seeds` worlds, until an invariant breaks.
pub fn hunt(mistake: Mistake, first: u64, seeds: u64, jobs: usize) -> Hunt {
    let options = |seed| Options {
        seed,
        jobs,
        without: Vec::new(),
        trace: false,
        outcomes_only: false,
        shapes: mistake.concerns_classes(),
        mistake: Some(mistake),
    };
    let harmless =
        |seed| Options { without: Fault::ALL.to_vec(), jobs: jobs.min(20), outcomes_only: true, ..options(seed) };
    let with_market = mistake.concerns_classes();
    let candidates = (first..).filter(|seed| !with_market || has_market(*seed));
    let plain = candidates.filter(|seed| is_plain(*seed, with_market)).take(HARMLESS_SEEDS);
    Hunt {
        harm_without_faults: plain.map(|seed| run(&harmless(seed))).find_map(|outcome| outcome.violation),
        found: (0..seeds).find_map(|tried| Some((tried + 1, run(&options(first + tried)).violation?))),
    }
}
