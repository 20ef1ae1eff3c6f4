//! The event log: one event a transaction, written with it. Folding the log gives back what the items say.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Tuple;
use crate::ids::{DeliveryId, InstanceId, JobId, PoolName, SlotId};
use crate::state::{Condemned, Item, Key, StopReason};
use crate::wire::Action;

/// The only version written today. Fields may be added with a default; a kind of event is never changed, only added.
pub const VERSION: u32 = 1;

/// How long the log is kept.
pub const KEEP_EVENTS: SignedDuration = SignedDuration::from_hours(30 * 24);

/// One line of a pool's log: the item `LOG#<pool>`, `<sequence>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Always [`VERSION`].
    pub v: u32,
    /// Which log it stands in.
    pub stream: Stream,
    /// Its place there: the time, then what was written, which makes it unique.
    pub sequence: String,
    /// When.
    pub at: Timestamp,
    /// What led to it.
    pub cause: Cause,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
    /// What the entities touched look like since.
    #[serde(default)]
    pub after: Vec<After>,
    /// When DynamoDB may drop it, in epoch seconds.
    pub expires_at: i64,
}

/// A log: one a pool, and one for what belongs to none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Stream {
    /// `LOG#<pool>`.
    Pool(PoolName),
    /// `LOG#STACK`; no pool has a name in capitals.
    Stack,
}

impl Stream {
    /// The log's partition key.
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
    /// What GitHub said.
    Deliveries(Vec<DeliveryId>),
    /// A run of one of the functions, by the request id that its log lines carry.
    Invocation(String),
    /// A person.
    Operator(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What {
    /// GitHub's words were recorded as facts.
    Recorded {
        #[serde(rename = "said")]
        statements: Vec<Statement>,
    },
    /// GitHub was asked whether a job still waits.
    Checked {
        /// The job.
        job: JobId,
        /// GitHub's word for its state.
        status: String,
    },
    /// Capacity was decided.
    Decided {
        /// Jobs that want a runner.
        demand: u32,
        /// Slots that could take one, before.
        supply: u32,
        /// Instances that count against the maximum, before.
        live: u32,
        /// Slots added.
        #[serde(default)]
        launch: u32,
        /// How they will be launched.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tuple: Option<Tuple>,
        /// Warm slots that are wanted from now on.
        #[serde(default)]
        wanted: u32,
        /// Slots stopped.
        #[serde(default)]
        stop: u32,
        /// Jobs that GitHub does not give to the runners that fit them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unserved: Vec<JobId>,
    },
    /// EC2 refused an attempt for good.
    Refused {
        /// The decision.
        version: u64,
        /// The attempt.
        attempt: u32,
        /// What was asked for.
        tuple: Tuple,
        /// EC2's code.
        code: String,
        /// EC2's message.
        message: String,
        /// What is tried next, if anything can be now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Tuple>,
    },
    /// The pool launches nothing but probes until it works again.
    CircuitOpened {
        /// What is wrong, in a word.
        code: String,
        /// What is wrong, in a sentence.
        message: String,
    },
    /// A launch that waited until some way was free again goes on.
    Resumed {
        /// The decision.
        version: u64,
        /// The attempt.
        attempt: u32,
        /// How; None if there was nothing left to launch for, or still no way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Tuple>,
    },
    /// Instances were bound to slots.
    Bound {
        /// The decision.
        version: u64,
        /// The attempt that launched them.
        attempt: u32,
        /// The instances.
        instances: Vec<InstanceId>,
    },
    /// A JIT config was left for a machine.
    HandedOver {
        /// The slot.
        slot: SlotId,
        /// The runner's name.
        runner_name: String,
    },
    /// The sweep wrote down what EC2 and GitHub show.
    #[serde(rename = "seen")]
    Observed {
        /// Slots whose runner came online.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        online: Vec<SlotId>,
        /// Slots whose machine is no more.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        gone: Vec<SlotId>,
        /// Slots whose runner GitHub knows no more.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unregistered: Vec<SlotId>,
    },
    /// A slot was stopped by the sweep.
    Stopped {
        /// The slot.
        slot: SlotId,
        /// Why.
        why: StopReason,
    },
    /// GitHub knows a slot's runner no more.
    Unregistered {
        /// The slot.
        slot: SlotId,
    },
    /// Nothing is left of these slots.
    Closed {
        /// The slots.
        slots: Vec<SlotId>,
    },
    /// A job's author was told, or could not be.
    #[serde(rename = "told")]
    Notified {
        /// The job.
        job: JobId,
        /// What, in one line.
        title: String,
        /// GitHub's id of the check run; None if GitHub refused to take it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        check_run: Option<u64>,
    },
    /// A job that lost its machine is run again, or need not or cannot be.
    Rerun {
        /// The job.
        job: JobId,
        /// What became of it, in words.
        outcome: String,
    },
    /// A sweep found something.
    Swept {
        /// Things that should not be there.
        found: usize,
        /// How many were removed, by reason.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        reaped: BTreeMap<String, usize>,
        /// How many went away by themselves meanwhile.
        #[serde(default)]
        already_gone: usize,
        /// Machines left alone on an operator's word.
        #[serde(default)]
        held: usize,
        /// Removals and readings that failed.
        #[serde(default)]
        failed: usize,
        /// Fuses that blew.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        fused: Vec<String>,
        /// Deliveries asked for once more.
        #[serde(default)]
        redelivered: usize,
        /// Jobs found that no webhook had told of.
        #[serde(default)]
        recovered: usize,
    },
    /// An instance that belongs to nobody is being removed.
    Condemned {
        /// The instance.
        instance: InstanceId,
        /// Why.
        why: Condemned,
    },
    /// An instance that belongs to nobody has a job: left alone.
    Adopted {
        /// The instance.
        instance: InstanceId,
    },
}

/// One of GitHub's statements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// About which job.
    pub job: JobId,
    /// What.
    pub action: Action,
    /// In which delivery; empty when GitHub was asked.
    pub delivery: DeliveryId,
}

/// The lifecycle of one entity after an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// The entity's key, `<pk> <sk>`.
    pub key: String,
    /// Its revision since: the fold takes the highest, whatever order the log is read in.
    pub revision: u64,
    /// Its lifecycle fields; null once the item is deleted.
    pub is: Value,
}

