//! How what is known is kept: the keys and items of the main table.
//!
//! Every item carries `revision`, the number of times it was written; 0 means "not in the table". Whoever writes an item
//! writes the one he read: the store refuses when the revision has moved on. That one rule is the whole of Drover's
//! concurrency control. A pool's META is such an item too, and its revision is the pool's *version*: every decision
//! writes META, so two decisions made from the same reading can never both be committed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{
    BatchTag, DeliveryId, Epoch, InstanceId, InstanceType, InvalidName, JobId, Owner, PoolName, Repository, RunnerId,
    SlotId,
};
use crate::job::{Job, WaitingJob};
use crate::pool::{Market, Pool, Tuple};
use crate::price::MicroUsd;
use crate::rerun::Rerun;
use crate::slot::Slot;
use crate::telling::CheckRun;

/// Names an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A pool's [`Meta`].
    Meta(PoolName),
    /// A queued job, as its pool sees it.
    Waiting(PoolName, JobId),
    /// An open launch, by the version that decided it.
    Batch(PoolName, u64),
    /// An open slot.
    Slot(PoolName, SlotId),
    /// A nudge that is on its way.
    Nudge(PoolName),
    /// What a job's author is told.
    CheckRun(PoolName, JobId),
    /// A job that is to be run again.
    Rerun(PoolName, JobId),
    /// A job's facts.
    Job(JobId),
    /// The instance-to-runner mapping.
    Instance(InstanceId),
    /// All pools.
    Config,
    /// How long GitHub wants to be left alone.
    Limit(Owner),
    /// The janitor's lock and memory.
    Janitor,
}

impl Key {
    /// The partition key.
    pub fn pk(&self) -> String {
        match self {
            Key::Meta(pool)
            | Key::Waiting(pool, _)
            | Key::Batch(pool, _)
            | Key::Slot(pool, _)
            | Key::Nudge(pool)
            | Key::CheckRun(pool, _)
            | Key::Rerun(pool, _) => Self::pool_pk(pool),
            Key::Job(job) => format!("JOB#{job}"),
            Key::Instance(instance) => format!("INSTANCE#{instance}"),
            Key::Config => "CONFIG".to_owned(),
            Key::Limit(owner) => format!("GITHUB#{}", owner.as_str().to_ascii_lowercase()),
            Key::Janitor => "JANITOR".to_owned(),
        }
    }

    /// The sort key.
    pub fn sk(&self) -> String {
        match self {
            Key::Meta(_) => "META".to_owned(),
            Key::Waiting(_, job) => format!("JOB#{job}"),
            Key::Batch(_, version) => format!("BATCH#{version}"),
            Key::Slot(_, slot) => format!("SLOT#{slot}"),
            Key::Nudge(_) => "NUDGE".to_owned(),
            Key::CheckRun(_, job) => format!("CHECK#{job}"),
            Key::Rerun(_, job) => format!("RERUN#{job}"),
            Key::Job(_) | Key::Instance(_) => "STATE".to_owned(),
            Key::Config => "POOLS".to_owned(),
            Key::Limit(_) => "LIMIT".to_owned(),
            Key::Janitor => "LOCK".to_owned(),
        }
    }

    /// The partition that holds everything a decision about the pool is made from.
    pub fn pool_pk(pool: &PoolName) -> String {
        format!("POOL#{pool}")
    }

    /// The pool in whose partition it lies.
    pub fn pool(&self) -> Option<&PoolName> {
        match self {
            Key::Meta(pool)
            | Key::Waiting(pool, _)
            | Key::Batch(pool, _)
            | Key::Slot(pool, _)
            | Key::Nudge(pool)
            | Key::CheckRun(pool, _)
            | Key::Rerun(pool, _) => Some(pool),
            Key::Job(_) | Key::Instance(_) | Key::Config | Key::Limit(_) | Key::Janitor => None,
        }
    }

