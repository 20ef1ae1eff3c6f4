//! The only place that adds or removes capacity.
//!
//! A decision is made from one [`PoolView`], and committed only if the pool's version is still that of the view. So two
//! invocations that see the same deficit cannot both fill it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::config::{Label, LaunchOption, Market, MarketChoice, MicroUsd, Pool};
use crate::ids::{JobId, SlotId};
use crate::log::{Choice, Stream, Transaction, Turn, What};
use crate::policy::charge::{budgeted, charge, give_back_early, recent_launches};
use crate::policy::circuit::{after_probe, without_probe};
use crate::policy::class::{for_class, of_pool};
use crate::policy::early_end::{FAILURES_ALLOWED, forget_if_works, is_online_again, must_wait};
use crate::policy::rerun::recorded;
use crate::policy::stopped::{self, Kept};
use crate::policy::tuple::{Budget, free_options};
use crate::policy::{PoolView, nudge, pace, share, unread};
use crate::state::{
    AGENT_WAIT, Batch, Circuit, CircuitCause, LastReading, Lease, Meta, Phase, Rerun, Slot, SlotState, StopReason,
    Unserved, WaitingJob,
};

/// The largest number of slots that one decision adds. META, BATCH, 48 slots, the 48 jobs that they are launched for and
/// the event are 99 writes; DynamoDB allows 100. A large burst takes several decisions, and is limited by EC2's rate for
/// RunInstances, two calls per second.
pub const MAX_LAUNCH: usize = 48;

/// How long before the end of [`AGENT_WAIT`] a warm machine is replaced. It is counted from the launch, and the agent counts from
/// its start, so that an hour is more than enough.
const AGENT_WAIT_MARGIN: SignedDuration = SignedDuration::from_hours(1);

/// A launch writes each slot, and the job that the slot is charged to.
const WRITES_FOR_SLOTS_AND_JOBS: usize = 2 * MAX_LAUNCH;

/// The items that a decision changes. They are written in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub meta: Meta,
    pub batch: Option<Batch>,
    /// Slots that are added, wanted or stopped, and those whose launch is charged to no job any more.
    pub slots: Vec<Slot>,
    /// Jobs that a launch is charged to or no longer charged to, jobs that GitHub does not give to idle runners, and jobs that
    /// repeat interrupted ones.
    pub jobs: Vec<WaitingJob>,
    /// The re-runs that these jobs are. They are deleted.
    pub reruns: Vec<Rerun>,
    pub what: What,
}

impl Decision {
    /// Whether it changes more than META.
    fn changes_items(&self) -> bool {
        !self.slots.is_empty() || !self.jobs.is_empty() || !self.reruns.is_empty()
    }

    pub fn transaction(self, turn: &Turn) -> Transaction {
        let stream = Stream::Pool(self.meta.pool.clone());
        let writes = Transaction::new().put(self.meta).put_all(self.batch).put_all(self.slots).put_all(self.jobs);
        self.reruns.into_iter().fold(writes, Transaction::delete).emit(stream, self.what, turn)
    }
}

/// Decides what the pool needs; None if it needs nothing.
///
/// The invocation that decides performs the effects immediately, and holds them until `turn.lease`.
///
/// One decision is limited by the size of a transaction: decide again until the answer is None.
pub fn decide(pool: &Pool, view: &PoolView, turn: &Turn) -> Option<Decision> {
    match pace::resumes_at(view, turn.now) {
        Some(at) => {
            // Otherwise each new job would have the pool read again, although nothing can be launched for it yet.
            let (size, now) = (view.size(), turn.now);
            let is_pause_over = nudge::paused_until(&view.meta, now).is_none();
            let is_noted = nudge::is_large(size) && is_pause_over && now + nudge::pause(size) <= at;
            decide_at_once(&Pool { paused: true, ..pool.clone() }, view, is_noted, turn)
        }
        None => decide_at_once(pool, view, false, turn),
    }
}

/// When to decide again if the pool needs a launch that must wait until EC2 accepts another call. None if none must wait.
pub fn resumes_at(pool: &Pool, view: &PoolView, turn: &Turn) -> Option<Timestamp> {
    let at = pace::resumes_at(view, turn.now)?;
    let launches = |decision: Decision| decision.batch.is_some();
    decide_at_once(pool, view, false, turn).is_some_and(launches).then_some(at)
}

