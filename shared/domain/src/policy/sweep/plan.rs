//! The plan of a sweep: what to remove and what to record, from a comparison of the three sources.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::ids::{BatchTag, Epoch, ImageId, InstanceId, PoolName, RunnerId, RunnerName, Scope, SlotId};
use crate::policy::PoolView;
use crate::policy::boot::{self, ObservedReport, awaited, is_expected, note_missed};
use crate::policy::listing::{Missing, RunnerList};
use crate::policy::observe::Observation;
use crate::policy::sweep::judge::{
    Recorded, RunnerState, SlotSubject, SlotVerdict, UnownedSubject, UnownedVerdict, judge_slot, judge_unowned,
};
use crate::state::{
    Condemned, Instance, Machine, Ownership, Phase, ReportingImage, Slot, SlotState, StopReason, Suspect,
    oldest_suspects,
};
use crate::wire::{MachineState, ObservedInstance, ObservedRunner, StateReason};

/// Everything that one sweep has read.
#[derive(Debug)]
pub struct Census<'a> {
    /// EC2's list; None if it could not be read to the end.
    pub machines: Option<&'a [ObservedInstance]>,
    /// GitHub's lists, as far as they were read.
    pub runners: &'a BTreeMap<Scope, RunnerList>,
    /// The pools that could be read.
    pub pools: &'a [(Pool, PoolView)],
    /// The records of the instances that belong to no open slot or that EC2 has reclaimed, see [`unowned_instances`] and
    /// [`reclaimed_instances`].
    pub recorded: &'a BTreeMap<InstanceId, Instance>,
    /// Those of these instances whose record cannot be read. They are not judged.
    pub unreadable: &'a BTreeSet<InstanceId>,
    /// What looked wrong in the last sweep, and since when.
    pub suspects: &'a BTreeMap<Suspect, Timestamp>,
    /// The boot reports that could be read, of the machines that [`boot::awaited`] names.
    pub reports: &'a BTreeMap<InstanceId, ObservedReport>,
    /// The images whose machines reported before this sweep.
    pub reporting: &'a BTreeMap<ImageId, ReportingImage>,
    /// The format of the table.
    pub format: u32,
    pub now: Timestamp,
}

/// Collects this sweep's suspects. A suspect of the last sweep keeps its time.
struct Suspicions<'a> {
    before: &'a BTreeMap<Suspect, Timestamp>,
    found: BTreeMap<Suspect, Timestamp>,
    now: Timestamp,
}

impl Suspicions<'_> {
    /// Notes the suspect, and returns for how long it has looked wrong.
    fn note(&mut self, suspect: Suspect) -> SignedDuration {
        let since = *self.before.get(&suspect).unwrap_or(&self.now);
        self.found.insert(suspect, since);
        self.now.duration_since(since)
    }

    /// Keeps a suspect of the last sweep that this sweep cannot examine.
    fn keep(&mut self, suspect: Suspect) {
        if let Some(since) = self.before.get(&suspect) {
            self.found.insert(suspect, *since);
        }
    }

    /// Keeps what the last sweep noted about the runners of an instance without a slot.
    fn keep_jobless(&mut self, instance: &InstanceId) {
        let is_it = |suspect: &&Suspect| matches!(suspect, Suspect::Jobless(noted, _) if noted == instance);
        if let Some(suspect) = self.before.keys().find(is_it).cloned() {
            self.keep(suspect);
        }
    }
}

/// Something to remove, or to adopt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reap {
    /// Stop a slot, and retire it.
    Stop(PoolName, SlotId, StopReason),
    /// Claim an instance that belongs to no slot, deregister the runners, terminate it.
    Condemn {
        machine: ObservedInstance,
        why: Condemned,
        /// The scope of the pool's runners.
        scope: Scope,
        /// The runners that may run on the instance.
        runners: Vec<ObservedRunner>,
    },
    /// Record an instance that belongs to no slot and has a job.
    Adopt(ObservedInstance),
    /// Delete a registration that no slot uses.
    Deregister(Scope, ObservedRunner),
}