    /// Reads a key back.
    ///
    /// # Errors
    /// When it is none of ours; the event log, for one, lives in the same table.
    pub fn parse(pk: &str, sk: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName { kind: "key", value: format!("{pk} / {sk}"), rule: "is none that Drover writes" };
        let number = |text: &str| text.parse().map_err(|_| invalid());
        let (kind, name) = pk.split_once('#').unwrap_or((pk, ""));
        let (part, id) = sk.split_once('#').unwrap_or((sk, ""));
        let key = match (kind, part) {
            ("POOL", "META") => Key::Meta(name.parse()?),
            ("POOL", "JOB") => Key::Waiting(name.parse()?, JobId(number(id)?)),
            ("POOL", "BATCH") => Key::Batch(name.parse()?, number(id)?),
            ("POOL", "SLOT") => Key::Slot(name.parse()?, SlotId::from_str(id)?),
            ("POOL", "NUDGE") => Key::Nudge(name.parse()?),
            ("POOL", "CHECK") => Key::CheckRun(name.parse()?, JobId(number(id)?)),
            ("POOL", "RERUN") => Key::Rerun(name.parse()?, JobId(number(id)?)),
            ("JOB", "STATE") => Key::Job(JobId(number(name)?)),
            ("INSTANCE", "STATE") => Key::Instance(InstanceId(name.to_owned())),
            ("CONFIG", "POOLS") => Key::Config,
            ("GITHUB", "LIMIT") => Key::Limit(name.parse()?),
            ("JANITOR", "LOCK") => Key::Janitor,
            _ => return Err(invalid()),
        };
        // Another spelling is another item: what is read as one must not be written as the other.
        if (key.pk().as_str(), key.sk().as_str()) == (pk, sk) { Ok(key) } else { Err(invalid()) }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pk(), self.sk())
    }
}

/// A pool's own state: the item `POOL#<pool>`, `META`. Its revision is the pool's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The pool.
    pub pool: PoolName,
    /// See [`Epoch`].
    pub epoch: Epoch,
    /// [`Pool::config_hash`] of the configuration that the last decision followed.
    #[serde(default)]
    pub config_hash: String,
    /// Whether launching makes sense.
    pub circuit: Circuit,
    /// Slots in a row that were configured and never came online.
    #[serde(default)]
    pub boot_failures: u32,
    /// Ways to launch that EC2 refused lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cooldowns: Vec<Cooldown>,
    /// Markets whose quota is used up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<Pause>,
    /// EC2 had too many calls of RunInstances lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<Throttle>,
    /// How often the item was written: the pool's version.
    pub revision: u64,
}

impl Meta {
    /// A pool that never decided anything.
    pub fn new(pool: PoolName, epoch: Epoch) -> Self {
        Self {
            pool,
            epoch,
            config_hash: String::new(),
            circuit: Circuit::Closed,
            boot_failures: 0,
            cooldowns: Vec::new(),
            pauses: Vec::new(),
            throttled: None,
            revision: 0,
        }
    }

    /// Whether RunInstances is to be left alone.
    pub fn is_throttled(&self, now: Timestamp) -> bool {
        self.throttled.as_ref().is_some_and(|throttled| throttled.until > now)
    }
}

/// How long RunInstances is left alone, by everybody who launches for the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// No call before then.
    pub until: Timestamp,
    /// How often in a row EC2 said so: the next wait is longer.
    pub times: u32,
}

/// Keeps a pool whose machines cannot work from launching more of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Circuit {
    /// Launch what is needed.
    Closed,
    /// Launch nothing before `until`, then one machine to see whether it works again.
    Open {
        /// When the next probe may be launched.
        until: Timestamp,
        /// How long the last wait was; the next is twice as long.
        backoff_seconds: i64,
        /// Since when the pool has not worked.
        since: Timestamp,
        /// EC2's error code, or `BootFailures`.
        code: String,
        /// EC2's message, or what to look at.
        message: String,
    },
}

/// A way to launch that EC2 refused for want of capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooldown {
    /// What was refused.
    pub tuple: Tuple,
    /// Not tried before then.
    pub until: Timestamp,
    /// How long this wait is; the next is twice as long.
    pub seconds: i64,
    /// EC2's code.
    pub code: String,
}

/// A market whose account quota is used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The market.
    pub market: Market,
    /// Not tried before then.
    pub until: Timestamp,
    /// EC2's code.
    pub code: String,
    /// EC2's message.
    pub message: String,
}

/// One launch that is still owed: the item `POOL#<pool>`, `BATCH#<version>`. It has everything the call needs, so that
/// whoever repeats it makes the same call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The pool.
    pub pool: PoolName,
    /// The decision, and the version part of its slots' ids.
    pub version: u64,
    /// The pool's epoch at the decision.
    pub epoch: Epoch,
    /// Which attempt this is, from 1. Another attempt has another token.
    pub attempt: u32,
    /// How many instances this attempt asks for: fixed for the attempt, as EC2 refuses a token with other parameters.
    pub count: u32,
    /// How this attempt launches; fixed for the attempt. None while every way is cooling down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuple: Option<Tuple>,
    /// How often this attempt was begun.
    pub tries: u32,
    /// Nobody else works on it before then: the lease of whoever began it, then a back-off.
    pub next_at: Timestamp,
    /// When a look-up of this attempt's tag first found nothing. A refusal counts only if a second one, a confirm gap
    /// later, finds nothing either: until then an earlier call without an answer may still have launched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Timestamp>,
    /// What EC2 answered to earlier attempts, newest last, at most [`REFUSALS_KEPT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refusal>,
    /// When it was decided.
    pub planned_at: Timestamp,
    /// How often the item was written.
    pub revision: u64,
}