/// Without regard to EC2's limit. `is_noted` is whether META must say that the pool was read, also if nothing is needed.
fn decide_at_once(pool: &Pool, view: &PoolView, is_noted: bool, turn: &Turn) -> Option<Decision> {
    let now = turn.now;
    let before = &view.meta;
    // Once, and not for each class: all circuits close together.
    let changed = reconfigured(pool, before).map(|meta| PoolView { meta, ..view.clone() });
    let view = changed.as_ref().unwrap_or(view);
    let left_out = view.behind(now);
    let has_jobs_behind = !left_out.is_empty();
    let without = has_jobs_behind.then(|| PoolView { left_out, ..view.clone() });
    let view = without.as_ref().unwrap_or(view);
    let (repeated, reruns): (Vec<_>, Vec<_>) = recorded(view, MAX_LAUNCH / 2).into_iter().unzip();
    let (jobs, slots) = match repeated.is_empty() {
        true => give_back_early(pool, view, MAX_LAUNCH, now),
        false => (repeated, Vec::new()),
    };
    let decided = if !jobs.is_empty() {
        // Launches for these jobs are the next decision's.
        let (demand, supply, live) = (view.demand(now) as u32, view.supply(now).count() as u32, view.live() as u32);
        let (launch, wanted, stop, unserved) = (0, 0, 0, Vec::new());
        let what = What::Decided {
            demand,
            supply,
            live,
            launch,
            tuple: None,
            choice: None,
            wanted,
            stop,
            set_aside: 0,
            unserved,
        };
        let meta = if pool.shapes.is_some() { before.clone() } else { refreshed(view) };
        Some(Decision { meta, batch: None, slots, jobs, reruns, what })
    } else if pool.shapes.is_some() {
        by_class(pool, view, turn)
    } else if pool.needs_prices() {
        Some(decide_for(&for_class(pool, None, &view.meta), None, view, turn))
    } else {
        Some(decide_for(pool, None, view, turn))
    };
    let mut decision = decided?;
    decision.meta.has_jobs_behind = has_jobs_behind;
    let unread = unread::after(view);
    // What the next reading will be made of.
    let is_left_out = |slot: &&SlotId| unread.as_ref().is_some_and(|unread| unread.contains(**slot));
    let items = view.size() - view.slots.keys().filter(is_left_out).count();
    if decision.meta == *before && !decision.changes_items() && !is_noted && !nudge::is_outdated(before, items) {
        return None;
    }
    decision.meta.last_reading = nudge::is_large(items).then_some(LastReading { at: now, items: items as u32 });
    decision.meta.unread = unread;
    Some(decision)
}

/// Decides for one class after the other, until one needs something: first the one whose oldest job has waited longest.
fn by_class(pool: &Pool, view: &PoolView, turn: &Turn) -> Option<Decision> {
    let now = turn.now;
    let mut oldest: BTreeMap<Option<&Label>, (Timestamp, JobId)> = BTreeMap::new();
    for job in view.waiting.values().filter(|job| view.is_demand(job, now)) {
        let age = (job.waits_since(), job.id);
        oldest.entry(job.class.as_ref()).and_modify(|first| *first = age.min(*first)).or_insert(age);
    }
    let present = view.classes();
    // Warm machines have no class.
    let mut classes: Vec<Option<&Label>> = present.iter().copied().chain([None]).collect();
    classes.sort_by_cached_key(|class| {
        let oldest = oldest.get(class);
        (oldest.is_none(), oldest, class.is_none())
    });
    classes.dedup();
    let mut last: Option<Decision> = None;
    let mut others = pool.clone();
    for class in classes {
        // What was decided about the classes before is in META only.
        let before = last.as_ref().map_or(&view.meta, |last| &last.meta);
        let meta = class.map_or_else(|| before.clone(), |class| before.of_class(class));
        let part = view.part(class, meta);
        let (mut decision, lacks_room) = for_one_class(&others, class, view, part, turn);
        decision.meta = of_pool(before, class, decision.meta);
        decision.meta.forget_classes(&present, now);
        if decision.changes_items() {
            return Some(decision);
        }
        // Room or money that becomes free is for this class. Otherwise newer jobs, or warm machines, would take every bit.
        others.paused |= lacks_room;
        last = Some(decision);
    }
    last
}

