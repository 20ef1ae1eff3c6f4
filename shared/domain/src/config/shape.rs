//! Shapes: what a job asks for in its label, and what a pool allows.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_with::{DeserializeFromStr, SerializeDisplay};

use crate::config::architecture::Architecture;
use crate::config::catalogue::TypeFacts;
use crate::config::market::Market;
use crate::config::price::MicroUsd;
use crate::ids::{InstanceType, PoolName};

/// The longest label of a shape, in bytes.
pub const LONGEST_LABEL: usize = 100;

/// What a job asks for, from the part of its label after the pool's name: `8cpu/32gb/arm64/spot`. What it omits, the pool
/// decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Shape {
    /// At least this many vCPUs.
    pub cpu: Option<u32>,
    /// At least this much memory, in GiB.
    pub ram: Option<u32>,
    pub architecture: Option<Architecture>,
    pub market: Option<Market>,
    /// Size of the root volume, in GiB.
    pub disk: Option<u32>,
}

/// Why a label is no shape. The text is for the author of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidShape {
    #[error("the label is longer than {LONGEST_LABEL} characters")]
    TooLong,
    #[error("the label has a character that is not ASCII")]
    NotAscii,
    #[error("the label ends or has two slashes in a row; remove the empty term")]
    EmptyTerm,
    #[error("{0:?} is no term; write 8cpu, 32gb, 200disk, x64, arm64, spot or on-demand, separated by slashes")]
    UnknownTerm(String),
    #[error("{0:?} has no number from 1 to 100000 before its unit")]
    Number(String),
    #[error("{0:?} and {1:?} are two terms of one kind; keep one of them")]
    Repeated(String, String),
}

/// Mebibytes in a gibibyte.
pub(crate) const MIB: u32 = 1024;

/// The largest number in a term. No machine has as much.
const LARGEST: u32 = 100_000;

impl Shape {
    /// The terms of a label that begins with the pool's name and a slash. None if the label is no shape of this pool.
    pub fn terms<'a>(pool: &PoolName, label: &'a str) -> Option<&'a str> {
        let (name, terms) = label.split_once('/')?;
        name.eq_ignore_ascii_case(pool.as_str()).then_some(terms)
    }

    /// Parses a whole label of this pool. None if the label is no shape of this pool.
    pub fn of_label(pool: &PoolName, label: &str) -> Option<Result<Self, InvalidShape>> {
        let terms = Self::terms(pool, label)?;
        Some(match label.len() {
            ..=LONGEST_LABEL => terms.parse(),
            _ => Err(InvalidShape::TooLong),
        })
    }
}

/// Terms in any order, upper or lower case.
impl FromStr for Shape {
    type Err = InvalidShape;

    fn from_str(terms: &str) -> Result<Self, InvalidShape> {
        if terms.len() > LONGEST_LABEL {
            return Err(InvalidShape::TooLong);
        }
        if !terms.is_ascii() {
            return Err(InvalidShape::NotAscii);
        }
        let mut shape = Self::default();
        let mut before: Vec<(Term, &str)> = Vec::new();
        for text in terms.split('/') {
            let term = text.parse::<Term>()?;
            let is_same = |(other, _): &&(Term, &str)| std::mem::discriminant(other) == std::mem::discriminant(&term);
            if let Some((_, first)) = before.iter().find(is_same) {
                return Err(InvalidShape::Repeated((*first).to_owned(), text.to_owned()));
            }
            match term {
                Term::Cpu(count) => shape.cpu = Some(count),
                Term::Ram(gib) => shape.ram = Some(gib),
                Term::Disk(gib) => shape.disk = Some(gib),
                Term::Architecture(architecture) => shape.architecture = Some(architecture),
                Term::Market(market) => shape.market = Some(market),
            }
            before.push((term, text));
        }
        Ok(shape)
    }
}

