//! What machines cost, at AWS's on-demand list price. A spot instance costs at most that.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::ids::InstanceType;

/// The prices that this version of Drover contains, with their source and date.
pub const PRICES: &str = include_str!("../../prices.json");

/// Prices by instance family and region: USD per hour for the size `large`, Linux, on-demand.
#[derive(Debug, Clone, Deserialize)]
pub struct Prices {
    /// The address that the prices were read from.
    pub source: String,
    /// The date on which they were read.
    pub read: String,
    families: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Prices {
    /// Reads a file like [`PRICES`].
    ///
    /// # Errors
    /// The text has another format.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// USD per hour, or None if the price is not known. Sizes of a family cost in proportion: `xlarge` costs twice as much as
    /// `large`, `4xlarge` eight times as much.
    fn hour(&self, instance_type: &InstanceType, region: &str) -> Option<f64> {
        let (family, size) = instance_type.as_str().split_once('.')?;
        let larges = match size {
            "medium" => 0.5,
            "large" => 1.0,
            "xlarge" => 2.0,
            _ => 2.0 * size.strip_suffix("xlarge")?.parse::<f64>().ok()?,
        };
        Some(self.families.get(family)?.get(region)? * larges)
    }

    /// The cost of a machine that runs for that time, or None if its price is not known.
    pub fn cost(&self, instance_type: &InstanceType, region: &str, time: SignedDuration) -> Option<MicroUsd> {
        let hours = time.as_secs_f64().max(0.0) / 3600.0;
        Some(MicroUsd((self.hour(instance_type, region)? * hours * 1e6).round() as u64))
    }
}

/// Parsed when the first slot is closed. The scaler closes none, so this does not slow down its cold start.
static KNOWN: LazyLock<Prices> = LazyLock::new(|| Prices::parse(PRICES).expect("a test parses this file"));

/// The prices of one region.
#[derive(Debug, Clone)]
pub struct Rates {
    region: String,
}

impl Rates {
    pub fn of(region: String) -> Self {
        Self { region }
    }

    /// The list price on demand, per hour. None if it is not known.
    pub fn hour(&self, instance_type: &InstanceType) -> Option<MicroUsd> {
        self.cost(instance_type, SignedDuration::from_hours(1))
    }

    /// See [`Prices::cost`].
    pub fn cost(&self, instance_type: &InstanceType, time: SignedDuration) -> Option<MicroUsd> {
        KNOWN.cost(instance_type, &self.region, time)
    }
}

/// Millionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MicroUsd(pub u64);

impl std::ops::Add for MicroUsd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl MicroUsd {
    /// An amount as AWS writes it, such as `0.100800`. None if the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let usd: f64 = text.parse().ok()?;
        (0.0..1e9).contains(&usd).then_some(Self((usd * 1e6).round() as u64))
    }

    /// The cost of that time at this price per hour.
    #[must_use]
    pub fn during(self, time: SignedDuration) -> Self {
        let hours = time.as_secs_f64().max(0.0) / 3600.0;
        Self((self.0 as f64 * hours).round() as u64)
    }

    pub fn usd(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4} USD", self.usd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_cost_in_proportion_and_unknown_types_have_no_price() {
        let prices = Prices::parse(PRICES).unwrap();
        assert_eq!(prices.hour(&"m7i.large".into(), "us-east-1"), Some(0.1008));
        assert_eq!(prices.hour(&"m7i.4xlarge".into(), "us-east-1"), Some(0.8064));
        for unknown in ["m7i.metal-24xl", "x9.large", "large"] {
            assert_eq!(prices.hour(&unknown.into(), "us-east-1"), None);
        }
        assert_eq!(prices.hour(&"m7i.large".into(), "mars-1"), None);
        let rates = Rates::of("us-east-1".to_owned());
        let ten_minutes = rates.cost(&"m7i.large".into(), SignedDuration::from_mins(10));
        assert_eq!(ten_minutes.map(|cost| cost.to_string()).as_deref(), Some("0.0168 USD"));
    }
}
