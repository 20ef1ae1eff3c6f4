//! The janitor's lock and its memory between sweeps.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::ids::{DeliveryId, InstanceId, Repository};

/// The janitor's lock and memory: the item `JANITOR`, `LOCK`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Janitor {
    /// The invocation that sweeps.
    pub holder: String,
    /// Until when it may.
    pub until: Timestamp,
    /// What looked wrong in the last sweep, and since when: what must look wrong twice before it is destroyed.
    #[serde(default, deserialize_with = "readable_suspects")]
    pub suspects: BTreeMap<Suspect, Timestamp>,
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

/// Something that looks wrong. It must look wrong in two readings before anything is removed because of it.
///
/// Stored as `<kind> <name>`, for example `unlisted i-0abc`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub enum Suspect {
    /// EC2 does not list this instance.
    Unlisted(InstanceId),
    /// EC2 shows this instance as `stopping`.
    Stopping(InstanceId),
    /// The runner of this name was online and is not connected.
    Offline(String),
    /// GitHub does not list a runner of this name.
    Unregistered(String),
    /// No open slot uses the registration of this name.
    Stale(String),
}

impl From<Suspect> for String {
    fn from(suspect: Suspect) -> String {
        match suspect {
            Suspect::Unlisted(instance) => format!("unlisted {instance}"),
            Suspect::Stopping(instance) => format!("stopping {instance}"),
            Suspect::Offline(runner) => format!("offline {runner}"),
            Suspect::Unregistered(runner) => format!("unregistered {runner}"),
            Suspect::Stale(runner) => format!("stale {runner}"),
        }
    }
}

impl Suspect {
    fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(' ')?;
        Some(match kind {
            "unlisted" => Suspect::Unlisted(InstanceId::from(name)),
            "stopping" => Suspect::Stopping(InstanceId::from(name)),
            "offline" => Suspect::Offline(name.to_owned()),
            "unregistered" => Suspect::Unregistered(name.to_owned()),
            "stale" => Suspect::Stale(name.to_owned()),
            _ => return None,
        })
    }
}

/// Leaves out what another version wrote and this one cannot read: forgetting a suspect only delays a removal, while an
/// unreadable item would stop every sweep.
fn readable_suspects<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Suspect, Timestamp>, D::Error> {
    let stored = BTreeMap::<String, Timestamp>::deserialize(from)?;
    Ok(stored.into_iter().filter_map(|(text, since)| Some((Suspect::parse(&text)?, since))).collect())
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
