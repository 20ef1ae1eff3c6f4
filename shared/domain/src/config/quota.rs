//! Which instance types share a quota of the account.

use crate::ids::InstanceType;

/// Instance families that share a quota for vCPUs. Families of other quotas (P, X, Inf and more) are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuotaFamily {
    /// A, C, D, H, I, M, R, T and Z.
    Standard,
    /// G and VT.
    Graphics,
}

impl QuotaFamily {
    /// The family of an instance type, by the letters before the generation. None for a family of another quota.
    pub fn of(instance_type: &InstanceType) -> Option<Self> {
        match letters(instance_type) {
            "a" | "c" | "d" | "h" | "i" | "m" | "r" | "t" | "z" => Some(QuotaFamily::Standard),
            "g" | "vt" => Some(QuotaFamily::Graphics),
            _ => None,
        }
    }
}

/// Whether EC2 counts both types against the same quota.
pub fn share_quota(one: &InstanceType, other: &InstanceType) -> bool {
    match (QuotaFamily::of(one), QuotaFamily::of(other)) {
        (None, None) => letters(one) == letters(other),
        (one, other) => one == other,
    }
}

/// The letters before the generation.
fn letters(instance_type: &InstanceType) -> &str {
    let name = instance_type.as_str();
    &name[..name.len() - name.trim_start_matches(|c: char| c.is_ascii_lowercase()).len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_letters_before_the_generation_decide_which_quota_counts() {
        let of = |name: &str| QuotaFamily::of(&InstanceType::from(name));
        for standard in ["m7i.large", "c8gn.4xlarge", "m7i-flex.xlarge", "t4g.medium", "r7iz.metal-16xl", "a1.large"] {
            assert_eq!(of(standard), Some(QuotaFamily::Standard), "{standard}");
        }
        assert_eq!(of("g6e.xlarge"), Some(QuotaFamily::Graphics));
        for other in ["p5.48xlarge", "inf2.xlarge", "x2gd.large", "hpc7a.96xlarge", "mac2.metal", "trn1.2xlarge", ""] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn families_of_one_quota_share_it_and_others_do_not() {
        let share = |one: &str, other: &str| share_quota(&one.into(), &other.into());
        assert!(
            share("m7i.large", "c8g.large")
                && share("g6e.xlarge", "vt1.3xlarge")
                && share("p5.48xlarge", "p4d.24xlarge")
        );
        assert!(
            !share("m7i.large", "g6e.xlarge")
                && !share("p5.48xlarge", "inf2.xlarge")
                && !share("m7i.large", "p5.48xlarge")
        );
    }
}
