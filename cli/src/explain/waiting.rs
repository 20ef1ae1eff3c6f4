//! Why a job waits, which machine is on its way for it, and what happens next.

use std::cmp::Reverse;

use domain::config::Pool;
use domain::ids::SlotId;
use domain::policy::PoolView;
use domain::policy::circuit::next_probe;
use domain::policy::notify::{Reader, reasons};
use domain::policy::tuple::{Budget, next_free};
use domain::state::{Job, Limit, Slot, SlotState, WaitingJob};
use jiff::Timestamp;
use serde::Serialize;

use crate::classes::{Part, described};
use crate::output::{age, count, when};

/// What happens to a job without anyone's doing.
#[derive(Debug, Serialize)]
pub(super) struct Next {
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
}

impl Next {
    pub(super) fn new(what: impl Into<String>, at: Option<Timestamp>) -> Self {
        Self { what: what.into(), at }
    }

    pub(super) fn sentence(&self, now: Timestamp) -> String {
        let time = self.at.map(|at| format!(", {}", when(at, now))).unwrap_or_default();
        format!("Next: {}{time}.", self.what)
    }
}

/// What an operator reads about a waiting job.
pub(super) struct Wait {
    pub(super) sentences: Vec<String>,
    /// The slot whose machine it gets if GitHub assigns jobs in their order.
    pub(super) slot: Option<SlotId>,
    pub(super) next: Option<Next>,
}

/// The reasons why a job waits, the one to act on first, then its machine, then what happens next.
pub(super) fn why_it_waits(
    job: &Job,
    waiting: &WaitingJob,
    view: &PoolView,
    pool: Option<&Pool>,
    limit: Option<&Limit>,
    now: Timestamp,
) -> Wait {
    let asks = || Some(Next::new("Drover asks GitHub about the job", Some(waiting.check_at)));
    if let Some(since) = waiting.unknown_since {
        let repository = &job.repository;
        let why = format!(
            "GitHub has not known the job since {since:.0}: {repository} was deleted or transferred to another owner, or the \
             app lost access to it. If it was transferred and a pool of the new owner accepts the job, the janitor finds it \
             there and the job moves to that pool."
        );
        return Wait { sentences: vec![why], slot: None, next: asks() };
    }
    if !waiting.open && job.gated {
        let sentences = vec!["Waiting for an approval on GitHub.".to_owned()];
        return Wait { sentences, slot: None, next: asks() };
    }
    if !waiting.open {
        let sentences = vec!["Waiting: GitHub has not confirmed that the job is still queued.".to_owned()];
        return Wait { sentences, slot: None, next: asks() };
    }
    let Some(pool) = pool else {
        let sentences = vec![format!("Pool {} is no longer configured.", job.pool)];
        return Wait { sentences, slot: None, next: None };
    };
    let part = Part::of(pool, view, waiting.class.as_ref());
    let (pool, view) = (&part.pool, &part.view);
    let reasons = reasons(pool, view, waiting, Reader::Operator, now);
    if waiting.given_up(now).is_some() {
        let sentences = vec![
            format!("Nothing is launched for it any more: {}.", reasons.join("; ")),
            format!("drover forget {} removes it from Drover's lists.", job.id),
        ];
        return Wait { sentences, slot: None, next: None };
    }
    let mut sentences: Vec<String> = reasons.iter().map(|why| format!("Waiting: {why}.")).collect();
    if let Some(limit) = limit {
        let (owner, until) = (&limit.owner, limit.backoff_until);
        sentences.push(format!("Waiting: GitHub accepts no calls for {owner} until {until:.0}: {}.", limit.why));
    }
    let slot = place(waiting, view, now, &mut sentences);
    sentences.extend(option(slot, &part, now));
    sentences.extend(slot.map(|slot| on_its_way(slot, view, pool, now)));
    let next = next(waiting, slot, &part, now);
    Wait { sentences, slot: slot.map(|slot| slot.id), next }
}

/// The job's place among those that need a machine, and the machine of the same place among those on their way.
fn place<'a>(
    waiting: &WaitingJob,
    view: &'a PoolView,
    now: Timestamp,
    sentences: &mut Vec<String>,
) -> Option<&'a Slot> {
    let mut jobs: Vec<&WaitingJob> = view.waiting.values().filter(|job| job.is_demand(now)).collect();
    jobs.sort_by_key(|job| (job.queued_at, job.id));
    let place = jobs.iter().position(|job| job.id == waiting.id)?;
    let is_free = |slot: &&Slot| slot.wanted && slot.is_live() && !matches!(slot.state, SlotState::Busy { .. });
    let mut slots: Vec<&Slot> = view.supply(now).filter(is_free).collect();
    slots.sort_by_key(|slot| (Reverse(slot.state.phase()), slot.id));
    if jobs.len() > 1 {
        let machines = match slots.len() {
            0 => "no machine is on its way".to_owned(),
            1 => "1 machine is on its way".to_owned(),
            many => format!("{many} machines are on their way"),
        };
        sentences.push(format!(
            "It is number {} of {} that need a machine, and {machines}.",
            place + 1,
            count(jobs.len(), "job")
        ));
    }
    slots.get(place).copied()
}

