//! The effects that are due for a pool. First run, retry, redelivery and recovery from a crash all call [`due`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::ids::{JobId, PoolName, SlotId};
use crate::policy::PoolView;
use crate::policy::budget::{Budget, Optional, is_scarce};
use crate::policy::polling::{Allowed, notifications, questions, was_asked};
use crate::state::{Lease, Slot, SlotState, WaitingJob};

/// A call to EC2 or GitHub that a pool needs, with the writes around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Launch the batch of this version.
    Launch(u64),
    /// Register a runner for the slot and hand its JIT config over to the machine, which is started first if it is stopped.
    Register(SlotId),
    /// Stop the slot's machine, which has prepared itself.
    StopMachine(SlotId),
    /// Deregister the slot's runner and terminate its machine, in that order.
    Retire(SlotId),
    /// Ask GitHub whether the job still waits.
    Check(JobId),
    /// Ask GitHub about the claimed jobs of a slot whose machine has ended.
    CheckLostJob(SlotId),
    /// Publish or update the check run that explains why the job waits.
    Notify(JobId),
    /// Re-run the job, once its run has ended.
    Rerun(JobId),
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Launch(version) => write!(f, "the launch of batch {version}"),
            Effect::Register(slot) => write!(f, "the registration of slot {slot}"),
            Effect::StopMachine(slot) => write!(f, "stopping the machine of slot {slot}"),
            Effect::Retire(slot) => write!(f, "the retirement of slot {slot}"),
            Effect::Check(job) => write!(f, "the check of job {job}"),
            Effect::CheckLostJob(slot) => write!(f, "the check of the job of slot {slot}"),
            Effect::Notify(job) => write!(f, "the check run of job {job}"),
            Effect::Rerun(job) => write!(f, "the re-run of job {job}"),
        }
    }
}

/// What is due for a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub effects: Vec<Effect>,
    /// Whether more questions about jobs are due, which must wait.
    pub is_more_due: bool,
}

/// Every effect that is due and not leased. `budget` is that of the pool's account.
pub fn due(pool: &Pool, view: &PoolView, budget: Option<Budget>, now: Timestamp) -> Due {
    let launches = view
        .batches
        .values()
        .filter(|batch| batch.lease.is_free(now) && !view.meta.is_throttled(now))
        .map(|batch| Effect::Launch(batch.version));
    let slots = view.slots.values().filter(|slot| slot.lease.is_free(now)).filter_map(next_effect);
    let Allowed { jobs: mut checks, is_more_due } = questions(pool, view, budget, now);
    if !is_scarce(budget, Optional::Question, now) {
        checks.extend(possibly_run(pool, view, now));
    }
    let checks = checks.into_iter().map(Effect::Check);
    let notifications = notifications(pool, view, budget, now).jobs.into_iter().map(Effect::Notify);
    let reruns = view.reruns.values().filter(|rerun| rerun.lease().is_free(now)).map(|rerun| Effect::Rerun(rerun.job));
    let effects = launches.chain(slots).chain(checks).chain(notifications).chain(reruns).collect();
    Due { effects, is_more_due }
}

/// When the next effect is due that a machine waits for: the retry of a launch, a registration, a retirement or a re-run. None
/// if there is none, or it is due now.
pub fn next_due(view: &PoolView, now: Timestamp) -> Option<Timestamp> {
    let throttled = view.meta.throttled.as_ref().map(|throttled| throttled.until);
    let launches =
        view.batches.values().map(|batch| throttled.map_or(batch.lease.next_at, |at| at.max(batch.lease.next_at)));
    let slots = view.slots.values().filter(|slot| next_effect(slot).is_some()).map(|slot| slot.lease.next_at);
    let reruns = view.reruns.values().map(|rerun| rerun.lease().next_at);
    launches.chain(slots).chain(reruns).filter(|at| *at > now).min()
}

/// GitHub's points that the checks and notifications of one invocation may cost. GitHub allows 900 per minute and endpoint,
/// and several invocations run at the same time.
pub const MAX_POINTS: u32 = 120;

/// Each pool may make at least this many checks, however many pools share an invocation.
const MIN_POINTS: u32 = 10;

/// An invocation for messages begins no check, no notification and no further round for a pool after this time: messages
/// about other pools may wait for its end.
pub const YIELD_AFTER: SignedDuration = SignedDuration::from_secs(2);

/// The pools in the order in which they are reconciled: those with few messages first, so that one with very many does not
/// keep them waiting.
pub fn quiet_first(messages: &BTreeMap<PoolName, usize>) -> Vec<&PoolName> {
    let mut pools: Vec<(&PoolName, &usize)> = messages.iter().collect();
    pools.sort_by_key(|(_, messages)| **messages);
    pools.into_iter().map(|(pool, _)| pool).collect()
}

