//! The event log: one event per transaction, written with it. The log determines the lifecycle fields of the items.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{MicroUsd, Tuple, is_zero};
use crate::ids::{DeliveryId, InstanceId, JobId, PoolName, Repository, SlotId};
use crate::state::{Condemned, Failure, Item, Key, StopReason};
use crate::wire::{Action, Notice};

/// The version of the events that this code writes. Fields may be added with a default. Kinds of events are added, and never
/// changed.
pub const VERSION: u32 = 1;

/// How long an event is kept.
pub const KEEP_EVENTS: SignedDuration = SignedDuration::from_hours(30 * 24);

/// One event: the item `LOG#<pool>`, `<sequence>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Always [`VERSION`].
    pub v: u32,
    pub stream: Stream,
    /// The sort key: the time, then the key and revision of a written item, which make it unique.
    pub sequence: String,
    pub at: Timestamp,
    pub cause: Cause,
    #[serde(flatten)]
    pub what: What,
    /// The lifecycle fields of the written items, and the deleted slots.
    #[serde(default)]
    pub after: Vec<After>,
    /// DynamoDB's TTL, in epoch seconds.
    pub expires_at: i64,
}

/// A log: one per pool, and one for events that concern no pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Stream {
    /// `LOG#<pool>`.
    Pool(PoolName),
    /// `LOG#STACK`. Pool names have no capitals.
    Stack,
}

impl Stream {
    pub fn pk(&self) -> String {
        format!("LOG#{}", String::from(self.clone()))
    }
}
impl From<Stream> for String {
    fn from(stream: Stream) -> String {
        match stream {
            Stream::Pool(pool) => pool.into(),
            Stream::Stack => "STACK".to_owned(),
        }
    }
}
impl From<String> for Stream {
    fn from(name: String) -> Self {
        name.parse().map_or(Stream::Stack, Stream::Pool)
    }
}

/// What led to an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Webhooks. The id is empty for GitHub's answer to a request.
    Deliveries(Vec<DeliveryId>),
    /// An invocation of a function, with the request id that its log lines carry.
    Invocation(String),
    /// A person who used `drover`.
    Operator(String),
}

