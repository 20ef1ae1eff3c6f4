//! Jobs to be queued, and what the pools of simulated worlds have in common.

use domain::config::Span;
use jiff::SignedDuration;
use rand::Rng;
use rand::rngs::SmallRng;

/// The longest `idle_grace` of a simulated pool. A runner may be idle for this long.
pub(super) const LONGEST_IDLE_GRACE: SignedDuration = SignedDuration::from_secs(180);

/// The organization with two pools whose labels overlap.
pub(crate) const ORGANIZATION: &str = "octo-org";
/// The account with a pool for one of its repositories.
pub(crate) const OTHER: &str = "mona-inc";

/// A job to be queued.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) after: SignedDuration,
    pub(crate) repository: (&'static str, &'static str),
    pub(crate) labels: Vec<String>,
    pub(crate) runs_for: SignedDuration,
}

pub(super) fn span(rng: &mut SmallRng, least: i64, most: i64) -> Span {
    let text = format!("{}s", rng.random_range(least..=most));
    text.parse().expect("a length of time")
}