/// The canonical spelling, which reads back as the same shape. Empty if the shape asks for nothing.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = [
            self.cpu.map(|count| format!("{count}cpu")),
            self.ram.map(|gib| format!("{gib}gb")),
            self.architecture.map(|architecture| architecture.to_string()),
            self.market.map(|market| market.to_string()),
            self.disk.map(|gib| format!("{gib}disk")),
        ];
        f.write_str(&terms.into_iter().flatten().collect::<Vec<_>>().join("/"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Term {
    Cpu(u32),
    Ram(u32),
    Disk(u32),
    Architecture(Architecture),
    Market(Market),
}

type OfAmount = fn(u32) -> Term;

const UNITS: [(&str, OfAmount); 3] = [("cpu", Term::Cpu), ("gb", Term::Ram), ("disk", Term::Disk)];

impl FromStr for Term {
    type Err = InvalidShape;

    fn from_str(text: &str) -> Result<Self, InvalidShape> {
        let term = text.to_ascii_lowercase();
        if term.is_empty() {
            return Err(InvalidShape::EmptyTerm);
        }
        match term.as_str() {
            "x64" => return Ok(Term::Architecture(Architecture::X64)),
            "arm64" => return Ok(Term::Architecture(Architecture::Arm64)),
            "spot" => return Ok(Term::Market(Market::Spot)),
            "on-demand" => return Ok(Term::Market(Market::OnDemand)),
            _ => {}
        }
        let amount = term.as_str();
        let with_unit = UNITS.iter().find_map(|(unit, term)| Some((amount.strip_suffix(unit)?, term)));
        let Some((number, term)) = with_unit else { return Err(InvalidShape::UnknownTerm(text.to_owned())) };
        // `parse` would accept a sign, and leading zeros. Each spelling is a class of its own, so there should be one.
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
        match number.parse() {
            Ok(number @ 1..=LARGEST) if is_number => Ok(term(number)),
            _ => Err(InvalidShape::Number(text.to_owned())),
        }
    }
}

/// What a pool allows its jobs to ask for, and what a job gets that does not ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapePolicy {
    /// vCPUs of a machine.
    pub cpu: Bounds,
    /// Memory of a machine, in GiB.
    pub ram: Bounds,
    /// At least one. A job that names none gets the first.
    pub architectures: Vec<Architecture>,
    /// Empty: every family of the current generation that is neither burstable nor bare metal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<FamilyPattern>,
    /// Size of the root volume, in GiB. None: a label may not ask for a size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bounds>,
    /// What a label may ask for. At least one.
    pub markets: Vec<Market>,
    /// The most that one machine may cost per hour, its volume included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_per_hour: Option<MicroUsd>,
}

/// Why a pool does not allow a shape. The text is for the author of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    #[error("the pool allows {bounds} vCPUs, and the label asks for {asked}")]
    Cpu { asked: u32, bounds: Bounds },
    #[error("the pool allows {bounds} GiB of memory, and the label asks for {asked}")]
    Ram { asked: u32, bounds: Bounds },
    #[error("the pool has no {0} machines")]
    Architecture(Architecture),
    #[error("the pool allows a disk of {bounds} GiB, and the label asks for {asked}")]
    Disk { asked: u32, bounds: Bounds },
    #[error("the pool does not allow a disk in labels")]
    NoDisk,
    #[error("the pool does not allow {0} machines")]
    Market(Market),
}

impl ShapePolicy {
    /// Whether some shape that labels may ask for could get the type.
    pub fn admits(&self, name: &InstanceType, facts: &TypeFacts) -> bool {
        self.admits_family(name, facts)
            && self.architectures.contains(&facts.architecture)
            && self.cpu.contains(facts.vcpus)
            && facts.memory_mib >= self.ram.least * MIB
            && facts.memory_mib <= self.ram.most * MIB
    }

    /// The place of the type's family in the list of families.
    pub fn rank(&self, name: &InstanceType) -> usize {
        let family = family(name);
        self.families.iter().position(|pattern| pattern.matches(family)).unwrap_or_default()
    }

    /// Whether the type's family is allowed.
    pub fn admits_family(&self, name: &InstanceType, facts: &TypeFacts) -> bool {
        let family = family(name);
        match self.families.as_slice() {
            [] => !facts.only_if_listed,
            families => families.iter().any(|pattern| pattern.matches(family)),
        }
    }

    /// Whether labels may ask for this.
    ///
    /// # Errors
    /// They may not: the first term that the pool does not allow.
    pub fn check(&self, shape: &Shape) -> Result<(), NotAllowed> {
        let beyond = |asked: Option<u32>, bounds: Bounds| asked.filter(|asked| !bounds.contains(*asked));
        if let Some(asked) = beyond(shape.cpu, self.cpu) {
            return Err(NotAllowed::Cpu { asked, bounds: self.cpu });
        }
        if let Some(asked) = beyond(shape.ram, self.ram) {
            return Err(NotAllowed::Ram { asked, bounds: self.ram });
        }
        if let Some(architecture) = shape.architecture.filter(|it| !self.architectures.contains(it)) {
            return Err(NotAllowed::Architecture(architecture));
        }
        if let Some(market) = shape.market.filter(|it| !self.markets.contains(it)) {
            return Err(NotAllowed::Market(market));
        }
        match (shape.disk, self.disk) {
            (Some(_), None) => Err(NotAllowed::NoDisk),
            (Some(asked), Some(bounds)) if !bounds.contains(asked) => Err(NotAllowed::Disk { asked, bounds }),
            (Some(_) | None, _) => Ok(()),
        }
    }
}

