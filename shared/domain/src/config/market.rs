//! Markets, and the tuples that a launch chooses from.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceType, SubnetId, TemplateId};

/// How EC2 is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Market {
    /// Never interrupted.
    OnDemand,
    /// Cheaper; EC2 may take it back with two minutes' notice.
    Spot,
}

/// What the operator allows, in order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarketChoice {
    /// On-demand only.
    #[default]
    OnDemand,
    /// Spot only.
    Spot,
    /// Spot; on-demand once every spot tuple refused.
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

/// One way to launch: everything about an attempt that EC2 may refuse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tuple {
    /// The launch template's id.
    pub template: TemplateId,
    /// Its version.
    pub template_version: u64,
    /// The subnet, which is also the zone in which the client token counts.
    pub subnet: SubnetId,
    /// The instance type.
    pub instance_type: InstanceType,
    /// The market.
    pub market: Market,
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let market = match self.market {
            Market::OnDemand => "on-demand",
            Market::Spot => "spot",
        };
        write!(f, "{} {market} in {}", self.instance_type, self.subnet)
    }
}