/// `part` is the part of the view that belongs to the class. Returns whether the class needs a machine for which the pool has no
/// room or money, too.
fn for_one_class(
    pool: &Pool,
    class: Option<&Label>,
    view: &PoolView,
    mut part: PoolView,
    turn: &Turn,
) -> (Decision, bool) {
    let now = turn.now;
    let lacking = part.demand(now).saturating_sub(part.supply(now).count());
    let kept = if class.is_none() { pool.warm_at(now) + pool.stopped_at(now) } else { 0 };
    let has_warm = view.slots.values().any(|slot| slot.class.is_none());
    if lacking + kept as usize == 0 || (pool.paused && !has_warm) {
        // Which options there are matters to launches and to warm machines only.
        return (decide_for(pool, class, &part, turn), false);
    }
    let of_class = for_class(pool, class, &view.meta);
    let lacking = lacking.saturating_sub(unserved(&of_class, &part, now).len());
    if let Some(class) = class {
        let slots = share::given(&of_class, view, class, lacking.min(MAX_LAUNCH), now, turn.lease);
        if !slots.is_empty() {
            return (shared(&part, slots, now), false);
        }
    }
    let suspected = match part.meta.circuit {
        Circuit::Closed => share::suspected(pool, &view.meta, view, class, now),
        Circuit::Open { .. } => None,
    };
    let is_suspected = suspected.is_some();
    part.meta.circuit = suspected.unwrap_or(part.meta.circuit);
    let decision = decide_for(&of_class, class, &part, turn);
    if decision.changes_items() {
        return (decision, false);
    }
    let circuit = if is_suspected { Circuit::Closed } else { decision.meta.circuit.clone() };
    let decision = Decision { meta: Meta { circuit, ..decision.meta }, ..decision };
    let Some(class) = class else { return (decision, false) };
    // What an empty pool would launch for the class.
    let all = Budget::of(pool, MicroUsd(0));
    let options = of_class.launch_options().into_iter().filter(|option| all.pays_for(option) > 0).collect();
    let empty = Pool { max: u32::MAX, price_per_hour: None, options: Some(options), ..of_class };
    let machines = decide_for(&empty, Some(class), &part, turn).batch.map_or(0, |batch| batch.count as usize);
    part.meta = decision.meta.clone();
    let slots = share::room(view, class, machines, now, turn.lease);
    let decision = if slots.is_empty() { decision } else { shared(&part, slots, now) };
    (decision, machines > 0)
}

/// The decision to give these slots to a class, or to stop them for it.
fn shared(part: &PoolView, slots: Vec<Slot>, now: Timestamp) -> Decision {
    let (stopped, given): (Vec<&Slot>, Vec<&Slot>) = slots.iter().partition(|slot| slot.stop.is_some());
    let what = What::Decided {
        demand: part.demand(now) as u32,
        supply: part.supply(now).count() as u32,
        live: part.live() as u32,
        launch: 0,
        tuple: None,
        choice: None,
        wanted: given.len() as u32,
        stop: stopped.len() as u32,
        set_aside: 0,
        unserved: Vec::new(),
    };
    Decision { meta: refreshed(part), batch: None, slots, jobs: Vec::new(), reruns: Vec::new(), what }
}

