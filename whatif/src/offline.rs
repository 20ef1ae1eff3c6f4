//! What is known of AWS without an account: instance types by their names, and launch templates and subnets that are made up.

use std::collections::BTreeSet;

use domain::config::{Architecture, MicroUsd, Pool, Rates, RootVolume};
use domain::ids::InstanceType;
use simulator::SUBNETS;
use world::ec2::TypeInfo;

/// The size of the made-up root volumes.
pub const VOLUME_GIB: u32 = 40;

/// What the name of an instance type says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    pub vcpus: u32,
    /// None if the family does not say it.
    pub memory_gib: Option<u32>,
    pub architecture: Architecture,
    is_current: bool,
    is_burstable: bool,
}

/// The oldest generation that EC2 still calls current. It is an approximation: `m4` and older are not current.
const FIRST_CURRENT_GENERATION: u32 = 5;

impl Named {
    /// Reads the name of a type. A `large` has 2 vCPUs, an `xlarge` 4, an `8xlarge` 32. Families that begin with c, m and r have 2, 4 and
    /// 8 GiB for each. None for names that say nothing, such as those of bare metal.
    pub fn of(instance_type: &InstanceType) -> Option<Self> {
        let (family, size) = instance_type.as_str().split_once('.')?;
        let vcpus = match size {
            "medium" => 1,
            "large" => 2,
            "xlarge" => 4,
            _ => size.strip_suffix("xlarge")?.parse::<u32>().ok()?.checked_mul(4)?,
        };
        let letters = family.trim_end_matches(|c: char| !c.is_ascii_digit());
        let class = letters.trim_end_matches(|c: char| c.is_ascii_digit());
        let generation: u32 = letters[class.len()..].parse().ok()?;
        let gib_each = match class {
            "c" => Some(2),
            "m" => Some(4),
            "r" => Some(8),
            "t" if size != "medium" => Some(4),
            _ => None,
        };
        Some(Self {
            vcpus,
            memory_gib: gib_each.map(|gib: u32| gib.saturating_mul(vcpus)),
            architecture: Architecture::of(instance_type),
            is_current: class == "t" || generation >= FIRST_CURRENT_GENERATION,
            is_burstable: class == "t",
        })
    }
}

/// The types that are known well enough to be offered for a shape: those with vCPUs, memory and a price per hour.
pub fn types(names: &[&'static str], price: impl Fn(&InstanceType) -> Option<MicroUsd>) -> Vec<TypeInfo> {
    let known = names.iter().filter_map(|name| {
        let instance_type = InstanceType::from(*name);
        let named = Named::of(&instance_type)?;
        Some(TypeInfo {
            name,
            vcpus: named.vcpus,
            memory_mib: named.memory_gib?.saturating_mul(1024),
            architecture: match named.architecture {
                Architecture::X64 => "x86_64",
                Architecture::Arm64 => "arm64",
            },
            current_generation: named.is_current,
            burstable: named.is_burstable,
            bare_metal: false,
            price: price(&instance_type)?.usd(),
        })
    });
    known.collect()
}

/// Types that the pools name and whose price in the region is not known.
pub fn unpriced(pools: &[Pool], rates: &Rates) -> BTreeSet<InstanceType> {
    let named = pools.iter().flat_map(|pool| &pool.instance_types);
    named.filter(|it| rates.hour(it).is_none()).cloned().collect()
}

/// The pool with what only AWS and GitHub know: launch templates, two subnets, and a runner group for all repositories.
#[must_use]
pub fn resolved(mut pool: Pool) -> Pool {
    let root = RootVolume {
        device: "/dev/sda1".to_owned(),
        gib: VOLUME_GIB,
        kind: "gp3".to_owned(),
        iops: None,
        throughput: None,
        initialize_at: None,
        kms_key: None,
    };
    pool.launch_template.version = 1;
    for template in pool.shapes.iter_mut().flat_map(|shapes| shapes.launch_templates.values_mut()) {
        template.version = 1;
        template.root = Some(root.clone());
    }
    pool.subnets = SUBNETS.map(Into::into).into();
    pool.runner_group = 1;
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Option<(u32, Option<u32>, bool)> {
        Named::of(&name.into()).map(|it| (it.vcpus, it.memory_gib, it.is_current))
    }

    #[test]
    fn the_name_of_a_type_says_its_size() {
        assert_eq!(named("m7i.large"), Some((2, Some(8), true)));
        assert_eq!(named("c8g.8xlarge"), Some((32, Some(64), true)));
        assert_eq!(named("r6gd.medium"), Some((1, Some(8), true)));
        assert_eq!(named("m4.xlarge"), Some((4, Some(16), false)));
        assert_eq!(named("g6.2xlarge"), Some((8, None, true)));
        assert_eq!(named("m7i-flex.large"), Some((2, Some(8), true)));
        for unknown in ["m7i.metal-24xl", "large", "t3.micro", "u-6tb1.112xlarge2"] {
            assert_eq!(named(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn only_types_with_a_known_price_are_offered() {
        let found = types(&["m7i.large", "m7i.metal-24xl", "g6.2xlarge", "m99i.large"], |it| {
            Rates::of("us-east-1".to_owned()).hour(it)
        });
        assert_eq!(found.iter().map(|it| it.name).collect::<Vec<_>>(), ["m7i.large"]);
    }
}
