//! A pool with shapes, and what is known of its machines.

#![allow(dead_code, reason = "each test file uses some of these")]

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::config::{
    Architecture, Catalogue, LaunchTemplate, Machines, Market, MarketChoice, MicroUsd, Order, Pool, RootVolume,
    ShapePolicy, Shapes, SpotPrices, TypeFacts,
};
use domain::ids::{InstanceType, Zone};

use crate::common;

/// USD per GiB and hour, in millionths.
pub(crate) const GIB_HOUR: MicroUsd = MicroUsd(110);

fn facts(vcpus: u32, gib: u32, architecture: Architecture, price: u64) -> TypeFacts {
    TypeFacts {
        vcpus,
        memory_mib: gib * 1024,
        architecture,
        only_if_listed: false,
        zones: ["zone-a".into(), "zone-b".into()].into(),
        price_per_hour: Some(MicroUsd(price)),
    }
}

/// Five types in two zones.
pub(crate) fn catalogue() -> Catalogue {
    let burstable = TypeFacts { only_if_listed: true, ..facts(2, 8, Architecture::X64, 83_200) };
    let in_one_zone = TypeFacts { zones: ["zone-b".into()].into(), ..facts(8, 32, Architecture::X64, 350_000) };
    let types = [
        ("m7i.large", facts(2, 8, Architecture::X64, 100_800)),
        ("m7i.2xlarge", facts(8, 32, Architecture::X64, 403_200)),
        ("m7a.2xlarge", in_one_zone),
        ("m8g.2xlarge", facts(8, 32, Architecture::Arm64, 359_000)),
        ("t3.large", burstable),
    ];
    Catalogue {
        types: types.map(|(name, facts)| (name.into(), facts)).into(),
        gib_hour: GIB_HOUR,
        zones: [("subnet-a".into(), "zone-a".into()), ("subnet-b".into(), "zone-b".into())].into(),
        unknown_subnets: [].into(),
        read_at: common::noon(),
        revision: 1,
    }
}

/// Prices by type and zone, in millionths of USD per hour.
pub(crate) fn spot(prices: &[(&str, &str, u64)]) -> SpotPrices {
    let mut all: BTreeMap<InstanceType, BTreeMap<Zone, MicroUsd>> = BTreeMap::new();
    for (name, zone, price) in prices {
        all.entry((*name).into()).or_default().insert((*zone).into(), MicroUsd(*price));
    }
    SpotPrices { prices: all, reclaimed: BTreeMap::new(), read_at: common::noon(), revision: 1 }
}

pub(crate) fn policy() -> ShapePolicy {
    ShapePolicy {
        cpu: "1..32".parse().expect("a range"),
        ram: "2..128".parse().expect("a range"),
        architectures: vec![Architecture::X64, Architecture::Arm64],
        families: Vec::new(),
        disk: Some("40..500".parse().expect("a range")),
        markets: vec![Market::Spot, Market::OnDemand],
        price_per_hour: None,
    }
}

/// Pool `linux` of `octo` with shapes, in two subnets.
pub(crate) fn pool() -> Pool {
    let root = RootVolume {
        device: "/dev/sda1".to_owned(),
        gib: 40,
        kind: "gp3".to_owned(),
        iops: None,
        throughput: None,
        initialize_at: None,
        kms_key: None,
    };
    let template =
        |id: &str| LaunchTemplate { id: id.into(), name: id.to_owned(), version: 1, root: Some(root.clone()) };
    let launch_templates =
        [(Architecture::X64, template("lt-x64")), (Architecture::Arm64, template("lt-arm64"))].into();
    Pool {
        subnets: vec!["subnet-a".into(), "subnet-b".into()],
        instance_types: Vec::new(),
        market: MarketChoice::OnDemand,
        order: Order::Price,
        shapes: Some(Shapes { policy: policy(), launch_templates }),
        machines: Some(Arc::new(Machines { catalogue: catalogue(), spot: None })),
        ..common::pool()
    }
}
