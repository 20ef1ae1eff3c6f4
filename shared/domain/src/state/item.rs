//! How what is known is kept: the keys and items of the main table.
//!
//! Every item carries `revision`, the number of times it was written; 0 means "not in the table". Whoever writes an item
//! writes the one he read: the store refuses when the revision has moved on. That one rule is the whole of Drover's
//! concurrency control. A pool's META is such an item too, and its revision is the pool's *version*: every decision
//! writes META, so two decisions made from the same reading can never both be committed.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::state::batch::Batch;
use crate::state::check_run::CheckRun;
use crate::state::instance::Instance;
use crate::state::janitor::Janitor;
use crate::state::job::Job;
use crate::state::key::Key;
use crate::state::limit::Limit;
use crate::state::meta::Meta;
use crate::state::nudge::Nudge;
use crate::state::pools::Config;
use crate::state::rerun::Rerun;
use crate::state::slot::Slot;
use crate::state::waiting::WaitingJob;

/// Anything that [`Key`] names.
#[derive(Debug, Clone, PartialEq, Eq)]
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
