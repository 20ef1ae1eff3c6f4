//! The catalogue of instance types and the spot prices: what they contain, and when they are read again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::config::{
    Catalogue, MicroUsd, ObservedPrice, ObservedType, Pool, Rates, ShapePolicy, SpotPrices, TypeFacts,
};
use crate::ids::{InstanceType, SubnetId, Zone};
use crate::state::Instance;

/// How old the catalogue may be. EC2 adds types a few times a month.
const CATALOGUE_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// How old spot prices may be.
const PRICES_EVERY: SignedDuration = SignedDuration::from_mins(10);

/// Whether the catalogue is to be read again.
pub fn is_catalogue_due(pools: &[Pool], catalogue: Option<&Catalogue>, now: Timestamp) -> bool {
    let knows = |subnet: &SubnetId| {
        catalogue.is_some_and(|it| it.zones.contains_key(subnet) || it.unknown_subnets.contains(subnet))
    };
    let is_fresh = catalogue.is_some_and(|it| now.duration_since(it.read_at) < CATALOGUE_EVERY);
    need_prices(pools) && !(is_fresh && subnets(pools).iter().all(knows))
}

/// Whether spot prices are to be read again.
pub fn are_prices_due(pools: &[Pool], prices: Option<&SpotPrices>, now: Timestamp) -> bool {
    let is_fresh = prices.is_some_and(|it| now.duration_since(it.read_at) < PRICES_EVERY);
    need_prices(pools) && !is_fresh
}

fn need_prices(pools: &[Pool]) -> bool {
    pools.iter().any(Pool::needs_prices)
}

/// The subnets of pools that need prices.
pub fn subnets(pools: &[Pool]) -> BTreeSet<SubnetId> {
    pools.iter().filter(|pool| pool.needs_prices()).flat_map(|pool| pool.subnets.iter().cloned()).collect()
}

/// The catalogue from EC2's answers: only types that a pool may use, and zones of the pools' subnets, so that it fits in an
/// item. Its prices are list prices.
pub fn catalogue(
    pools: &[Pool],
    types: Vec<ObservedType>,
    zones: BTreeMap<SubnetId, Zone>,
    rates: &Rates,
    before: Option<&Catalogue>,
    now: Timestamp,
) -> Catalogue {
    let policies: Vec<&ShapePolicy> = pools.iter().filter_map(|pool| Some(&pool.shapes.as_ref()?.policy)).collect();
    let used: BTreeSet<&Zone> = zones.values().collect();
    let types = types.into_iter().filter_map(|it| {
        let facts = TypeFacts {
            vcpus: it.vcpus,
            memory_mib: it.memory_mib,
            architecture: it.architecture,
            only_if_listed: !it.current_generation || it.burstable || it.bare_metal,
            zones: it.zones.into_iter().filter(|zone| used.contains(zone)).collect(),
            price_per_hour: rates.hour(&it.name),
        };
        let is_listed = || pools.iter().any(|pool| pool.needs_prices() && pool.instance_types.contains(&it.name));
        let is_admitted = || policies.iter().any(|policy| policy.admits(&it.name, &facts));
        let is_usable = !facts.zones.is_empty() && (is_admitted() || is_listed());
        is_usable.then_some((it.name, facts))
    });
    let types = types.collect();
    let unknown_subnets = subnets(pools).into_iter().filter(|subnet| !zones.contains_key(subnet)).collect();
    let revision = before.map_or(0, |before| before.revision);
    Catalogue { types, gib_hour: GIB_HOUR, zones, unknown_subnets, read_at: now, revision }
}

/// Hourly list price of a GiB of gp3 in us-east-1, which costs 0.08 USD per month. Other regions cost up to half as much
/// again; the price is used only to order offers and to check caps.
const GIB_HOUR: MicroUsd = MicroUsd(110);

/// Spot prices of the catalogue's types and zones. `reclaimed` are machines that EC2 took back within the last hour.
pub fn spot_prices<'a>(
    catalogue: &Catalogue,
    prices: Vec<ObservedPrice>,
    reclaimed: impl Iterator<Item = &'a Instance>,
    before: Option<&SpotPrices>,
    now: Timestamp,
) -> SpotPrices {
    let mut all: BTreeMap<InstanceType, BTreeMap<Zone, MicroUsd>> = BTreeMap::new();
    for price in prices {
        let is_offered = catalogue.types.get(&price.instance_type).is_some_and(|it| it.zones.contains(&price.zone));
        if is_offered {
            all.entry(price.instance_type).or_default().insert(price.zone, price.per_hour);
        }
    }
    let mut places: BTreeMap<InstanceType, BTreeSet<Zone>> = BTreeMap::new();
    for machine in reclaimed {
        let zone = machine.subnet.as_ref().and_then(|subnet| catalogue.zones.get(subnet));
        if let (Some(instance_type), Some(zone)) = (&machine.instance_type, zone) {
            places.entry(instance_type.clone()).or_default().insert(zone.clone());
        }
    }
    SpotPrices { prices: all, reclaimed: places, read_at: now, revision: before.map_or(0, |before| before.revision) }
}
