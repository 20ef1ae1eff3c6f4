//! The lease of an intent: its attempts, and when the next one is due.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Attempts and due time of an intent: a launch, a slot's registration or retirement, a check run, a re-run.
///
/// No other invocation works on the intent before `next_at`. While an invocation works on it, `next_at` is the end of that
/// invocation's lease; afterwards it is the end of the back-off. A crash needs no clean-up: the lease expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Attempts begun since the last success.
    #[serde(default)]
    pub tries: u32,
    pub next_at: Timestamp,
}

impl Lease {
    /// Due at that time, not tried yet.
    pub fn due(at: Timestamp) -> Self {
        Self { tries: 0, next_at: at }
    }

    /// Whether an invocation may claim the intent.
    pub fn is_free(&self, now: Timestamp) -> bool {
        self.next_at <= now
    }

    /// The lease of an attempt that begins now and ends by `until`.
    #[must_use]
    pub fn claimed(self, until: Timestamp) -> Self {
        Self { tries: self.tries + 1, next_at: until }
    }

    /// The same number of attempts, due again at that time.
    #[must_use]
    pub fn put_off(self, at: Timestamp) -> Self {
        Self { next_at: at, ..self }
    }
}

/// A record that carries a [`Lease`].
pub trait Leased {
    fn lease_mut(&mut self) -> &mut Lease;

    fn revision_mut(&mut self) -> &mut u64;

    /// The record as the store has written it: with the next revision.
    #[must_use]
    fn written(mut self) -> Self
    where
        Self: Sized,
    {
        *self.revision_mut() += 1;
        self
    }

    #[must_use]
    fn claimed(mut self, until: Timestamp) -> Self
    where
        Self: Sized,
    {
        let lease = self.lease_mut();
        *lease = lease.claimed(until);
        self
    }

    #[must_use]
    fn put_off(mut self, at: Timestamp) -> Self
    where
        Self: Sized,
    {
        let lease = self.lease_mut();
        *lease = lease.put_off(at);
        self
    }
}