impl Reap {
    /// The reason in the sweep's report and in the metric `Reaped`.
    pub fn reason(&self) -> &'static str {
        match self {
            Reap::Stop(_, _, why) => why.as_str(),
            Reap::Condemn { why, .. } => why.as_str(),
            Reap::Adopt(_) => "adopted",
            Reap::Deregister(..) => "stale_runner",
        }
    }

    /// Whether the removal needs no deregistration. If a source is wrong, many of these could happen at once.
    fn is_unconfirmed(&self) -> bool {
        match self {
            Reap::Stop(_, _, why) => *why == StopReason::MaxLife,
            Reap::Condemn { runners, why, .. } => runners.is_empty() || *why == Condemned::MaxLife,
            Reap::Adopt(_) | Reap::Deregister(..) => false,
        }
    }
}

/// What a sweep will do.
#[derive(Debug, Default)]
pub struct Plan {
    pub reaps: Vec<Reap>,
    pub observations: BTreeMap<PoolName, Vec<Observation>>,
    /// What looks wrong in this sweep, and since when.
    pub suspects: BTreeMap<Suspect, Timestamp>,
    /// The images whose machines report that they have booted.
    pub reporting: BTreeMap<ImageId, ReportingImage>,
    /// Why instances ended; None if EC2's list could not be read.
    pub reasons: Option<BTreeMap<InstanceId, StateReason>>,
    /// Instances that EC2 reclaimed without a notice that is recorded.
    pub interrupted: Vec<InstanceId>,
    /// Instances that an operator holds.
    pub held: usize,
    /// Safety limits that applied, as sentences.
    pub safety_limits: Vec<String>,
}

impl Plan {
    fn observe(&mut self, pool: &Pool, observation: Observation) {
        self.observations.entry(pool.name.clone()).or_default().push(observation);
    }
}

/// The live instances that belong to no open slot.
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

/// The instances that EC2 has reclaimed, as its list says.
pub fn reclaimed_instances(machines: &[ObservedInstance]) -> impl Iterator<Item = &InstanceId> {
    machines.iter().filter(|seen| seen.state_reason.as_ref().is_some_and(StateReason::is_reclaim)).map(|seen| &seen.id)
}

/// An empty list from GitHub is not trusted if at least this many runners should be in it.
pub const MIN_ONLINE_TO_DISTRUST_EMPTY: usize = 10;

/// The largest number of unconfirmed removals in one sweep, or a fifth of the live instances if that is more.
pub const MAX_UNCONFIRMED: usize = 10;

/// Plans a sweep.
pub fn plan(census: &Census<'_>) -> Plan {
    let reporting = boot::reporting(census.reporting, census.machines.unwrap_or_default(), census.pools);
    let mut plan = Plan { reporting, ..Plan::default() };
    let mut suspicions = Suspicions { before: census.suspects, found: BTreeMap::new(), now: census.now };
    let trusted = trusted_lists(census, &mut plan);
    if let Some(machines) = census.machines {
        let reasons = machines.iter().filter_map(|seen| Some((seen.id.clone(), seen.state_reason.clone()?)));
        plan.reasons = Some(reasons.collect());
        let is_recorded = |id: &&InstanceId| census.recorded.get(*id).is_none_or(|it| it.interrupted_at.is_some());
        plan.interrupted = reclaimed_instances(machines).filter(|id| !is_recorded(id)).cloned().collect();
        let by_id: BTreeMap<&InstanceId, &ObservedInstance> = machines.iter().map(|seen| (&seen.id, seen)).collect();
        for (pool, view) in census.pools {
            let list = trusted.get(&pool.owner);
            for slot in view.slots.values() {
                let Some(machine) = slot.machine() else { continue };
                let seen = by_id.get(&machine.instance).copied();
                plan_slot(&mut plan, &mut suspicions, census, pool, (slot, machine), seen, list);
            }
        }
        let unowned: BTreeSet<InstanceId> = unowned_instances(machines, census.pools).into_iter().collect();
        let judged = |seen: &&ObservedInstance| unowned.contains(&seen.id) && !census.unreadable.contains(&seen.id);
        for seen in machines.iter().filter(judged) {
            plan_unowned(&mut plan, &mut suspicions, census, &trusted, seen);
        }
    }
    for (scope, list) in &trusted {
        for (pool, runner) in stale(census, scope, list) {
            let stale_for = suspicions.note(Suspect::Stale(runner.name.clone()));
            if stale_for >= pool.timings.stale_grace.duration() {
                plan.reaps.push(Reap::Deregister((*scope).clone(), runner.clone()));
            }
        }
    }
    keep_unexamined(&mut suspicions, census, &trusted);
    plan.suspects = oldest_suspects(suspicions.found, MAX_SUSPECTS);
    limit_unconfirmed(census, &mut plan);
    plan
}

