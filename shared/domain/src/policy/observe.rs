//! Recording what EC2 and GitHub show about a pool's slots.

use std::collections::BTreeMap;

use crate::config::Pool;
use crate::ids::SlotId;
use crate::log::{Stream, Transaction, Turn, What};
use crate::policy::PoolView;
use crate::policy::boot::awaited;
use crate::state::{Boot, BootReport, Item, Runner, Slot, SlotState};

/// What EC2 or GitHub shows about a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// Its runner came online.
    Online(SlotId),
    /// Its machine reported that it booted.
    Booted(SlotId, BootReport),
    /// EC2 shows its machine as stopped.
    Ready(SlotId),
    /// Its runner has a job that no webhook has reported yet.
    Busy(SlotId),
    /// Its machine has ended.
    Gone(SlotId),
    /// Its machine has ended, and GitHub does not list its runner.
    Unregistered(SlotId),
    /// Its machine has ended, and GitHub still lists its runner: deregister it.
    LeftRegistered(SlotId, Runner),
    /// An operator put the tag `drover:hold` on its machine.
    Held(SlotId),
    /// The operator removed the tag.
    Released(SlotId),
}

impl Observation {
    pub fn slot(&self) -> SlotId {
        match self {
            Observation::Online(id)
            | Observation::Booted(id, _)
            | Observation::Ready(id)
            | Observation::Busy(id)
            | Observation::Gone(id)
            | Observation::Unregistered(id)
            | Observation::LeftRegistered(id, _)
            | Observation::Held(id)
            | Observation::Released(id) => *id,
        }
    }
}

/// Records the observations in the slots; None if nothing changes. The view may be newer than the observations, so one that
/// the slot shows already, or is past, changes nothing. Nor does [`Observation::LeftRegistered`]: the caller deregisters the
/// runner first and replaces the observation with [`Observation::Unregistered`].
pub fn record_observations(
    pool: &Pool,
    view: &PoolView,
    observations: &[Observation],
    turn: &Turn,
) -> Option<Transaction> {
    let now = turn.now;
    let mut changed: BTreeMap<SlotId, Slot> = BTreeMap::new();
    let (mut online, mut gone, mut unregistered) = (Vec::new(), Vec::new(), Vec::new());
    let mut ready = Vec::new();
    for observation in observations {
        let id = observation.slot();
        let Some(slot) = changed.get(&id).or_else(|| view.slots.get(&id)).cloned() else { continue };
        let slot = match observation {
            Observation::Online(_) => {
                let (Some(machine), Some(runner)) = (slot.machine().cloned(), slot.runner().cloned()) else { continue };
                let state = SlotState::Online { machine, runner, online_at: now };
                let Some(state) = SlotState::advanced(&slot.state, state) else { continue };
                online.push(id);
                Slot { state, ..slot }
            }
            // A slot that has a runner by now may have a job, which may have written another report.
            Observation::Booted(..) if awaited(pool, &slot, now).is_none() => continue,
            // Nothing new.
            Observation::Booted(_, report) if slot.boot.is_some_and(|boot| boot.report == *report) => continue,
            Observation::Ready(_) => {
                let Some(slot) = slot.ready() else { continue };
                ready.push(id);
                slot
            }
            Observation::Booted(_, report) => Slot { boot: Some(Boot { report: *report, seen_at: now }), ..slot },
            Observation::Busy(_) => slot.observed_busy(now),
            Observation::Gone(_) if slot.gone_at.is_some() => continue,
            Observation::Gone(_) => {
                gone.push(id);
                slot.gone(now)
            }
            Observation::Unregistered(_) if slot.unregistered_at.is_some() => continue,
            Observation::Unregistered(_) => {
                unregistered.push(id);
                Slot { unregistered_at: Some(now), ..slot }
            }
            Observation::LeftRegistered(..) => continue,
            Observation::Held(_) => Slot { held: true, ..slot },
            Observation::Released(_) => Slot { held: false, ..slot },
        };
        changed.insert(id, slot);
    }
    if changed.is_empty() {
        return None;
    }
    let writes = Transaction::new().put_all(changed.into_values());
    if online.is_empty() && gone.is_empty() && unregistered.is_empty() && ready.is_empty() {
        return Some(writes);
    }
    Some(writes.emit(Stream::Pool(pool.name.clone()), What::Observed { online, gone, unregistered, ready }, turn))
}

/// The slots that the observations show to be over, as they would be recorded, with the revisions that were read: closing one now
/// needs no write of its own for the observation. A machine whose end is news is not among them, because its end gets an event.
pub fn over_after(pool: &Pool, view: &PoolView, observations: &[Observation], turn: &Turn) -> Vec<Slot> {
    let has_ended = |slot: &Slot| view.slots.get(&slot.id).is_some_and(|before| before.gone_at.is_some());
    let recorded = record_observations(pool, view, observations, turn).into_iter().flat_map(|writes| writes.puts);
    let slots = recorded.filter_map(|item| match item {
        Item::Slot(slot) => Some(slot),
        _ => None,
    });
    slots.filter(|slot| slot.is_over() && has_ended(slot)).collect()
}
