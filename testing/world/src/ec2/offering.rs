//! The instance types of a region, and their prices.

use jiff::Timestamp;

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

/// The instance types of a region, where they are offered, and their spot prices.
#[derive(Debug, Clone, Default)]
pub enum Offering {
    /// [`TYPES`]. One type in seven is missing in a zone, and spot prices move.
    #[default]
    Varied,
    /// These types in every zone. A spot machine costs this share of the price on demand.
    Uniform { types: Vec<TypeInfo>, spot_share: f64 },
}

impl Offering {
    pub(super) fn types(&self) -> &[TypeInfo] {
        match self {
            Offering::Varied => &TYPES,
            Offering::Uniform { types, .. } => types,
        }
    }

    pub(super) fn is_offered(&self, name: &str, zone: &str) -> bool {
        match self {
            Offering::Varied => is_offered(name, zone),
            Offering::Uniform { .. } => true,
        }
    }

    pub(super) fn spot_price(&self, it: &TypeInfo, zone: &str, at: Timestamp) -> f64 {
        match self {
            Offering::Varied => spot_price(it, zone, at),
            Offering::Uniform { spot_share, .. } => it.price * spot_share,
        }
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
