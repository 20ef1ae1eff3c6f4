//! The items of the main table.
//!
//! Every item carries `revision`, the number of times it was written; 0 means "not in the table". A write names the
//! revision that was read, and the store refuses it if the item has changed since. That is Drover's only concurrency
//! control. The revision of a pool's META is the pool's *version*: every decision writes META, so of two decisions made
//! from the same reading only one can be committed.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::{Catalogue, SpotPrices};
use crate::state::batch::Batch;
use crate::state::check_run::CheckRun;
use crate::state::closed_runner::ClosedRunner;
use crate::state::function::Function;
use crate::state::instance::Instance;
use crate::state::janitor::Janitor;
use crate::state::job::Job;
use crate::state::key::Key;
use crate::state::limit::Limit;
use crate::state::listing::Listing;
use crate::state::meta::Meta;
use crate::state::nudge::Nudge;
use crate::state::pools::Config;
use crate::state::rerun::Rerun;
use crate::state::slot::Slot;
use crate::state::unrouted::UnroutedJob;
use crate::state::waiting::WaitingJob;

/// Declares [`Item`] and the functions that are the same for each kind of record. `stored` differs from `record` where a
/// record is boxed. The kinds are those of [`Key`].
macro_rules! items {
    ($($kind:ident: $record:ty as $stored:ty),* $(,)?) => {
        /// A record of any kind that [`Key`] names.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Item {
            $($kind($stored)),*
        }

        impl Item {
            /// How often the item was written; 0 if it is not in the table.
            pub fn revision(&self) -> u64 {
                match self {
                    $(Item::$kind(record) => record.revision),*
                }
            }

            /// The item as the store writes it: with the next revision.
            #[must_use]
            pub fn next_revision(mut self) -> Self {
                match &mut self {
                    $(Item::$kind(record) => record.revision += 1),*
                }
                self
            }

            /// Reads the item of that key. The key determines the kind.
            pub fn deserialize<'de, D: Deserializer<'de>>(key: &Key, from: D) -> Result<Self, D::Error> {
                match key {
                    $(Key::$kind { .. } => <$stored>::deserialize(from).map(Item::$kind)),*
                }
            }
        }

        impl Serialize for Item {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Item::$kind(record) => record.serialize(to)),*
                }
            }
        }

        $(impl From<$record> for Item {
            fn from(record: $record) -> Self {
                Item::$kind(record.into())
            }
        })*
    };
}
items! {
    Meta: Meta as Meta,
    Waiting: WaitingJob as WaitingJob,
    Batch: Batch as Batch,
    Slot: Slot as Slot,
    Nudge: Nudge as Nudge,
    CheckRun: CheckRun as CheckRun,
    Rerun: Rerun as Rerun,
    Job: Job as Box<Job>,
    Instance: Instance as Instance,
    Runner: ClosedRunner as ClosedRunner,
    Config: Config as Config,
    Limit: Limit as Limit,
    Unrouted: UnroutedJob as Box<UnroutedJob>,
    Janitor: Janitor as Janitor,
    Function: Function as Function,
    Listing: Listing as Listing,
    Catalogue: Catalogue as Catalogue,
    SpotPrices: SpotPrices as SpotPrices,
}

impl Item {
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
            Item::Runner(runner) => Key::Runner(runner.name.clone()),
            Item::Config(_) => Key::Config,
            Item::Limit(limit) => Key::Limit(limit.owner.clone()),
            Item::Unrouted(job) => Key::Unrouted(job.notice.job.id),
            Item::Janitor(_) => Key::Janitor,
            Item::Function(function) => Key::Function(function.name),
            Item::Listing(listing) => Key::Listing(listing.scope.clone()),
            Item::Catalogue(_) => Key::Catalogue,
            Item::SpotPrices(_) => Key::SpotPrices,
        }
    }
}
