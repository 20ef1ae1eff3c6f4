//! The instance-to-runner mapping.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::{Label, Market, MicroUsd, Tuple};
use crate::ids::{InstanceId, InstanceType, JobId, PoolName, Repository, RunnerId, SlotId, SubnetId};
use crate::state::boot_report::BootReport;
use crate::state::claim::{Claim, with_claim};
use crate::state::slot::Slot;
use crate::state::usage::Usage;
use crate::wire::ObservedInstance;

/// The instance-to-runner mapping: the item `INSTANCE#<instance>`, `STATE`. It outlives its slot. An instance that has one
/// is never bound again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    /// The pool of its slot, or the one that its tags name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    #[serde(flatten)]
    pub ownership: Ownership,
    /// The slot that it is or was bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_id: Option<RunnerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_name: Option<String>,
    /// The first job that was claimed for its runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The job's repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// Every job that was claimed for its runner, that one included. Empty if an older version recorded the job. Which of them have
    /// ended is recorded when its slot is closed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
    pub launched_at: Timestamp,
    /// None if it never had a slot, or if an older version bound it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<InstanceType>,
    /// None in the same cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub market: Option<Market>,
    /// Where it runs. None in the same cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<SubnetId>,
    /// The class of its jobs. Only in a pool with shapes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Label>,
    /// See [`Slot::price_per_hour`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_per_hour: Option<MicroUsd>,
    /// What the machine reported about its boot. Set when its slot is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootReport>,
    /// What the machine reported about its job's use of it. Set when its slot is closed, in a pool with `usage`. A job can forge it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// When EC2 announced that it reclaims the instance, or, if only that is known, when Drover learned of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupted_at: Option<Timestamp>,
    /// Its cost at `price_per_hour`, or else at the on-demand list price. None before its end, and if the price is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<MicroUsd>,
    /// The end of its console output, if it ended abnormally. EC2 keeps the output for an hour only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<String>,
    /// DynamoDB's TTL, in epoch seconds. Set once the instance belongs to no open slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    pub revision: u64,
}

/// Whether an instance belongs to a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Ownership {
    /// It belongs to its slot.
    Bound,
    /// It belongs to no slot and never will. It is being removed.
    Condemned { why: Condemned },
    /// It belongs to no slot, but its runner has a job. Drover leaves it alone until the job has ended.
    Adopted,
    /// It has ended.
    Closed {
        /// When Drover recorded the end.
        closed_at: Timestamp,
        /// The text of a [`super::SlotOutcome`] or [`Condemned`].
        why: String,
    },
}

/// Why an instance is condemned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condemned {
    /// It has the stack's tags, and no record mentions it.
    Orphan,
    /// It is past the pool's `max_life`.
    MaxLife,
}

impl Condemned {
    /// The text in the table and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Condemned::Orphan => "orphan",
            Condemned::MaxLife => "max_life",
        }
    }
}

/// How long the mapping of an instance without an open slot is kept.
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
            claims: Vec::new(),
            launched_at,
            instance_type: tuple.map(|tuple| tuple.instance_type.clone()),
            market: tuple.map(|tuple| tuple.market),
            subnet: tuple.map(|tuple| tuple.subnet.clone()),
            class: slot.class.clone(),
            price_per_hour: slot.price_per_hour,
            boot: None,
            usage: None,
            interrupted_at: None,
            cost_micro_usd: None,
            console: None,
            expires_at: None,
            revision: 0,
        }
    }

    /// The mapping of an instance that belongs to no slot.
    pub fn unowned(seen: &ObservedInstance, recorded: Option<&Instance>, ownership: Ownership, now: Timestamp) -> Self {
        let fresh = Self {
            id: seen.id.clone(),
            pool: seen.batch.as_ref().map(|batch| batch.pool.clone()).or_else(|| seen.pool.clone()),
            ownership: ownership.clone(),
            slot: None,
            runner_id: None,
            runner_name: None,
            job: None,
            repository: None,
            claims: Vec::new(),
            launched_at: seen.launched_at,
            instance_type: None,
            market: None,
            subnet: None,
            class: None,
            price_per_hour: None,
            boot: None,
            usage: None,
            interrupted_at: None,
            cost_micro_usd: None,
            console: None,
            expires_at: None,
            revision: 0,
        };
        let expires_at = Some((now + KEEP_CLOSED).as_second());
        Self { ownership, expires_at, ..recorded.cloned().unwrap_or(fresh) }
    }

    /// The mapping with one more claimed job, as far as there is room.
    #[must_use]
    pub fn claimed(mut self, new: Claim) -> Self {
        if let Some(job) = self.job.filter(|_| self.claims.is_empty()) {
            self.claims.push(Claim { job, repository: self.repository.clone(), ended: false });
        }
        if self.job.is_none() {
            (self.job, self.repository) = (Some(new.job), new.repository.clone());
        }
        self.claims = with_claim(self.claims, new);
        self
    }

    /// Every job that was claimed for its runner.
    pub fn claimed_jobs(&self) -> Vec<JobId> {
        match self.job {
            Some(job) if self.claims.is_empty() => vec![job],
            Some(_) | None => self.claims.iter().map(|claim| claim.job).collect(),
        }
    }

    /// What the job used of it. None if another job was claimed for its runner, too: a report cannot be divided between two.
    pub fn usage_of(&self, job: JobId) -> Option<&Usage> {
        self.usage.as_ref().filter(|_| self.claimed_jobs() == [job])
    }

    /// The mapping after the instance ended.
    #[must_use]
    pub fn closed(mut self, why: impl fmt::Display, now: Timestamp) -> Self {
        self.ownership = Ownership::Closed { closed_at: now, why: why.to_string() };
        self.expires_at = Some((now + KEEP_CLOSED).as_second());
        self
    }
}
