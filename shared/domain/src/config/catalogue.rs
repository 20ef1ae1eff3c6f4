//! What is known of instance types and of spot prices.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::architecture::Architecture;
use crate::config::market::Market;
use crate::config::price::MicroUsd;
use crate::ids::{InstanceType, SubnetId, Zone};

/// What a pool's launch options are computed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machines {
    pub catalogue: Catalogue,
    /// None if they were never read.
    pub spot: Option<SpotPrices>,
}

/// The item `CATALOGUE`. `drover pools apply` writes it and the janitor refreshes it daily. It has only the types that a
/// pool may use, and the zones of the pools' subnets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    pub types: BTreeMap<InstanceType, TypeFacts>,
    /// What one GiB of a root volume costs per hour.
    pub gib_hour: MicroUsd,
    /// The zone of each subnet.
    pub zones: BTreeMap<SubnetId, Zone>,
    /// Subnets of pools that EC2 does not know.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unknown_subnets: BTreeSet<SubnetId>,
    /// When EC2 was asked.
    pub read_at: Timestamp,
    pub revision: u64,
}

/// What EC2 says of an instance type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeFacts {
    pub vcpus: u32,
    pub memory_mib: u32,
    pub architecture: Architecture,
    /// Set for families that only a pool's list of families admits: an old generation, burstable, or bare metal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_if_listed: bool,
    /// The zones that offer it.
    pub zones: BTreeSet<Zone>,
    /// The list price on demand, per hour. None if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_per_hour: Option<MicroUsd>,
}

/// The item `MARKET`: spot prices. The janitor refreshes it every ten minutes. It is a preference: it may be old or missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpotPrices {
    /// Per hour, by type and zone.
    pub prices: BTreeMap<InstanceType, BTreeMap<Zone, MicroUsd>>,
    /// Where EC2 reclaimed machines within the last hour. They are tried last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reclaimed: BTreeMap<InstanceType, BTreeSet<Zone>>,
    /// When EC2 was asked.
    pub read_at: Timestamp,
    pub revision: u64,
}

impl Machines {
    /// The price of a machine per hour, without a volume of its own.
    pub fn price(&self, instance_type: &InstanceType, market: Market, zone: &Zone) -> Option<MicroUsd> {
        let on_demand = self.catalogue.types.get(instance_type)?.price_per_hour;
        match market {
            Market::OnDemand => on_demand,
            // EC2 charges at most the price on demand.
            Market::Spot => self.spot.as_ref().and_then(|spot| spot.price(instance_type, zone)).or(on_demand),
        }
    }

    /// Whether EC2 reclaimed such a machine within the last hour. It never reclaims one on demand.
    pub fn is_reclaimed(&self, instance_type: &InstanceType, market: Market, zone: &Zone) -> bool {
        let reclaimed = self.spot.as_ref().and_then(|spot| spot.reclaimed.get(instance_type));
        market == Market::Spot && reclaimed.is_some_and(|zones| zones.contains(zone))
    }
}

impl SpotPrices {
    pub fn price(&self, instance_type: &InstanceType, zone: &Zone) -> Option<MicroUsd> {
        self.prices.get(instance_type)?.get(zone).copied()
    }
}

/// An instance type that EC2 describes. A type with several architectures is described once for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedType {
    pub name: InstanceType,
    pub vcpus: u32,
    pub memory_mib: u32,
    pub architecture: Architecture,
    pub current_generation: bool,
    pub burstable: bool,
    pub bare_metal: bool,
    /// The zones that offer it.
    pub zones: BTreeSet<Zone>,
}

/// What EC2 says of the region's instance types and of some subnets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedMachines {
    pub types: Vec<ObservedType>,
    pub zones: BTreeMap<SubnetId, Zone>,
}

/// A spot price, for Linux.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedPrice {
    pub instance_type: InstanceType,
    pub zone: Zone,
    pub per_hour: MicroUsd,
}
