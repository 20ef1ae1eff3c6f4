//! Decisions about one class of a pool with shapes. Each class is decided like a pool of its own, with launch options, a
//! circuit and failures of its own; `max`, cool-downs, pauses and META's revision are those of the pool.

use std::sync::Arc;

use crate::config::{Label, LaunchOption, Machines, Pool, RootVolume, Shape, Shapes, Tuple};
use crate::log::Transaction;
use crate::policy::PoolView;
use crate::policy::offer::{Offer, offers};
use crate::state::{Item, Meta, WaitingJob};

/// The pool as a decision about one class sees it: with the launch options of the class. `spread` differs between decisions.
/// A pool without shapes stays as it is.
pub fn for_class(pool: &Pool, class: Option<&Label>, spread: u64) -> Pool {
    let Some(shapes) = &pool.shapes else { return pool.clone() };
    let options = pool.machines.as_ref().and_then(|machines| {
        let shape = match class {
            Some(class) => Shape::of_label(&pool.name, class.as_str())?.ok()?,
            None => Shape::default(),
        };
        shapes.policy.check(&shape).ok()?;
        let offers = offers(pool, &shapes.policy, &shape, machines, spread);
        Some(offers.into_iter().filter_map(|offer| launch_option(shapes, &shape, machines, offer)).collect())
    });
    Pool { options: Some(options.unwrap_or_else(|| Arc::from([]))), ..pool.clone() }
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

/// The pool and the part of its view that belong to the class of a job; as they are in a pool without shapes.
pub fn of_job(pool: &Pool, view: &PoolView, job: &WaitingJob) -> Option<(Pool, PoolView)> {
    // Outside of a decision about its class, which has the launch options.
    let is_whole = pool.shapes.is_some() && pool.options.is_none();
    is_whole.then(|| (for_class(pool, job.class.as_ref(), view.meta.revision), view.of_class(job.class.as_ref())))
}

/// Decides about one class: `decide` gets the pool and the part of its view that belong to the class. What it writes to META is
/// the state of the class.
pub fn within(
    pool: &Pool,
    view: &PoolView,
    class: Option<&Label>,
    decide: impl FnOnce(&Pool, &PoolView) -> Transaction,
) -> Transaction {
    if pool.shapes.is_none() {
        return decide(pool, view);
    }
    let mut writes = decide(&for_class(pool, class, view.meta.revision), &view.of_class(class));
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
