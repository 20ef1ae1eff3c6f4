//! Which jobs the launches of a pool are charged to. GitHub gives a job to any idle runner, so a charge is no reservation: it
//! only bounds how many machines are launched for jobs that do not start.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::config::Pool;
use crate::ids::JobId;
use crate::policy::PoolView;
use crate::state::{Slot, WaitingJob};

/// How many machines are launched for one job that does not start, within its pool's `relaunch_window`.
pub const RELAUNCH_LIMIT: usize = 3;

/// The launches within the pool's `relaunch_window`.
pub(super) fn recent_launches<'a>(
    pool: &Pool,
    job: &'a WaitingJob,
    now: Timestamp,
) -> impl Iterator<Item = &'a Timestamp> + use<'a> {
    job.launches_within(pool.timings.relaunch_window.duration(), now)
}

/// The jobs for which another machine may be launched. `excluded` are jobs that are no demand in this decision.
pub(super) fn budgeted<'a>(
    pool: &'a Pool,
    view: &'a PoolView,
    excluded: &'a BTreeSet<JobId>,
    now: Timestamp,
) -> impl Iterator<Item = &'a WaitingJob> {
    let jobs = view.waiting.values().filter(move |job| job.is_demand(now) && !excluded.contains(&job.id));
    jobs.filter(move |job| recent_launches(pool, job, now).count() < RELAUNCH_LIMIT)
}

/// Charges `count` launches to the jobs with the fewest launches, then to the oldest, so that no job uses up the budget of
/// another. Those that the launches were decided for, `is_for`, come first.
pub(super) fn charge<'a>(
    pool: &Pool,
    jobs: impl Iterator<Item = &'a WaitingJob>,
    is_for: impl Fn(&WaitingJob) -> bool,
    count: usize,
    now: Timestamp,
) -> Vec<WaitingJob> {
    let mut jobs: Vec<&WaitingJob> = jobs.collect();
    jobs.sort_by_key(|job| (!is_for(job), recent_launches(pool, job, now).count(), job.queued_at, job.id));
    jobs.into_iter()
        .take(count)
        .map(|job| {
            let launches = recent_launches(pool, job, now).copied().chain([now]).collect();
            WaitingJob { launches, ..job.clone() }
        })
        .collect()
}

/// Gives back the charges for slots that are closed without a launch.
pub(super) fn refund<'a>(view: &PoolView, slots: impl Iterator<Item = &'a Slot>) -> Vec<WaitingJob> {
    give_back(view, slots, |_| true)
}

/// Gives back the charges for slots whose machines have run jobs. A job that waited beside an idle runner keeps its charges:
/// GitHub does not give it to the pool's runners, and they bound what is launched for it.
pub(super) fn give_back_used<'a>(view: &PoolView, slots: impl Iterator<Item = &'a Slot>) -> Vec<WaitingJob> {
    let used = slots.filter(|slot| slot.has_run_a_job() && !slot.charge_returned);
    give_back(view, used, |job| job.unserved.is_none())
}

/// Gives a charge back while the machine still runs another job, to each job that has used up its launches: the other jobs may last
/// for hours. A slot remembers it, because a charge is given back once. `most` is the largest number of jobs.
pub(super) fn give_back_early(
    pool: &Pool,
    view: &PoolView,
    most: usize,
    now: Timestamp,
) -> (Vec<WaitingJob>, Vec<Slot>) {
    let is_used_up = |job: &&WaitingJob| {
        job.is_demand(now) && job.unserved.is_none() && recent_launches(pool, job, now).count() >= RELAUNCH_LIMIT
    };
    // A slot whose machine is ending is closed soon.
    let is_taken =
        |slot: &&Slot| slot.has_run_a_job() && !slot.charge_returned && slot.stop.is_none() && slot.gone_at.is_none();
    let used_up: Vec<&WaitingJob> = view.waiting.values().filter(is_used_up).collect();
    if used_up.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let mut taken: Vec<&Slot> = view.slots.values().filter(is_taken).collect();
    let given_back = used_up.into_iter().filter_map(|job| {
        let is_charged =
            |slot: &&Slot| slot.class == job.class && recent_launches(pool, job, now).any(|at| *at == slot.planned_at);
        let slot = taken.swap_remove(taken.iter().position(is_charged)?);
        let launches = job.launches.iter().filter(|at| **at != slot.planned_at).copied().collect();
        Some((WaitingJob { launches, ..job.clone() }, Slot { charge_returned: true, ..slot.clone() }))
    });
    given_back.take(most).unzip()
}

/// One charge for each slot, if a job that still waits was charged for a slot of the same decision. The youngest jobs come
/// first.
fn give_back<'a>(
    view: &PoolView,
    slots: impl Iterator<Item = &'a Slot>,
    may_have: impl Fn(&WaitingJob) -> bool,
) -> Vec<WaitingJob> {
    let charged = view.waiting.values().filter(|job| !job.launches.is_empty() && may_have(job));
    let mut youngest: Vec<&WaitingJob> = charged.collect();
    youngest.sort_by_key(|job| std::cmp::Reverse((job.queued_at, job.id)));
    let mut changed: BTreeMap<JobId, WaitingJob> = BTreeMap::new();
    for slot in slots {
        let is_charged = |job: &&&WaitingJob| {
            job.class == slot.class && changed.get(&job.id).unwrap_or(job).launches.contains(&slot.planned_at)
        };
        let Some(job) = youngest.iter().find(is_charged) else { continue };
        let job = changed.entry(job.id).or_insert_with(|| (*job).clone());
        job.launches.retain(|at| *at != slot.planned_at);
    }
    changed.into_values().collect()
}
