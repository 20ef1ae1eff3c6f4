//! What the world got wrong, from three witnesses: EC2, GitHub and the table.
//!
//! A machine is *abandoned* if and only if nothing in the table will ever use it again and GitHub cannot give it a job. The
//! sweep removes those, ends what has outlived its use, and writes down what EC2 and GitHub say of the rest. A witness that
//! could not be heard is [`RunnerState::Unread`], never an empty list.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::config::{Pool, Timings};
use crate::ids::{Epoch, InstanceId, PoolName, RunnerId, RunnerName, Scope, SlotId};
use crate::policy::PoolView;
use crate::policy::due::is_being_retired;
use crate::state::{Condemned, Instance, Ownership, Slot, SlotState, StopReason};
use crate::wire::{MachineState, ObservedInstance, ObservedRunner};

/// A machine that hangs in `stopping` for so long will not finish by itself.
pub const STOPPING_GRACE: SignedDuration = SignedDuration::from_mins(10);

/// EC2 is eventually consistent: a machine younger than this that is not listed proves nothing.
pub const LISTED_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// What GitHub says of a machine's runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunnerState {
    /// GitHub could not be asked, or its answer is not to be believed.
    Unread,
    /// No such runner, in every reading since so long.
    Unregistered(SignedDuration),
    /// Registered, and not connected in any reading since so long; measured only for one that was online before.
    Offline(SignedDuration),
    /// Connected, without a job as far as the list knows.
    Idle,
    /// Has a job.
    Busy,
}

/// What the table says of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known<'a> {
    /// Nothing at all.
    Nothing,
    /// Nothing of the machine, but the batch that launched it is still open and will bind it.
    BatchOpen,
    /// Adopted.
    Adopted,
    /// Condemned.
    Condemned,
    /// Closed, or bound to a slot that is no more.
    Closed,
    /// It is this open slot's.
    Open(&'a Slot),
}

/// One machine, heard from all three.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// EC2's state; None if EC2 does not list it, in every reading since `unlisted_for`.
    pub state: Option<MachineState>,
    /// See `state`.
    pub unlisted_for: SignedDuration,
    /// Since its launch.
    pub age: SignedDuration,
    /// How long it has been `stopping`.
    pub stopping_for: SignedDuration,
    /// An operator's tag.
    pub hold: bool,
    /// GitHub's word.
    pub runner: RunnerState,
    /// The table's.
    pub known: Known<'a>,
    /// Its pool's.
    pub timings: &'a Timings,
}

/// What to do about a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing is wrong, or it is too early to tell.
    Normal,
    /// Wrong or not, an operator said to leave it alone.
    Held,
    /// The slot's machine is no more.
    Gone,
    /// Nobody's, but it has a job: write that down and leave it alone.
    Adopt,
    /// Nobody's: claim it, deregister what it may run, terminate it.
    Condemn(Condemned),
    /// The slot is of no use any more: stop it, deregister, terminate.
    Stop(StopReason),
    /// Its job is done and it did not power itself off: terminate.
    Finish,
}

