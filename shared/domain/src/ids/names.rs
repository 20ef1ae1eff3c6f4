//! Composed names: slots, runners and batch tags.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::plain::{Epoch, InvalidName, PoolName, StackName};

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
