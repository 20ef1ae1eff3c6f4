//! `drover shapes`: the machines that a label asks for, in the order in which they would be tried.

use domain::config::{MicroUsd, Pool, Shape};
use domain::policy::offer::{Offer, excluded, offers};
use domain::policy::route::shape;
use engine::ports::Store;
use serde_json::json;

use crate::output::{Failure, Output, or_dash, table};
use crate::read;

/// Lists the candidates of a label with their prices, and why other types are none.
///
/// # Errors
/// The table cannot be read, no pool has shapes under that name, or the catalogue is missing.
pub async fn shapes(store: &impl Store, label: &str) -> Result<Output, Failure> {
    let config = read::config(store).await?;
    let pools: Vec<&Pool> = config.pools.iter().filter(|pool| !config.is_removed(&pool.name)).collect();
    let (pool, shape) = asked(&pools, label)?;
    let (Some(shapes), Some(machines)) = (&pool.shapes, &pool.machines) else {
        return Err(Failure::Usage("the catalogue of instance types is missing -> drover pools apply FILE".to_owned()));
    };
    let found = offers(pool, &shapes.policy, &shape, machines, 0);
    let others = excluded(pool, &shapes.policy, &shape, machines);
    let mut text = match found.is_empty() {
        true => format!("no instance type satisfies {label}\n"),
        false => table(&["TYPE", "MARKET", "ZONE", "USD/HOUR"], found.iter().map(cells)),
    };
    if !others.is_empty() {
        text += "\nnot candidates:\n";
        text.extend(others.iter().map(|(name, why)| format!("  {name} {why}\n")));
    }
    let prices_read_at = machines.spot.as_ref().map(|spot| spot.read_at);
    let candidates: Vec<_> = found.iter().map(candidate).collect();
    let others: Vec<_> = others.iter().map(|(name, why)| json!({ "type": name, "why": why.to_string() })).collect();
    let json = json!({
        "pool": pool.name, "shape": shape.to_string(), "candidates": candidates, "excluded": others,
        "catalogue_read_at": machines.catalogue.read_at, "prices_read_at": prices_read_at,
    });
    Ok(Output { ok: !found.is_empty(), text, json })
}

/// The pool and the shape that a label means.
fn asked<'a>(pools: &[&'a Pool], label: &str) -> Result<(&'a Pool, Shape), Failure> {
    let labels = [label.to_owned()];
    let found = pools.iter().find_map(|pool| Some((*pool, shape(pool, &labels)?)));
    let Some((pool, shape)) = found else {
        let with_shapes = pools.iter().filter(|pool| pool.shapes.is_some());
        let names: Vec<String> = with_shapes.map(|pool| format!("{}/8cpu", pool.name)).collect();
        let hint = match names.is_empty() {
            true => "no pool has shapes; add [pool.shapes] to one, then drover pools apply FILE".to_owned(),
            false => format!("write a label such as {}", names.join(" or ")),
        };
        return Err(Failure::Usage(format!("{label:?} does not begin with the name of a pool with shapes -> {hint}")));
    };
    let refused = |wrong| {
        let name = &pool.name;
        let next = format!("drover pools show {name} prints what its labels may ask for");
        Failure::Usage(format!("pool {name} cannot serve {label}: {wrong} -> {next}"))
    };
    let shape = shape.map_err(refused)?;
    Ok((pool, shape))
}

fn cells(offer: &Offer) -> Vec<String> {
    vec![
        offer.instance_type.to_string(),
        offer.market.to_string(),
        offer.zone.to_string(),
        or_dash(offer.price_per_hour.map(|price| format!("{:.4}", price.usd()))),
    ]
}

fn candidate(offer: &Offer) -> serde_json::Value {
    json!({
        "type": offer.instance_type, "market": offer.market, "zone": offer.zone, "subnet": offer.subnet,
        "usd_per_hour": offer.price_per_hour.map(MicroUsd::usd),
    })
}