/// The first row that matches. Total: every combination has exactly one verdict.
pub fn judge(subject: &Subject<'_>, now: Timestamp) -> Verdict {
    let timings = subject.timings;
    let Some(state) = subject.state.filter(|state| state.is_live()) else {
        return judge_gone(subject);
    };
    if subject.hold {
        return Verdict::Held;
    }
    if subject.age >= timings.max_life.duration() {
        return match subject.known {
            Known::Open(slot) => stopped_or(slot, StopReason::MaxLife),
            Known::Nothing | Known::BatchOpen | Known::Adopted | Known::Condemned | Known::Closed => {
                Verdict::Condemn(Condemned::MaxLife)
            }
        };
    }
    let halted = match state {
        MachineState::Stopped => true,
        MachineState::Stopping => subject.stopping_for >= STOPPING_GRACE,
        MachineState::Pending | MachineState::Running | MachineState::ShuttingDown | MachineState::Terminated => false,
    };
    match subject.known {
        Known::Open(slot) => judge_open(subject, slot, halted, now),
        Known::Nothing | Known::Closed | Known::BatchOpen | Known::Adopted | Known::Condemned
            if subject.runner == RunnerState::Unread =>
        {
            Verdict::Normal
        }
        Known::Nothing | Known::Closed if subject.runner == RunnerState::Busy => Verdict::Adopt,
        Known::Nothing if subject.age < timings.orphan_grace.duration() && !halted => Verdict::Normal,
        Known::Nothing => Verdict::Condemn(Condemned::Orphan),
        Known::Closed => Verdict::Condemn(Condemned::Orphan),
        // The launch that is still owed looks its machines up by their tag.
        Known::BatchOpen => Verdict::Normal,
        Known::Adopted if subject.runner == RunnerState::Busy => Verdict::Normal,
        Known::Adopted => Verdict::Condemn(Condemned::Orphan),
        // Claimed by a sweep that did not get to the end: go on. The deregistration tells whether it has a job.
        Known::Condemned => Verdict::Condemn(Condemned::Orphan),
    }
}

fn judge_gone(subject: &Subject<'_>) -> Verdict {
    let certain = match subject.state {
        Some(_) => true,
        None => subject.age >= LISTED_AFTER && subject.unlisted_for >= subject.timings.confirm_gap.duration(),
    };
    match subject.known {
        Known::Open(slot) if slot.gone_at.is_none() && certain => Verdict::Gone,
        Known::Open(_) | Known::Nothing | Known::BatchOpen | Known::Adopted | Known::Condemned | Known::Closed => {
            Verdict::Normal
        }
    }
}

fn judge_open(subject: &Subject<'_>, slot: &Slot, halted: bool, now: Timestamp) -> Verdict {
    let timings = subject.timings;
    if let SlotState::Done { done_at, .. } = &slot.state {
        let over = now.duration_since(*done_at) >= timings.done_grace.duration();
        return if over && slot.next_at <= now { Verdict::Finish } else { Verdict::Normal };
    }
    if halted {
        return stopped_or(slot, StopReason::Halted);
    }
    let Some(runner) = slot.runner() else { return Verdict::Normal };
    match subject.runner {
        RunnerState::Unregistered(since) if since >= timings.confirm_gap.duration() => {
            stopped_or(slot, StopReason::RunnerEnded)
        }
        // It may come back from a short loss of its connection; GitHub gives it nothing meanwhile.
        RunnerState::Offline(since) if matches!(slot.state, SlotState::Online { .. }) => {
            if since >= timings.boot_grace.duration() && !slot.is_seen_busy(now) {
                stopped_or(slot, StopReason::Disconnected)
            } else {
                Verdict::Normal
            }
        }
        RunnerState::Offline(_) if matches!(slot.state, SlotState::Configured { .. }) => {
            let waited = now.duration_since(runner.configured_at);
            let boot_grace = timings.boot_grace.duration();
            // One that had the time to boot before it was left its registration has but to connect.
            let is_up = subject.age - waited >= boot_grace;
            let patience = match is_up {
                true => boot_grace / 4,
                false => boot_grace,
            };
            if waited >= patience && !slot.is_seen_busy(now) {
                stopped_or(slot, StopReason::BootFailure)
            } else {
                Verdict::Normal
            }
        }
        RunnerState::Unread
        | RunnerState::Unregistered(_)
        | RunnerState::Offline(_)
        | RunnerState::Idle
        | RunnerState::Busy => Verdict::Normal,
    }
}

/// A slot that is being retired is on its way; only the end of its life overrides another reason.
fn stopped_or(slot: &Slot, why: StopReason) -> Verdict {
    match &slot.stop {
        Some(stop) if stop.why == why => Verdict::Normal,
        Some(_) if why != StopReason::MaxLife && is_being_retired(slot) => Verdict::Normal,
        Some(_) | None => Verdict::Stop(why),
    }
}

