//! Ids of one part: names that Drover checks, and opaque ids that GitHub and EC2 assign.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_with::{DeserializeFromStr, SerializeDisplay};
use smol_str::SmolStr;

/// A name that breaks the rule of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?}: {rule}")]
pub struct InvalidName {
    /// What the name is for, such as `pool` or `label`.
    pub kind: &'static str,
    pub value: String,
    pub rule: &'static str,
}

fn is_plain(value: &str, longest: usize) -> bool {
    (1..=longest).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Declares a name that is checked when it is parsed. It is serialised as a string. Names are copied often, which is cheap: most
/// fit into a `SmolStr`.
macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, DeserializeFromStr, SerializeDisplay)]
        pub struct $name(SmolStr);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                match check(value) {
                    true => Ok(Self(value.into())),
                    false => Err(InvalidName { kind: $kind, value: value.to_owned(), rule: $rule }),
                }
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Declares an id that GitHub or EC2 assigns: a string (`opaque_id!(Name)`) or a number (`opaque_id!(Name: u64)`). Either is cheap
/// to copy.
macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(SmolStr);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.into())
            }
        }

        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self(id.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
    ($(#[$doc:meta])* $name:ident: u64) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

checked_name! {
    /// The name of one installation of Drover; the value of the tag `drover:stack`. At most 12 characters of `[a-z0-9-]`:
    /// it is part of every runner's name, for which GitHub allows 64 characters.
    StackName, "stack", "must be 1 to 12 characters of a-z, 0-9 and -", |s| is_plain(s, 12)
}
checked_name! {
    /// The name of a pool, at most 16 characters of `[a-z0-9-]`.
    PoolName, "pool", "must be 1 to 16 characters of a-z, 0-9 and -", |s| is_plain(s, 16)
}
checked_name! {
    /// A random text that `drover pools apply` writes once per pool. It is part of runner names, batch tags and launch
    /// tokens, so that a table that was lost and rebuilt does not repeat names of the lost one.
    Epoch, "epoch", "must be 1 to 8 characters of a-z and 0-9", |s| is_plain(s, 8) && !s.contains('-')
}

opaque_id! {
    /// GitHub's id of a webhook event (`X-GitHub-Delivery`). A redelivery has the same id.
    DeliveryId
}
opaque_id! {
    /// EC2's id of an instance, `i-` and hexadecimal digits.
    InstanceId
}
opaque_id! {
    /// EC2's id of a subnet, `subnet-...`.
    SubnetId
}
opaque_id! {
    /// The name of an availability zone, such as `eu-central-1a`.
    Zone
}
opaque_id! {
    /// EC2's id of a launch template, `lt-...`.
    TemplateId
}
opaque_id! {
    /// EC2's id of a machine image, `ami-...`.
    ImageId
}
opaque_id! {
    /// An EC2 instance type, such as `m7i.large`.
    InstanceType
}
opaque_id! {
    /// GitHub's id of a workflow job.
    JobId: u64
}
opaque_id! {
    /// GitHub's id of a workflow run.
    RunId: u64
}
opaque_id! {
    /// GitHub's id of a registered runner, unique within its scope.
    RunnerId: u64
}
