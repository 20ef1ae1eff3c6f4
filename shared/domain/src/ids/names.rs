//! Composed names: slots, runners and batch tags.

use std::fmt;
use std::str::FromStr;

use serde_with::{DeserializeFromStr, SerializeDisplay};
use sha2::{Digest, Sha256};

use crate::ids::plain::{Epoch, InvalidName, PoolName, StackName};

/// One potential runner of a pool: the decision that added it, and its index in that decision. Written
/// `<version>.<index>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, DeserializeFromStr, SerializeDisplay)]
pub struct SlotId {
    /// The pool's version that the decision wrote.
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

/// A number as `Display` writes it, without sign and leading zeros: each name has one spelling.
fn canonical<N: FromStr + fmt::Display>(text: &str) -> Option<N> {
    text.parse::<N>().ok().filter(|number| number.to_string() == text)
}

/// The name under which a slot's runner is registered: `drover_<stack>_<pool>_<epoch>_<version>_<index>_<registration>`.
///
/// At most 64 characters, which is GitHub's limit, of `[a-z0-9_-]`. No part contains the separator `_`. Every part is
/// stored before GitHub is called, so the name of a registration identifies the attempt that made it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, DeserializeFromStr, SerializeDisplay)]
pub struct RunnerName {
    pub stack: StackName,
    pub pool: PoolName,
    pub epoch: Epoch,
    pub slot: SlotId,
    /// Which registration of that slot this is, from 1.
    pub registration: u32,
}

impl RunnerName {
    /// The beginning of every runner name of a stack. It ends with the separator, so that the prefix of stack `ci` does not
    /// match the names of stack `ci-2`.
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
            rule: "is not a name of a Drover runner",
        })
    }
}

/// The value of an instance's tag `drover:batch`: `<pool>.<epoch>.<version>.<attempt>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchTag {
    pub pool: PoolName,
    pub epoch: Epoch,
    /// The pool's version that the decision wrote.
    pub version: u64,
    /// Which attempt of that decision's launch, from 1.
    pub attempt: u32,
}

impl BatchTag {
    /// The client token of RunInstances. It depends only on stack and tag, so a repeated attempt has the same token. 64
    /// hexadecimal digits, EC2's limit.
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
