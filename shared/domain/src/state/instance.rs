//! The instance-to-runner mapping.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::{Market, MicroUsd, Tuple};
use crate::ids::{InstanceId, InstanceType, JobId, PoolName, Repository, RunnerId, SlotId};
use crate::state::slot::Slot;
use crate::wire::ObservedInstance;

/// The instance-to-runner mapping: the item `INSTANCE#<instance>`, `STATE`. It outlives its slot, and its mere existence
/// forbids binding the instance once more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// EC2's id.
    pub id: InstanceId,
    /// The pool, as far as its tags tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// What it is to us.
    #[serde(flatten)]
    pub ownership: Ownership,
    /// The slot it is or was bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotId>,
    /// Its runner's id at GitHub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_id: Option<RunnerId>,
    /// Its runner's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_name: Option<String>,
    /// The job that its runner was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// That job's repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// When EC2 launched it.
    pub launched_at: Timestamp,
    /// What it is paid as; None for one that no slot ever had, or that an older Drover bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<InstanceType>,
    /// How it is paid; None likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub market: Option<Market>,
    /// What it cost, at the list price on demand; None before its end, and where the price is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<MicroUsd>,
    /// The end of what it wrote to its console, if it ended otherwise than it should: EC2 forgets that within the hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<String>,
    /// When DynamoDB may drop it, in epoch seconds; only once nothing will be done with it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// How often the item was written.
    pub revision: u64,
}

/// What an instance is to us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Ownership {
    /// Belongs to its slot.
    Bound,
    /// Belongs to no slot and never will: it is being removed.
    Condemned {
        /// Why.
        why: Condemned,
    },
    /// Belongs to no slot, but its runner has a job: left alone until the job is over.
    Adopted,
    /// Is no more.
    Closed {
        /// When we knew.
        closed_at: Timestamp,
        /// How it ended, in words of [`super::Ended`] or [`Condemned`].
        why: String,
    },
}

/// Why an instance is condemned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condemned {
    /// Has our tags, and nothing in the table knows it.
    Orphan,
    /// Older than any machine of ours may be.
    MaxLife,
}

impl Condemned {
    /// As the table and the reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Condemned::Orphan => "orphan",
            Condemned::MaxLife => "max_life",
        }
    }
}

/// How long a closed instance's mapping is kept.
pub const KEEP_CLOSED: SignedDuration = SignedDuration::from_hours(30 * 24);

impl Instance {
    /// The mapping of an instance to the slot it is bound to.
    pub fn bound(slot: &Slot, tuple: Option<&Tuple>, id: InstanceId, launched_at: Timestamp) -> Self {
        Self {
            id,
            pool: Some(slot.pool.clone()),
            ownership: Ownership::Bound,
            slot: Some(slot.id),
            runner_id: None,
            runner_name: None,
            job: None,
            repository: None,
            launched_at,
            instance_type: tuple.map(|tuple| tuple.instance_type.clone()),
            market: tuple.map(|tuple| tuple.market),
            cost_micro_usd: None,
            console: None,
            expires_at: None,
            revision: 0,
        }
    }

    /// The mapping of an instance that no slot has.
    pub fn unowned(seen: &ObservedInstance, known: Option<&Instance>, ownership: Ownership, now: Timestamp) -> Self {
        let fresh = Self {
            id: seen.id.clone(),
            pool: seen.batch.as_ref().map(|batch| batch.pool.clone()).or_else(|| seen.pool.clone()),
            ownership: ownership.clone(),
            slot: None,
            runner_id: None,
            runner_name: None,
            job: None,
            repository: None,
            launched_at: seen.launched_at,
            instance_type: None,
            market: None,
            cost_micro_usd: None,
            console: None,
            expires_at: None,
            revision: 0,
        };
        let expires_at = Some((now + KEEP_CLOSED).as_second());
        Self { ownership, expires_at, ..known.cloned().unwrap_or(fresh) }
    }

    /// The mapping after the instance ended.
    #[must_use]
    pub fn closed(mut self, why: impl fmt::Display, now: Timestamp) -> Self {
        self.ownership = Ownership::Closed { closed_at: now, why: why.to_string() };
        self.expires_at = Some((now + KEEP_CLOSED).as_second());
        self
    }
}
