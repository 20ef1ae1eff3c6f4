//! How long GitHub must not be called for an account.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::Owner;

/// GitHub's rate limit for an account: the item `GITHUB#<owner>`, `LIMIT`. The key is the account and not the
/// installation's id: many deliveries do not carry that id, and looking it up costs a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub owner: Owner,
    pub backoff_until: Timestamp,
    /// GitHub's error, as text.
    pub why: String,
    pub revision: u64,
}
