//! Does the simulator see? Every deliberate mistake must be found, and none may show where nothing goes wrong.

use crate::mistake::Mistake;

use super::*;

/// Seeds without any fault in which a mistake must not show.
const HARMLESS_SEEDS: usize = 5;

/// What became of a mistake.
#[derive(Debug)]
pub struct Hunt {
    /// Which.
    pub mutant: Mistake,
    /// What gave it away, and after how many seeds; None if it survived.
    pub found: Option<(u64, Violation)>,
    /// What it broke although nothing went wrong: then it proves nothing.
    pub straw_man: Option<Violation>,
}

/// Whether it is the world of the demo: no runner of one pool can take a job of another, which goes wrong by itself, and
/// nothing is kept warm.
fn is_plain(seed: u64) -> bool {
    let shape = Shape::of(&mut SmallRng::seed_from_u64(seed), 1);
    shape.pools.iter().all(|pool| pool.name.as_str() != "big" && pool.warm == 0)
}

/// Hunts one mistake through so many seeds.
pub fn hunt(mutant: Mistake, first: u64, seeds: u64, jobs: usize) -> Hunt {
    let options =
        |seed| Options { seed, jobs, without: Vec::new(), trace: false, outcomes_only: false, mutant: Some(mutant) };
    let harmless =
        |seed| Options { without: Fault::ALL.to_vec(), jobs: jobs.min(20), outcomes_only: true, ..options(seed) };
    let straw_man =
        (first..).filter(|seed| is_plain(*seed)).take(HARMLESS_SEEDS).find_map(|seed| run(&harmless(seed)).violation);
    let found = (0..seeds).find_map(|tried| Some((tried + 1, run(&options(first + tried)).violation?)));
    Hunt { mutant, found, straw_man }
}
