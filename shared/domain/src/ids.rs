//! Every id is its own type; the names of outside things are built and parsed here and nowhere else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::mutant::{self, Mutant};

/// A name that is not what its kind of thing may be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?}: {rule}")]
pub struct InvalidName {
    /// What was being named, in the operator's words.
    pub kind: &'static str,
    /// What was given.
    pub value: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

fn is_plain(value: &str, longest: usize) -> bool {
    (1..=longest).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A string id checked when it is made: `TryFrom<String>`, `FromStr`, `Display`, `as_str`.
macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(&value) {
                    Ok(Self(value))
                } else {
                    Err(InvalidName { kind: $kind, value, rule: $rule })
                }
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, InvalidName> {
                value.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// An id that somebody else makes and we only repeat: a string (`opaque_id!(Name)`) or a number (`opaque_id!(Name: u64)`).
macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The id as its owner writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.to_owned())
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
    /// The name of one installation of Drover; the value of the tag `drover:stack`. At most 12 of `[a-z0-9-]`, because
    /// it is part of every runner's name and GitHub allows 64 characters there.
    StackName, "stack", "must be 1 to 12 characters of a-z, 0-9 and -", |s| is_plain(s, 12)
}
checked_name! {
    /// The name of a pool, at most 16 of `[a-z0-9-]`.
    PoolName, "pool", "must be 1 to 16 characters of a-z, 0-9 and -", |s| is_plain(s, 16)
}
checked_name! {
    /// A random word written once per pool by `drover pools apply`. It is part of runner names, batch tags and launch
    /// tokens, so that a table that was lost and rebuilt never repeats one of its predecessor's.
    Epoch, "epoch", "must be 1 to 8 characters of a-z and 0-9", |s| is_plain(s, 8) && !s.contains('-')
}

opaque_id! {
    /// GitHub's name of one delivery (`X-GitHub-Delivery`). A redelivery has the same.
    DeliveryId
}
opaque_id! {
    /// EC2's name of a machine, `i-` and hexadecimal digits.
    InstanceId
}
opaque_id! {
    /// EC2's name of a subnet, `subnet-...`.
    SubnetId
}
opaque_id! {
    /// EC2's name of a launch template, `lt-...`.
    TemplateId
}
opaque_id! {
    /// An EC2 instance type, `m7i.large`.
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

/// An account on GitHub: an organisation or a user. Compared without case, as GitHub does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owner(String);

/// `owner/name` of a repository. Compared without case, as GitHub does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    /// The account it belongs to.
    pub owner: Owner,
    name: Owner,
}

/// Where runners are registered: an organisation, or one repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// `org`: runners serve the repositories that their runner group allows.
    Organization(Owner),
    /// `org/repo`: runners serve this repository.
    Repository(Repository),
}

/// GitHub's rule for account and repository names is narrower; this one keeps anything that could change the meaning of
/// a URL path or a table key out of them.
fn is_github_name(value: &str) -> bool {
    (1..=100).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && value != "."
        && value != ".."
}

const GITHUB_NAME_RULE: &str = "must be 1 to 100 characters of A-Z, a-z, 0-9, -, _ and .";

impl Owner {
    /// The name as first seen.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}
impl Eq for Owner {}
impl PartialOrd for Owner {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Owner {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.to_ascii_lowercase().cmp(&other.0.to_ascii_lowercase())
    }
}
impl std::hash::Hash for Owner {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_ascii_lowercase().hash(state);
    }
}
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for Owner {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        if is_github_name(value) {
            Ok(Self(value.to_owned()))
        } else {
            Err(InvalidName { kind: "owner", value: value.to_owned(), rule: GITHUB_NAME_RULE })
        }
    }
}

impl Repository {
    /// The repository's name without its owner.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }
}
impl FromStr for Repository {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName {
            kind: "repository",
            value: value.to_owned(),
            rule: "must be owner/name, each 1 to 100 characters of A-Z, a-z, 0-9, -, _ and .",
        };
        let (owner, name) = value.split_once('/').ok_or_else(invalid)?;
        Ok(Self { owner: owner.parse().map_err(|_| invalid())?, name: name.parse().map_err(|_| invalid())? })
    }
}
impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}
impl TryFrom<String> for Repository {
    type Error = InvalidName;
    fn try_from(value: String) -> Result<Self, InvalidName> {
        value.parse()
    }
}
impl Serialize for Repository {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Repository {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Scope {
    /// The account whose installation of the app speaks for this scope.
    pub fn owner(&self) -> &Owner {
        match self {
            Scope::Organization(owner) => owner,
            Scope::Repository(repository) => &repository.owner,
        }
    }

