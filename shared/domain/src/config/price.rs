//! What machines cost: AWS's list price on demand, which is the most that a machine of that type may have cost.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::ids::InstanceType;

/// The prices that this version knows, with their origin and date.
pub const PRICES: &str = include_str!("../../prices.json");

/// Prices by family and region: USD an hour, Linux, on demand, of the size `large`.
#[derive(Debug, Clone, Deserialize)]
pub struct Prices {
    /// Where they are from.
    pub source: String,
    /// When they were read there.
    pub read: String,
    families: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Prices {
    /// Reads a file like [`PRICES`].
    ///
    /// # Errors
    /// When it is of another form.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// What an hour of that type costs in that region, if that is known. A family's sizes cost in proportion: `xlarge` twice a
    /// `large`, `4xlarge` eight times.
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

    /// What a machine of that type costs there in that time; None if its price is not known.
    pub fn cost(&self, instance_type: &InstanceType, region: &str, time: SignedDuration) -> Option<MicroUsd> {
        let hours = time.as_secs_f64().max(0.0) / 3600.0;
        Some(MicroUsd((self.hour(instance_type, region)? * hours * 1e6).round() as u64))
    }
}

/// Read when the first machine is closed, which the scaler never does: it costs no cold start.
static KNOWN: LazyLock<Prices> = LazyLock::new(|| Prices::parse(PRICES).expect("our own file, which a test reads"));

/// The prices of one region, as this version knows them.
#[derive(Debug, Clone)]
pub struct Rates {
    region: String,
}

impl Rates {
    /// Those of that region.
    pub fn of(region: String) -> Self {
        Self { region }
    }

    /// See [`Prices::cost`].
    pub fn cost(&self, instance_type: &InstanceType, time: SignedDuration) -> Option<MicroUsd> {
        KNOWN.cost(instance_type, &self.region, time)
    }
}

/// Millionths of a US dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MicroUsd(pub u64);

impl MicroUsd {
    /// In dollars.
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
    fn sizes_cost_in_proportion_and_what_is_not_known_has_no_price() {
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