/// The launch option of its slot, or the one that would be tried first, in a pool that needs prices.
fn option(slot: Option<&Slot>, part: &Part, now: Timestamp) -> Option<String> {
    if !part.pool.needs_prices() {
        return None;
    }
    match slot {
        // Another one is not asked for before EC2 has answered.
        Some(slot) if slot.state == SlotState::Planned => {
            let tuple = part.view.batches.get(&slot.id.version)?.tuple.as_ref()?;
            Some(format!("Launch option: {}.", described(tuple, slot.price_per_hour, part, now)))
        }
        Some(_) => None,
        None => {
            let first = part.may_be_tried(now).into_iter().next()?;
            Some(format!("Next launch option: {}.", described(&first.tuple, first.price_per_hour, part, now)))
        }
    }
}

/// How far a machine is.
fn on_its_way(slot: &Slot, view: &PoolView, pool: &Pool, now: Timestamp) -> String {
    let ago = |at: Timestamp| age(now.duration_since(at));
    let id = slot.id;
    match &slot.state {
        SlotState::Planned => match view.batches.get(&id.version) {
            Some(batch) if batch.tuple.is_none() => {
                format!("Its slot {id} has no machine: every launch option was refused and is cooling down.")
            }
            _ => format!(
                "Its slot {id} has no machine yet: the launch was decided {} ago, and EC2 has not confirmed it.",
                ago(slot.planned_at)
            ),
        },
        SlotState::Launched(machine) => format!(
            "Its slot {id}: {} was launched {} ago; its runner is being registered.",
            machine.instance,
            ago(machine.launched_at)
        ),
        SlotState::Prepared(machine) => {
            format!("Its slot {id}: {} is being stopped until a job needs it.", machine.instance)
        }
        SlotState::Stopped(machine) => format!("Its slot {id}: {} is stopped until a job needs it.", machine.instance),
        SlotState::Started(machine) => format!(
            "Its slot {id}: {} was kept stopped, and its start was decided {} ago; then its runner is registered.",
            machine.instance,
            ago(machine.runs_since())
        ),
        SlotState::Configured { machine, runner } => {
            let began = if machine.started_at.is_some() { "started" } else { "launched" };
            format!(
                "Its slot {id}: {} is booting: it was {began} {} ago; its runner was registered {} ago and has {} to come online.",
                machine.instance,
                ago(machine.runs_since()),
                ago(runner.configured_at),
                pool.timings.boot_grace
            )
        }
        SlotState::Online { machine, online_at, .. } => format!(
            "Its slot {id}: the runner on {} has been online for {} and has no job yet.",
            machine.instance,
            ago(*online_at)
        ),
        SlotState::Busy { machine, .. } | SlotState::Done { machine, .. } => {
            format!("Its slot {id}: {} has a job.", machine.instance)
        }
    }
}

/// The next step that the job waits for.
fn next(waiting: &WaitingJob, slot: Option<&Slot>, part: &Part, now: Timestamp) -> Option<Next> {
    let (pool, view) = (&part.pool, &part.view);
    let at = |what: &str, at: Timestamp| Some(Next::new(what, Some(at)));
    if let Some(slot) = slot {
        return match &slot.state {
            SlotState::Planned => match view.batches.get(&slot.id.version) {
                Some(batch) if batch.lease.tries == 0 && batch.answers.is_empty() => {
                    at("EC2 is asked for the machine", batch.lease.next_at)
                }
                Some(batch) => at("the launch is tried again", batch.lease.next_at),
                None => Some(Next::new("the machine is recorded", None)),
            },
            SlotState::Launched(_) => at("its runner is registered at GitHub", slot.lease.next_at),
            SlotState::Prepared(_) | SlotState::Stopped(_) => Some(Next::new("a job needs the machine", None)),
            SlotState::Started(_) => {
                at("its machine is started, and its runner registered at GitHub", slot.lease.next_at)
            }
            SlotState::Configured { runner, .. } => at(
                "the runner comes online, or the machine is replaced",
                runner.configured_at + pool.timings.boot_grace.duration(),
            ),
            SlotState::Online { .. } | SlotState::Busy { .. } | SlotState::Done { .. } => {
                at("GitHub assigns the job, or Drover asks GitHub about it", waiting.check_at)
            }
        };
    }
    if part.has_no_type() {
        let label = part.class.as_ref().map_or_else(|| "LABEL".to_owned(), ToString::to_string);
        let what = format!(
            "nothing until the pool allows an instance type that fits: drover shapes {label} says why none does"
        );
        return Some(Next::new(what, None));
    }
    if pool.paused {
        return Some(Next::new(format!("nothing until drover resume {}", pool.name), None));
    }
    if let Some(probe) = next_probe(pool, &view.meta, now) {
        return at("a probe is launched", probe);
    }
    if let Some(unserved) = waiting.unserved.as_ref().filter(|unserved| unserved.until > now) {
        return at("another runner is launched for it", unserved.until);
    }
    if let Some(throttled) = view.meta.throttled.as_ref().filter(|throttled| throttled.until > now) {
        return at("EC2 is called again", throttled.until);
    }
    let budget = Budget::of(pool, view.price_per_hour());
    if let Some(free) = next_free(pool, &view.meta, budget, now).filter(|free| *free > now) {
        return at("a launch option can be used again", free);
    }
    if view.live() >= pool.max as usize {
        return Some(Next::new("a machine is launched for it once another one of the pool has ended", None));
    }
    if part.is_at_cap(now) {
        let what = "a machine is launched for it once another one of the pool has ended, or a price has fallen";
        return Some(Next::new(what, None));
    }
    match &view.nudge {
        Some(nudge) => at("the pool decides again", nudge.due_at),
        None => Some(Next::new("the pool decides with the next webhook or sweep, within a minute", None)),
    }
}