/// Decides for a pool without shapes, or for one class.
fn decide_for(pool: &Pool, class: Option<&Label>, view: &PoolView, turn: &Turn) -> Decision {
    let (now, lease) = (turn.now, turn.lease);
    let mut meta = refreshed(view);
    let unserved = unserved(pool, view, now);
    let demand = view.demand(now) - unserved.len();
    let excluded: BTreeSet<JobId> = unserved.iter().map(|job| job.id).chain(view.left_out.iter().copied()).collect();
    let live = view.live();
    let mut slots = want(view, demand, now, lease);
    let wanted = slots.len();
    let started = slots.iter().filter(|slot| slot.phase() == Phase::Started).count();
    let supply = view.supply(now).count() + started;
    let mut taken: BTreeSet<SlotId> = slots.iter().map(|slot| slot.id).collect();
    let kept = stopped::kept(view, &taken, demand, stopped::asked_for(pool, class, now), now);

    let writes_left = WRITES_FOR_SLOTS_AND_JOBS - wanted - unserved.len();
    let needs = Needs { demand, supply, live, kept, writes_left };
    let launch = plan_launch(pool, view, &meta, &excluded, now, needs);
    let mut batch = None;
    let mut jobs = Vec::new();
    let (mut tuple, mut choice) = (None, None);
    if let Some(plan) = launch {
        if let Circuit::Open { until, backoff_seconds, .. } = &mut meta.circuit {
            // One probe. The next one follows after this one has had the time to boot and to fail.
            *backoff_seconds = (*backoff_seconds * 2).min(pool.timings.backoff_max.duration().as_secs());
            *until = after_probe(pool, *backoff_seconds, now);
        }
        let version = view.meta.revision + 1;
        slots.extend(new_slots(pool, class, version, &plan, now));
        let is_for = |job: &WaitingJob| plan.option.tuple.market == Market::OnDemand && lacks_on_demand(pool, job, now);
        jobs = charge(pool, budgeted(pool, view, &excluded, now), is_for, plan.wanted, now);
        tuple = Some(plan.option.tuple.clone());
        choice = pool.options.as_deref().map(|options| chosen(&plan.option, options));
        batch = Some(Batch {
            pool: pool.name.clone(),
            version,
            epoch: meta.epoch.clone(),
            class: class.cloned(),
            attempt: 1,
            count: plan.count as u32,
            tuple: Some(plan.option.tuple),
            lease: Lease::due(now).claimed(lease),
            missing_since: None,
            unanswered: 0,
            answered: 0,
            answers: Vec::new(),
            planned_at: now,
            revision: 0,
        });
    }
    let (mut ended, mut set_aside) = (Vec::new(), 0);
    if batch.is_none() {
        // A slot that this decision wants is not stopped by it.
        let excess =
            (supply.saturating_sub(kept.spare + demand + kept.warm + kept.preparing) + kept.spare).min(writes_left);
        ended = surplus(pool, view, &taken, excess, now, lease);
        ended.extend(stopped::surplus(view, &taken, kept.excess, now, lease).take(writes_left - ended.len()));
        taken.extend(ended.iter().map(|slot| slot.id));
        let left = writes_left - ended.len();
        ended.extend(
            recycled(pool, view, &taken, now, lease)
                .chain(stopped::outdated(pool, view, &taken, now, lease))
                .take(left),
        );
        taken.extend(ended.iter().map(|slot| slot.id));
        let aside = stopped::set_aside(view, &taken, &kept, now, lease).into_iter().take(writes_left - ended.len());
        let before = slots.len();
        slots.extend(aside);
        set_aside = slots.len() - before;
        meta = without_probe(pool, &meta, &ended, now);
    }
    let stop = ended.len();
    slots.extend(ended);

    let unserved_ids = unserved.iter().map(|job| job.id).collect();
    jobs.extend(unserved);
    let what = What::Decided {
        demand: demand as u32,
        supply: supply as u32,
        live: live as u32,
        launch: batch.as_ref().map_or(0, |batch| batch.count),
        tuple,
        choice,
        wanted: wanted as u32,
        stop: stop as u32,
        set_aside: set_aside as u32,
        unserved: unserved_ids,
    };
    Decision { meta, batch, slots, jobs, reruns: Vec::new(), what }
}

fn chosen(option: &LaunchOption, options: &[LaunchOption]) -> Choice {
    let passed = options.iter().take_while(|other| other.tuple != option.tuple).count();
    Choice { options: options.len() as u32, passed: passed as u32, price_per_hour: option.price_per_hour }
}

/// META with the present configuration, in which all circuits are closed; None if the configuration has not changed.
fn reconfigured(pool: &Pool, meta: &Meta) -> Option<Meta> {
    let config_hash = pool.config_hash();
    if meta.config_hash == config_hash {
        return None;
    }
    let mut meta = Meta { config_hash, circuit: Circuit::Closed, boot_failures: 0, ..meta.clone() };
    meta.failures.clear();
    meta.classes.clear();
    meta.cooldowns.clear();
    meta.pauses.clear();
    Some(meta)
}

/// META, in which the circuit is closed if a machine works again.
fn refreshed(view: &PoolView) -> Meta {
    let mut meta = view.meta.clone();
    if let Circuit::Open { since, cause, .. } = &meta.circuit {
        // After machines that did not come online, a runner must come online, also if a probe was refused since. After a
        // refusal by GitHub any registration is enough, after one by EC2 any launch.
        let comes_online = is_online_again(view, &meta, *since);
        let works = match cause {
            CircuitCause::BootFailures | CircuitCause::EndedEarly => comes_online,
            CircuitCause::RegistrationRefused | CircuitCause::LaunchRefused(_)
                if meta.boot_failures >= FAILURES_ALLOWED =>
            {
                comes_online
            }
            CircuitCause::RegistrationRefused => {
                view.slots.values().any(|slot| slot.runner().is_some_and(|runner| runner.configured_at >= *since))
            }
            CircuitCause::LaunchRefused(_) => {
                view.slots.values().filter_map(Slot::machine).any(|machine| machine.launched_at >= *since)
            }
        };
        if comes_online {
            meta.boot_failures = 0;
        }
        if works {
            meta.circuit = Circuit::Closed;
        }
    }
    forget_if_works(view, &mut meta);
    meta
}

