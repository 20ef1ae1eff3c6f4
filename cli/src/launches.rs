//! The launch templates and launch options of a pool, also of one with shapes.

use domain::config::{Architecture, LaunchTemplate, Machines, Market, Pool, Shape, ShapePolicy, Tuple};
use domain::policy::offer::{Offer, offers};

/// The launch templates that the pool uses.
pub(crate) fn templates_of(pool: &Pool) -> Vec<&LaunchTemplate> {
    match &pool.shapes {
        Some(shapes) => shapes.launch_templates.values().collect(),
        None => vec![&pool.launch_template],
    }
}

/// The machines of one architecture that jobs get which ask for nothing else, whatever they cost.
pub(crate) fn of_architecture(
    pool: &Pool,
    architecture: Architecture,
    market: Option<Market>,
    machines: &Machines,
) -> Vec<Offer> {
    let Some(shapes) = &pool.shapes else { return Vec::new() };
    let policy = ShapePolicy { price_per_hour: None, ..shapes.policy.clone() };
    let shape = Shape { architecture: Some(architecture), market, ..Shape::default() };
    offers(pool, &policy, &shape, machines, 0)
}

/// The launch options to try: those of the pool or, in a pool with shapes, one of each architecture and market.
pub(crate) fn examples(pool: &Pool) -> Vec<Tuple> {
    let Some(shapes) = &pool.shapes else { return pool.tuples() };
    let Some(machines) = &pool.machines else { return Vec::new() };
    let mut all = Vec::new();
    for (architecture, template) in &shapes.launch_templates {
        for market in &shapes.policy.markets {
            let found = of_architecture(pool, *architecture, Some(*market), machines);
            all.extend(found.into_iter().next().map(|Offer { instance_type, subnet, market, .. }| Tuple {
                template: template.id.clone(),
                template_version: template.version,
                subnet,
                instance_type,
                market,
                root: None,
            }));
        }
    }
    all
}