/// How a launch option was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The number of launch options.
    pub options: u32,
    /// How many of them come before it, and were not tried: EC2 had refused them, the cap did not allow another one, or a job
    /// that was interrupted needed a machine on demand.
    pub passed: u32,
    /// The price of one machine. None if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_per_hour: Option<MicroUsd>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What {
    /// Reports by GitHub were recorded as facts.
    Recorded {
        #[serde(rename = "said")]
        statements: Vec<Statement>,
    },
    /// GitHub was asked about a waiting job that it does not know.
    Checked { job: JobId, status: String },
    /// The repository of a waiting job was transferred to another owner, and the job belongs to a pool of that owner now.
    Transferred { job: JobId, from: Repository, to: Repository },
    /// An operator gave up a job that GitHub calls queued.
    Forgotten { job: JobId },
    /// The pool's capacity was decided.
    Decided {
        /// Jobs that need a runner now.
        demand: u32,
        /// Slots that could run one, before the decision.
        supply: u32,
        /// Slots that counted towards `max`, before the decision.
        live: u32,
        /// The number of added slots.
        #[serde(default)]
        launch: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tuple: Option<Tuple>,
        /// How the tuple was chosen, in a pool that needs prices.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        choice: Option<Choice>,
        /// The number of warm slots that receive a JIT config from now on.
        #[serde(default)]
        wanted: u32,
        /// The number of stopped slots.
        #[serde(default)]
        stop: u32,
        /// The number of prepared machines that EC2 is asked to stop, until a job needs them.
        #[serde(default, skip_serializing_if = "is_zero")]
        set_aside: u32,
        /// Jobs that GitHub does not give to idle runners with matching labels.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unserved: Vec<JobId>,
    },
    /// EC2 refused a launch attempt definitively.
    Refused {
        version: u64,
        attempt: u32,
        tuple: Tuple,
        /// EC2's error code.
        code: String,
        message: String,
        /// The next attempt's tuple; None if no tuple is free or nothing is left to launch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Tuple>,
    },
    /// The pool launches only probes until it works again.
    CircuitOpened {
        /// The text of a [`crate::state::CircuitCause`].
        code: String,
        message: String,
    },
    /// A launch whose every tuple was cooling down was resumed.
    Resumed {
        version: u64,
        attempt: u32,
        /// The next attempt's tuple; None if no tuple is free or nothing is left to launch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Tuple>,
    },
    /// Instances were bound to slots.
    Bound { version: u64, attempt: u32, instances: Vec<InstanceId> },
    /// A JIT config was handed over to a machine.
    HandedOver { slot: SlotId, runner_name: String },
    /// A sweep, or a report by EC2, changed slots.
    #[serde(rename = "seen")]
    Observed {
        /// Slots whose runner came online.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        online: Vec<SlotId>,
        /// Slots whose machine has ended.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        gone: Vec<SlotId>,
        /// Slots that GitHub has no registration for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unregistered: Vec<SlotId>,
        /// Slots whose machine is stopped, and ready to be started.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ready: Vec<SlotId>,
    },
    /// A slot was stopped by a sweep, by EC2 or by an operator.
    Stopped { slot: SlotId, why: StopReason },
    /// EC2 reclaims an instance whose slot was not stopped because of it.
    Interrupted { instance: InstanceId },
    /// A slot's runner was deregistered.
    Unregistered {
        slot: SlotId,
        /// Slots whose runners were deregistered with it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others: Vec<SlotId>,
    },
    /// Slots whose machine and registration are gone were deleted.
    Closed {
        slots: Vec<SlotId>,
        /// The machines that ended before their runner came online, and count as failures of the pool.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        failures: Vec<Failure>,
    },
    /// A job's check run was published, or GitHub refused it.
    #[serde(rename = "told")]
    Notified {
        job: JobId,
        /// The check run's title.
        title: String,
        /// GitHub's id of the check run; None if GitHub refused it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        check_run: Option<u64>,
    },
    /// A re-run that was due was requested or given up.
    Rerun {
        job: JobId,
        /// As a sentence.
        outcome: String,
    },
    /// A sweep found something.
    Swept {
        /// Instances and registrations that should not exist.
        found: usize,
        /// How many were removed, by reason.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        reaped: BTreeMap<String, usize>,
        /// How many had ended by themselves.
        #[serde(default)]
        already_gone: usize,
        /// Instances that an operator holds.
        #[serde(default)]
        held: usize,
        /// Removals and readings that failed.
        #[serde(default)]
        failed: usize,
        /// The first of these failures, with their reasons.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        failures: Vec<String>,
        /// Safety limits that applied, as sentences.
        #[serde(rename = "fused", default, skip_serializing_if = "Vec::is_empty")]
        safety_limits: Vec<String>,
        /// Redeliveries that were requested.
        #[serde(default)]
        redelivered: usize,
        /// Jobs found whose webhook never came.
        #[serde(default)]
        recovered: usize,
        /// Items of the table and of GitHub's lists that could not be read and were left out.
        #[serde(default, skip_serializing_if = "is_zero")]
        unreadable: usize,
    },
    /// An instance that belongs to no slot is being removed.
    Condemned { instance: InstanceId, why: Condemned },
    /// An instance that belongs to no slot has a job, and is left alone.
    Adopted { instance: InstanceId },
    /// An event of a kind that only a newer version knows, as it is stored. It is read and never written.
    #[serde(untagged)]
    Unknown(Map<String, Value>),
}

/// One report by GitHub about a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    pub job: JobId,
    pub action: Action,
    /// Empty for GitHub's answer to a request.
    pub delivery: DeliveryId,
    /// The name of the workflow, at most [`LONGEST_NAME`] characters of it. Written by users. Only of a job that was queued: an
    /// event outlives the job's facts, and other events of the job need not repeat it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The job's name in the workflow, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The most characters of a name that an event keeps. Names have no limit that GitHub documents, and DynamoDB charges by size.
pub const LONGEST_NAME: usize = 100;

/// A name as an event keeps it.
pub fn shortened(name: &str) -> String {
    name.chars().take(LONGEST_NAME).collect()
}