/// Marks one warm slot, or one whose machine is stopped, as wanted for each job that has no wanted slot.
fn want(view: &PoolView, demand: usize, now: Timestamp, lease: Timestamp) -> Vec<Slot> {
    let (wanted, mut warm): (Vec<&Slot>, Vec<&Slot>) = view.supply(now).partition(|slot| slot.wanted);
    warm.extend(view.slots.values().filter(|slot| slot.is_ready(now)));
    share::soonest_first(&mut warm, now);
    warm.into_iter()
        .take(demand.saturating_sub(wanted.len()).min(MAX_LAUNCH))
        .map(|slot| slot.clone().wanted(now, lease))
        .collect()
}

struct Needs {
    demand: usize,
    supply: usize,
    live: usize,
    kept: Kept,
    writes_left: usize,
}

struct Plan {
    count: usize,
    wanted: usize,
    option: LaunchOption,
}

fn plan_launch(
    pool: &Pool,
    view: &PoolView,
    meta: &Meta,
    excluded: &BTreeSet<JobId>,
    now: Timestamp,
    needs: Needs,
) -> Option<Plan> {
    if pool.paused || meta.is_throttled(now) {
        return None;
    }
    let unmet = needs.demand.saturating_sub(needs.supply);
    let Kept { warm, preparing, .. } = needs.kept;
    let warm = (needs.demand + warm).saturating_sub(needs.supply) - unmet;
    let preparing = (needs.demand + needs.kept.warm + preparing).saturating_sub(needs.supply) - unmet - warm;
    let room = (pool.max as usize).saturating_sub(needs.live).min(MAX_LAUNCH);
    let room = match &meta.circuit {
        Circuit::Closed if must_wait(view, meta, now) => 0,
        Circuit::Closed => room,
        Circuit::Open { until, .. } if *until <= now => room.min(1),
        Circuit::Open { .. } => 0,
    };
    let budget = Budget::of(pool, view.price_per_hour());
    // Each wanted slot is two writes: the slot, and the job that it is charged to.
    let wanted = unmet.min(budgeted(pool, view, excluded, now).count()).min(room).min(needs.writes_left / 2);
    let on_demand =
        wanted.min(budgeted(pool, view, excluded, now).filter(|job| lacks_on_demand(pool, job, now)).count());
    if on_demand > 0
        && let Some(option) =
            free_options(pool, meta, budget, now).find(|option| option.tuple.market == Market::OnDemand)
    {
        let count = on_demand.min(budget.pays_for(&option));
        return Some(Plan { count, wanted: count, option });
    }
    // EC2 does not stop spot machines of the kind that Drover launches.
    let is_for_stop = wanted + warm == 0 && preparing > 0;
    let also_for_stop = pool.market == MarketChoice::OnDemand || is_for_stop;
    let more = if also_for_stop { warm + preparing } else { warm };
    let count = wanted + more.min(room - wanted).min(needs.writes_left - 2 * wanted);
    if count == 0 {
        return None;
    }
    let suits = |option: &LaunchOption| !is_for_stop || option.tuple.market == Market::OnDemand;
    let option = free_options(pool, meta, budget, now).find(suits)?;
    let count = count.min(budget.pays_for(&option));
    Some(Plan { count, wanted: wanted.min(count), option })
}

/// Whether a machine is to be launched on demand for the job, because EC2 has interrupted it before, and none was launched
/// for it yet. It is a preference: if no such launch is possible, any other serves.
fn lacks_on_demand(pool: &Pool, job: &WaitingJob, now: Timestamp) -> bool {
    let may_choose = match pool.market {
        MarketChoice::SpotThenOnDemand => true,
        MarketChoice::Spot | MarketChoice::OnDemand => false,
    };
    let was_interrupted = job.attempt.as_ref().is_some_and(|attempt| attempt.follows_interruption);
    may_choose && was_interrupted && recent_launches(pool, job, now).count() == 0
}

