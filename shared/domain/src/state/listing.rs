//! A list of runners that takes several sweeps to read.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{RunnerId, Scope};
use crate::wire::ObservedRunner;

/// The pages of GitHub's list of a scope's runners that earlier sweeps have read: the item `JANITOR`, `RUNNERS#<scope>`.
/// There is none while a sweep reads the whole list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    pub scope: Scope,
    /// When the first page was read.
    pub since: Timestamp,
    pub next_page: usize,
    /// The stack's runners on those pages.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub listed: BTreeSet<RunnerId>,
    /// Those of them that no open slot used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unused: Vec<ObservedRunner>,
    /// How many items have no readable id, or were too many to keep.
    #[serde(default)]
    pub unknown: usize,
    /// How many items have a readable id and no readable name.
    #[serde(default)]
    pub unnamed: usize,
    pub revision: u64,
}
