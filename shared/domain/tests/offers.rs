//! Which machines satisfy a shape, and in which order they are tried.

mod common;
#[path = "common/shapes.rs"]
mod shapes;

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::config::{
    Architecture, Machines, Market, MarketChoice, MicroUsd, Order, Pool, Shape, ShapePolicy, SpotPrices,
};
use domain::ids::InstanceType;
use domain::policy::class::for_class;
use domain::policy::offer::{Excluded, Offer, excluded, offers};
use domain::state::Meta;
use proptest::prelude::*;

use self::shapes::{catalogue, policy, spot};

fn shapes_pool(market: MarketChoice) -> Pool {
    Pool { market, ..shapes::pool() }
}

fn shape(terms: &str) -> Shape {
    terms.parse().expect("a shape")
}

fn shown(offers: &[Offer]) -> Vec<String> {
    let price = |offer: &Offer| offer.price_per_hour.map_or("?".to_owned(), |price| price.0.to_string());
    offers.iter().map(|it| format!("{} {} {} {}", it.instance_type, it.market, it.zone, price(it))).collect()
}

#[test]
fn the_cheapest_machine_that_is_large_enough_comes_first() {
    let (catalogue, pool) = (catalogue(), shapes_pool(MarketChoice::OnDemand));
    let known = Machines { catalogue, spot: None };
    assert_eq!(
        shown(&offers(&pool, &policy(), &shape("8cpu/32gb"), &known, 0)),
        [
            "m7a.2xlarge on-demand zone-b 354400",
            "m7i.2xlarge on-demand zone-a 407600",
            "m7i.2xlarge on-demand zone-b 407600"
        ]
    );
    // Equal prices are spread over zones.
    assert_eq!(
        shown(&offers(&pool, &policy(), &shape("8cpu"), &known, 1))[1..],
        ["m7i.2xlarge on-demand zone-b 407600", "m7i.2xlarge on-demand zone-a 407600"]
    );
}

#[test]
fn spot_comes_before_on_demand_and_a_volume_costs_more() {
    let (catalogue, pool) = (catalogue(), shapes_pool(MarketChoice::SpotThenOnDemand));
    let spot = spot(&[("m8g.2xlarge", "zone-a", 200_000), ("m8g.2xlarge", "zone-b", 150_000)]);
    let known = Machines { catalogue: catalogue.clone(), spot: Some(spot) };
    assert_eq!(
        shown(&offers(&pool, &policy(), &shape("8cpu/arm64/100disk"), &known, 0)),
        [
            "m8g.2xlarge spot zone-b 161000",
            "m8g.2xlarge spot zone-a 211000",
            "m8g.2xlarge on-demand zone-a 370000",
            "m8g.2xlarge on-demand zone-b 370000"
        ]
    );
    let only = offers(&pool, &policy(), &shape("8cpu/arm64/on-demand"), &known, 0);
    assert!(only.iter().all(|offer| offer.market == Market::OnDemand));
}

#[test]
fn in_a_pool_without_shapes_that_is_ordered_by_price_what_ec2_reclaimed_comes_last_in_its_market() {
    let mut spot = spot(&[("m7i.2xlarge", "zone-a", 150_000), ("m7i.2xlarge", "zone-b", 160_000)]);
    let first = |spot: &SpotPrices| {
        let machines = Machines { catalogue: catalogue(), spot: Some(spot.clone()) };
        let (order, shapes) = (Order::Price, None);
        let instance_types = vec!["m7i.2xlarge".into()];
        let pool = Pool { order, shapes, instance_types, ..shapes_pool(MarketChoice::SpotThenOnDemand) };
        let pool = Pool { machines: Some(Arc::new(machines)), ..pool };
        let meta = Meta::new(pool.name.clone(), "e1".parse().expect("an epoch"));
        let options = for_class(&pool, None, &meta).launch_options();
        assert_eq!(options[3].tuple.market, Market::OnDemand);
        options[0].price_per_hour
    };
    assert_eq!(first(&spot), Some(MicroUsd(150_000)));
    spot.reclaimed.entry("m7i.2xlarge".into()).or_default().insert("zone-a".into());
    assert_eq!(first(&spot), Some(MicroUsd(160_000)));
}

#[test]
fn families_that_the_pool_lists_are_tried_in_that_order() {
    let pool = Pool { order: Order::Listed, ..shapes_pool(MarketChoice::OnDemand) };
    let known = Machines { catalogue: catalogue(), spot: None };
    let first = |families: [&str; 2]| {
        let families = families.map(|it| it.parse().expect("a family")).to_vec();
        let policy = ShapePolicy { families, ..policy() };
        offers(&pool, &policy, &shape("8cpu"), &known, 0).remove(0).instance_type
    };
    assert_eq!(first(["m7i", "m7a"]), "m7i.2xlarge".into());
    assert_eq!(first(["m7a", "m7*"]), "m7a.2xlarge".into());
}

