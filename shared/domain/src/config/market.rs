//! Markets, and the tuples that a launch chooses from.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceType, SubnetId, TemplateId};

/// How an instance is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Market {
    OnDemand,
    /// Cheaper, but EC2 may reclaim the instance with two minutes' notice.
    Spot,
}

impl fmt::Display for Market {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Market::OnDemand => "on-demand",
            Market::Spot => "spot",
        })
    }
}

/// The markets that the operator allows, in order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarketChoice {
    #[default]
    OnDemand,
    Spot,
    /// Spot first, and on-demand once EC2 has refused every spot tuple.
    SpotThenOnDemand,
}

impl MarketChoice {
    /// The markets to try, first choice first.
    pub fn markets(self) -> &'static [Market] {
        match self {
            MarketChoice::OnDemand => &[Market::OnDemand],
            MarketChoice::Spot => &[Market::Spot],
            MarketChoice::SpotThenOnDemand => &[Market::Spot, Market::OnDemand],
        }
    }
}

/// The order in which launch options are tried, within a market.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// As the pool file lists instance types or, in a pool with shapes, families.
    #[default]
    Listed,
    /// The cheapest first.
    Price,
}

/// One way to launch: the parameters of RunInstances for which EC2 may refuse an attempt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tuple {
    pub template: TemplateId,
    pub template_version: u64,
    /// Determines the zone. A client token is valid in one zone.
    pub subnet: SubnetId,
    pub instance_type: InstanceType,
    pub market: Market,
    /// The root volume, if a job asked for its size. None: the launch template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootVolume>,
}

impl Tuple {
    /// Whether a machine launched as `other` suits every job that one launched as this suits. Its launch template may be older.
    pub fn serves_like(&self, other: &Tuple) -> bool {
        let Tuple { template: _, template_version: _, subnet, instance_type, market, root } = self;
        *subnet == other.subnet
            && *instance_type == other.instance_type
            && *market == other.market
            && *root == other.root
    }

    /// Whether both are the same machine, with any volume.
    pub fn is_same_machine(&self, other: &Tuple) -> bool {
        let Tuple { template, template_version, subnet, instance_type, market, root: _ } = self;
        *template == other.template
            && *template_version == other.template_version
            && *subnet == other.subnet
            && *instance_type == other.instance_type
            && *market == other.market
    }
}

/// A root volume as RunInstances gets it: complete, because a mapping replaces the whole one of the launch template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RootVolume {
    /// The image's root device, such as `/dev/sda1`.
    pub device: String,
    pub gib: u32,
    /// Such as `gp3`.
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u32>,
    /// MiB per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<u32>,
    /// The rate at which EC2 fills the volume from its snapshot, in MiB per second. None: block by block, as each is first read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initialize_at: Option<u32>,
    /// The key that encrypts it. None: the account's default key of EBS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in {}", self.instance_type, self.market, self.subnet)
    }
}
