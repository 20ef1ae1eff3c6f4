//! Runner labels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::InvalidName;

/// A runner label, lower-cased: GitHub compares labels without case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

impl Label {
    /// The label, lower-cased.
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
        Ok(Self(value.to_lowercase()))
    }
}
impl TryFrom<String> for Label {
    type Error = InvalidName;
    fn try_from(value: String) -> Result<Self, InvalidName> {
        value.parse()
    }
}
impl From<Label> for String {
    fn from(label: Label) -> String {
        label.0
    }
}
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
