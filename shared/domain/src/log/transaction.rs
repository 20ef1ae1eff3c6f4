//! What is written together or not at all.

use jiff::Timestamp;

use crate::log::{Cause, Event, Stream, What, describe};
use crate::state::{BootItem, Item, Key};

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

    /// Leaves a machine its boot item.
    #[must_use]
    pub fn leave(mut self, key: String, item: BootItem) -> Self {
        self.boot = Some((key, item));
        self
    }

    /// Tells what it amounts to.
    #[must_use]
    pub fn told(mut self, stream: Stream, cause: Cause, what: What, at: Timestamp) -> Self {
        self.event = Some(describe(stream, cause, what, at, &self.puts, &self.deletes));
        self
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
