//! Which slots of a pool are not read when jobs are queued.
//!
//! A slot whose runner has or had a job is never supply again, so a decision needs no more of it than whether it counts
//! towards `max`. In a pool with a thousand busy machines that is nearly every slot. META says which ones, and how many
//! counted when they were last read; since then the number can only have become smaller.

use std::ops::RangeInclusive;

use jiff::Timestamp;

use crate::config::Pool;
use crate::policy::PoolView;
use crate::policy::early_end::must_wait;
use crate::state::{Meta, Phase, Slot, UnreadSlots};

/// With fewer slots than this, one query for everything costs no more than two for the rest.
const WORTHWHILE: usize = 16;

/// The most earlier slots that are read one by one.
const MOST_EXCEPTIONS: usize = 16;

/// The slots that need not be read now. None if a decision needs all of them.
pub fn readable_without(meta: &Meta) -> Option<&UnreadSlots> {
    // Whether a failing pool works again is seen from machines that have jobs.
    meta.unread.as_ref().filter(|_| meta.works())
}

/// The newest version whose slots are read. A slot that is newer than META shows that the reading mixes two states. One that is
/// much newer is not looked for: a decision that does not know it cannot be committed either.
pub fn newest(meta: &Meta) -> u64 {
    meta.revision + NEWER
}

/// See [`newest`].
const NEWER: u64 = 16;

/// The versions from `unread.before` to `newest`, in ranges of the same number of digits. In the table, slots are sorted as text,
/// and only within such a range is that the order of numbers.
pub fn ranges(unread: &UnreadSlots, newest: u64) -> Vec<RangeInclusive<u64>> {
    let mut ranges = Vec::new();
    let mut from = unread.before;
    while from <= newest {
        let longest = 10u64.checked_pow(from.max(1).ilog10() + 1).map_or(u64::MAX, |next| next - 1);
        ranges.push(from..=longest.min(newest));
        let Some(next) = longest.checked_add(1) else { break };
        from = next;
    }
    ranges
}

/// Whether decisions from this reading are the same as from a reading of the whole pool.
pub fn suffices(pool: &Pool, view: &PoolView, now: Timestamp) -> bool {
    let most = view.live() + view.demand(now) + (pool.warm_at(now) + pool.stopped_at(now)) as usize;
    view.unread.is_none()
        || (most <= pool.max as usize && is_far_below_cap(pool, view, now) && !must_wait(view, &view.meta, now))
}

/// Whether the pool's cap pays for every machine that is needed, also if no unread machine has ended.
fn is_far_below_cap(pool: &Pool, view: &PoolView, now: Timestamp) -> bool {
    let Some(cap) = pool.price_per_hour else { return true };
    let needed = (view.demand(now) + (pool.warm_at(now) + pool.stopped_at(now)) as usize)
        .saturating_sub(view.supply(now).count()) as u64;
    let dearest = pool.shapes.as_ref().and_then(|shapes| shapes.policy.price_per_hour);
    let left = cap.0.saturating_sub(view.price_per_hour().0);
    needed == 0 || dearest.is_some_and(|dearest| dearest.0.saturating_mul(needed) <= left)
}

/// The slots that the next reading can do without.
pub fn after(view: &PoolView) -> Option<UnreadSlots> {
    let known = view.unread.as_ref();
    let mut unread = UnreadSlots {
        before: known.map_or(0, |known| known.before),
        except: Vec::new(),
        live: known.map_or(0, |known| known.live),
        price_per_hour: known.map_or_else(Default::default, |known| known.price_per_hour),
    };
    let slots: Vec<&Slot> = view.slots.values().collect();
    let (exceptions, later) = slots.split_at(slots.partition_point(|slot| slot.id.version < unread.before));
    let mut left_out = leave_out(&mut unread, exceptions);
    let mut best = (left_out, unread.clone());
    for of_version in later.chunk_by(|one, next| one.id.version == next.id.version) {
        let added = leave_out(&mut unread, of_version);
        if unread.except.len() > MOST_EXCEPTIONS {
            break;
        }
        if added > 0 {
            left_out += added;
            unread.before = of_version[0].id.version + 1;
            best = (left_out, unread.clone());
        }
    }
    let (left_out, unread) = best;
    (known.is_some() || left_out >= WORTHWHILE).then_some(unread)
}

/// Adds the slots to those that are left out, or to the exceptions. Returns the number of the former.
fn leave_out(unread: &mut UnreadSlots, slots: &[&Slot]) -> usize {
    let (have_had_jobs, others): (Vec<&Slot>, Vec<&Slot>) = slots.iter().partition(|slot| slot.phase() >= Phase::Busy);
    unread.except.extend(others.iter().map(|slot| slot.id));
    for slot in have_had_jobs.iter().filter(|slot| slot.is_live()) {
        unread.live += 1;
        unread.price_per_hour = unread.price_per_hour + slot.price_per_hour.unwrap_or_default();
    }
    have_had_jobs.len()
}
