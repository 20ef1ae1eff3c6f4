//! Mistakes that an operator could make in the pool file.

use domain::config::{Pool, Span};

use crate::mistakes::kinds::Mistake;

/// The pools as the mistake configures them.
pub(crate) fn settings(mistake: Option<Mistake>, pools: Vec<Pool>) -> Vec<Pool> {
    let change = |mut pool: Pool| {
        if mistake == Some(Mistake::ZeroGrace) {
            pool.timings.boot_grace = zero();
        }
        if mistake == Some(Mistake::NoRelaunchBound) {
            pool.timings.relaunch_window = zero();
        }
        pool
    };
    pools.into_iter().map(change).collect()
}

fn zero() -> Span {
    "0s".parse().expect("zero is allowed")
}