/// How soon the checks and notifications that an invocation leaves out are due again.
pub const LEFT_OUT_FOR: SignedDuration = SignedDuration::from_secs(15);

/// The points that each pool may use, if this many share an invocation.
pub fn points_each(pools: usize) -> u32 {
    (MAX_POINTS / u32::try_from(pools.max(1)).unwrap_or(u32::MAX)).max(MIN_POINTS)
}

impl Effect {
    /// Whether it is a check or a notification, which no machine waits for.
    pub fn is_question(&self) -> bool {
        self.points().is_some()
    }

    /// GitHub's points that a question about a job or its check run costs. None for an effect that a machine waits for.
    fn points(&self) -> Option<u32> {
        match self {
            Effect::Check(_) | Effect::CheckLostJob(_) => Some(1),
            Effect::Notify(_) => Some(5),
            Effect::Launch(_) | Effect::Register(_) | Effect::StopMachine(_) | Effect::Retire(_) | Effect::Rerun(_) => {
                None
            }
        }
    }
}

/// The effects without the checks and notifications that cost more than the points that are left. Takes what the others
/// cost from `points`. Half of the points is for notifications, and what they leave is for checks: many of the one kind do
/// not put off the other.
pub fn affordable(effects: &BTreeSet<Effect>, points: &mut u32) -> BTreeSet<Effect> {
    let mut affordable: BTreeSet<Effect> = effects.iter().filter(|it| it.points().is_none()).copied().collect();
    let is_notification = |effect: &&Effect| matches!(effect, Effect::Notify(_));
    let mut left = *points / 2;
    let reserved = *points - left;
    affordable.extend(within(effects.iter().filter(is_notification), &mut left));
    left += reserved;
    affordable.extend(within(effects.iter().filter(|it| !is_notification(it)), &mut left));
    *points = left;
    affordable
}

/// The first of the effects, as long as points are left for them.
fn within<'a>(effects: impl Iterator<Item = &'a Effect>, points: &mut u32) -> Vec<Effect> {
    effects
        .map_while(|effect| {
            *points = points.checked_sub(effect.points().unwrap_or(0))?;
            Some(*effect)
        })
        .collect()
}

/// After this time, a job that most likely runs no more is asked about again: before a machine that has ended since then counts as one
/// that ran no job.
const ASKED_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(20);

/// Within that time, at least this many jobs may be asked about.
const MIN_POSSIBLY_RUN: usize = 10;

/// The jobs that machines without a report most likely ran: for each machine, the two that have waited longest. The answers of the
/// last seconds count: when hundreds of machines end within a minute, each would have the same jobs asked about again, and GitHub's
/// hour would be used up by that alone.
fn possibly_run(pool: &Pool, view: &PoolView, now: Timestamp) -> Vec<JobId> {
    let ended: Vec<Timestamp> =
        view.slots.values().filter(|slot| slot.awaits_report(now)).filter_map(|slot| slot.gone_at).collect();
    let Some(last) = ended.iter().max() else { return Vec::new() };
    let every = pool.timings.job_check.duration();
    let was_just_asked = |job: &WaitingJob| {
        let is_recent = now.duration_since(job.checked_at) < ASKED_AGAIN_AFTER;
        job.is_being_asked_about(now) || is_recent && was_asked(job, every)
    };
    let asked = view.waiting.values().filter(|job| is_waiting(job, now) && was_just_asked(job)).count();
    let jobs = by_wait(view, *last, now).into_iter().filter(|job| !was_just_asked(job));
    let likely = 2 * ended.len();
    let left = likely.max(MIN_POSSIBLY_RUN).saturating_sub(asked);
    jobs.take(likely.min(left)).map(|job| job.id).collect()
}

fn is_waiting(job: &WaitingJob, now: Timestamp) -> bool {
    job.open && job.given_up(now).is_none()
}

/// The waiting jobs that GitHub was last asked about before `last`, the longest wait first.
fn by_wait(view: &PoolView, last: Timestamp, now: Timestamp) -> Vec<&WaitingJob> {
    let mut jobs: Vec<&WaitingJob> =
        view.waiting.values().filter(|job| is_waiting(job, now) && job.checked_at < last).collect();
    jobs.sort_by_key(|job| (job.queued_at, job.id));
    jobs
}

