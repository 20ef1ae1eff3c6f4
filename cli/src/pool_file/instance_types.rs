//! Instance types in a pool file: their names and their processor architectures.

use std::fmt;

use domain::ids::InstanceType;
use platform::ec2::{known_types, known_types_from};

use super::fields::{did_you_mean, nearest};

/// An architecture of processors and images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    X64,
    Arm64,
}

impl Architecture {
    /// The architecture of a type. EC2's naming rule: the letter `g` after the generation means an Arm processor. The first
    /// generation, `a1`, is older than the rule.
    pub fn of(instance_type: &InstanceType) -> Self {
        let family = instance_type.as_str().split('.').next().unwrap_or_default();
        let generation = family.trim_start_matches(|c: char| c.is_ascii_lowercase());
        let options = generation.trim_start_matches(|c: char| c.is_ascii_digit());
        let options = options.split('-').next().unwrap_or_default();
        match family == "a1" || options.contains('g') {
            true => Architecture::Arm64,
            false => Architecture::X64,
        }
    }

    /// The architecture that a label names, if any.
    pub(super) fn named(label: &str) -> Option<Self> {
        match label {
            "x64" | "x86_64" | "amd64" => Some(Architecture::X64),
            "arm64" | "aarch64" => Some(Architecture::Arm64),
            _ => None,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Architecture::X64 => "x64",
            Architecture::Arm64 => "arm64",
        })
    }
}

/// What is wrong with the name of an instance type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Misnamed {
    /// No instance type has this name.
    Wrong(String),
    /// The family is newer than the list, or does not exist.
    UnknownFamily(String),
}

/// Compares the name with the list. A new family is possible, a new size of an old family is not.
pub(super) fn misnamed(instance_type: &InstanceType) -> Option<Misnamed> {
    let name = instance_type.as_str();
    if known_types().contains(&name) {
        return None;
    }
    let Some((family, _)) = name.split_once('.') else {
        return Some(Misnamed::Wrong(format!("{name} is no instance type: it must be like m7i.large")));
    };
    let near = did_you_mean(nearest(name, known_types().iter().copied()));
    let is_known = known_types().iter().any(|known| known.split('.').next() == Some(family));
    Some(match is_known {
        true => Misnamed::Wrong(format!("{family} has no instance type {name}{near}")),
        false => Misnamed::UnknownFamily(format!(
            "{name} is not in the list of this drover (aws-sdk-ec2 {}){near}",
            known_types_from()
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_type_says_its_architecture() {
        // As DescribeInstanceTypes answers.
        let arm = ["a1.large", "c6gn.large", "g5g.xlarge", "im4gn.large", "is4gen.large", "hpc7g.4xlarge", "t4g.nano"];
        let x64 = [
            "m7i.large",
            "g6.xlarge",
            "gr6.4xlarge",
            "g4dn.xlarge",
            "m7i-flex.large",
            "p6-b200.48xlarge",
            "u-3tb1.56xlarge",
            "u7i-12tb.224xlarge",
            "vt1.3xlarge",
        ];
        for name in arm {
            assert_eq!(Architecture::of(&name.into()), Architecture::Arm64, "{name}");
        }
        for name in x64 {
            assert_eq!(Architecture::of(&name.into()), Architecture::X64, "{name}");
        }
    }

    #[test]
    fn a_misspelt_type_is_named_with_the_nearest_one() {
        let error = |name: &str| misnamed(&name.into()).unwrap();
        assert_eq!(misnamed(&"m7i.large".into()), None);
        assert_eq!(
            error("m7i.lrage"),
            Misnamed::Wrong("m7i has no instance type m7i.lrage, did you mean m7i.large?".to_owned())
        );
        assert!(matches!(error("large"), Misnamed::Wrong(_)));
        assert!(matches!(error("m99i.large"), Misnamed::UnknownFamily(_)));
    }
}