/// The slots of a new batch: first the wanted ones, then the warm ones.
fn new_slots<'a>(
    pool: &'a Pool,
    class: Option<&'a Label>,
    version: u64,
    plan: &'a Plan,
    now: Timestamp,
) -> impl Iterator<Item = Slot> + 'a {
    let wanted = plan.wanted;
    (0..plan.count).map(move |index| {
        let wanted = index < wanted;
        Slot {
            id: SlotId { version, index: index as u8 },
            pool: pool.name.clone(),
            class: class.cloned(),
            price_per_hour: plan.option.price_per_hour,
            warm_as: stopped::records_launch(pool, wanted).then(|| Box::new(plan.option.tuple.clone())),
            state: SlotState::Planned,
            wanted,
            planned_at: now,
            wanted_at: wanted.then_some(now),
            stop: None,
            registration: 0,
            claims: Vec::new(),
            busy_seen_at: None,
            busy_since: None,
            gone_at: None,
            unregistered_at: None,
            job_check_ended: false,
            charge_returned: false,
            boot: None,
            held: false,
            lease: Lease::due(now),
            revision: 0,
        }
    })
}

/// Stops excess slots: first warm ones, then those that have been idle for `idle_grace`, oldest first. A planned slot is not
/// stopped: its launch may be under way, and the next decision can use it.
fn surplus(
    pool: &Pool,
    view: &PoolView,
    taken: &BTreeSet<SlotId>,
    excess: usize,
    now: Timestamp,
    lease: Timestamp,
) -> Vec<Slot> {
    let idle_grace = pool.timings.idle_grace.duration();
    let mut idle: Vec<&Slot> = view
        .supply(now)
        .filter(|slot| stopped::is_idle(slot, now))
        .filter(|slot| !slot.wanted || now.duration_since(slot.idle_since()) >= idle_grace)
        .filter(|slot| !taken.contains(&slot.id))
        .collect();
    // A machine that can be kept stopped is worth more.
    idle.sort_by_key(|slot| (slot.wanted, stopped::is_stoppable(slot), slot.idle_since(), slot.id));
    idle.into_iter()
        .take(excess.min(MAX_LAUNCH))
        .map(|slot| slot.clone().stopped(StopReason::Surplus, now, lease))
        .collect()
}

/// Stops warm machines that have used up half of `max_life`: a job that starts now might outlast the machine. The agent of an
/// older one may power it off at any time, which would count as a failure.
fn recycled<'a>(
    pool: &'a Pool,
    view: &'a PoolView,
    taken: &'a BTreeSet<SlotId>,
    now: Timestamp,
    lease: Timestamp,
) -> impl Iterator<Item = Slot> + 'a {
    let warm = view.supply(now).filter(|slot| !slot.wanted && !taken.contains(&slot.id));
    let most = (pool.timings.max_life.duration() / 2).min(AGENT_WAIT - AGENT_WAIT_MARGIN);
    let old = warm.filter(move |slot| {
        let age = slot.machine().map(|machine| now.duration_since(machine.runs_since()));
        age.is_some_and(|age| age >= most)
    });
    old.take(MAX_LAUNCH / 2).map(move |slot| slot.clone().stopped(StopReason::Recycled, now, lease))
}

/// The jobs that waited while a runner was idle for `idle_grace`: GitHub does not give them to this pool's runners. They are
/// not demand for a while, each time for twice as long, and GitHub is asked about them.
fn unserved(pool: &Pool, view: &PoolView, now: Timestamp) -> Vec<WaitingJob> {
    let idle = view.supply(now).filter(|slot| slot.is_live() && !slot.is_observed_busy(now));
    let Some(idle_since) = idle.filter_map(Slot::online_at).min() else { return Vec::new() };
    let (least, most) = (pool.timings.backoff_min.duration().as_secs(), pool.timings.backoff_max.duration().as_secs());
    // Also a job that has just become demand again: GitHub would give it the idle runner within seconds. With a grace of its
    // own, two such jobs in turn would keep the machine.
    let is_passed_over =
        |job: &&WaitingJob| now.duration_since(idle_since.max(job.waits_since())) >= pool.timings.idle_grace.duration();
    let demand = view.waiting.values().filter(|job| view.is_demand(job, now));
    let mut jobs: Vec<&WaitingJob> = demand.filter(is_passed_over).collect();
    jobs.sort_by_key(|job| (job.waits_since(), job.id));
    jobs.into_iter()
        .take(MAX_LAUNCH / 2)
        .map(|job| {
            let seconds = job.unserved.as_ref().map_or(least, |last| (last.seconds * 2).min(most));
            let since = job.unserved.as_ref().map_or(now, |last| last.since);
            let unserved = Unserved { since, until: now + SignedDuration::from_secs(seconds), seconds };
            WaitingJob { unserved: Some(unserved), check_at: now, ..job.clone() }
        })
        .collect()
}