fn family(name: &InstanceType) -> &str {
    name.as_str().split_once('.').map_or(name.as_str(), |(family, _)| family)
}

/// A range of whole numbers, both ends included: `2..32`, or one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, DeserializeFromStr, SerializeDisplay)]
pub struct Bounds {
    least: u32,
    most: u32,
}

/// The text is no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a range such as \"2..32\", or one number; from 1 to {LARGEST}, the smaller one first")]
pub struct InvalidBounds;

impl Bounds {
    pub fn contains(self, number: u32) -> bool {
        (self.least..=self.most).contains(&number)
    }

    pub fn range(self) -> RangeInclusive<u32> {
        self.least..=self.most
    }
}

impl FromStr for Bounds {
    type Err = InvalidBounds;

    fn from_str(text: &str) -> Result<Self, InvalidBounds> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| is_number && (1..=LARGEST).contains(number))
        };
        match (number(least), number(most)) {
            (Some(least), Some(most)) if least <= most => Ok(Self { least, most }),
            _ => Err(InvalidBounds),
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.least == self.most { write!(f, "{}", self.least) } else { write!(f, "{}..{}", self.least, self.most) }
    }
}

/// Instance families: a name such as `c8g`, or the beginning of names such as `c7*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, DeserializeFromStr, SerializeDisplay)]
pub struct FamilyPattern(String);

/// The text is no family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write an instance family such as \"m7i\", or the beginning of names such as \"m7*\"")]
pub struct InvalidFamily;

impl FamilyPattern {
    /// Whether the family, such as `m7i-flex`, is meant.
    pub fn matches(&self, family: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => family.starts_with(beginning),
            None => family == self.0,
        }
    }
}

impl FromStr for FamilyPattern {
    type Err = InvalidFamily;

    fn from_str(text: &str) -> Result<Self, InvalidFamily> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        match name.bytes().all(is_plain) && !name.is_empty() && name.len() <= 20 {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidFamily),
        }
    }
}