/// Everything one sweep heard.
#[derive(Debug)]
pub struct Census<'a> {
    /// EC2's list; None if it could not be read to the end.
    pub machines: Option<&'a [ObservedInstance]>,
    /// GitHub's lists, as far as they could be read to the end.
    pub runners: &'a BTreeMap<Scope, Vec<ObservedRunner>>,
    /// The pools, as far as they could be read.
    pub pools: &'a [(Pool, PoolView)],
    /// The `INSTANCE#` items of the machines that belong to no open slot, see [`strangers`].
    pub known: &'a BTreeMap<InstanceId, Instance>,
    /// What looked wrong in the last sweep, and since when.
    pub suspects: &'a BTreeMap<String, Timestamp>,
    /// Now.
    pub now: Timestamp,
}

/// Something to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reap {
    /// A slot of that pool: stop it.
    Stop(PoolName, SlotId, StopReason),
    /// A slot's machine whose job is done: terminate it.
    Finish(PoolName, SlotId),
    /// A machine that is nobody's: claim it, deregister these, terminate it.
    Condemn {
        /// The machine.
        machine: ObservedInstance,
        /// Why.
        why: Condemned,
        /// The runners that may run on it.
        runners: Vec<(Scope, RunnerId)>,
    },
    /// A machine that is nobody's and has a job: write it down.
    Adopt(ObservedInstance),
    /// A registration that nobody uses.
    Deregister(Scope, ObservedRunner),
}

impl Reap {
    /// A word for the report.
    pub fn reason(&self) -> &'static str {
        match self {
            Reap::Stop(_, _, why) => why.as_str(),
            Reap::Finish(..) => "job_done",
            Reap::Condemn { why, .. } => why.as_str(),
            Reap::Adopt(_) => "adopted",
            Reap::Deregister(..) => "stale_runner",
        }
    }

    /// Whether neither a deregistration nor a finished job vouches for it: what a wrong witness could make us do to many.
    fn is_unfenced(&self) -> bool {
        match self {
            Reap::Stop(_, _, why) => *why == StopReason::MaxLife,
            Reap::Condemn { runners, why, .. } => runners.is_empty() || *why == Condemned::MaxLife,
            Reap::Finish(..) | Reap::Adopt(_) | Reap::Deregister(..) => false,
        }
    }
}

/// What EC2 and GitHub said of a slot, to be written down.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Observation {
    /// Its runner came online.
    Online(SlotId),
    /// Its runner has a job that we have not heard of.
    Busy(SlotId),
    /// Its machine is no more.
    Gone(SlotId),
    /// GitHub knows its runner no more, and its machine is gone, too.
    Unregistered(SlotId),
    /// Its machine is gone and its runner still registered: deregister.
    LeftRegistered(SlotId, RunnerId),
    /// An operator put the tag on its machine.
    Held(SlotId),
    /// And took it away.
    Released(SlotId),
}

/// What a sweep is to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// To remove.
    pub reaps: Vec<Reap>,
    /// To write down, by pool.
    pub observations: BTreeMap<PoolName, Vec<Observation>>,
    /// What looks wrong now, and since when.
    pub suspects: BTreeMap<String, Timestamp>,
    /// Machines left alone on an operator's word.
    pub held: usize,
    /// Which fuses blew, in words.
    pub fused: Vec<String>,
}

/// The machines that belong to no open slot: their items are worth reading.
pub fn unowned_instances(machines: &[ObservedInstance], pools: &[(Pool, PoolView)]) -> Vec<InstanceId> {
    let slotted: BTreeSet<&InstanceId> = pools
        .iter()
        .flat_map(|(_, view)| view.slots.values())
        .filter_map(|slot| slot.machine().map(|machine| &machine.instance))
        .collect();
    machines
        .iter()
        .filter(|seen| seen.state.is_live() && !slotted.contains(&seen.id))
        .map(|seen| seen.id.clone())
        .collect()
}

/// The fuses: a list that is empty while so many of our runners should be in it is not believed.
pub const FUSE_EMPTY_LIST: usize = 10;

