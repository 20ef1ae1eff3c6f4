//! What a deployed function reported about itself.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_with::{DeserializeFromStr, SerializeDisplay};

use crate::ids::InvalidName;

/// A function that reads and writes the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr)]
pub enum FunctionName {
    Scaler,
    Janitor,
}

impl FunctionName {
    pub const ALL: [Self; 2] = [Self::Scaler, Self::Janitor];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scaler => "scaler",
            Self::Janitor => "janitor",
        }
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FunctionName {
    type Err = InvalidName;

    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let unknown = || InvalidName { kind: "function", value: value.to_owned(), rule: "must be scaler or janitor" };
        Self::ALL.into_iter().find(|name| name.as_str() == value).ok_or_else(unknown)
    }
}

/// The item `FUNCTION#<name>`, `STATE`. A function writes it when it starts and finds another format or version in it, so it
/// shows what was deployed last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    pub name: FunctionName,
    /// The newest format that the deployed function supports.
    pub format: u32,
    /// The version of its code. None: it is older than this attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    pub recorded_at: Timestamp,
    pub revision: u64,
}