/// A launch that has been tried this often is stuck: still tried, but a person should look.
pub const STUCK_AFTER: u32 = 5;

/// More would only repeat themselves.
pub const REFUSALS_KEPT: usize = 12;

impl Batch {
    /// The tag that this attempt's instances carry.
    pub fn tag(&self) -> BatchTag {
        BatchTag { pool: self.pool.clone(), epoch: self.epoch.clone(), version: self.version, attempt: self.attempt }
    }

    /// Whether a person should look at it.
    pub fn is_stuck(&self) -> bool {
        self.tries >= STUCK_AFTER
    }
}

/// One refused attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// When.
    pub at: Timestamp,
    /// What was asked for.
    pub tuple: Tuple,
    /// EC2's code.
    pub code: String,
    /// EC2's message.
    pub message: String,
}

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
    pub standing: Standing,
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
pub enum Standing {
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
        /// How it ended, in words of [`crate::slot::Ended`] or [`Condemned`].
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
            standing: Standing::Bound,
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
    pub fn stranger(seen: &crate::sweep::Seen, known: Option<&Instance>, standing: Standing, now: Timestamp) -> Self {
        let fresh = Self {
            id: seen.id.clone(),
            pool: seen.batch.as_ref().map(|batch| batch.pool.clone()).or_else(|| seen.pool.clone()),
            standing: standing.clone(),
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
        Self { standing, expires_at, ..known.cloned().unwrap_or(fresh) }
    }

    /// The mapping after the instance ended.
    #[must_use]
    pub fn closed(mut self, why: impl fmt::Display, now: Timestamp) -> Self {
        self.standing = Standing::Closed { closed_at: now, why: why.to_string() };
        self.expires_at = Some((now + KEEP_CLOSED).as_second());
        self
    }
}

/// A promise that somebody will look at the pool soon: the item `POOL#<pool>`, `NUDGE`. It keeps a busy pool from having
/// more than one nudge on the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nudge {
    /// The pool.
    pub pool: PoolName,
    /// When the message is due; long after that it counts as lost.
    pub due_at: Timestamp,
    /// How often the item was written.
    pub revision: u64,
}

/// How the table is written. It only moves on when a version of `drover` that does not know the next one could do harm in it:
/// to the functions it is nothing, they read what either side of a deployment wrote.
pub const FORMAT: u32 = 1;

fn first_format() -> u32 {
    1
}

/// All pools: the item `CONFIG`, `POOLS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The [`FORMAT`] of who wrote it.
    #[serde(default = "first_format")]
    pub format: u32,
    /// The pools, draining ones among them.
    pub pools: Vec<Pool>,
    /// When `drover pools apply` wrote them.
    pub applied_at: Timestamp,
    /// How often the item was written.
    pub revision: u64,
}

impl Config {
    /// The pool of that name.
    pub fn pool(&self, name: &PoolName) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == *name)
    }
}

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
    pub repositories: BTreeMap<Repository, SeenRepository>,
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
pub struct SeenRepository {
    /// When it had a job of ours last.
    pub seen_at: Timestamp,
    /// When it was searched last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub searched_at: Option<Timestamp>,
}

/// Anything that [`Key`] names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the type of its name")]
pub enum Item {
    Meta(Meta),
    Waiting(WaitingJob),
    Batch(Batch),
    Slot(Slot),
    Nudge(Nudge),
    CheckRun(CheckRun),
    Rerun(Rerun),
    Job(Box<Job>),
    Instance(Instance),
    Config(Config),
    Limit(Limit),
    Janitor(Janitor),
}

impl Item {
    /// Its name.
    pub fn key(&self) -> Key {
        match self {
            Item::Meta(meta) => Key::Meta(meta.pool.clone()),
            Item::Waiting(job) => Key::Waiting(job.pool.clone(), job.id),
            Item::Batch(batch) => Key::Batch(batch.pool.clone(), batch.version),
            Item::Slot(slot) => Key::Slot(slot.pool.clone(), slot.id),
            Item::Nudge(nudge) => Key::Nudge(nudge.pool.clone()),
            Item::CheckRun(check) => Key::CheckRun(check.pool.clone(), check.job),
            Item::Rerun(rerun) => Key::Rerun(rerun.pool.clone(), rerun.job),
            Item::Job(job) => Key::Job(job.id),
            Item::Instance(instance) => Key::Instance(instance.id.clone()),
            Item::Config(_) => Key::Config,
            Item::Limit(limit) => Key::Limit(limit.owner.clone()),
            Item::Janitor(_) => Key::Janitor,
        }
    }