    /// Whether runners registered here can, as far as the scope goes, be given jobs of this repository.
    pub fn covers(&self, repository: &Repository) -> bool {
        match self {
            Scope::Organization(owner) => *owner == repository.owner,
            Scope::Repository(own) => own == repository,
        }
    }
}
impl FromStr for Scope {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        if value.contains('/') { value.parse().map(Scope::Repository) } else { value.parse().map(Scope::Organization) }
    }
}
impl TryFrom<String> for Scope {
    type Error = InvalidName;
    fn try_from(value: String) -> Result<Self, InvalidName> {
        value.parse()
    }
}
impl From<Scope> for String {
    fn from(scope: Scope) -> String {
        scope.to_string()
    }
}
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Organization(owner) => owner.fmt(f),
            Scope::Repository(repository) => repository.fmt(f),
        }
    }
}

/// One potential runner of a pool: the decision that made it and its place in that decision. Written `<version>.<index>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId {
    /// The pool's version that the decision made.
    pub version: u64,
    /// 0 to 47.
    pub index: u8,
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.version, self.index)
    }
}
impl FromStr for SlotId {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let parsed = value
            .split_once('.')
            .and_then(|(version, index)| Some(Self { version: canonical(version)?, index: canonical(index)? }));
        parsed.ok_or_else(|| InvalidName { kind: "slot", value: value.to_owned(), rule: "must be <version>.<index>" })
    }
}
impl Serialize for SlotId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for SlotId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A number written as `Display` writes it: no sign, no leading zero. Names must have one spelling.
fn canonical<N: FromStr + fmt::Display>(text: &str) -> Option<N> {
    text.parse::<N>().ok().filter(|number| number.to_string() == text)
}

/// The name under which a slot's runner is registered: `drover_<stack>_<pool>_<epoch>_<version>_<index>_<registration>`.
///
/// At most 64 characters, which is GitHub's limit; `[a-z0-9_-]` only. `_` separates because no part may contain it.
/// Built only from what is durable before the call, so that a name tells which attempt made it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunnerName {
    /// The stack that registered it.
    pub stack: StackName,
    /// Its pool.
    pub pool: PoolName,
    /// The pool's epoch when it was registered.
    pub epoch: Epoch,
    /// The slot it stands for.
    pub slot: SlotId,
    /// Which registration of that slot this is, from 1.
    pub registration: u32,
}

impl RunnerName {
    /// The beginning of every runner name of a stack, separator included, so that stack `ci` never sees `ci-2`'s.
    pub fn prefix(stack: &StackName) -> String {
        format!("drover_{stack}_")
    }
}
impl fmt::Display for RunnerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stack, pool, epoch, slot, registration } = self;
        write!(f, "drover_{stack}_{pool}_{epoch}_{}_{}_{registration}", slot.version, slot.index)
    }
}
impl FromStr for RunnerName {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let parsed = || {
            let mut parts = value.split('_');
            let name = Self {
                stack: parts.next().filter(|first| *first == "drover").and(parts.next())?.parse().ok()?,
                pool: parts.next()?.parse().ok()?,
                epoch: parts.next()?.parse().ok()?,
                slot: SlotId { version: canonical(parts.next()?)?, index: canonical(parts.next()?)? },
                registration: canonical(parts.next()?)?,
            };
            parts.next().is_none().then_some(name)
        };
        parsed().ok_or_else(|| InvalidName {
            kind: "runner name",
            value: value.to_owned(),
            rule: "is not one that Drover gives",
        })
    }
}

/// The value of an instance's tag `drover:batch`: `<pool>.<epoch>.<version>.<attempt>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchTag {
    /// The pool that launched.
    pub pool: PoolName,
    /// Its epoch.
    pub epoch: Epoch,
    /// The decision.
    pub version: u64,
    /// Which attempt of it, from 1.
    pub attempt: u32,
}

impl BatchTag {
    /// The client token of RunInstances: a function of what is launched and of nothing else, so that whoever repeats the
    /// attempt repeats the token. 64 hexadecimal digits, EC2's limit.
    pub fn token(&self, stack: &StackName) -> String {
        if mutant::is(Mutant::NoClientToken) {
            return format!("random-{}", mutant::number());
        }
        hex::encode(Sha256::digest(format!("{stack}/{self}")))
    }
}
impl fmt::Display for BatchTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.pool, self.epoch, self.version, self.attempt)
    }
}
impl FromStr for BatchTag {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let parsed = || {
            let mut parts = value.split('.');
            let tag = Self {
                pool: parts.next()?.parse().ok()?,
                epoch: parts.next()?.parse().ok()?,
                version: canonical(parts.next()?)?,
                attempt: canonical(parts.next()?)?,
            };
            parts.next().is_none().then_some(tag)
        };
        parsed().ok_or_else(|| InvalidName {
            kind: "batch tag",
            value: value.to_owned(),
            rule: "must be <pool>.<epoch>.<version>.<attempt>",
        })
    }
}

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
        fn no_text_is_read_as_a_runner_name_it_would_not_be_written_as(text in "drover_[a-z0-9_+-]{0,40}") {
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
            assert!(bad.parse::<Repository>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn accounts_are_compared_as_github_does() {
        let scope: Scope = "Acme".parse().unwrap();
        assert!(scope.covers(&"acme/App".parse().unwrap()));
    }
}