/// The most suspects that are remembered. They are stored in one item, and DynamoDB allows 400 KB.
const MAX_SUSPECTS: usize = 1500;

fn plan_slot(
    plan: &mut Plan,
    suspicions: &mut Suspicions<'_>,
    census: &Census<'_>,
    pool: &Pool,
    (slot, machine): (&Slot, &Machine),
    seen: Option<&ObservedInstance>,
    list: Option<&List<'_>>,
) {
    let now = suspicions.now;
    let runner = runner_state(slot, list, suspicions);
    let report = awaited(pool, slot, now).and_then(|machine| census.reports.get(&machine.instance).copied());
    let image = seen.and_then(|seen| seen.image.as_ref());
    let known = image.and_then(|image| plan.reporting.get_mut(image));
    let subject = SlotSubject {
        slot,
        state: seen.map(|seen| seen.state),
        unlisted_for: match seen {
            None => suspicions.note(Suspect::Unlisted(machine.instance.clone())),
            Some(_) => SignedDuration::ZERO,
        },
        age: now.duration_since(machine.runs_since()),
        stopping_for: stopping_for(seen, suspicions),
        running_for: running_for(slot, seen, suspicions),
        hold: seen.is_some_and(|seen| seen.hold),
        runner,
        lacks_report: slot.boot.is_none()
            && report == Some(ObservedReport::Missing)
            && is_expected(known.as_deref(), &machine.instance),
        timings: &pool.timings,
        format: census.format,
    };
    let verdict = judge_slot(&subject, now);
    let has_ended = slot.gone_at.is_some() || verdict == SlotVerdict::Gone;
    match verdict {
        SlotVerdict::Normal => {}
        SlotVerdict::Held => plan.held += 1,
        SlotVerdict::Gone => plan.observe(pool, Observation::Gone(slot.id)),
        SlotVerdict::Stop(why) => {
            if let (Some(known), StopReason::BootFailure, true) = (known, why, subject.lacks_report) {
                note_missed(known, &machine.instance, now);
            }
            plan.reaps.push(Reap::Stop(pool.name.clone(), slot.id, why));
        }
    }
    if let Some(report) = report.and_then(ObservedReport::report).filter(|_| !has_ended) {
        plan.observe(pool, Observation::Booted(slot.id, report));
    }
    if seen.is_some_and(|seen| seen.state == MachineState::Stopped) && slot.phase() == Phase::Prepared {
        plan.observe(pool, Observation::Ready(slot.id));
    }
    let observation = if has_ended { left_behind(slot, runner, list) } else { progress(slot, runner) };
    if let Some(observation) = observation {
        plan.observe(pool, observation);
    }
    // An operator who releases a machine after its end had it until then: the end is no failure of the pool.
    if let Some(seen) = seen.filter(|seen| seen.hold != slot.held && slot.gone_at.is_none()) {
        plan.observe(pool, if seen.hold { Observation::Held(slot.id) } else { Observation::Released(slot.id) });
    }
}

fn stopping_for(seen: Option<&ObservedInstance>, suspicions: &mut Suspicions<'_>) -> SignedDuration {
    match seen.filter(|seen| seen.state == MachineState::Stopping) {
        Some(seen) => suspicions.note(Suspect::Stopping(seen.id.clone())),
        None => SignedDuration::ZERO,
    }
}

/// For how long a machine that was stopped is not any more.
fn running_for(slot: &Slot, seen: Option<&ObservedInstance>, suspicions: &mut Suspicions<'_>) -> SignedDuration {
    match seen.filter(|seen| slot.phase() == Phase::Stopped && seen.state != MachineState::Stopped) {
        Some(seen) => suspicions.note(Suspect::Running(seen.id.clone())),
        None => SignedDuration::ZERO,
    }
}