    /// How often it was written; 0 for an item that is not in the table.
    pub fn revision(&self) -> u64 {
        match self {
            Item::Meta(item) => item.revision,
            Item::Waiting(item) => item.revision,
            Item::Batch(item) => item.revision,
            Item::Slot(item) => item.revision,
            Item::Nudge(item) => item.revision,
            Item::CheckRun(item) => item.revision,
            Item::Rerun(item) => item.revision,
            Item::Job(item) => item.revision,
            Item::Instance(item) => item.revision,
            Item::Config(item) => item.revision,
            Item::Limit(item) => item.revision,
            Item::Janitor(item) => item.revision,
        }
    }

    /// The item as the store writes it: one revision on.
    #[must_use]
    pub fn next_revision(mut self) -> Self {
        let revision = match &mut self {
            Item::Meta(item) => &mut item.revision,
            Item::Waiting(item) => &mut item.revision,
            Item::Batch(item) => &mut item.revision,
            Item::Slot(item) => &mut item.revision,
            Item::Nudge(item) => &mut item.revision,
            Item::CheckRun(item) => &mut item.revision,
            Item::Rerun(item) => &mut item.revision,
            Item::Job(item) => &mut item.revision,
            Item::Instance(item) => &mut item.revision,
            Item::Config(item) => &mut item.revision,
            Item::Limit(item) => &mut item.revision,
            Item::Janitor(item) => &mut item.revision,
        };
        *revision += 1;
        self
    }

    /// Reads the item of that key. The key tells the type; there is no type attribute to disagree with it.
    ///
    /// # Errors
    /// The deserialiser's.
    pub fn deserialize<'de, D: Deserializer<'de>>(key: &Key, from: D) -> Result<Self, D::Error> {
        Ok(match key {
            Key::Meta(_) => Item::Meta(Meta::deserialize(from)?),
            Key::Waiting(..) => Item::Waiting(WaitingJob::deserialize(from)?),
            Key::Batch(..) => Item::Batch(Batch::deserialize(from)?),
            Key::Slot(..) => Item::Slot(Slot::deserialize(from)?),
            Key::Nudge(_) => Item::Nudge(Nudge::deserialize(from)?),
            Key::CheckRun(..) => Item::CheckRun(CheckRun::deserialize(from)?),
            Key::Rerun(..) => Item::Rerun(Rerun::deserialize(from)?),
            Key::Job(_) => Item::Job(Box::new(Job::deserialize(from)?)),
            Key::Instance(_) => Item::Instance(Instance::deserialize(from)?),
            Key::Config => Item::Config(Config::deserialize(from)?),
            Key::Limit(_) => Item::Limit(Limit::deserialize(from)?),
            Key::Janitor => Item::Janitor(Janitor::deserialize(from)?),
        })
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Item::Meta(item) => item.serialize(to),
            Item::Waiting(item) => item.serialize(to),
            Item::Batch(item) => item.serialize(to),
            Item::Slot(item) => item.serialize(to),
            Item::Nudge(item) => item.serialize(to),
            Item::CheckRun(item) => item.serialize(to),
            Item::Rerun(item) => item.serialize(to),
            Item::Job(item) => item.serialize(to),
            Item::Instance(item) => item.serialize(to),
            Item::Config(item) => item.serialize(to),
            Item::Limit(item) => item.serialize(to),
            Item::Janitor(item) => item.serialize(to),
        }
    }
}

macro_rules! item_from {
    ($($type:ty => $variant:ident $wrap:expr;)*) => {
        $(impl From<$type> for Item {
            fn from(item: $type) -> Self {
                Item::$variant($wrap(item))
            }
        })*
    };
}
item_from! {
    Meta => Meta std::convert::identity;
    WaitingJob => Waiting std::convert::identity;
    Batch => Batch std::convert::identity;
    Slot => Slot std::convert::identity;
    Nudge => Nudge std::convert::identity;
    CheckRun => CheckRun std::convert::identity;
    Rerun => Rerun std::convert::identity;
    Job => Job Box::new;
    Instance => Instance std::convert::identity;
    Config => Config std::convert::identity;
    Limit => Limit std::convert::identity;
    Janitor => Janitor std::convert::identity;
}
