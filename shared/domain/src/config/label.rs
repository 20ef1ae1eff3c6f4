//! Runner labels.

use std::fmt;
use std::str::FromStr;

use serde_with::{DeserializeFromStr, SerializeDisplay};
use smol_str::SmolStr;

use crate::ids::InvalidName;

/// A runner label, lower-cased: GitHub compares labels without case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, DeserializeFromStr, SerializeDisplay)]
pub struct Label(SmolStr);

impl Label {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for Label {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let value = value.trim();
        if value.is_empty() || value.chars().count() > 256 || value.chars().any(|c| c.is_control() || c == ',') {
            return Err(InvalidName {
                kind: "label",
                value: value.to_owned(),
                rule: "must be 1 to 256 characters without commas and control characters",
            });
        }
        Ok(Self(value.to_lowercase().into()))
    }
}
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
