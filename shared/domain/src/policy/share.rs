//! What the classes of a pool share: warm machines, room below `max` and money below the cap, and the launch template.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::config::{Label, Pool, Tuple};
use crate::policy::PoolView;
use crate::policy::class::{architecture, part};
use crate::policy::stopped::aside;
use crate::policy::tuple::is_at_cap;
use crate::state::{Circuit, Meta, Slot, SlotState, StopReason, WaitingJob};

/// Warm machines for `jobs` jobs of a class: those that the class might have launched itself. `of_class` has the launch options
/// of the class.
pub fn given(
    of_class: &Pool,
    view: &PoolView,
    class: &Label,
    jobs: usize,
    now: Timestamp,
    lease: Timestamp,
) -> Vec<Slot> {
    let options = of_class.launch_options();
    let is_option = |it: &Tuple| options.iter().any(|option| option.tuple.serves_like(it));
    let suits = |slot: &&Slot| slot.warm_as.as_deref().is_some_and(is_option);
    let is_usable = |slot: &&Slot| slot.is_supply(now) || slot.is_ready(now);
    let warm = view.slots.values().filter(|slot| slot.class.is_none() && !slot.wanted).filter(is_usable);
    // A slot without a machine stays with its launch.
    let is_machine = |slot: &&Slot| slot.machine().is_some() && slot.is_live();
    let mut warm: Vec<&Slot> = warm.filter(is_machine).filter(suits).collect();
    soonest_first(&mut warm, now);
    let of_class = |slot: &Slot| Slot { class: Some(class.clone()), warm_as: None, ..slot.clone() };
    warm.into_iter().take(jobs).map(|slot| of_class(slot).wanted(now, lease)).collect()
}

/// The class that comes before a job: that of the job that has waited longest, if the cap leaves no room for its machine.
pub fn comes_first<'a>(pool: &Pool, view: &'a PoolView, job: &WaitingJob, now: Timestamp) -> Option<&'a Label> {
    pool.price_per_hour?;
    let oldest =
        view.waiting.values().filter(|job| job.is_demand(now)).min_by_key(|job| (job.waits_since(), job.id))?;
    let class = oldest.class.as_ref().filter(|class| Some(*class) != job.class.as_ref())?;
    let (pool, part) = part(pool, view, Some(class));
    is_at_cap(&pool, &part, now).then_some(class)
}

/// About how long a stopped machine takes to start.
const STARTS_WITHIN: SignedDuration = SignedDuration::from_secs(12);

/// First those that are online soonest: machines that are up, then stopped ones, then those that are on their way, oldest first.
pub(super) fn soonest_first(warm: &mut [&Slot], now: Timestamp) {
    let is_up = |slot: &Slot| matches!(&slot.state, SlotState::Launched(machine) if now.duration_since(machine.launched_at) >= STARTS_WITHIN);
    warm.sort_by_cached_key(|slot| (!is_up(slot), Reverse(slot.phase()), slot.planned_at, slot.id));
}

/// Stops machines that were never registered and that no job needs, so that `machines` can be launched for a class: first those
/// that are set aside, then warm ones and those that another class has too many of.
pub fn room(view: &PoolView, class: &Label, machines: usize, now: Timestamp, lease: Timestamp) -> Vec<Slot> {
    let is_ending = |slot: &&Slot| slot.is_live() && slot.stop.is_some();
    let ending = view.slots.values().filter(is_ending).count();
    let is_unregistered = |slot: &&Slot| {
        matches!(slot.state, SlotState::Launched(_)) && slot.is_supply(now) && slot.is_live() && !slot.held
    };
    let aside = aside(view).filter(|slot| !slot.held);
    let mut by_class: BTreeMap<Option<&Label>, Vec<&Slot>> = BTreeMap::new();
    for slot in view.slots.values().filter(is_unregistered).filter(|slot| slot.class.as_ref() != Some(class)) {
        by_class.entry(slot.class.as_ref()).or_default().push(slot);
    }
    let unneeded = by_class.into_iter().flat_map(|(class, slots)| {
        let part = view.of_class(class);
        let excess = part.supply(now).count().saturating_sub(part.demand(now));
        slots.into_iter().take(excess)
    });
    aside
        .chain(unneeded)
        .take(machines.saturating_sub(ending))
        .map(|slot| slot.clone().stopped(StopReason::Surplus, now, lease))
        .collect()
}

/// The number of classes that must fail before the launch template counts as broken.
const SEVERAL: usize = 3;

/// The circuit of a class that has not failed, if several others with the same launch template have, and nothing works: it
/// permits a probe at once. A machine that was launched after the others began to fail closes it.
pub fn suspected(pool: &Pool, meta: &Meta, view: &PoolView, class: Option<&Label>, now: Timestamp) -> Option<Circuit> {
    let template = architecture(pool, class)?;
    let shares = |other: Option<&Label>| architecture(pool, other) == Some(template);
    let failed = meta.classes.iter().filter(|(label, _)| Some(*label) != class && shares(Some(label)));
    let open: Vec<&Circuit> = failed.map(|(_, state)| &state.circuit).filter(|it| **it != Circuit::Closed).collect();
    if open.len() < SEVERAL {
        return None;
    }
    let first = open.into_iter().min_by_key(|circuit| match circuit {
        Circuit::Open { since, .. } => *since,
        Circuit::Closed => now,
    })?;
    let Circuit::Open { since, cause, message, .. } = first.clone() else { return None };
    let is_proof = |slot: &Slot| {
        slot.works() && shares(slot.class.as_ref()) && slot.machine().is_some_and(|it| it.launched_at >= since)
    };
    let is_unproved = !view.slots.values().any(is_proof);
    let backoff_seconds = pool.timings.backoff_min.duration().as_secs();
    is_unproved.then_some(Circuit::Open { until: now, backoff_seconds, since, cause, message })
}
