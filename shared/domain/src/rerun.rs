//! A job that lost its machine to EC2 is run once more, if its pool says so.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::{JobId, PoolName, Repository, RunId};
use crate::notice::{Action, Notice};
use crate::pool::Pool;
use crate::slot::{Slot, StopReason};

/// A job to be run again once its run has ended: the item `POOL#<pool>`, `RERUN#<job>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rerun {
    /// The job that failed.
    pub job: JobId,
    /// Its pool.
    pub pool: PoolName,
    /// Where it belongs.
    pub repository: Repository,
    /// Its run.
    pub run_id: RunId,
    /// The attempt in which it failed. A later one means that somebody ran it again.
    pub run_attempt: u32,
    /// Since when this is owed.
    pub since: Timestamp,
    /// How often it was tried in vain.
    pub tries: u32,
    /// Nobody else works on it before then.
    pub next_at: Timestamp,
    /// How often the item was written.
    pub revision: u64,
}

/// A run that has not ended by then will be looked after by people.
pub const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// A job whose machine went away so long before its end did not end by itself: the machine of one that did powers off
/// after it.
const LOST_BEFORE: SignedDuration = SignedDuration::from_secs(30);

/// The intent that follows from the news that the slot's job is over: None unless EC2 took the machine under it, it failed
/// for the first time, and the pool wants that.
pub fn called_for(pool: &Pool, slot: &Slot, notice: &Notice, now: Timestamp) -> Option<Rerun> {
    let job = &notice.job;
    let interrupted = slot.stop.as_ref().is_some_and(|stop| stop.why == StopReason::Interrupted);
    let ended_at = job.completed_at.unwrap_or(notice.received_at);
    let lost = slot.gone_at.is_some_and(|gone| ended_at.duration_since(gone) >= LOST_BEFORE);
    let failed = notice.action == Action::Completed && job.conclusion.as_deref() == Some("failure");
    let wanted = pool.rerun_on_interruption && job.run_attempt == 1 && failed && (interrupted || lost);
    wanted.then(|| Rerun {
        job: job.id,
        pool: pool.name.clone(),
        repository: notice.repository.clone(),
        run_id: job.run_id,
        run_attempt: job.run_attempt,
        since: now,
        tries: 0,
        next_at: now,
        revision: 0,
    })
}
