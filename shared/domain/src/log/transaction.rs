//! Writes that succeed together or not at all.

use crate::log::event::{Event, Stream, What, describe};
use crate::log::turn::Turn;
use crate::state::{BootItem, Instance, Item, Key, Slot};

/// Writes that succeed together or not at all, with the event that describes them.
///
/// Each write names the revision that it replaces: the item's own `revision`, or 0 if the item must not exist. If any item
/// has another revision, nothing is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Items to write, with the revision that was read. The store increases it by one.
    pub puts: Vec<Item>,
    /// Items to delete, with the revision that was read.
    pub deletes: Vec<(Key, u64)>,
    /// Items that must have this revision; 0 for an item that must not exist.
    pub checks: Vec<(Key, u64)>,
    /// A machine's boot item, which must not exist yet.
    pub boot: Option<(String, BootItem)>,
    /// Required if a lifecycle field changes.
    pub event: Option<Event>,
}

impl Transaction {
    /// DynamoDB's limit for one transaction.
    pub const MAX_WRITES: usize = 100;

    pub fn new() -> Self {
        Self::default()
    }

    /// Writes an item, which has the revision that was read.
    #[must_use]
    pub fn put(mut self, item: impl Into<Item>) -> Self {
        self.puts.push(item.into());
        self
    }

    #[must_use]
    pub fn put_all<I: Into<Item>>(mut self, items: impl IntoIterator<Item = I>) -> Self {
        self.puts.extend(items.into_iter().map(Into::into));
        self
    }

    /// Deletes an item, which has the revision that was read.
    #[must_use]
    pub fn delete(mut self, item: impl Into<Item>) -> Self {
        let item = item.into();
        self.deletes.push((item.key(), item.revision()));
        self
    }

    /// Writes a machine's boot item, which must not exist yet.
    #[must_use]
    pub fn put_boot_item(mut self, key: String, item: BootItem) -> Self {
        self.boot = Some((key, item));
        self
    }

    /// Requires that the item does not exist.
    #[must_use]
    pub fn check_absent(mut self, key: Key) -> Self {
        self.checks.push((key, 0));
        self
    }

    /// Adds the event. It describes the writes that were added before.
    #[must_use]
    pub fn emit(mut self, stream: Stream, what: What, turn: &Turn) -> Self {
        self.event = Some(describe(stream, turn.cause.clone(), what, turn.now, &self.puts, &self.deletes));
        self
    }

    /// The slots among the written items, as they are stored.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.puts.iter().filter_map(|item| match item.clone().next_revision() {
            Item::Slot(slot) => Some(slot),
            _ => None,
        })
    }

    /// The instances among the written items, as they are stored.
    pub fn instances(&self) -> impl Iterator<Item = Instance> {
        self.puts.iter().filter_map(|item| match item.clone().next_revision() {
            Item::Instance(instance) => Some(instance),
            _ => None,
        })
    }

    /// The number of writes and checks, of which DynamoDB allows [`Self::MAX_WRITES`].
    pub fn len(&self) -> usize {
        self.puts.len()
            + self.deletes.len()
            + self.checks.len()
            + usize::from(self.boot.is_some())
            + usize::from(self.event.is_some())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
