//! What jobs would have cost on GitHub's own runners, at GitHub's list prices.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use domain::config::{Architecture, MicroUsd};
use jiff::SignedDuration;
use serde::Deserialize;

/// The prices that this version of Drover contains.
pub static PRICES: LazyLock<Prices> =
    LazyLock::new(|| serde_json::from_str(include_str!("../hosted.json")).expect("a test parses this file"));

/// GitHub's list prices of Linux runners.
#[derive(Debug, Clone, Deserialize)]
pub struct Prices {
    /// The address that the prices were read from.
    pub source: String,
    /// The date on which they were read.
    pub read: String,
    linux: Linux,
    pub platform_charge: PlatformCharge,
}

/// USD per minute by vCPUs.
#[derive(Debug, Clone, Deserialize)]
struct Linux {
    x64: BTreeMap<u32, f64>,
    arm64: BTreeMap<u32, f64>,
}

/// GitHub's charge for each minute of a job on a self-hosted runner.
#[derive(Debug, Clone, Deserialize)]
pub struct PlatformCharge {
    /// In USD.
    pub per_minute: f64,
    pub status: String,
    pub source: String,
}

impl Prices {
    /// The price per minute of the smallest runner with at least as many vCPUs. None if GitHub has none so large.
    pub fn minute(&self, architecture: Architecture, vcpus: u32) -> Option<MicroUsd> {
        let prices = match architecture {
            Architecture::X64 => &self.linux.x64,
            Architecture::Arm64 => &self.linux.arm64,
        };
        let (_, usd) = prices.range(vcpus..).next()?;
        Some(MicroUsd((usd * 1e6).round() as u64))
    }
}

/// The minutes that GitHub charges for a job: each job is rounded up.
pub fn minutes(runs_for: SignedDuration) -> u64 {
    let milliseconds = u64::try_from(runs_for.as_millis()).unwrap_or_default();
    milliseconds.div_ceil(60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_costs_what_the_next_larger_runner_costs() {
        let price = |architecture, vcpus| PRICES.minute(architecture, vcpus).map(|price| price.0);
        assert_eq!(price(Architecture::X64, 1), Some(6_000));
        assert_eq!(price(Architecture::X64, 3), Some(12_000));
        assert_eq!(price(Architecture::Arm64, 64), Some(98_000));
        assert_eq!(price(Architecture::Arm64, 65), None);
        assert!(PRICES.platform_charge.status.contains("postponed"));
    }

    #[test]
    fn each_job_is_rounded_up_to_the_minute() {
        let of = |seconds| minutes(SignedDuration::from_secs(seconds));
        assert_eq!((of(0), of(1), of(60), of(61)), (0, 1, 1, 2));
    }
}
