//! Quotas of the account, as Service Quotas knows them.

use std::fmt;

use domain::config::Market;
use domain::ids::InstanceType;

/// Instance families that share a quota. Families of other quotas (P, X, Inf and more) are left out.
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
        let name = instance_type.as_str();
        let letters = name.len() - name.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
        match &name[..letters] {
            "a" | "c" | "d" | "h" | "i" | "m" | "r" | "t" | "z" => Some(QuotaFamily::Standard),
            "g" | "vt" => Some(QuotaFamily::Graphics),
            _ => None,
        }
    }
}

/// A quota of an account in one region. Its text is its name in Service Quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quota {
    /// vCPUs of all running instances.
    Vcpus(QuotaFamily, Market),
    /// Invocations of all Lambda functions at a time.
    LambdaConcurrency,
}

impl Quota {
    /// The service and the code by which Service Quotas knows it.
    pub(crate) fn codes(self) -> (&'static str, &'static str) {
        match self {
            Quota::Vcpus(QuotaFamily::Standard, Market::OnDemand) => ("ec2", "L-1216C47A"),
            Quota::Vcpus(QuotaFamily::Standard, Market::Spot) => ("ec2", "L-34B43A08"),
            Quota::Vcpus(QuotaFamily::Graphics, Market::OnDemand) => ("ec2", "L-DB2E81BA"),
            Quota::Vcpus(QuotaFamily::Graphics, Market::Spot) => ("ec2", "L-3819A6DF"),
            Quota::LambdaConcurrency => ("lambda", "L-B99A9384"),
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Quota::Vcpus(QuotaFamily::Standard, Market::OnDemand) => "Running On-Demand Standard instances",
            Quota::Vcpus(QuotaFamily::Standard, Market::Spot) => "All Standard Spot Instance Requests",
            Quota::Vcpus(QuotaFamily::Graphics, Market::OnDemand) => "Running On-Demand G and VT instances",
            Quota::Vcpus(QuotaFamily::Graphics, Market::Spot) => "All G and VT Spot Instance Requests",
            Quota::LambdaConcurrency => "Concurrent executions",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_letters_before_the_generation_decide_which_quota_counts() {
        let of = |name: &str| QuotaFamily::of(&InstanceType(name.to_owned()));
        for standard in ["m7i.large", "c8gn.4xlarge", "m7i-flex.xlarge", "t4g.medium", "r7iz.metal-16xl", "a1.large"] {
            assert_eq!(of(standard), Some(QuotaFamily::Standard), "{standard}");
        }
        assert_eq!(of("g6e.xlarge"), Some(QuotaFamily::Graphics));
        for other in ["p5.48xlarge", "inf2.xlarge", "x2gd.large", "hpc7a.96xlarge", "mac2.metal", "trn1.2xlarge", ""] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
