//! When a pool is read: at once, by another invocation, or a little later.
//!
//! An invocation that has recorded facts about a pool must make sure that the pool is read after that. A nudge that is
//! due soon is enough: the invocation that answers it deletes its record before reading the pool, so it reads the facts.

use jiff::{SignedDuration, Timestamp};

use crate::ids::PoolName;
use crate::state::{LastReading, Meta, Nudge};

/// Effects that are due later than this are left to the janitor, which runs every minute.
const NUDGE_WITHIN: SignedDuration = SignedDuration::from_secs(55);

/// A nudge that is overdue by this much may be lost: another one is sent.
const NUDGE_LOST_AFTER: SignedDuration = SignedDuration::from_secs(5);

/// Facts may wait this long for an invocation that reads the pool anyway.
const SOON: SignedDuration = SignedDuration::from_secs(1);

/// A pool with fewer items is read whenever there are new facts. EC2 accepts five calls of RunInstances at once, for 48 machines
/// each, so with more waiting jobs than that its limit delays launches more than the pause does.
const LARGE: usize = 240;

/// How long a large pool is not read again after a reading or a decision, for each of its items. During a burst this makes what each job
/// costs independent of the number of jobs.
const PAUSE_PER_ITEM: SignedDuration = SignedDuration::from_micros(500);

/// See [`PAUSE_PER_ITEM`].
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// After this time without a reading, META does not say any more how large the pool is. In a burst, a large pool is read more often.
const SIZE_KNOWN_FOR: SignedDuration = SignedDuration::from_secs(30);

/// The nudge to send so that the pool is reconciled at `at`. None if one that is due by then was sent already, or the janitor
/// runs before `at`.
pub fn due(pool: &PoolName, sent: Option<&Nudge>, at: Timestamp, now: Timestamp) -> Option<Nudge> {
    let due_at = at.max(now);
    let is_sent = sent.is_some_and(|sent| sent.due_at <= due_at && now.duration_since(sent.due_at) < NUDGE_LOST_AFTER);
    if is_sent || due_at.duration_since(now) > NUDGE_WITHIN {
        return None;
    }
    Some(Nudge { pool: pool.clone(), due_at, revision: sent.map_or(0, |sent| sent.revision) })
}

/// Who reads a pool after new facts about it were recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// This invocation, now.
    This,
    /// This invocation, if it deletes the record of this nudge. Otherwise the one that deleted it.
    WhoeverDeletes(Nudge),
    /// The one that answers the nudge that is on its way.
    Another,
    /// The one that answers a nudge that must be sent for then.
    Later(Timestamp),
}

/// `meta` and `sent` were read after the facts were recorded.
pub fn reader(meta: &Meta, sent: Option<&Nudge>, now: Timestamp) -> Reader {
    match (sent, paused_until(meta, now)) {
        (Some(sent), _) if sent.due_at > now && sent.due_at.duration_since(now) <= SOON => Reader::Another,
        (_, Some(until)) => Reader::Later(until),
        (Some(sent), None) if sent.due_at <= now => Reader::WhoeverDeletes(sent.clone()),
        (Some(_) | None, None) => Reader::This,
    }
}

/// Until when the pool is not read, because it is large and an invocation reads it or decides about it. That one also performs what is due.
pub fn paused_until(meta: &Meta, now: Timestamp) -> Option<Timestamp> {
    let last = meta.last_reading.as_ref()?;
    Some(last.at + pause(last.items as usize)).filter(|until| *until > now)
}

/// META of a large pool that is read now. None if the pool is not known to be large: then others may read it, too.
pub fn reading(meta: &Meta, now: Timestamp) -> Option<Meta> {
    let last = meta.last_reading.as_ref().filter(|last| now.duration_since(last.at) < SIZE_KNOWN_FOR)?;
    Some(Meta { last_reading: Some(LastReading { at: now, items: last.items }), ..meta.clone() })
}

/// Whether a pool with this many items is not read more often than needed.
pub fn is_large(items: usize) -> bool {
    items >= LARGE
}

/// Whether META makes others wait for much longer than this number of items does.
pub fn is_outdated(meta: &Meta, items: usize) -> bool {
    meta.last_reading.as_ref().is_some_and(|last| pause(last.items as usize) > pause(items) * 2)
}

/// How long a pool with this many items is not read again, because an invocation has just read it or decided about it.
pub fn pause(items: usize) -> SignedDuration {
    if !is_large(items) {
        return SignedDuration::ZERO;
    }
    let items = i32::try_from(items).unwrap_or(i32::MAX);
    (PAUSE_PER_ITEM * items).min(LONGEST_PAUSE)
}
