//! What is kept of EC2's instance types and spot prices, and when they are read again.

mod common;
#[path = "common/shapes.rs"]
mod shapes;

use std::collections::BTreeMap;

use common::{ago, instance, later, noon, pool};
use domain::config::{Architecture, Catalogue, Market, MicroUsd, ObservedPrice, ObservedType, Order, Pool, Rates};
use domain::ids::{SubnetId, Zone};
use domain::policy::market::{are_prices_due, catalogue, is_catalogue_due, spot_prices, subnets};
use domain::state::Instance;

fn observed(name: &str) -> ObservedType {
    ObservedType {
        name: name.into(),
        vcpus: 2,
        memory_mib: 8 * 1024,
        architecture: Architecture::X64,
        current_generation: true,
        burstable: false,
        bare_metal: false,
        zones: ["zone-a".into(), "zone-c".into()].into(),
    }
}

fn zones() -> BTreeMap<SubnetId, Zone> {
    [("subnet-a".into(), "zone-a".into())].into()
}

fn rates() -> Rates {
    Rates::of("us-east-1".to_owned())
}

/// The names of the types that are kept for the pools.
fn kept(pools: &[Pool], types: Vec<ObservedType>) -> Vec<String> {
    let catalogue = catalogue(pools, types, zones(), &rates(), None, noon());
    catalogue.types.keys().map(ToString::to_string).collect()
}

#[test]
fn a_type_is_kept_if_a_label_may_get_it_or_a_pool_lists_it() {
    let gib = |gib: u32| ObservedType { memory_mib: gib * 1024, ..observed("m7i.large") };
    let pool = shapes::pool();
    let is_kept = |it: ObservedType| !kept(std::slice::from_ref(&pool), vec![it]).is_empty();
    // The pool allows 1 to 32 vCPUs and 2 to 128 GiB.
    for good in [observed("m7i.large"), gib(2), gib(128)] {
        assert!(is_kept(good.clone()), "{good:?}");
    }
    for bad in [
        ObservedType { vcpus: 33, ..observed("m7i.large") },
        ObservedType { zones: ["zone-c".into()].into(), ..observed("m7i.large") },
        ObservedType { current_generation: false, ..observed("m4.large") },
        ObservedType { burstable: true, ..observed("t3.large") },
        ObservedType { bare_metal: true, ..observed("m7i.metal") },
        ObservedType { memory_mib: 2 * 1024 - 1, ..observed("m7i.large") },
        ObservedType { memory_mib: 128 * 1024 + 1, ..observed("m7i.large") },
    ] {
        assert!(!is_kept(bad.clone()), "{bad:?}");
    }
    let listed = Pool { order: Order::Price, ..common::pool() };
    assert_eq!(kept(&[listed], vec![observed("m7i.large"), observed("c7i.large")]), ["m7i.large"]);
    assert!(kept(&[common::pool()], vec![observed("m7i.large")]).is_empty(), "its order needs no price");
    let mut only_arm = shapes::pool();
    only_arm.shapes.as_mut().expect("shapes").policy.architectures = vec![Architecture::Arm64];
    assert!(kept(&[only_arm], vec![observed("m7i.large")]).is_empty());
}

#[test]
fn the_catalogue_has_zones_of_the_subnets_list_prices_and_the_subnets_that_ec2_does_not_know() {
    let before = shapes::catalogue();
    let answer = catalogue(&[shapes::pool()], vec![observed("m7i.large")], zones(), &rates(), Some(&before), noon());
    let facts = &answer.types[&"m7i.large".into()];
    assert_eq!(facts.zones, ["zone-a".into()].into());
    assert_eq!(facts.price_per_hour, Some(MicroUsd(100_800)));
    assert_eq!(answer.unknown_subnets, ["subnet-b".into()].into());
    assert_eq!((answer.read_at, answer.revision), (noon(), before.revision));
}

#[test]
fn the_catalogue_is_read_once_a_day_and_when_a_pool_has_another_subnet() {
    let known = shapes::catalogue();
    let pools = [shapes::pool()];
    assert!(is_catalogue_due(&pools, None, noon()));
    assert!(!is_catalogue_due(&pools, Some(&known), later(24 * 3600 - 1)));
    assert!(is_catalogue_due(&pools, Some(&known), later(24 * 3600)));
    let moved = [Pool { subnets: vec!["subnet-c".into()], ..shapes::pool() }];
    assert!(is_catalogue_due(&moved, Some(&known), noon()));
    let asked = Catalogue { unknown_subnets: ["subnet-c".into()].into(), ..known };
    assert!(!is_catalogue_due(&moved, Some(&asked), noon()), "EC2 does not know the subnet, and was asked");
    assert!(!is_catalogue_due(&[pool()], None, noon()), "no pool needs prices");
    assert_eq!(subnets(&[pool(), shapes::pool()]), ["subnet-a".into(), "subnet-b".into()].into());
    assert!(subnets(&[pool()]).is_empty());
}

#[test]
fn spot_prices_are_read_every_ten_minutes_if_a_pool_needs_them() {
    let known = shapes::spot(&[]);
    let pools = [shapes::pool()];
    assert!(are_prices_due(&pools, None, noon()));
    assert!(!are_prices_due(&pools, Some(&known), later(599)));
    assert!(are_prices_due(&pools, Some(&known), later(600)));
    assert!(!are_prices_due(&[pool()], None, noon()), "no pool needs prices");
}

#[test]
fn spot_prices_are_kept_for_types_and_zones_of_the_catalogue_with_what_was_reclaimed() {
    let price = |name: &str, zone: &str| ObservedPrice {
        instance_type: name.into(),
        zone: zone.into(),
        per_hour: MicroUsd(50_000),
    };
    let observed = vec![price("m7i.large", "zone-a"), price("m7i.large", "zone-c"), price("x9.large", "zone-a")];
    let place = |subnet: &str| Instance {
        subnet: Some(subnet.into()),
        instance_type: Some("m7i.large".into()),
        market: Some(Market::Spot),
        ..instance()
    };
    let reclaimed = [place("subnet-b"), place("subnet-unknown")];
    let before = shapes::spot(&[]);
    let prices = spot_prices(&shapes::catalogue(), observed, reclaimed.iter(), Some(&before), ago(5));
    assert_eq!(prices.prices, shapes::spot(&[("m7i.large", "zone-a", 50_000)]).prices);
    assert_eq!(prices.reclaimed, [("m7i.large".into(), ["zone-b".into()].into())].into());
    assert_eq!((prices.read_at, prices.revision), (ago(5), before.revision));
}