/// When the next of the jobs that machines without a report most likely ran is asked about again, because the last answer is too
/// recent now. Without this, such a machine counts as one that may have run a job until the regular question. None if the
/// question must wait for the account's next hour.
pub fn asked_again_at(pool: &Pool, view: &PoolView, budget: Option<Budget>, now: Timestamp) -> Option<Timestamp> {
    let awaiting = || view.slots.values().filter(|slot| slot.awaits_report(now));
    let (last, until) = awaiting().filter_map(|slot| Some((slot.gone_at?, slot.awaits_report_until()?))).max()?;
    if is_scarce(budget, Optional::Question, now) {
        return None;
    }
    let every = pool.timings.job_check.duration();
    let likely = by_wait(view, last, now).into_iter().take(2 * awaiting().count());
    let again = likely.filter(|job| was_asked(job, every)).map(|job| job.checked_at + ASKED_AGAIN_AFTER);
    again.filter(|at| now < *at && *at < until).min()
}

/// The lease of a launch, or of a slot whose next effect this is. None for another effect, or one that is not needed any more.
pub fn lease_of(view: &PoolView, effect: Effect) -> Option<Lease> {
    match effect {
        Effect::Launch(version) => view.batches.get(&version).map(|batch| batch.lease),
        Effect::Register(slot) | Effect::StopMachine(slot) | Effect::Retire(slot) | Effect::CheckLostJob(slot) => {
            view.slots.get(&slot).filter(|slot| next_effect(slot) == Some(effect)).map(|slot| slot.lease)
        }
        Effect::Check(_) | Effect::Notify(_) | Effect::Rerun(_) => None,
    }
}

/// The effect that the slot needs next, whether or not it is leased.
pub fn next_effect(slot: &Slot) -> Option<Effect> {
    match (&slot.state, &slot.stop) {
        (SlotState::Busy { .. } | SlotState::Done { .. }, _)
            if slot.gone_at.is_some() && !slot.job_check_ended && slot.has_open_claim() =>
        {
            Some(Effect::CheckLostJob(slot.id))
        }
        // The machine has ended. The sweep removes the registration.
        _ if slot.gone_at.is_some() => None,
        _ if slot.held => None,
        (SlotState::Launched(_) | SlotState::Started(_), None) if slot.wanted => Some(Effect::Register(slot.id)),
        (SlotState::Prepared(_), None) => Some(Effect::StopMachine(slot.id)),
        (
            SlotState::Launched(_)
            | SlotState::Prepared(_)
            | SlotState::Stopped(_)
            | SlotState::Started(_)
            | SlotState::Configured { .. }
            | SlotState::Online { .. },
            Some(_),
        ) => Some(Effect::Retire(slot.id)),
        (SlotState::Busy { .. } | SlotState::Done { .. }, Some(stop)) => {
            (stop.why.ends_a_job() || stop.forced).then_some(Effect::Retire(slot.id))
        }
        (SlotState::Planned, _)
        | (
            SlotState::Launched(_)
            | SlotState::Stopped(_)
            | SlotState::Started(_)
            | SlotState::Configured { .. }
            | SlotState::Online { .. }
            | SlotState::Busy { .. }
            | SlotState::Done { .. },
            None,
        ) => None,
    }
}

/// Whether the slot is being retired. A stopped slot is not if its runner has a job that the stop does not end.
pub fn is_being_retired(slot: &Slot) -> bool {
    matches!(next_effect(slot), Some(Effect::Retire(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_and_notifications_share_the_points_and_neither_puts_off_the_other() {
        let checks = (0..500).map(|job| Effect::Check(JobId(job)));
        let notifications = (0..500).map(|job| Effect::Notify(JobId(job)));
        let slot = SlotId { version: 1, index: 0 };
        let effects: BTreeSet<Effect> = checks.chain(notifications).chain([Effect::Register(slot)]).collect();
        let mut points = MAX_POINTS;
        let chosen = affordable(&effects, &mut points);
        let count = |wanted: fn(&Effect) -> bool| chosen.iter().filter(|effect| wanted(effect)).count();
        assert_eq!(count(|effect| matches!(effect, Effect::Check(_))), 60);
        assert_eq!(count(|effect| matches!(effect, Effect::Notify(_))), 12);
        assert_eq!(count(|effect| matches!(effect, Effect::Register(_))), 1, "machines wait for it");
        assert_eq!(points, 0);
        let only_checks: BTreeSet<Effect> = (0..500).map(|job| Effect::Check(JobId(job))).collect();
        let mut points = MAX_POINTS;
        assert_eq!(affordable(&only_checks, &mut points).len(), 120, "nothing is kept for what is not due");
        assert_eq!(points_each(1), MAX_POINTS);
        assert_eq!(points_each(1000), MIN_POINTS);
    }
}
