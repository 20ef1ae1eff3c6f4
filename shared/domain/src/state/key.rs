//! The keys of the main table: how they are written, and how they are parsed.

use std::fmt;
use std::str::FromStr;

use crate::ids::{InstanceId, InvalidName, JobId, Owner, PoolName, RunnerName, Scope, SlotId};
use crate::state::function::FunctionName;

/// The key of an item. Those of pools' partitions come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A pool's own state.
    Meta(PoolName),
    /// A queued job.
    Waiting(PoolName, JobId),
    /// An unfinished launch, by the version of its decision.
    Batch(PoolName, u64),
    /// An open slot.
    Slot(PoolName, SlotId),
    /// A nudge that was sent.
    Nudge(PoolName),
    /// The check run about a waiting job.
    CheckRun(PoolName, JobId),
    /// A job to re-run.
    Rerun(PoolName, JobId),
    /// The facts about a job.
    Job(JobId),
    /// The instance-to-runner mapping.
    Instance(InstanceId),
    /// A runner whose slot was closed before the end of its job was recorded.
    Runner(RunnerName),
    /// The configuration of all pools.
    Config,
    /// Until when GitHub must not be called for an account.
    Limit(Owner),
    /// A queued job that no pool accepts.
    Unrouted(JobId),
    /// The janitor's lock, and what it remembers between sweeps.
    Janitor,
    /// What a deployed function reported about itself.
    Function(FunctionName),
    /// A list of runners that takes several sweeps to read.
    Listing(Scope),
    /// The instance types that pools with shapes may launch.
    Catalogue,
    /// Spot prices.
    SpotPrices,
}

impl Key {
    /// The partition key of all jobs that no pool accepts.
    pub const UNROUTED_PK: &'static str = "UNROUTED";

    /// The beginning of the sort keys of slots, which come last in a pool's partition.
    pub const SLOTS: &'static str = "SLOT#";

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
            Key::Runner(name) => format!("RUNNER#{name}"),
            Key::Config | Key::Catalogue | Key::SpotPrices => "CONFIG".to_owned(),
            Key::Limit(owner) => format!("GITHUB#{}", owner.as_str().to_ascii_lowercase()),
            Key::Unrouted(_) => Self::UNROUTED_PK.to_owned(),
            Key::Janitor | Key::Listing(_) => "JANITOR".to_owned(),
            Key::Function(name) => format!("FUNCTION#{name}"),
        }
    }

    pub fn sk(&self) -> String {
        match self {
            Key::Meta(_) => "META".to_owned(),
            Key::Waiting(_, job) | Key::Unrouted(job) => format!("JOB#{job}"),
            Key::Batch(_, version) => format!("BATCH#{version}"),
            Key::Slot(_, slot) => format!("{}{slot}", Self::SLOTS),
            Key::Nudge(_) => "NUDGE".to_owned(),
            Key::CheckRun(_, job) => format!("CHECK#{job}"),
            Key::Rerun(_, job) => format!("RERUN#{job}"),
            Key::Job(_) | Key::Instance(_) | Key::Runner(_) | Key::Function(_) => "STATE".to_owned(),
            Key::Config => "POOLS".to_owned(),
            Key::Limit(_) => "LIMIT".to_owned(),
            Key::Janitor => "LOCK".to_owned(),
            Key::Catalogue => "CATALOGUE".to_owned(),
            Key::SpotPrices => "MARKET".to_owned(),
            Key::Listing(scope) => format!("RUNNERS#{}", scope.to_string().to_ascii_lowercase()),
        }
    }

    /// The partition key of a pool. The partition has every item that a decision about the pool needs.
    pub fn pool_pk(pool: &PoolName) -> String {
        format!("POOL#{pool}")
    }

    /// The pool whose partition has the item.
    pub fn pool(&self) -> Option<&PoolName> {
        match self {
            Key::Meta(pool)
            | Key::Waiting(pool, _)
            | Key::Batch(pool, _)
            | Key::Slot(pool, _)
            | Key::Nudge(pool)
            | Key::CheckRun(pool, _)
            | Key::Rerun(pool, _) => Some(pool),
            Key::Job(_)
            | Key::Instance(_)
            | Key::Runner(_)
            | Key::Config
            | Key::Limit(_)
            | Key::Unrouted(_)
            | Key::Janitor
            | Key::Listing(_)
            | Key::Catalogue
            | Key::SpotPrices
            | Key::Function(_) => None,
        }
    }

    /// Whether a pool can be read without this item. A decision or a judgement that lacks a slot, a batch or META could be
    /// wrong; without one of the other items it is incomplete at most.
    pub fn is_dispensable(&self) -> bool {
        match self {
            Key::Waiting(..) | Key::CheckRun(..) | Key::Rerun(..) | Key::Nudge(_) => true,
            Key::Meta(_)
            | Key::Batch(..)
            | Key::Slot(..)
            | Key::Job(_)
            | Key::Instance(_)
            | Key::Runner(_)
            | Key::Config
            | Key::Limit(_)
            | Key::Unrouted(_)
            | Key::Janitor
            | Key::Listing(_)
            | Key::Catalogue
            | Key::SpotPrices
            | Key::Function(_) => false,
        }
    }

    /// # Errors
    /// It is not the key of an item. The event log, for example, is in the same table.
    pub fn parse(pk: &str, sk: &str) -> Result<Self, InvalidName> {
        let invalid =
            || InvalidName { kind: "key", value: format!("{pk} / {sk}"), rule: "is not a key that Drover writes" };
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
            ("INSTANCE", "STATE") => Key::Instance(InstanceId::from(name)),
            ("RUNNER", "STATE") => Key::Runner(name.parse()?),
            ("CONFIG", "POOLS") => Key::Config,
            ("CONFIG", "CATALOGUE") => Key::Catalogue,
            ("CONFIG", "MARKET") => Key::SpotPrices,
            ("GITHUB", "LIMIT") => Key::Limit(name.parse()?),
            ("UNROUTED", "JOB") => Key::Unrouted(JobId(number(id)?)),
            ("JANITOR", "LOCK") => Key::Janitor,
            ("FUNCTION", "STATE") => Key::Function(name.parse()?),
            ("JANITOR", "RUNNERS") => Key::Listing(id.parse()?),
            _ => return Err(invalid()),
        };
        // A key in another spelling is another item, which a write of the parsed key would not replace.
        if (key.pk().as_str(), key.sk().as_str()) == (pk, sk) { Ok(key) } else { Err(invalid()) }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pk(), self.sk())
    }
}
