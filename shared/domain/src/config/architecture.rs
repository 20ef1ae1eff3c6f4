//! Architectures of machines.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::InstanceType;

/// The architecture of a machine, as GitHub's labels call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
    pub fn named(label: &str) -> Option<Self> {
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
    fn a_label_may_name_an_architecture() {
        for label in ["x64", "x86_64", "amd64"] {
            assert_eq!(Architecture::named(label), Some(Architecture::X64), "{label}");
        }
        for label in ["arm64", "aarch64"] {
            assert_eq!(Architecture::named(label), Some(Architecture::Arm64), "{label}");
        }
        assert_eq!(Architecture::named("arm"), None);
    }
}