impl Statement {
    pub fn of(notice: &Notice) -> Self {
        let is_queued = match notice.action {
            Action::Queued | Action::Waiting => true,
            Action::InProgress | Action::Completed => false,
        };
        let (workflow, name) = (notice.job.workflow.as_ref(), Some(&notice.job.name));
        Self {
            job: notice.job.id,
            action: notice.action,
            delivery: notice.delivery.clone(),
            workflow: workflow.filter(|_| is_queued).map(|name| shortened(name)),
            name: name.filter(|_| is_queued).map(|name| shortened(name)),
        }
    }
}

/// The lifecycle fields of one item after an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// The item's key, `<pk> <sk>`.
    pub key: String,
    /// The item's revision after the event. [`fold`] uses the highest, so the order of events does not matter.
    pub revision: u64,
    /// Null if the item was deleted.
    #[serde(rename = "is")]
    pub fields: Value,
}

/// The lifecycle fields of an item: those that change only in a transaction with an event. Leases, tries and observations
/// are not among them. None for items without such fields.
pub fn lifecycle(item: &Item) -> Option<Value> {
    let keep: &[&str] = match item {
        Item::Job(_) => &[
            "pool",
            "repository",
            "run_id",
            "run_attempt",
            "rank",
            "gated",
            "runner",
            "conclusion",
            "queued_at",
            "started_at",
            "completed_at",
        ],
        Item::Slot(_) => &[
            "state",
            "wanted",
            "stop",
            "instance",
            "launched_at",
            "runner_id",
            "runner_name",
            "configured_at",
            "online_at",
            "job",
            "done_at",
            "gone_at",
            "unregistered_at",
        ],
        Item::Instance(_) => &[
            "state",
            "why",
            "closed_at",
            "pool",
            "slot",
            "runner_id",
            "runner_name",
            "job",
            "repository",
            "instance_type",
            "market",
            "cost_micro_usd",
        ],
        Item::Meta(_)
        | Item::Waiting(_)
        | Item::Batch(_)
        | Item::Nudge(_)
        | Item::CheckRun(_)
        | Item::Rerun(_)
        | Item::Runner(_)
        | Item::Config(_)
        | Item::Limit(_)
        | Item::Unrouted(_)
        | Item::Janitor(_)
        | Item::Function(_)
        | Item::Listing(_)
        | Item::Catalogue(_)
        | Item::SpotPrices(_) => return None,
    };
    let Ok(Value::Object(mut fields)) = serde_json::to_value(item) else {
        unreachable!("items are structs with string keys")
    };
    fields.retain(|name, _| keep.contains(&name.as_str()));
    Some(Value::Object(fields))
}

/// Computes the present lifecycle fields of every item from the log, by key. Deleted items are left out.
pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> BTreeMap<String, Value> {
    let mut latest: BTreeMap<&str, &After> = BTreeMap::new();
    for after in events.into_iter().flat_map(|event| &event.after) {
        let newer = latest.get(after.key.as_str()).is_none_or(|earlier| earlier.revision < after.revision);
        if newer {
            latest.insert(&after.key, after);
        }
    }
    latest
        .into_iter()
        .filter(|(_, after)| !after.fields.is_null())
        .map(|(key, after)| (key.to_owned(), after.fields.clone()))
        .collect()
}

/// The event for these writes. `written` has the items with the revisions that were read.
pub fn describe(
    stream: Stream,
    cause: Cause,
    what: What,
    at: Timestamp,
    written: &[Item],
    deleted: &[(Key, u64)],
) -> Event {
    let mut after: Vec<After> = written
        .iter()
        .filter_map(|item| {
            let fields = lifecycle(item)?;
            Some(After { key: item.key().to_string(), revision: item.revision() + 1, fields })
        })
        .collect();
    after.extend(deleted.iter().filter(|(key, _)| matches!(key, Key::Slot(..))).map(|(key, revision)| After {
        key: key.to_string(),
        revision: revision + 1,
        fields: Value::Null,
    }));
    // Every event writes or deletes an item, and no revision of an item is written twice.
    let mark = written
        .first()
        .map(|item| (item.key(), item.revision() + 1))
        .or_else(|| deleted.first().map(|(key, revision)| (key.clone(), revision + 1)))
        .map_or_else(String::new, |(key, revision)| format!(" {key} {revision}"));
    Event {
        v: VERSION,
        sequence: format!("{at:.6}{mark}"),
        stream,
        at,
        cause,
        what,
        after,
        expires_at: (at + KEEP_EVENTS).as_second(),
    }
}
