//! Each kind of id is its own type. Names that EC2 and GitHub know are built and parsed here and nowhere else.

mod github;
mod names;
mod plain;

pub use github::{Owner, Repository, RepositoryPattern, Scope};
pub use names::{BatchTag, RunnerName, SlotId};
pub use plain::{
    DeliveryId, Epoch, ImageId, InstanceId, InstanceType, InvalidName, JobId, PoolName, RunId, RunnerId, StackName,
    SubnetId, TemplateId, Zone,
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_runner_name_fits_github_and_reads_back(
            stack in "[a-z0-9-]{1,12}", pool in "[a-z0-9-]{1,16}", epoch in "[a-z0-9]{1,6}",
            version in 0..10_000_000_000_u64, index in 0..48_u8, registration in 1..1000_u32,
        ) {
            let name = RunnerName {
                stack: stack.parse().unwrap(), pool: pool.parse().unwrap(), epoch: epoch.parse().unwrap(),
                slot: SlotId { version, index }, registration,
            };
            let text = name.to_string();
            prop_assert!(text.len() <= 64, "{text} has {} characters", text.len());
            prop_assert_eq!(text.parse::<RunnerName>().unwrap(), name);
        }

        #[test]
        fn only_the_canonical_spelling_of_a_runner_name_is_read(text in "drover_[a-z0-9_+-]{0,40}") {
            if let Ok(name) = text.parse::<RunnerName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }

    #[test]
    fn the_prefix_of_one_stack_is_not_the_prefix_of_another() {
        let other = "drover_ci-2_linux_e1_1_0_1";
        assert!(!other.starts_with(&RunnerName::prefix(&"ci".parse().unwrap())));
    }

    #[test]
    fn names_from_github_that_could_change_a_path_are_refused() {
        for bad in ["a/b/c", "../x", "a/..", "a b/c", "a/b?c", "", "a/", "a/b\u{1b}[31m"] {
            assert!(bad.parse::<Repository>().is_err(), "{bad:?} is accepted");
        }
    }

    #[test]
    fn accounts_are_compared_as_github_does() {
        let scope: Scope = "Acme".parse().unwrap();
        assert!(scope.covers(&"acme/App".parse().unwrap()));
    }
}