/// At least so many unfenced removals are allowed in one sweep; beyond, a fifth of what lives.
pub const FUSE_UNFENCED: usize = 10;

/// Compares what was heard.
pub fn plan(census: &Census<'_>) -> Plan {
    let mut plan = Plan::default();
    let believed = believed_lists(census, &mut plan);
    let now = census.now;
    let since = |plan: &mut Plan, what: String| {
        let since = *census.suspects.get(&what).unwrap_or(&now);
        plan.suspects.insert(what, since);
        now.duration_since(since)
    };

    if let Some(machines) = census.machines {
        let by_id: BTreeMap<&InstanceId, &ObservedInstance> = machines.iter().map(|seen| (&seen.id, seen)).collect();
        for (pool, view) in census.pools {
            let list = believed.get(&pool.owner);
            for slot in view.slots.values() {
                let Some(machine) = slot.machine() else { continue };
                let seen = by_id.get(&machine.instance).copied();
                let runner = runner_state(slot, list, &mut |what| since(&mut plan, what));
                let stopping = seen.is_some_and(|seen| seen.state == MachineState::Stopping);
                let subject = Subject {
                    state: seen.map(|seen| seen.state),
                    unlisted_for: if seen.is_none() {
                        since(&mut plan, format!("unlisted {}", machine.instance))
                    } else {
                        SignedDuration::ZERO
                    },
                    age: now.duration_since(machine.launched_at),
                    stopping_for: if stopping {
                        since(&mut plan, format!("stopping {}", machine.instance))
                    } else {
                        SignedDuration::ZERO
                    },
                    hold: seen.is_some_and(|seen| seen.hold),
                    runner,
                    known: Known::Open(slot),
                    timings: &pool.timings,
                };
                let verdict = judge(&subject, now);
                follow(&mut plan, pool, slot, verdict);
                let going = slot.gone_at.is_some() || verdict == Verdict::Gone;
                observe(&mut plan, pool, slot, runner, list, going);
                if let Some(seen) = seen.filter(|seen| seen.hold != slot.held) {
                    let observation = if seen.hold { Observation::Held } else { Observation::Released };
                    plan.observations.entry(pool.name.clone()).or_default().push(observation(slot.id));
                }
            }
        }
        let strangers: BTreeSet<InstanceId> = unowned_instances(machines, census.pools).into_iter().collect();
        for seen in machines.iter().filter(|seen| strangers.contains(&seen.id)) {
            judge_unowned(census, &believed, seen, &mut plan, &since);
        }
    }
    for (scope, list) in &believed {
        for (pool, runner) in stale(census, scope, list) {
            if since(&mut plan, format!("stale {}", runner.name)) >= pool.timings.stale_grace.duration() {
                plan.reaps.push(Reap::Deregister((*scope).clone(), runner.clone()));
            }
        }
    }
    blow_unfenced(census, &mut plan);
    plan
}

/// A list of GitHub's, read once: there may be ten thousand runners in it, and as many machines that ask.
struct List<'a> {
    by_id: BTreeMap<RunnerId, &'a ObservedRunner>,
    /// Those with a name of ours, by the launch that is part of it.
    ours: BTreeMap<Launch, Vec<(RunnerName, &'a ObservedRunner)>>,
}

/// What a launch's machines and its runners' names have in common.
type Launch = (PoolName, Epoch, u64);

impl<'a> List<'a> {
    fn new(all: &'a [ObservedRunner]) -> Self {
        let mut ours: BTreeMap<Launch, Vec<_>> = BTreeMap::new();
        for runner in all {
            if let Ok(name) = runner.name.parse::<RunnerName>() {
                let launch = (name.pool.clone(), name.epoch.clone(), name.slot.version);
                ours.entry(launch).or_default().push((name, runner));
            }
        }
        Self { by_id: all.iter().map(|runner| (runner.id, runner)).collect(), ours }
    }
}

