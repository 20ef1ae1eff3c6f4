//! Which of a pool's launch options is tried next, and when.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::config::{LaunchOption, MicroUsd, Pool, Tuple};
use crate::ids::InstanceType;
use crate::policy::PoolView;
use crate::policy::launch_error::{is_about_zone, is_lack_of_capacity};
use crate::state::{Cooldown, Meta};

/// How long after EC2's last refusal a pool that can launch nothing tries an option again for which there was no capacity.
const LAST_RESORT_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// The options that may be tried now and of which `budget` pays for a machine, in the order in which they are tried.
pub fn free_options(pool: &Pool, meta: &Meta, budget: Budget, now: Timestamp) -> impl Iterator<Item = LaunchOption> {
    let refusals = Refusals::of(pool, meta, now);
    let options: Vec<LaunchOption> = affordable(pool, budget).collect();
    let last_resort = refusals.last_resort(&options, now).filter(|(_, at)| *at <= now).map(|(tuple, _)| tuple.clone());
    let is_free = move |option: &LaunchOption| {
        refusals.free_at(&option.tuple, now) <= now || last_resort.as_ref() == Some(&option.tuple)
    };
    options.into_iter().filter(is_free)
}

/// When the first option of which `budget` pays for a machine may be tried; None if there is none.
pub fn next_free(pool: &Pool, meta: &Meta, budget: Budget, now: Timestamp) -> Option<Timestamp> {
    let refusals = Refusals::of(pool, meta, now);
    let options: Vec<LaunchOption> = affordable(pool, budget).collect();
    let last_resort = refusals.last_resort(&options, now).map(|(_, at)| at);
    options.iter().map(|option| refusals.free_at(&option.tuple, now)).chain(last_resort).min()
}

