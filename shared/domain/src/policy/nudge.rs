//! When to send a message that makes the scaler reconcile a pool again.

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::policy::PoolView;
use crate::state::Nudge;

/// Effects that are due later than this are left to the janitor, which runs every minute.
const NUDGE_WITHIN: SignedDuration = SignedDuration::from_secs(55);

/// A nudge that is overdue by this much is lost.
const NUDGE_LOST_AFTER: SignedDuration = SignedDuration::from_mins(2);

/// The nudge to send so that the pool is reconciled at `at`. None if one that is due by then was sent already, or the janitor
/// runs before `at`.
pub fn due(pool: &Pool, view: &PoolView, at: Timestamp, now: Timestamp) -> Option<Nudge> {
    let due_at = at.max(now);
    let is_sent = view
        .nudge
        .as_ref()
        .is_some_and(|nudge| nudge.due_at <= due_at && now.duration_since(nudge.due_at) < NUDGE_LOST_AFTER);
    if is_sent || due_at.duration_since(now) > NUDGE_WITHIN {
        return None;
    }
    let revision = view.nudge.as_ref().map_or(0, |nudge| nudge.revision);
    Some(Nudge { pool: pool.name.clone(), due_at, revision })
}
