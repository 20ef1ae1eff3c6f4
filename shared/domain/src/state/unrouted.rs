//! A queued job that no pool accepts.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::state::lease::{Lease, Leased};
use crate::wire::Notice;

/// How long a job that no pool accepts is kept. GitHub fails a job after this time in the queue.
pub const KEEP_UNROUTED: SignedDuration = SignedDuration::from_hours(24);

/// A queued job of an account that has pools, none of which accepts the job: the item `UNROUTED`, `JOB#<job>`. It exists
/// until a pool accepts the job, the job starts or ends, or [`KEEP_UNROUTED`] has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnroutedJob {
    /// The webhook about it.
    pub notice: Notice,
    /// Whether its author was notified, or GitHub refused the check run.
    #[serde(default)]
    pub notified: bool,
    #[serde(flatten)]
    pub lease: Lease,
    /// DynamoDB's TTL, in epoch seconds.
    pub expires_at: i64,
    pub revision: u64,
}

impl UnroutedJob {
    pub fn new(notice: Notice, now: Timestamp) -> Self {
        let expires_at = (now + KEEP_UNROUTED).as_second();
        Self { notice, notified: false, lease: Lease::due(now), expires_at, revision: 0 }
    }

    /// DynamoDB deletes expired items late.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at <= now.as_second()
    }
}

impl Leased for UnroutedJob {
    fn lease_mut(&mut self) -> &mut Lease {
        &mut self.lease
    }

    fn revision_mut(&mut self) -> &mut u64 {
        &mut self.revision
    }
}