/// What to record or to do about the runner of a machine that has ended.
fn left_behind(slot: &Slot, runner: RunnerState, list: Option<&List<'_>>) -> Option<Observation> {
    match runner {
        // Its deregistration shows whether it is the unreadable one.
        RunnerState::Unread if list.is_some_and(|list| list.missing == Missing::PerhapsUnreadable) => slot
            .runner()
            .filter(|_| slot.unregistered_at.is_none())
            .map(|runner| Observation::LeftRegistered(slot.id, runner.clone())),
        RunnerState::Unread => None,
        RunnerState::Unregistered(_) => slot.unregistered_at.is_none().then_some(Observation::Unregistered(slot.id)),
        RunnerState::Offline(_) | RunnerState::Idle(_) | RunnerState::Busy => slot
            .runner()
            .filter(|runner| list.is_some_and(|list| list.by_id.contains_key(&runner.runner_id)))
            .map(|runner| Observation::LeftRegistered(slot.id, runner.clone())),
    }
}

/// What GitHub shows about the runner of a live machine and the slot does not record yet.
fn progress(slot: &Slot, runner: RunnerState) -> Option<Observation> {
    match (&slot.state, runner) {
        (SlotState::Configured { .. }, RunnerState::Idle(_)) => Some(Observation::Online(slot.id)),
        (SlotState::Configured { .. } | SlotState::Online { .. }, RunnerState::Busy) => {
            Some(Observation::Busy(slot.id))
        }
        _ => None,
    }
}

/// One of GitHub's lists, with indices: it may have ten thousand runners, and as many machines are compared with it.
struct List<'a> {
    by_id: BTreeMap<RunnerId, &'a ObservedRunner>,
    names: BTreeSet<&'a str>,
    /// Runners whose state is unknown.
    listed: &'a BTreeSet<RunnerId>,
    missing: Missing,
    is_readable: bool,
    /// The runners with a Drover name, by the launch that is part of the name.
    by_launch: BTreeMap<Launch, Vec<(RunnerName, &'a ObservedRunner)>>,
}

/// The parts that the batch tag of an instance and the name of its runner share.
type Launch = (PoolName, Epoch, u64);

impl<'a> List<'a> {
    fn new(list: &'a RunnerList) -> Self {
        let mut by_launch: BTreeMap<Launch, Vec<_>> = BTreeMap::new();
        for runner in list.runners.iter().chain(&list.unused) {
            if let Ok(name) = runner.name.parse::<RunnerName>() {
                let launch = (name.pool.clone(), name.epoch.clone(), name.slot.version);
                by_launch.entry(launch).or_default().push((name, runner));
            }
        }
        Self {
            by_id: list.runners.iter().map(|runner| (runner.id, runner)).collect(),
            names: list.runners.iter().map(|runner| runner.name.as_str()).collect(),
            listed: &list.listed,
            missing: list.missing,
            is_readable: list.is_readable(),
            by_launch,
        }
    }
}

fn trusted_lists<'a>(census: &Census<'a>, plan: &mut Plan) -> BTreeMap<&'a Scope, List<'a>> {
    let mut trusted = BTreeMap::new();
    for (scope, list) in census.runners {
        let online = census
            .pools
            .iter()
            .filter(|(pool, _)| pool.owner == *scope)
            .flat_map(|(_, view)| view.slots.values())
            .filter(|slot| slot.is_live() && matches!(slot.phase(), Phase::Online | Phase::Busy))
            .count();
        if list.is_empty() && online >= MIN_ONLINE_TO_DISTRUST_EMPTY {
            plan.safety_limits
                .push(format!("GitHub lists no runner of {scope}, but {online} should be online: the list is ignored"));
        } else {
            trusted.insert(scope, List::new(list));
        }
    }
    trusted
}

