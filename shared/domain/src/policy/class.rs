//! Decisions about one class of a pool with shapes. Each class is decided like a pool of its own, with launch options, a
//! circuit and failures of its own; `max`, cool-downs, pauses and META's revision are those of the pool.

use crate::config::{
    Architecture, Label, LaunchOption, Machines, Market, Order, Pool, RootVolume, Shape, Shapes, Tuple,
};
use crate::log::Transaction;
use crate::policy::PoolView;
use crate::policy::offer::{Offer, offers};
use crate::state::{Item, Meta, WaitingJob};

/// The pool as a decision about one class sees it: with the launch options of the class. In a pool without shapes that needs
/// prices, with those of the pool; any other stays as it is.
pub fn for_class(pool: &Pool, class: Option<&Label>, meta: &Meta) -> Pool {
    let options = match &pool.shapes {
        Some(shapes) => of_shape(pool, shapes, class, meta.revision),
        None if pool.needs_prices() => Some(listed(pool)),
        None => return pool.clone(),
    };
    Pool { options: Some(options.unwrap_or_default().into()), ..pool.clone() }
}

/// None if the pool does not allow the shape, or its machines are not known.
fn of_shape(pool: &Pool, shapes: &Shapes, class: Option<&Label>, spread: u64) -> Option<Vec<LaunchOption>> {
    let machines = pool.machines.as_ref()?;
    let shape = shape_of(pool, class)?;
    shapes.policy.check(&shape).ok()?;
    let offers = offers(pool, &shapes.policy, &shape, machines, spread);
    Some(offers.into_iter().filter_map(|offer| launch_option(shapes, &shape, machines, offer)).collect())
}

/// The shape that a class asks for. A warm machine has the smallest shape.
fn shape_of(pool: &Pool, class: Option<&Label>) -> Option<Shape> {
    match class {
        Some(class) => Shape::of_label(&pool.name, class.as_str())?.ok(),
        None => Some(Shape::default()),
    }
}

/// The architecture of a class's machines.
pub fn architecture(pool: &Pool, class: Option<&Label>) -> Option<Architecture> {
    let policy = &pool.shapes.as_ref()?.policy;
    shape_of(pool, class)?.architecture.or_else(|| policy.architectures.first().copied())
}

/// The options of a pool without shapes, with their prices.
fn listed(pool: &Pool) -> Vec<LaunchOption> {
    let machines = pool.machines.as_ref();
    let priced = pool.launch_options().into_iter().map(|option| {
        let Tuple { instance_type, market, subnet, .. } = &option.tuple;
        let price = machines.and_then(|it| it.price(instance_type, *market, it.catalogue.zones.get(subnet)?));
        LaunchOption { price_per_hour: price, ..option }
    });
    let mut options: Vec<LaunchOption> = priced.collect();
    let markets = pool.market.markets();
    let rank = |market: Market| markets.iter().position(|it| *it == market);
    match pool.order {
        Order::Listed => {}
        Order::Price => options.sort_by_key(|it| {
            let Tuple { instance_type, market, subnet, .. } = &it.tuple;
            let is_reclaimed = machines.is_some_and(|machines| {
                let zone = machines.catalogue.zones.get(subnet);
                zone.is_some_and(|zone| machines.is_reclaimed(instance_type, *market, zone))
            });
            (rank(it.tuple.market), is_reclaimed, it.price_per_hour.is_none(), it.price_per_hour)
        }),
    }
    options
}

/// None if the pool has no launch template for the architecture, or does not know its root volume.
fn launch_option(shapes: &Shapes, shape: &Shape, machines: &Machines, offer: Offer) -> Option<LaunchOption> {
    let architecture = machines.catalogue.types.get(&offer.instance_type)?.architecture;
    let template = shapes.launch_templates.get(&architecture)?;
    let root = match shape.disk {
        Some(gib) => Some(RootVolume { gib, ..template.root.clone()? }),
        None => None,
    };
    let Offer { instance_type, subnet, market, price_per_hour, .. } = offer;
    let (id, version) = (template.id.clone(), template.version);
    let tuple = Tuple { template: id, template_version: version, subnet, instance_type, market, root };
    Some(LaunchOption { tuple, price_per_hour })
}

/// The pool and the part of its view that belong to a class, as a decision about the class sees them.
pub fn part(pool: &Pool, view: &PoolView, class: Option<&Label>) -> (Pool, PoolView) {
    let of_class = if pool.shapes.is_some() { view.of_class(class) } else { view.clone() };
    (for_class(pool, class, &view.meta), of_class)
}

/// Like [`part`], for the class of a job; None if it is the whole, or `pool` has the launch options of the class already.
pub fn of_job(pool: &Pool, view: &PoolView, job: &WaitingJob) -> Option<(Pool, PoolView)> {
    let is_whole = pool.needs_prices() && pool.options.is_none();
    is_whole.then(|| part(pool, view, job.class.as_ref()))
}

/// Decides about one class: `decide` gets the pool and the part of its view that belong to the class. What it writes to META is
/// the state of the class.
pub fn within(
    pool: &Pool,
    view: &PoolView,
    class: Option<&Label>,
    decide: impl FnOnce(&Pool, &PoolView) -> Transaction,
) -> Transaction {
    if !pool.needs_prices() {
        return decide(pool, view);
    }
    let (of_class, part) = part(pool, view, class);
    let mut writes = decide(&of_class, &part);
    for item in &mut writes.puts {
        if let Item::Meta(meta) = item {
            *meta = of_pool(&view.meta, class, meta.clone());
        }
    }
    writes
}

/// The pool's META after a decision about a class.
pub fn of_pool(before: &Meta, class: Option<&Label>, decided: Meta) -> Meta {
    match class {
        Some(class) => before.with_class(class, decided),
        None => decided,
    }
}
