//! Which of a pool's launch options is tried next, and when.

use jiff::Timestamp;

use crate::config::{LaunchOption, MicroUsd, Pool, Tuple};
use crate::policy::PoolView;
use crate::state::Meta;

/// The options that may be tried now and of which `budget` pays for a machine, in the order in which they are tried.
pub fn free_options(pool: &Pool, meta: &Meta, budget: Budget, now: Timestamp) -> impl Iterator<Item = LaunchOption> {
    let options = pool.launch_options().into_iter().filter(move |option| budget.pays_for(option) > 0);
    options.filter(move |option| free_at(meta, &option.tuple, now) <= now)
}

/// Whether jobs wait because one more machine would cost more than the pool's cap allows.
pub fn is_at_cap(pool: &Pool, view: &PoolView, now: Timestamp) -> bool {
    let (options, budget) = (pool.launch_options(), Budget::of(pool, view.price_per_hour()));
    view.is_short(now) && !options.is_empty() && options.iter().all(|option| budget.pays_for(option) == 0)
}

/// How much more a pool's machines may cost per hour. None means any amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget(Option<MicroUsd>);

impl Budget {
    /// What the pool's cap leaves if machines that cost `others` per hour are there.
    pub fn of(pool: &Pool, others: MicroUsd) -> Self {
        Self(pool.price_per_hour.map(|cap| MicroUsd(cap.0.saturating_sub(others.0))))
    }

    /// The number of machines of this kind that the budget pays for. Under a cap, 0 if the price is not known.
    pub fn pays_for(self, option: &LaunchOption) -> usize {
        match (self.0, option.price_per_hour) {
            (None, _) => usize::MAX,
            (Some(left), Some(price)) => usize::try_from(left.0 / price.0.max(1)).unwrap_or(usize::MAX),
            (Some(_), None) => 0,
        }
    }
}

/// When the tuple may be tried.
fn free_at(meta: &Meta, tuple: &Tuple, now: Timestamp) -> Timestamp {
    let cooling = meta.cooldowns.iter().filter(|cooling| cooling.tuple.is_same_machine(tuple));
    let paused = meta.pauses.iter().filter(|pause| pause.affects(tuple)).map(|pause| pause.until);
    cooling.map(|cooling| cooling.until).chain(paused).max().unwrap_or(now).max(now)
}

/// When the first of the pool's tuples may be tried; None if it has none.
pub fn next_free(pool: &Pool, meta: &Meta, now: Timestamp) -> Option<Timestamp> {
    pool.tuples().iter().map(|tuple| free_at(meta, tuple, now)).min()
}
