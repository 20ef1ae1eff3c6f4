//! The classes of a pool with shapes. Each is decided like a pool of its own, so it has its own circuit and its own reasons to
//! wait.

use std::collections::BTreeSet;

use domain::config::{Label, LaunchOption, MicroUsd, Order, Pool, Tuple};
use domain::policy::PoolView;
use domain::policy::class::part;
use domain::policy::tuple::{Budget, free_options, is_at_cap};
use jiff::Timestamp;

use crate::output::usd;

/// What is decided on its own: a class of a pool with shapes, or the whole of another pool.
pub(crate) struct Part {
    /// None for jobs and machines without a shape.
    pub(crate) class: Option<Label>,
    /// The pool, with the launch options of the class.
    pub(crate) pool: Pool,
    pub(crate) view: PoolView,
}

impl Part {
    pub(crate) fn of(pool: &Pool, view: &PoolView, class: Option<&Label>) -> Self {
        let (pool, view) = part(pool, view, class);
        Self { class: class.cloned(), pool, view }
    }

    /// `pool any`, or `pool any, class any/8cpu`.
    pub(crate) fn title(&self) -> String {
        let class = self.class.as_ref().map(|class| format!(", class {class}")).unwrap_or_default();
        format!("pool {}{class}", self.pool.name)
    }

    /// The launch options that may be tried now and that the pool's cap pays for, in their order.
    pub(crate) fn may_be_tried(&self, now: Timestamp) -> Vec<LaunchOption> {
        let budget = Budget::of(&self.pool, self.view.price_per_hour());
        free_options(&self.pool, &self.view.meta, budget, now).collect()
    }

    /// Whether what EC2 offers is known, and the pool allows none of it for this class.
    pub(crate) fn has_no_type(&self) -> bool {
        self.pool.machines.is_some() && self.pool.options.as_ref().is_some_and(|options| options.is_empty())
    }

    /// Whether jobs wait for a machine that the pool cannot launch.
    pub(crate) fn is_unsatisfied(&self, now: Timestamp) -> bool {
        self.has_no_type() && self.view.is_short(now)
    }

    /// Whether jobs wait because one more machine would cost more than the pool's cap allows.
    pub(crate) fn is_at_cap(&self, now: Timestamp) -> bool {
        is_at_cap(&self.pool, &self.view, now)
    }
}

/// The parts of a pool of which something is known.
pub(crate) fn parts(pool: &Pool, view: &PoolView) -> Vec<Part> {
    let mut classes: BTreeSet<Option<&Label>> = BTreeSet::from([None]);
    if pool.shapes.is_some() {
        classes.extend(view.classes());
        classes.extend(view.meta.classes.keys().map(Some));
    }
    classes.into_iter().map(|class| Part::of(pool, view, class)).collect()
}

/// An option with its price, and why it is tried before the others: `m7i.2xlarge spot in subnet-a, 0.1210 USD per hour, the
/// cheapest of 6 launch options that may be tried`.
pub(crate) fn described(tuple: &Tuple, price: Option<MicroUsd>, part: &Part, now: Timestamp) -> String {
    let price_text = price.map(|price| format!(", {} USD per hour", usd(price.usd()))).unwrap_or_default();
    let all = part.may_be_tried(now);
    let place = all.iter().position(|option| option.tuple.is_same_machine(tuple));
    let why = place.map(|place| standing(place, &all, part.pool.order)).unwrap_or_default();
    format!("{tuple}{price_text}{why}")
}

fn standing(place: usize, all: &[LaunchOption], order: Order) -> String {
    let own = all[place].price_per_hour;
    let is_cheapest = own.is_some() && all.iter().filter_map(|option| option.price_per_hour).min() == own;
    match (all.len(), place, order) {
        (1, ..) => ", the only launch option that may be tried".to_owned(),
        (many, _, Order::Price) if is_cheapest => format!(", the cheapest of {many} launch options that may be tried"),
        (many, 0, Order::Listed | Order::Price) => format!(", the first of {many} launch options that may be tried"),
        (many, place, Order::Listed | Order::Price) => {
            format!(", number {} of {many} launch options that may be tried now", place + 1)
        }
    }
}
