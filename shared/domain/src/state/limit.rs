//! How long GitHub must not be called for an account.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::Owner;

/// How long GitHub wants to be left alone: the item `GITHUB#<owner>`, `LIMIT`. Keyed by the account and not by the
/// installation's number, which many deliveries do not carry and which would cost a call to learn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The account.
    pub owner: Owner,
    /// No call before then.
    pub backoff_until: Timestamp,
    /// What GitHub said.
    pub why: String,
    /// How often the item was written.
    pub revision: u64,
}
