//! What only EC2 knows about the machines of pools with shapes: whether there is one for each architecture, and at what price.

use std::collections::BTreeSet;

use domain::config::{Architecture, Machines, Market, Pool, ShapePolicy, SpotPrices};
use domain::policy::market;
use domain::state::{Item, Key};
use engine::ports::{Compute, Store};
use jiff::Timestamp;

use super::installation::Installation;
use crate::launches::of_architecture;
use crate::output::Failure;
use crate::pool_file::{Cap, PoolFile, Priced, judge};

/// What EC2 offers for the pools, as it is stored for them. None if no pool needs it.
pub(super) async fn offered<S: Store>(
    pools: &[Pool],
    installation: &Installation<'_, S>,
    now: Timestamp,
) -> Result<Option<Machines>, Failure> {
    let subnets = market::subnets(pools);
    if subnets.is_empty() {
        return Ok(None);
    }
    let (mut known, mut priced) = (None, None);
    for item in installation.table.get_many(&[Key::Catalogue, Key::SpotPrices]).await? {
        match item {
            Item::Catalogue(found) => known = Some(found),
            Item::SpotPrices(found) => priced = Some(found),
            _ => {}
        }
    }
    let Installation { ec2, .. } = installation;
    let read = ec2.machines(&subnets).await?;
    let catalogue = market::catalogue(pools, read.types, read.zones, &ec2.rates(), known.as_ref(), now);
    let read = ec2.spot_prices(&catalogue.types.keys().cloned().collect(), now).await?;
    let prices = market::spot_prices(&catalogue, read, std::iter::empty(), priced.as_ref(), now);
    // Only a sweep knows what EC2 has reclaimed.
    let spot = SpotPrices { reclaimed: priced.map(|priced| priced.reclaimed).unwrap_or_default(), ..prices };
    Ok(Some(Machines { catalogue, spot: Some(spot) }))
}

/// Compares the policy of each pool with shapes with what EC2 offers in the zones of the pool's subnets.
pub(super) fn check_shapes(file: &mut PoolFile, pools: &[Pool], region: &str) {
    for pool in pools {
        let (Some(shapes), Some(machines)) = (&pool.shapes, &pool.machines) else { continue };
        for architecture in &shapes.policy.architectures {
            check_architecture(file, pool, *architecture, machines, region);
        }
        let sizes = shapes.launch_templates.values().filter_map(|template| template.root.as_ref());
        let smallest = sizes.map(|root| root.gib).max();
        if let (Some(disk), Some(smallest)) = (shapes.policy.disk, smallest)
            && *disk.range().start() < smallest
        {
            let message = format!(
                "shapes.disk: begins below the {smallest} GiB of a launch template's volume, and EC2 refuses a volume that is \
                 smaller than its image; write disk = \"{smallest}..{}\"",
                smallest.max(*disk.range().end())
            );
            file.warn(&pool.name, "shapes.disk", message);
        }
    }
}

fn check_architecture(file: &mut PoolFile, pool: &Pool, architecture: Architecture, machines: &Machines, region: &str) {
    let Some(shapes) = &pool.shapes else { return };
    let ShapePolicy { cpu, ram, markets, .. } = &shapes.policy;
    let found = of_architecture(pool, architecture, Some(Market::OnDemand), machines);
    if found.is_empty() {
        let message = format!(
            "shapes.arch: EC2 offers no {architecture} machine with {cpu} vCPUs and {ram} GiB of the allowed families in the \
             zones of the pool's subnets; widen the ranges or the families, or remove {architecture}"
        );
        return file.refuse(&pool.name, "shapes.arch", message);
    }
    let priced = found.iter().filter_map(|offer| {
        let (per_hour, instance_type) = (offer.price_per_hour?, offer.instance_type.clone());
        Some(Priced { per_hour, instance_type, basis: format!("with its volume in {region}") })
    });
    let cheapest = priced.min();
    let markets: BTreeSet<Market> = markets.iter().chain(pool.market.markets()).copied().collect();
    let caps = [("shapes.usd_per_hour", shapes.policy.price_per_hour), ("usd_per_hour", pool.price_per_hour)];
    for (field, cap) in caps.into_iter().filter_map(|(field, cap)| Some((field, cap?))) {
        match &cheapest {
            Some(cheapest) => match judge(field, &format!("{architecture} machine"), cap, cheapest, &markets) {
                (Cap::PaysForNone, Some(message)) => file.refuse(&pool.name, field, message),
                (Cap::MayPayForSpot, Some(message)) => file.warn(&pool.name, field, message),
                (Cap::PaysForOne, _) | (_, None) => {}
            },
            None => {
                let message = format!(
                    "{field}: no price is known in {region} for the {architecture} machines that the pool allows, and under a \
                     cap a machine without a known price is not launched; allow other families, or remove the cap"
                );
                file.refuse(&pool.name, field, message);
            }
        }
    }
}
