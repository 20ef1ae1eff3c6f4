//! What is written together or not at all.

use crate::log::event::{Event, Stream, What, describe};
use crate::log::turn::Turn;
use crate::state::{BootItem, Instance, Item, Key, Slot};

/// Writes that succeed together or not at all, with the event that tells of them.
///
/// Each write names the revision it replaces (an item's own `revision`; 0: it must not exist). If any has moved on, nothing
/// is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Items to write, with the revision they were read at; stored one higher.
    pub puts: Vec<Item>,
    /// Items to delete, with the revision they were read at.
    pub deletes: Vec<(Key, u64)>,
    /// Items that must still be as they were read, 0 for "must not exist".
    pub checks: Vec<(Key, u64)>,
    /// A machine's boot item, which must not exist yet.
    pub boot: Option<(String, BootItem)>,
    /// What it amounts to; None only if no lifecycle field changes.
    pub event: Option<Event>,
}

impl Transaction {
    /// DynamoDB's limit.
    pub const MAX_WRITES: usize = 100;

    /// No writes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes an item over the revision it carries.
    #[must_use]
    pub fn put(mut self, item: impl Into<Item>) -> Self {
        self.puts.push(item.into());
        self
    }

    /// Writes several.
    #[must_use]
    pub fn put_all<I: Into<Item>>(mut self, items: impl IntoIterator<Item = I>) -> Self {
        self.puts.extend(items.into_iter().map(Into::into));
        self
    }

    /// Deletes an item as it was read.
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

    /// Fails if that item exists.
    #[must_use]
    pub fn check_absent(mut self, key: Key) -> Self {
        self.checks.push((key, 0));
        self
    }

    /// Writes the event that describes what is put and deleted so far.
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

    /// How many of DynamoDB's hundred it takes.
    pub fn len(&self) -> usize {
        self.puts.len()
            + self.deletes.len()
            + self.checks.len()
            + usize::from(self.boot.is_some())
            + usize::from(self.event.is_some())
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
