//! What was read last: for a second instead of a reading, and longer while AWS cannot be reached.

use std::sync::Arc;

use engine::ports::Clock;
use jiff::{SignedDuration, Timestamp};
use platform::clock::SystemClock;
use tokio::sync::Mutex;

use crate::output::Failure;

/// Values that are kept at a time. Each tab of the operator's browser needs one.
const MAX_VALUES: usize = 16;

/// Values by name.
#[derive(Debug)]
pub(super) struct Cache<T> {
    entries: Mutex<Vec<Entry<T>>>,
    fresh_for: SignedDuration,
}

#[derive(Debug)]
struct Entry<T> {
    name: String,
    read: Read<T>,
}

/// A value and when it was read.
#[derive(Debug)]
pub(super) struct Read<T> {
    pub(super) value: Arc<T>,
    pub(super) at: Timestamp,
    /// Why there is no newer one.
    pub(super) failure: Option<String>,
}

impl<T> Clone for Read<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), at: self.at, failure: self.failure.clone() }
    }
}

impl<T> Cache<T> {
    pub(super) fn new(fresh_for: SignedDuration) -> Self {
        Self { entries: Mutex::default(), fresh_for }
    }

    /// The value of that name, read by `read` unless it is fresh. One value is read at a time. If the reading fails, the last
    /// value is returned with the failure; without one, the failure.
    pub(super) async fn get(
        &self,
        name: &str,
        read: impl AsyncFnOnce(Timestamp) -> Result<T, Failure>,
    ) -> Result<Read<T>, Failure> {
        let mut entries = self.entries.lock().await;
        let now = SystemClock.now();
        let known = entries.iter().position(|entry| entry.name == name);
        if let Some(entry) = known.map(|known| &entries[known])
            && now.duration_since(entry.read.at).abs() < self.fresh_for
        {
            return Ok(entry.read.clone());
        }
        let value = match read(now).await {
            Ok(value) => value,
            Err(failure) => {
                let Some(known) = known else { return Err(failure) };
                return Ok(Read { failure: Some(failure.to_string()), ..entries[known].read.clone() });
            }
        };
        let read = Read { value: Arc::new(value), at: now, failure: None };
        entries.retain(|entry| entry.name != name);
        if entries.len() >= MAX_VALUES {
            entries.remove(0);
        }
        entries.push(Entry { name: name.to_owned(), read: read.clone() });
        Ok(read)
    }
}