fn runner_state(slot: &Slot, list: Option<&List<'_>>, suspicions: &mut Suspicions<'_>) -> RunnerState {
    let Some(list) = list else { return RunnerState::Unread };
    let Some(runner) = slot.runner() else { return RunnerState::Unregistered(SignedDuration::ZERO) };
    match list.by_id.get(&runner.runner_id) {
        Some(seen) if seen.busy => RunnerState::Busy,
        Some(seen) if seen.online => match &slot.state {
            SlotState::Busy { .. } => RunnerState::Idle(suspicions.note(Suspect::Idle(runner.runner_name.clone()))),
            SlotState::Planned
            | SlotState::Launched(_)
            | SlotState::Prepared(_)
            | SlotState::Stopped(_)
            | SlotState::Started(_)
            | SlotState::Configured { .. }
            | SlotState::Online { .. }
            | SlotState::Done { .. } => RunnerState::Idle(SignedDuration::ZERO),
        },
        Some(_) => match &slot.state {
            SlotState::Online { .. } | SlotState::Busy { .. } => {
                RunnerState::Offline(suspicions.note(Suspect::Offline(runner.runner_name.clone())))
            }
            // The boot grace of a runner that is not online yet is measured from its slot.
            SlotState::Planned
            | SlotState::Launched(_)
            | SlotState::Prepared(_)
            | SlotState::Stopped(_)
            | SlotState::Started(_)
            | SlotState::Configured { .. }
            | SlotState::Done { .. } => RunnerState::Offline(SignedDuration::ZERO),
        },
        None => match list.missing {
            Missing::Absent { since } if !list.listed.contains(&runner.runner_id) && runner.configured_at <= since => {
                RunnerState::Unregistered(suspicions.note(Suspect::Unregistered(runner.runner_name.clone())))
            }
            Missing::Absent { .. } | Missing::PerhapsUnreadable | Missing::PerhapsUnread => RunnerState::Unread,
        },
    }
}

/// Keeps what looked wrong about runners that this sweep's lists say nothing about. Such a reading neither confirms nor
/// clears a suspicion.
fn keep_unexamined(suspicions: &mut Suspicions<'_>, census: &Census<'_>, trusted: &BTreeMap<&Scope, List<'_>>) {
    for suspect in census.suspects.keys() {
        let Some(name) = suspect.runner() else { continue };
        let Some((pool, _)) = census.pools.iter().find(|(pool, _)| pool.name == name.pool) else { continue };
        let text = name.to_string();
        let examined =
            trusted.get(&pool.owner).is_some_and(|list| list.is_readable || list.names.contains(text.as_str()));
        if !examined {
            suspicions.keep(suspect.clone());
        }
    }
}

/// Plans for an instance that belongs to no open slot. It is unknown which runner of its batch runs on it, so every one of
/// them counts: one busy runner keeps all such instances of the batch.
fn plan_unowned(
    plan: &mut Plan,
    suspicions: &mut Suspicions<'_>,
    census: &Census<'_>,
    trusted: &BTreeMap<&Scope, List<'_>>,
    seen: &ObservedInstance,
) {
    // Without the batch tag, or with a pool that is unknown or could not be read, it may belong to something else.
    let Some(batch) = &seen.batch else { return };
    let Some((pool, view)) = census.pools.iter().find(|(pool, _)| pool.name == batch.pool) else { return };
    let candidates: Option<Vec<&ObservedRunner>> = trusted.get(&pool.owner).and_then(|list| {
        let launched = list.by_launch.get(&(batch.pool.clone(), batch.epoch.clone(), batch.version));
        let unused = launched.into_iter().flatten().filter(|(name, _)| !is_current(view, name));
        let unused: Vec<&ObservedRunner> = unused.map(|(_, runner)| *runner).collect();
        // Without the whole list the candidates are unknown, unless one is known to be busy.
        (list.is_readable || unused.iter().any(|runner| runner.busy)).then_some(unused)
    });
    let runner = match &candidates {
        None => {
            suspicions.keep_jobless(&seen.id);
            RunnerState::Unread
        }
        Some(runners) if runners.iter().any(|runner| runner.busy) => RunnerState::Busy,
        // If their number changes, the time begins again: a list may lack the one that has just got a job.
        Some(runners) => jobless(runners, suspicions.note(Suspect::Jobless(seen.id.clone(), runners.len()))),
    };
    let subject = UnownedSubject {
        recorded: recorded_as(census, view, seen, batch),
        state: seen.state,
        age: census.now.duration_since(seen.launched_at),
        stopping_for: stopping_for(Some(seen), suspicions),
        hold: seen.hold,
        runner,
        timings: &pool.timings,
    };
    match judge_unowned(&subject) {
        UnownedVerdict::Normal => {}
        UnownedVerdict::Held => plan.held += 1,
        UnownedVerdict::Adopt => plan.reaps.push(Reap::Adopt(seen.clone())),
        UnownedVerdict::Condemn(why) => plan.reaps.push(Reap::Condemn {
            machine: seen.clone(),
            why,
            scope: pool.owner.clone(),
            runners: candidates.into_iter().flatten().cloned().collect(),
        }),
    }
}