fn affordable(pool: &Pool, budget: Budget) -> impl Iterator<Item = LaunchOption> {
    pool.launch_options().into_iter().filter(move |option| budget.pays_for(option) > 0)
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
    /// Pays for any machine, whatever a pool's cap is.
    pub const UNLIMITED: Self = Self(None);

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

/// Whether EC2's refusal concerns the tuple. Capacity does not depend on the volume. Any other refusal of a volume that a job asked
/// for may be about its size, and then concerns no other size.
pub(super) fn concerns(cooling: &Cooldown, tuple: &Tuple) -> bool {
    let is_about_machine = is_about_zone(&cooling.code) || cooling.tuple.root.is_none();
    cooling.tuple.is_same_machine(tuple) && (is_about_machine || cooling.tuple.root == tuple.root)
}

/// The present refusals that are about what Drover asks for.
fn definitive(meta: &Meta, now: Timestamp) -> impl Iterator<Item = &Cooldown> {
    meta.cooldowns.iter().filter(move |cooling| cooling.until > now && !is_about_zone(&cooling.code))
}

/// EC2's present refusals of a pool's tuples.
pub(super) struct Refusals<'a> {
    meta: &'a Meta,
    /// Tuples whose template and market EC2 refuses, each with the end of that.
    markets: Vec<(&'a Tuple, Timestamp)>,
}

/// After EC2 has refused this many types with one code, the launch template or the market counts as refused, not the types. A pool
/// may have hundreds of types, and trying each would take hours.
const SEVERAL_TYPES: usize = 3;

impl<'a> Refusals<'a> {
    pub(super) fn of(pool: &Pool, meta: &'a Meta, now: Timestamp) -> Self {
        let mut alike: BTreeMap<_, Vec<&Cooldown>> = BTreeMap::new();
        for cooling in definitive(meta, now) {
            let Tuple { template, template_version, market, root, .. } = &cooling.tuple;
            alike.entry((template, template_version, market, root, &cooling.code)).or_default().push(cooling);
        }
        // A subnet may be refused for reasons of its own.
        let several_subnets = pool.subnets.len().min(2);
        let market = |alike: Vec<&'a Cooldown>| {
            let subnets: BTreeSet<_> = alike.iter().map(|cooling| &cooling.tuple.subnet).collect();
            let mut until: BTreeMap<&InstanceType, Timestamp> = BTreeMap::new();
            for cooling in &alike {
                let last = until.entry(&cooling.tuple.instance_type).or_insert(cooling.until);
                *last = cooling.until.max(*last);
            }
            let mut ends: Vec<Timestamp> = until.into_values().collect();
            ends.sort_by_key(|end| Reverse(*end));
            let end = ends.get(SEVERAL_TYPES - 1).filter(|_| subnets.len() >= several_subnets)?;
            Some((&alike.first()?.tuple, *end))
        };
        Self { meta, markets: alike.into_values().filter_map(market).collect() }
    }

    /// The ends of the refusals of the tuple's template and market.
    fn of_market(&self, tuple: &Tuple) -> impl Iterator<Item = Timestamp> {
        let is_alike = |refused: &Tuple| {
            refused.template == tuple.template
                && refused.template_version == tuple.template_version
                && refused.market == tuple.market
                && (refused.root.is_none() || refused.root == tuple.root)
        };
        self.markets.iter().filter(move |(refused, _)| is_alike(refused)).map(|(_, until)| *until)
    }

    /// Whether EC2 refuses the tuple at present because of what Drover asks for.
    pub(super) fn refuses(&self, tuple: &Tuple, now: Timestamp) -> bool {
        definitive(self.meta, now).any(|cooling| concerns(cooling, tuple)) || self.of_market(tuple).next().is_some()
    }

    /// When the tuple may be tried.
    fn free_at(&self, tuple: &Tuple, now: Timestamp) -> Timestamp {
        self.lack_of_capacity(tuple, now).map_or(now, |cooling| cooling.until).max(self.free_if_capacity(tuple, now))
    }

    /// EC2's present refusal of the tuple for lack of capacity.
    fn lack_of_capacity(&self, tuple: &Tuple, now: Timestamp) -> Option<&'a Cooldown> {
        let lacking = self.meta.cooldowns.iter().filter(|it| it.until > now && is_lack_of_capacity(&it.code));
        lacking.filter(|cooling| concerns(cooling, tuple)).max_by_key(|cooling| cooling.until)
    }

    /// When the tuple might be tried if EC2 had capacity.
    fn free_if_capacity(&self, tuple: &Tuple, now: Timestamp) -> Timestamp {
        let others = self.meta.cooldowns.iter().filter(|it| !is_lack_of_capacity(&it.code) && concerns(it, tuple));
        let paused = self.meta.pauses.iter().filter(|pause| pause.affects(tuple)).map(|pause| pause.until);
        others.map(|it| it.until).chain(paused).chain(self.of_market(tuple)).max().unwrap_or(now).max(now)
    }

    /// If none of the options is free: the one that only lacks capacity and was refused longest ago, and when it is tried again.
    ///
    /// A long wait saves calls while something else can be launched. If nothing can, it only keeps the jobs waiting after EC2
    /// has capacity again. One call per [`LAST_RESORT_AFTER`] finds out, however many options there are.
    fn last_resort<'o>(&self, options: &'o [LaunchOption], now: Timestamp) -> Option<(&'o Tuple, Timestamp)> {
        if options.iter().any(|option| self.free_at(&option.tuple, now) <= now) {
            return None;
        }
        let lacking = options.iter().filter_map(|LaunchOption { tuple, .. }| {
            let cooling = self.lack_of_capacity(tuple, now)?;
            let refused_at = cooling.until - SignedDuration::from_secs(cooling.seconds);
            Some((tuple, refused_at, self.free_if_capacity(tuple, now)))
        });
        let lacking: Vec<_> = lacking.collect();
        let next = lacking.iter().map(|(_, refused_at, _)| *refused_at).max()? + LAST_RESORT_AFTER;
        let tried = lacking.into_iter().map(|(tuple, refused_at, free)| (tuple, refused_at, free.max(next)));
        tried.min_by_key(|(_, refused_at, at)| (*at, *refused_at)).map(|(tuple, _, at)| (tuple, at))
    }
}
