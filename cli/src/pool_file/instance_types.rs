//! The names of instance types in a pool file.

use std::collections::BTreeSet;

use domain::ids::InstanceType;
use platform::ec2::{known_types, known_types_from};

use super::fields::{did_you_mean, nearest};

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

/// The names of the instance families.
pub(super) fn families() -> BTreeSet<&'static str> {
    known_types().iter().filter_map(|name| Some(name.split_once('.')?.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
