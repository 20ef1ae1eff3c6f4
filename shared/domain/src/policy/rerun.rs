//! A job that lost its machine to EC2 is run once more, if its pool says so.

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::state::Rerun;
use crate::state::{Slot, StopReason};
use crate::wire::{Action, Notice};

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