impl fmt::Display for FamilyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool() -> PoolName {
        "any".parse().unwrap()
    }

    #[test]
    fn terms_may_be_in_any_order_and_case() {
        let shape = Shape {
            cpu: Some(8),
            ram: Some(32),
            architecture: Some(Architecture::Arm64),
            market: Some(Market::Spot),
            disk: Some(200),
        };
        for label in ["any/8cpu/32gb/arm64/spot/200disk", "ANY/200Disk/Spot/ARM64/32GB/8CPU"] {
            assert_eq!(Shape::of_label(&pool(), label), Some(Ok(shape)), "{label}");
        }
        assert_eq!(shape.to_string(), "8cpu/32gb/arm64/spot/200disk");
    }

    #[test]
    fn a_label_of_another_pool_is_no_shape_of_this_one() {
        for label in ["any", "any-other/8cpu", "an/8cpu", "anyy/8cpu", "8cpu/any", "any 8cpu"] {
            assert_eq!(Shape::of_label(&pool(), label), None, "{label}");
        }
    }

    #[test]
    fn a_mistake_in_a_label_is_named() {
        let long = format!("any/8cpu/{}", "x".repeat(LONGEST_LABEL));
        let cases = [
            ("any/", "the label ends or has two slashes in a row; remove the empty term"),
            ("any/8cpu//spot", "the label ends or has two slashes in a row; remove the empty term"),
            ("any/0cpu", r#""0cpu" has no number from 1 to 100000 before its unit"#),
            ("any/1000000000cpu", r#""1000000000cpu" has no number from 1 to 100000 before its unit"#),
            ("any/+8cpu", r#""+8cpu" has no number from 1 to 100000 before its unit"#),
            ("any/cpu", r#""cpu" has no number from 1 to 100000 before its unit"#),
            ("any/\u{0668}cpu", "the label has a character that is not ASCII"),
            ("any/8cpu/8cpu", r#""8cpu" and "8cpu" are two terms of one kind; keep one of them"#),
            ("any/x64/arm64", r#""x64" and "arm64" are two terms of one kind; keep one of them"#),
            (
                "any/gpu",
                r#""gpu" is no term; write 8cpu, 32gb, 200disk, x64, arm64, spot or on-demand, separated by slashes"#,
            ),
            (&long, "the label is longer than 100 characters"),
        ];
        for (label, expected) in cases {
            let error = Shape::of_label(&pool(), label).unwrap().unwrap_err();
            assert_eq!(error.to_string(), expected, "{label}");
        }
    }

    #[test]
    fn terms_may_be_as_long_as_a_label() {
        let error = |length| "x".repeat(length).parse::<Shape>().unwrap_err();
        assert!(matches!(error(LONGEST_LABEL), InvalidShape::UnknownTerm(_)));
        assert_eq!(error(LONGEST_LABEL + 1), InvalidShape::TooLong);
    }

    #[test]
    fn what_a_pool_does_not_allow_is_named() {
        let policy = ShapePolicy {
            cpu: "2..8".parse().unwrap(),
            ram: "4..32".parse().unwrap(),
            architectures: vec![Architecture::X64],
            families: Vec::new(),
            disk: Some("40..500".parse().unwrap()),
            markets: vec![Market::OnDemand],
            price_per_hour: None,
        };
        let check = |policy: &ShapePolicy, terms: &str| {
            policy.check(&terms.parse().unwrap()).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(check(&policy, "8cpu/4gb/x64/on-demand/500disk"), "");
        let cases = [
            ("1cpu", "the pool allows 2..8 vCPUs, and the label asks for 1"),
            ("33gb", "the pool allows 4..32 GiB of memory, and the label asks for 33"),
            ("arm64", "the pool has no arm64 machines"),
            ("spot", "the pool does not allow spot machines"),
            ("39disk", "the pool allows a disk of 40..500 GiB, and the label asks for 39"),
        ];
        for (terms, expected) in cases {
            assert_eq!(check(&policy, terms), expected, "{terms}");
        }
        let without = ShapePolicy { disk: None, ..policy };
        assert_eq!(check(&without, "40disk"), "the pool does not allow a disk in labels");
        assert_eq!(check(&without, "8cpu"), "");
    }

    #[test]
    fn a_range_has_two_ends_or_is_one_number() {
        assert_eq!("2..32".parse::<Bounds>().unwrap().to_string(), "2..32");
        assert_eq!("8".parse::<Bounds>().unwrap().to_string(), "8");
        for text in ["", "..", "2..", "32..2", "0..4", "-1..4", "2...4", "2..200000", "two"] {
            assert_eq!(text.parse::<Bounds>(), Err(InvalidBounds), "{text}");
        }
    }

    #[test]
    fn a_family_pattern_is_a_name_or_a_beginning() {
        let matches = |pattern: &str, family: &str| pattern.parse::<FamilyPattern>().unwrap().matches(family);
        assert!(matches("m7*", "m7i") && matches("m7*", "m7i-flex") && matches("c8g", "c8g"));
        assert!(!matches("c8g", "c8gn") && !matches("m7*", "m6i"));
        for text in ["", "*", "M7i", "m7*i", "m7i.large"] {
            assert_eq!(text.parse::<FamilyPattern>(), Err(InvalidFamily), "{text}");
        }
    }

    fn shape() -> impl Strategy<Value = Shape> {
        let number = || proptest::option::of(1..=LARGEST);
        let architecture = proptest::option::of(prop_oneof![Just(Architecture::X64), Just(Architecture::Arm64)]);
        let market = proptest::option::of(prop_oneof![Just(Market::Spot), Just(Market::OnDemand)]);
        (number(), number(), architecture, market, number())
            .prop_map(|(cpu, ram, architecture, market, disk)| Shape { cpu, ram, architecture, market, disk })
            .prop_filter("a label has a term", |shape| *shape != Shape::default())
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_in_any_order(shape in shape(), turns in 0..5_usize, upper in any::<bool>()) {
            let text = shape.to_string();
            let mut terms: Vec<&str> = text.split('/').collect();
            let turns = turns % terms.len();
            terms.rotate_left(turns);
            let label = format!("any/{}", terms.join("/"));
            let label = if upper { label.to_uppercase() } else { label };
            prop_assert_eq!(Shape::of_label(&pool(), &label), Some(Ok(shape)));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), terms in "[0-9a-zA-Z/-]{0,40}") {
            for terms in [text, terms] {
                if let Ok(shape) = terms.parse::<Shape>() {
                    prop_assert_eq!(shape.to_string().parse::<Shape>(), Ok(shape));
                }
            }
        }
    }
}
