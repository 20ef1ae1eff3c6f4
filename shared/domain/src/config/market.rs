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

/// One way to launch: the parameters of RunInstances for which EC2 may refuse an attempt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tuple {
    pub template: TemplateId,
    pub template_version: u64,
    /// Determines the zone. A client token is valid in one zone.
    pub subnet: SubnetId,
    pub instance_type: InstanceType,
    pub market: Market,
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in {}", self.instance_type, self.market, self.subnet)
    }
}