/// The fields of an item that only events may change; None for items without a lifecycle. Leases, tries and observations
/// are not among them.
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
        | Item::Config(_)
        | Item::Limit(_)
        | Item::Janitor(_) => return None,
    };
    let Ok(Value::Object(all)) = serde_json::to_value(item) else { unreachable!("items are structs with string keys") };
    let kept: Map<String, Value> = all.into_iter().filter(|(name, _)| keep.contains(&name.as_str())).collect();
    Some(Value::Object(kept))
}

/// What the log says the entities look like now: the highest revision of each, deleted ones left out.
pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> BTreeMap<String, Value> {
    let mut latest: BTreeMap<&str, &After> = BTreeMap::new();
    for after in events.into_iter().flat_map(|event| &event.after) {
        let newer = latest.get(after.key.as_str()).is_none_or(|known| known.revision < after.revision);
        if newer {
            latest.insert(&after.key, after);
        }
    }
    latest
        .into_iter()
        .filter(|(_, after)| !after.is.is_null())
        .map(|(key, after)| (key.to_owned(), after.is.clone()))
        .collect()
}

/// An event for these writes. `written` are the items as read, before the store moves their revision on.
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
            let is = lifecycle(item)?;
            Some(After { key: item.key().to_string(), revision: item.revision() + 1, is })
        })
        .collect();
    after.extend(deleted.iter().filter(|(key, _)| matches!(key, Key::Slot(..))).map(|(key, revision)| After {
        key: key.to_string(),
        revision: revision + 1,
        is: Value::Null,
    }));
    // Every event writes or deletes something, and no revision of anything is written twice.
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