fn believed_lists<'a>(census: &Census<'a>, plan: &mut Plan) -> BTreeMap<&'a Scope, List<'a>> {
    let mut believed = BTreeMap::new();
    for (scope, list) in census.runners {
        let online = census
            .pools
            .iter()
            .filter(|(pool, _)| pool.owner == *scope)
            .flat_map(|(_, view)| view.slots.values())
            .filter(|slot| slot.is_live() && matches!(slot.rank(), 3 | 4))
            .count();
        if list.is_empty() && online >= FUSE_EMPTY_LIST {
            plan.fused.push(format!("GitHub lists no runner of {scope}, but {online} should be online: not believed"));
        } else {
            believed.insert(scope, List::new(list));
        }
    }
    believed
}

fn runner_state(slot: &Slot, list: Option<&List<'_>>, since: &mut dyn FnMut(String) -> SignedDuration) -> RunnerState {
    let Some(list) = list else { return RunnerState::Unread };
    let Some(runner) = slot.runner() else { return RunnerState::Unregistered(SignedDuration::ZERO) };
    match list.by_id.get(&runner.runner_id) {
        Some(seen) if seen.busy => RunnerState::Busy,
        Some(seen) if seen.online => RunnerState::Idle,
        // The one that boots has its boot grace, which starts with its slot.
        Some(_) if !matches!(slot.state, SlotState::Online { .. }) => RunnerState::Offline(SignedDuration::ZERO),
        Some(_) => RunnerState::Offline(since(format!("offline {}", runner.runner_name))),
        None => RunnerState::Unregistered(since(format!("unregistered {}", runner.runner_name))),
    }
}

fn follow(plan: &mut Plan, pool: &Pool, slot: &Slot, verdict: Verdict) {
    match verdict {
        Verdict::Normal => {}
        Verdict::Held => plan.held += 1,
        Verdict::Gone => plan.observations.entry(pool.name.clone()).or_default().push(Observation::Gone(slot.id)),
        Verdict::Stop(why) => plan.reaps.push(Reap::Stop(pool.name.clone(), slot.id, why)),
        Verdict::Finish => plan.reaps.push(Reap::Finish(pool.name.clone(), slot.id)),
        Verdict::Adopt | Verdict::Condemn(_) => unreachable!("an open slot's machine is somebody's"),
    }
}

fn observe(plan: &mut Plan, pool: &Pool, slot: &Slot, runner: RunnerState, list: Option<&List<'_>>, going: bool) {
    let observation = match (&slot.state, runner) {
        (_, RunnerState::Unread) => None,
        (_, RunnerState::Unregistered(_)) if going && slot.unregistered_at.is_none() => {
            Some(Observation::Unregistered(slot.id))
        }
        (_, RunnerState::Offline(_) | RunnerState::Idle | RunnerState::Busy) if going => slot
            .runner()
            .filter(|runner| list.is_some_and(|list| list.by_id.contains_key(&runner.runner_id)))
            .map(|runner| Observation::LeftRegistered(slot.id, runner.runner_id)),
        (SlotState::Configured { .. }, RunnerState::Idle) => Some(Observation::Online(slot.id)),
        (SlotState::Configured { .. } | SlotState::Online { .. }, RunnerState::Busy) => {
            Some(Observation::Busy(slot.id))
        }
        _ => None,
    };
    if let Some(observation) = observation {
        plan.observations.entry(pool.name.clone()).or_default().push(observation);
    }
}