fn recorded_as(census: &Census<'_>, view: &PoolView, seen: &ObservedInstance, batch: &BatchTag) -> Recorded {
    match census.recorded.get(&seen.id).map(|instance| &instance.ownership) {
        Some(Ownership::Bound | Ownership::Closed { .. }) => Recorded::Closed,
        Some(Ownership::Condemned { .. }) => Recorded::Condemned,
        Some(Ownership::Adopted) => Recorded::Adopted,
        None if view.batches.contains_key(&batch.version) && view.meta.epoch == batch.epoch => Recorded::BatchOpen,
        None => Recorded::Nothing,
    }
}

/// The state of the busiest of these runners, none of which has had a job for this time.
fn jobless(runners: &[&ObservedRunner], time: SignedDuration) -> RunnerState {
    if runners.iter().any(|runner| runner.online) {
        RunnerState::Idle(time)
    } else if runners.is_empty() {
        RunnerState::Unregistered(time)
    } else {
        RunnerState::Offline(time)
    }
}

/// Whether an open slot uses the registration, or is making it at present.
pub fn is_current(view: &PoolView, name: &RunnerName) -> bool {
    view.meta.epoch == name.epoch
        && view.slots.get(&name.slot).is_some_and(|slot| match slot.runner() {
            Some(runner) => runner.runner_name == name.to_string(),
            None => slot.registration == name.registration,
        })
}

/// Registrations with Drover names that are not connected and that no open slot uses, with their pools.
fn stale<'a>(census: &Census<'a>, scope: &Scope, list: &List<'a>) -> Vec<(&'a Pool, &'a ObservedRunner)> {
    let mut stale = Vec::new();
    for ((pool, ..), runners) in &list.by_launch {
        // A pool that could not be read may use the registration.
        let found = census.pools.iter().find(|(read, _)| read.name == *pool && read.owner == *scope);
        let Some((pool, view)) = found else { continue };
        let unused = runners.iter().filter(|(name, runner)| !runner.online && !runner.busy && !is_current(view, name));
        stale.extend(unused.map(|(_, runner)| (pool, *runner)));
    }
    stale
}

/// Drops the unconfirmed removals above the limit, so that a wrong source cannot end the whole stack at once.
fn limit_unconfirmed(census: &Census<'_>, plan: &mut Plan) {
    let live = census.machines.map_or(0, |machines| machines.iter().filter(|seen| seen.state.is_live()).count());
    let allowed = MAX_UNCONFIRMED.max(live / 5);
    let unconfirmed = plan.reaps.iter().filter(|reap| reap.is_unconfirmed()).count();
    if unconfirmed > allowed {
        plan.safety_limits.push(format!(
            "{unconfirmed} of {live} instances would be terminated without a deregistration: limited to {allowed} in this sweep"
        ));
        let mut left = allowed;
        plan.reaps.retain(|reap| {
            if !reap.is_unconfirmed() {
                return true;
            }
            let keep = left > 0;
            left = left.saturating_sub(1);
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_suspects_are_remembered_and_fit_into_an_item() {
        let suspect = |number: i64| {
            let name = format!("drover_production1_a-pool-with-a-16_e1_{number}_47_1");
            (Suspect::Stale(name.parse().expect("a name")), Timestamp::from_second(number).expect("a time"))
        };
        let remembered = oldest_suspects((1..=5000).map(suspect).collect(), MAX_SUSPECTS);
        assert_eq!(remembered.len(), MAX_SUSPECTS);
        assert!(remembered.values().all(|since| since.as_second() <= 1500));
        assert!(serde_json::to_string(&remembered).expect("text").len() < 200_000, "half of an item");
    }
}