#[test]
fn each_other_type_is_excluded_for_a_reason() {
    let (mut catalogue, pool) = (catalogue(), shapes_pool(MarketChoice::OnDemand));
    catalogue.types.get_mut(&"m7i.large".into()).unwrap().price_per_hour = None;
    let known = Machines { catalogue, spot: None };
    let policy = ShapePolicy { price_per_hour: Some(MicroUsd(400_000)), ..policy() };
    let why = |terms: &str| -> BTreeMap<String, Excluded> {
        excluded(&pool, &policy, &shape(terms), &known).into_iter().map(|(name, why)| (name.to_string(), why)).collect()
    };
    assert_eq!(
        why("4cpu"),
        [
            ("m7i.large".to_owned(), Excluded::FewerVcpus),
            ("m7i.2xlarge".to_owned(), Excluded::TooExpensive),
            ("m8g.2xlarge".to_owned(), Excluded::Architecture),
            ("t3.large".to_owned(), Excluded::Family),
        ]
        .into()
    );
    assert_eq!(why("1cpu")["m7i.large"], Excluded::NoPrice);
    let one_subnet = Pool { subnets: vec!["subnet-a".into()], ..pool.clone() };
    let excluded = excluded(&one_subnet, &policy, &shape("8cpu"), &known);
    assert!(excluded.contains(&("m7a.2xlarge".into(), Excluded::NoSubnet)), "{excluded:?}");
}

#[test]
fn a_machine_as_large_and_as_expensive_as_the_pool_allows_is_offered() {
    let known = Machines { catalogue: catalogue(), spot: None };
    let pool = shapes_pool(MarketChoice::OnDemand);
    // m7i.2xlarge has 8 vCPUs and 32 GiB, and costs 407,600 millionths with its volume.
    let why = |cpu: &str, ram: &str, cap: u64| {
        let (cpu, ram) = (cpu.parse().expect("a range"), ram.parse().expect("a range"));
        let policy = ShapePolicy { cpu, ram, price_per_hour: Some(MicroUsd(cap)), ..policy() };
        let excluded = excluded(&pool, &policy, &shape("2cpu"), &known);
        excluded.into_iter().find(|(name, _)| *name == "m7i.2xlarge".into()).map(|(_, why)| why)
    };
    assert_eq!(why("1..8", "2..32", 407_600), None);
    assert_eq!(why("1..7", "2..32", 407_600), Some(Excluded::BeyondBounds));
    assert_eq!(why("1..8", "2..31", 407_600), Some(Excluded::BeyondBounds));
    assert_eq!(why("1..8", "2..32", 407_599), Some(Excluded::TooExpensive));
    assert_eq!(Excluded::NoSubnet.to_string(), "is not offered in a zone of the pool's subnets");
}

proptest! {
    #[test]
    fn every_offer_satisfies_its_shape_the_policy_and_the_cap(
        cpu in proptest::option::of(1..12_u32),
        ram in proptest::option::of(1..40_u32),
        disk in proptest::option::of(40..500_u32),
        arm in proptest::option::of(any::<bool>()),
        on_demand in proptest::option::of(any::<bool>()),
        cap in proptest::option::of(50_000..500_000_u64),
        prices in proptest::collection::vec((0..5_usize, any::<bool>(), 10_000..500_000_u64), 0..8),
        spread in any::<u64>(),
    ) {
        let catalogue = catalogue();
        let names: Vec<&InstanceType> = catalogue.types.keys().collect();
        let prices: Vec<(&str, &str, u64)> =
            prices.iter().map(|(index, a, price)| (names[*index].as_str(), if *a { "zone-a" } else { "zone-b" }, *price)).collect();
        let spot = spot(&prices);
        let known = Machines { catalogue: catalogue.clone(), spot: Some(spot) };
        let shape = Shape {
            cpu,
            ram,
            disk,
            architecture: arm.map(|arm| if arm { Architecture::Arm64 } else { Architecture::X64 }),
            market: on_demand.map(|on_demand| if on_demand { Market::OnDemand } else { Market::Spot }),
        };
        let policy = ShapePolicy { price_per_hour: cap.map(MicroUsd), ..policy() };
        let pool = shapes_pool(MarketChoice::SpotThenOnDemand);
        let found = offers(&pool, &policy, &shape, &known, spread);
        for offer in &found {
            let facts = &catalogue.types[&offer.instance_type];
            prop_assert!(facts.vcpus >= cpu.unwrap_or(1) && facts.memory_mib >= ram.unwrap_or(2) * 1024);
            prop_assert_eq!(facts.architecture, shape.architecture.unwrap_or(Architecture::X64));
            prop_assert!(!facts.only_if_listed && facts.zones.contains(&offer.zone));
            prop_assert_eq!(&catalogue.zones[&offer.subnet], &offer.zone);
            prop_assert!(cap.is_none_or(|cap| offer.price_per_hour.is_some_and(|price| price.0 <= cap)));
            prop_assert!(shape.market.is_none_or(|market| offer.market == market));
        }
        // A type is either offered or excluded.
        let without = excluded(&pool, &policy, &shape, &known);
        for name in names {
            let is_offered = found.iter().any(|offer| offer.instance_type == *name);
            prop_assert_ne!(is_offered, without.iter().any(|(other, _)| other == name));
        }
        // Cheapest first within a market.
        let in_order = |one: &Offer, next: &Offer| one.market != next.market || one.price_per_hour <= next.price_per_hour;
        prop_assert!(found.windows(2).all(|pair| in_order(&pair[0], &pair[1])));
    }
}
