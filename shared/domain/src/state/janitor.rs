//! The janitor's lock and its memory between sweeps.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{DeliveryId, Repository};

/// The janitor's lock and memory: the item `JANITOR`, `LOCK`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Janitor {
    /// The invocation that sweeps.
    pub holder: String,
    /// Until when it may.
    pub until: Timestamp,
    /// What looked wrong in the last sweep, and since when: what must look wrong twice before it is destroyed.
    #[serde(default)]
    pub suspects: BTreeMap<String, Timestamp>,
    /// The newest delivery of the app's webhook that was examined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examined_to: Option<Timestamp>,
    /// The newest delivery that succeeded: our receiver worked then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Timestamp>,
    /// The events that no delivery of the last days brought to us, by their guid.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub undelivered: BTreeMap<DeliveryId, Undelivered>,
    /// The repositories that had jobs of ours lately.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub repositories: BTreeMap<Repository, SearchedRepository>,
    /// GitHub wants the app itself, not one of its installations, to be quiet until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_backoff_until: Option<Timestamp>,
    /// How often the item was written.
    pub revision: u64,
}

/// An event whose every delivery failed so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// The failed attempt that a redelivery is asked for by.
    pub attempt: u64,
    /// When that was.
    pub failed_at: Timestamp,
    /// How many redeliveries were asked for.
    pub redeliveries: u32,
    /// When the last of them was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
}

/// A repository in which to look for jobs that no webhook told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchedRepository {
    /// When it had a job of ours last.
    pub seen_at: Timestamp,
    /// When it was searched last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub searched_at: Option<Timestamp>,
}