/// A machine that no open slot has. Which runner it runs is not known; its batch tells which ones it may run, and all of
/// them count: one with a job saves the whole batch.
fn judge_unowned(
    census: &Census<'_>,
    believed: &BTreeMap<&Scope, List<'_>>,
    seen: &ObservedInstance,
    plan: &mut Plan,
    since: &impl Fn(&mut Plan, String) -> SignedDuration,
) {
    // Without our tags, or of a pool that could not be read or is not configured: not known to be ours to end.
    let Some(batch) = &seen.batch else { return };
    let Some((pool, view)) = census.pools.iter().find(|(pool, _)| pool.name == batch.pool) else { return };
    let mine: Option<Vec<&ObservedRunner>> = believed.get(&pool.owner).map(|list| {
        let launched = list.ours.get(&(batch.pool.clone(), batch.epoch.clone(), batch.version));
        let unused = launched.into_iter().flatten().filter(|(name, _)| !is_current(view, name));
        unused.map(|(_, runner)| *runner).collect()
    });
    let runner = match &mine {
        None => RunnerState::Unread,
        Some(mine) if mine.iter().any(|runner| runner.busy) => RunnerState::Busy,
        Some(mine) if mine.iter().any(|runner| runner.online) => RunnerState::Idle,
        Some(mine) if mine.is_empty() => RunnerState::Unregistered(SignedDuration::ZERO),
        Some(_) => RunnerState::Offline(SignedDuration::ZERO),
    };
    let known = match census.known.get(&seen.id).map(|instance| &instance.ownership) {
        Some(Ownership::Bound | Ownership::Closed { .. }) => Known::Closed,
        Some(Ownership::Condemned { .. }) => Known::Condemned,
        Some(Ownership::Adopted) => Known::Adopted,
        None if view.batches.contains_key(&batch.version) && view.meta.epoch == batch.epoch => Known::BatchOpen,
        None => Known::Nothing,
    };
    let stopping = seen.state == MachineState::Stopping;
    let subject = Subject {
        state: Some(seen.state),
        unlisted_for: SignedDuration::ZERO,
        age: census.now.duration_since(seen.launched_at),
        stopping_for: if stopping { since(plan, format!("stopping {}", seen.id)) } else { SignedDuration::ZERO },
        hold: seen.hold,
        runner,
        known,
        timings: &pool.timings,
    };
    match judge(&subject, census.now) {
        Verdict::Normal => {}
        Verdict::Held => plan.held += 1,
        Verdict::Adopt => plan.reaps.push(Reap::Adopt(seen.clone())),
        Verdict::Condemn(why) => plan.reaps.push(Reap::Condemn {
            machine: seen.clone(),
            why,
            runners: mine.into_iter().flatten().map(|runner| (pool.owner.clone(), runner.id)).collect(),
        }),
        Verdict::Gone | Verdict::Stop(_) | Verdict::Finish => unreachable!("it has no open slot"),
    }
}

/// Whether an open slot uses that registration, or may just be making it.
fn is_current(view: &PoolView, name: &RunnerName) -> bool {
    view.meta.epoch == name.epoch
        && view.slots.get(&name.slot).is_some_and(|slot| match slot.runner() {
            Some(runner) => runner.runner_name == name.to_string(),
            None => slot.registration == name.registration,
        })
}

/// Registrations of our names, not connected, that no open slot uses, and their pools.
fn stale<'a>(census: &Census<'a>, scope: &Scope, list: &List<'a>) -> Vec<(&'a Pool, &'a ObservedRunner)> {
    let mut stale = Vec::new();
    for ((pool, ..), runners) in &list.ours {
        // A pool that is configured but could not be read may use it.
        let known = census.pools.iter().find(|(known, _)| known.name == *pool && known.owner == *scope);
        let Some((pool, view)) = known else { continue };
        let unused = runners.iter().filter(|(name, runner)| !runner.online && !runner.busy && !is_current(view, name));
        stale.extend(unused.map(|(_, runner)| (pool, *runner)));
    }
    stale
}

fn blow_unfenced(census: &Census<'_>, plan: &mut Plan) {
    let live = census.machines.map_or(0, |machines| machines.iter().filter(|seen| seen.state.is_live()).count());
    let allowed = FUSE_UNFENCED.max(live / 5);
    let unfenced = plan.reaps.iter().filter(|reap| reap.is_unfenced()).count();
    if unfenced > allowed {
        plan.fused.push(format!(
            "{unfenced} of {live} machines would end without a deregistration: {allowed} do, in this sweep"
        ));
        let mut left = allowed;
        plan.reaps.retain(|reap| {
            if !reap.is_unfenced() {
                return true;
            }
            let keep = left > 0;
            left = left.saturating_sub(1);
            keep
        });
    }
}
