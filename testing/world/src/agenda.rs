//! What a model has to do later, by due time.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Entries with due times. Entries with equal times keep their order, so that a run can be repeated exactly.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    entries: BTreeMap<(Timestamp, u64), T>,
    planned: u64,
}

impl<T> Agenda<T> {
    pub(crate) fn new() -> Self {
        Self { entries: BTreeMap::new(), planned: 0 }
    }

    pub(crate) fn plan(&mut self, at: Timestamp, what: T) {
        self.planned += 1;
        self.entries.insert((at, self.planned), what);
    }

    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    /// The earliest entry due by `now`, with its due time. Its effects have the due time, even if the driver is late.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<(Timestamp, T)> {
        if self.next()? > now {
            return None;
        }
        self.entries.pop_first().map(|((at, _), what)| (at, what))
    }
}
