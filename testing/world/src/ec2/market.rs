//! DescribeInstanceTypes, DescribeInstanceTypeOfferings and DescribeSpotPriceHistory.

use jiff::Timestamp;

use super::*;

/// An instance type as EC2 describes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TypeInfo {
    pub name: &'static str,
    pub vcpus: u32,
    pub memory_mib: u32,
    /// `x86_64` or `arm64`.
    pub architecture: &'static str,
    pub current_generation: bool,
    pub burstable: bool,
    pub bare_metal: bool,
    /// USD per hour, on demand.
    pub price: f64,
}

const fn general(name: &'static str, vcpus: u32, gib: u32, architecture: &'static str, price: f64) -> TypeInfo {
    TypeInfo {
        name,
        vcpus,
        memory_mib: gib * 1024,
        architecture,
        current_generation: true,
        burstable: false,
        bare_metal: false,
        price,
    }
}

/// A few of EC2's types, with list prices of us-east-1 of November 2025.
pub const TYPES: [TypeInfo; 15] = [
    general("c7i.large", 2, 4, "x86_64", 0.08925),
    general("c7i.2xlarge", 8, 16, "x86_64", 0.357),
    general("c8g.large", 2, 4, "arm64", 0.07976),
    general("c8g.2xlarge", 8, 16, "arm64", 0.31904),
    general("g6.2xlarge", 8, 32, "x86_64", 0.9776),
    general("m7a.large", 2, 8, "x86_64", 0.11592),
    general("m7i.large", 2, 8, "x86_64", 0.1008),
    general("m7i.xlarge", 4, 16, "x86_64", 0.2016),
    general("m7i.2xlarge", 8, 32, "x86_64", 0.4032),
    general("m8g.large", 2, 8, "arm64", 0.08976),
    general("m8g.2xlarge", 8, 32, "arm64", 0.35904),
    general("r7i.2xlarge", 8, 64, "x86_64", 0.5292),
    TypeInfo { burstable: true, ..general("t3.large", 2, 8, "x86_64", 0.0832) },
    TypeInfo { current_generation: false, ..general("m4.large", 2, 8, "x86_64", 0.1) },
    TypeInfo { bare_metal: true, ..general("m7i.metal-24xl", 96, 384, "x86_64", 4.8384) },
];

/// How long a spot price stays the same.
const PRICE_CHANGES_EVERY: i64 = 900;

impl Ec2 {
    /// DescribeInstanceTypes.
    pub fn describe_instance_types(&mut self, now: Timestamp) -> Result<&'static [TypeInfo], Failure> {
        self.admit(Operation::DescribeInstanceTypes, now)?;
        Ok(&TYPES)
    }

    /// DescribeInstanceTypeOfferings with the location type `availability-zone`: types and zones. One type in seven is missing
    /// in a zone.
    pub fn describe_instance_type_offerings(&mut self, now: Timestamp) -> Result<Vec<(&'static str, String)>, Failure> {
        self.admit(Operation::DescribeInstanceTypeOfferings, now)?;
        let zones = self.zones();
        let all = TYPES.iter().flat_map(|it| zones.iter().map(move |zone| (it.name, zone.clone())));
        Ok(all.filter(|(name, zone)| is_offered(name, zone)).collect())
    }

    /// DescribeSpotPriceHistory with the present time as the start: type, zone and USD per hour.
    pub fn describe_spot_price_history(
        &mut self,
        types: &[String],
        now: Timestamp,
    ) -> Result<Vec<(String, String, f64)>, Failure> {
        self.admit(Operation::DescribeSpotPriceHistory, now)?;
        let zones = self.zones();
        let known = TYPES.iter().filter(|it| types.iter().any(|name| name == it.name));
        let all = known.flat_map(|it| zones.iter().map(move |zone| (it, zone)));
        Ok(all.map(|(it, zone)| (it.name.to_owned(), zone.clone(), spot_price(it, zone, now))).collect())
    }

    fn zones(&self) -> Vec<String> {
        let zones: std::collections::BTreeSet<&String> = self.subnets.values().map(|subnet| &subnet.zone).collect();
        zones.into_iter().cloned().collect()
    }
}

/// Whether a zone offers a type.
pub fn is_offered(name: &str, zone: &str) -> bool {
    !mixed(&[name, zone]).is_multiple_of(7)
}

/// The spot price of a type in a zone at that time, in USD per hour. Each has a usual price, between a quarter and three quarters
/// of the price on demand, and moves around it by up to 15 %.
pub fn spot_price(it: &TypeInfo, zone: &str, at: Timestamp) -> f64 {
    let period = (at.as_second() / PRICE_CHANGES_EVERY).to_string();
    let share = |texts: &[&str]| (mixed(texts) % 1000) as f64 / 1000.0;
    let (usual, now) = (0.25 + 0.5 * share(&[it.name, zone]), 0.85 + 0.3 * share(&[it.name, zone, &period]));
    it.price * usual * now
}

/// A number that looks random and depends on the texts only (FNV-1a).
fn mixed(texts: &[&str]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
