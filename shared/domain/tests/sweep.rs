//! What a sweep plans from EC2's list, GitHub's lists and the table.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{ago, instance, later, list, listed, noon, pool, slot, view};
use domain::config::Pool;
use domain::ids::{InstanceId, RunnerId, Scope, SlotId};
use domain::policy::PoolView;
use domain::policy::listing::{Missing, RunnerList};
use domain::policy::observe::Observation;
use domain::policy::sweep::{Census, Plan, Reap, plan, shares, unowned_instances};
use domain::state::{Batch, Condemned, Instance, Item, Ownership, Slot, StopReason, Suspect};
use domain::wire::{MachineState, ObservedInstance, ObservedRunner, StateReason};
use jiff::Timestamp;
use serde_json::{Value, json};

const SLOT: SlotId = SlotId { version: 4, index: 0 };

fn scope() -> Scope {
    "octo".parse().expect("a scope")
}

fn runner(id: u64, name: &str, online: bool, busy: bool) -> ObservedRunner {
    ObservedRunner { id: RunnerId(id), name: name.to_owned(), online, busy }
}

/// The runner of slot 4.0.
fn own(online: bool, busy: bool) -> ObservedRunner {
    runner(7, common::RUNNER, online, busy)
}

/// Everything that a sweep reads.
struct World {
    machines: Option<Vec<ObservedInstance>>,
    list: Option<RunnerList>,
    pools: Vec<(Pool, PoolView)>,
    recorded: BTreeMap<InstanceId, Instance>,
    unreadable: BTreeSet<InstanceId>,
    suspects: BTreeMap<Suspect, Timestamp>,
}

impl World {
    /// Slot 4.0 with its running machine, and what GitHub lists.
    fn of(slot: Slot, list: Option<RunnerList>) -> Self {
        let (pools, suspects) = (vec![(pool(), view([slot.into()]))], BTreeMap::new());
        Self { list, pools, suspects, ..Self::without_slots([listed()]) }
    }

    /// Machines of which every list has shown for two minutes that no runner with a job may run on them, however many it shows.
    fn without_slots(machines: impl IntoIterator<Item = ObservedInstance>) -> Self {
        let machines: Vec<ObservedInstance> = machines.into_iter().collect();
        Self {
            suspects: machines
                .iter()
                .flat_map(|seen| (0..4).map(|runners| (Suspect::Jobless(seen.id.clone(), runners), ago(120))))
                .collect(),
            machines: Some(machines),
            list: Some(list([])),
            pools: vec![(pool(), view([]))],
            recorded: BTreeMap::new(),
            unreadable: BTreeSet::new(),
        }
    }

    fn suspected(mut self, suspect: Suspect, seconds: i64) -> Self {
        self.suspects.insert(suspect, ago(seconds));
        self
    }

    fn plan(&self) -> Plan {
        plan(&Census {
            machines: self.machines.as_deref(),
            runners: &self.list.iter().map(|list| (scope(), list.clone())).collect(),
            pools: &self.pools,
            recorded: &self.recorded,
            unreadable: &self.unreadable,
            suspects: &self.suspects,
            reports: &BTreeMap::new(),
            reporting: &BTreeMap::new(),
            format: 5,
            now: noon(),
        })
    }

    fn observed(&self) -> Vec<Observation> {
        self.plan().observations.remove(&pool().name).unwrap_or_default()
    }

    /// The reasons of what is removed.
    fn reaped(&self) -> Vec<&'static str> {
        self.plan().reaps.iter().map(Reap::reason).collect()
    }
}

fn at(state: &str, more: Value) -> Slot {
    slot(state, 60, more)
}

const NOTHING: [&str; 0] = [];

#[test]
fn what_githubs_list_shows_of_a_runner_is_recorded() {
    let observed = |state: &str, seen: ObservedRunner| World::of(at(state, json!({})), Some(list([seen]))).observed();
    assert_eq!(observed("configured", own(true, false)), [Observation::Online(SLOT)]);
    assert_eq!(observed("configured", own(true, true)), [Observation::Busy(SLOT)]);
    assert_eq!(observed("online", own(true, true)), [Observation::Busy(SLOT)]);
    for (state, seen) in [("online", own(true, false)), ("configured", own(false, false)), ("busy", own(true, true))] {
        assert_eq!(observed(state, seen.clone()), [], "{state} {seen:?}");
    }
    assert_eq!(World::of(at("configured", json!({})), None).observed(), [], "the list was not read");
}

#[test]
fn the_end_of_a_machine_and_what_is_left_of_it_are_recorded() {
    let ended = |list: Option<RunnerList>| {
        let mut world = World::of(at("online", json!({})), list);
        world.machines = Some(vec![ObservedInstance { state: MachineState::Terminated, ..listed() }]);
        world
    };
    let registration = || at("online", json!({})).runner().expect("a runner").clone();
    assert_eq!(ended(None).observed(), [Observation::Gone(SLOT)]);
    let left = ended(Some(list([own(false, false)]))).observed();
    assert_eq!(left, [Observation::Gone(SLOT), Observation::LeftRegistered(SLOT, registration())]);
    let without = ended(Some(list([]))).observed();
    assert_eq!(without, [Observation::Gone(SLOT), Observation::Unregistered(SLOT)]);
    let unreadable = RunnerList { missing: Missing::PerhapsUnreadable, ..list([]) };
    let perhaps = ended(Some(unreadable)).observed();
    assert_eq!(perhaps, [Observation::Gone(SLOT), Observation::LeftRegistered(SLOT, registration())]);
    let unread = RunnerList { missing: Missing::PerhapsUnread, ..list([]) };
    assert_eq!(ended(Some(unread)).observed(), [Observation::Gone(SLOT)]);
    let mut known = ended(Some(list([])));
    known.pools = vec![(pool(), view([at("online", json!({ "gone_at": ago(60) })).into()]))];
    assert_eq!(known.observed(), [Observation::Unregistered(SLOT)], "its end is recorded already");
}

#[test]
fn a_registration_counts_as_gone_only_if_it_was_made_before_the_list_was_read() {
    let unregistered = |configured: Timestamp, list: RunnerList| {
        let slot = at("configured", json!({ "configured_at": configured }));
        let gone = Suspect::Unregistered(common::RUNNER.to_owned());
        World::of(slot, Some(list)).suspected(gone, 60).reaped() == ["runner_ended"]
    };
    assert!(unregistered(ago(60), list([])) && unregistered(noon(), list([])));
    assert!(!unregistered(later(1), list([])));
    assert!(!unregistered(ago(60), RunnerList { listed: [RunnerId(7)].into(), ..list([]) }), "its state is unknown");
    assert!(!unregistered(ago(60), RunnerList { missing: Missing::PerhapsUnread, ..list([]) }));
    assert!(!unregistered(ago(60), list([own(true, false)])));
}

#[test]
fn what_looks_wrong_must_have_looked_wrong_for_a_while() {
    let gone = || Suspect::Unregistered(common::RUNNER.to_owned());
    let world = || World::of(at("configured", json!({})), Some(list([])));
    let first = world().plan();
    assert_eq!((first.suspects.get(&gone()), first.reaps.len()), (Some(&noon()), 0));
    let second = world().suspected(gone(), 59).plan();
    assert_eq!((second.suspects.get(&gone()), second.reaps.len()), (Some(&ago(59)), 0), "since then");
    assert_eq!(world().suspected(gone(), 60).reaped(), ["runner_ended"]);
}

#[test]
fn a_suspicion_stays_while_the_list_says_nothing_about_the_runner() {
    let gone = || Suspect::Unregistered(common::RUNNER.to_owned());
    let kept = |list: Option<RunnerList>| {
        let world = World::of(at("online", json!({})), list).suspected(gone(), 300);
        world.plan().suspects.get(&gone()).copied()
    };
    assert_eq!(kept(None), Some(ago(300)));
    let partly = |runners: Vec<ObservedRunner>| RunnerList { missing: Missing::PerhapsUnread, ..list(runners) };
    assert_eq!(kept(Some(partly(vec![]))), Some(ago(300)));
    assert_eq!(kept(Some(partly(vec![own(true, false)]))), None, "it is listed");
    assert_eq!(kept(Some(list([own(true, false)]))), None);
    let mut of_none = World::of(at("online", json!({})), None).suspected(gone(), 300);
    of_none.pools.clear();
    assert_eq!(of_none.plan().suspects.len(), 0, "the pool does not exist any more");
}

#[test]
fn an_empty_list_is_not_believed_if_ten_runners_should_be_in_it() {
    let limits = |count: u8, of: &dyn Fn(u8) -> Slot| {
        let slots = (0..count).map(|index| Item::from(Slot { id: SlotId { version: 4, index }, ..of(index) }));
        let mut world = World::of(at("online", json!({})), Some(list([])));
        world.pools = vec![(pool(), view(slots))];
        world.plan().safety_limits.len()
    };
    let online = |_: u8| at("online", json!({}));
    assert_eq!((limits(9, &online), limits(10, &online)), (0, 1));
    assert_eq!(limits(10, &|_| at("busy", json!({}))), 1);
    assert_eq!(limits(10, &|_| at("configured", json!({}))), 0);
    assert_eq!(limits(10, &|index| at("online", if index == 0 { json!({ "gone_at": ago(9) }) } else { json!({}) })), 0);
    let mut other =
        World::of(at("online", json!({})), Some(list([runner(9, "drover_ci_linux_e1_9_0_1", true, false)])));
    other.pools =
        vec![(pool(), view((0..10).map(|index| Slot { id: SlotId { version: 4, index }, ..online(0) }.into())))];
    assert_eq!(other.plan().safety_limits.len(), 0, "the list is not empty");
    other.list = Some(list([]));
    other.pools[0].0.owner = "mona".parse().expect("a scope");
    assert_eq!(other.plan().safety_limits.len(), 0, "they are of another account");
}

#[test]
fn a_machine_that_ec2_has_stopped_is_ready_if_it_was_set_aside_and_ended_otherwise() {
    let seen = |slot: Slot, state: MachineState| {
        let mut world = World::of(slot, Some(list([])));
        world.machines = Some(vec![ObservedInstance { state, ..listed() }]);
        world
    };
    let aside = |state: &str| at(state, json!({ "registration": 0, "stopped_at": ago(60) }));
    assert_eq!(seen(aside("prepared"), MachineState::Stopped).observed(), [Observation::Ready(SLOT)]);
    assert_eq!(seen(aside("prepared"), MachineState::Stopping).observed(), []);
    assert_eq!(seen(aside("stopped"), MachineState::Stopped).observed(), []);
    let halted = seen(at("launched", json!({})), MachineState::Stopped);
    assert_eq!((halted.observed(), halted.reaped()), (vec![], vec!["halted"]));
    let stopping = |seconds| {
        let suspect = Suspect::Stopping("i-1".into());
        seen(at("online", json!({})), MachineState::Stopping).suspected(suspect, seconds).reaped()
    };
    assert_eq!((stopping(1), stopping(3600)), (vec![], vec!["halted"]));
    let running = |state: MachineState, seconds| {
        seen(aside("stopped"), state).suspected(Suspect::Running("i-1".into()), seconds).reaped()
    };
    assert_eq!(running(MachineState::Running, 3600), ["not_ready"], "somebody started it");
    assert_eq!(running(MachineState::Running, 1), NOTHING);
    assert_eq!(running(MachineState::Stopped, 3600), NOTHING);
    let suspects = |slot: Slot| seen(slot, MachineState::Running).plan().suspects;
    assert_eq!(suspects(aside("stopped")), [(Suspect::Running("i-1".into()), noon())].into());
    assert_eq!(suspects(aside("prepared")), BTreeMap::new());
}

#[test]
fn held_machines_are_counted_and_left_alone() {
    let mut of_slot = World::of(at("online", json!({})), Some(list([own(true, false)])));
    of_slot.machines = Some(vec![ObservedInstance { hold: true, ..listed() }]);
    assert_eq!((of_slot.plan().held, of_slot.observed()), (1, vec![Observation::Held(SLOT)]));
    let old = ObservedInstance { hold: true, launched_at: ago(30 * 3600), ..listed() };
    let unowned = World::without_slots([old]);
    assert_eq!((unowned.plan().held, unowned.reaped()), (1, vec![]));
}

/// A machine of the stack without a slot, older than `orphan_grace`.
fn orphan() -> ObservedInstance {
    ObservedInstance { launched_at: ago(600), ..listed() }
}

#[test]
fn a_machine_without_a_slot_is_condemned_unless_its_launch_is_open_or_its_record_cannot_be_read() {
    assert_eq!(World::without_slots([orphan()]).reaped(), ["orphan"]);
    let young = ObservedInstance { launched_at: ago(599), ..listed() };
    let ended = ObservedInstance { state: MachineState::Terminated, ..orphan() };
    let untagged = ObservedInstance { batch: None, ..orphan() };
    let foreign = ObservedInstance { batch: Some("other.e1.4.1".parse().expect("a tag")), ..orphan() };
    for normal in [young, ended, untagged, foreign] {
        assert_eq!(World::without_slots([normal.clone()]).reaped(), NOTHING, "{normal:?}");
    }
    let mut unreadable = World::without_slots([orphan()]);
    unreadable.unreadable.insert("i-1".into());
    assert_eq!(unreadable.reaped(), NOTHING);
    let open = |version: u64, epoch: &str| {
        let batch = json!({
            "pool": "linux", "version": version, "epoch": epoch, "attempt": 1, "count": 1, "tries": 1, "next_at": noon(),
            "planned_at": noon(), "revision": 1,
        });
        let batch: Batch = serde_json::from_value(batch).expect("a batch");
        let mut world = World::without_slots([orphan()]);
        world.pools[0].1 = view([batch.into()]);
        world.pools[0].1.meta.epoch = epoch.parse().expect("an epoch");
        world.reaped()
    };
    assert_eq!((open(4, "e1"), open(5, "e1"), open(4, "e2")), (vec![], vec!["orphan"], vec!["orphan"]));
    let machines = [orphan(), ObservedInstance { id: "i-2".into(), ..orphan() }];
    let slotted = [(pool(), view([at("online", json!({})).into()]))];
    assert_eq!(unowned_instances(&machines, &slotted), ["i-2".into()]);
}

#[test]
fn a_machine_without_a_slot_is_suspected_before_it_is_condemned() {
    let jobless = || Suspect::Jobless("i-1".into(), 0);
    let of = |list: Option<RunnerList>, seconds: Option<i64>| {
        let mut world = World::without_slots([orphan()]);
        (world.list, world.suspects) = (list, seconds.map(|it| (jobless(), ago(it))).into_iter().collect());
        (world.plan().suspects.get(&jobless()).copied(), world.reaped())
    };
    assert_eq!(of(Some(list([])), None), (Some(noon()), vec![]));
    assert_eq!(of(Some(list([])), Some(119)), (Some(ago(119)), vec![]));
    assert_eq!(of(Some(list([])), Some(120)), (Some(ago(120)), vec!["orphan"]));
    assert_eq!(of(None, Some(120)), (Some(ago(120)), vec![]), "the list was not read");
}

/// A list from GitHub lacks a runner if another one was removed while its pages were read.
#[test]
fn a_machine_whose_table_was_lost_survives_a_list_that_lacks_its_busy_runner() {
    let adopted = Instance::unowned(&listed(), None, Ownership::Adopted, noon());
    let of = |runner: Option<ObservedRunner>, suspected: Option<(usize, i64)>| {
        let mut world = World::without_slots([listed()]);
        world.list = Some(list(runner));
        world.recorded.insert(adopted.id.clone(), adopted.clone());
        let noted = |(runners, seconds)| (Suspect::Jobless("i-1".into(), runners), ago(seconds));
        world.suspects = suspected.map(noted).into_iter().collect();
        (world.reaped(), world.plan().suspects.len())
    };
    assert_eq!(of(None, None), (vec![], 1));
    assert_eq!(of(Some(own(true, true)), Some((0, 60))), (vec![], 0), "it has a job");
    assert_eq!(of(None, Some((0, 60))), (vec![], 1));
    assert_eq!(of(None, Some((0, 120))), (vec!["orphan"], 1), "three lists in a row show no runner");
    assert_eq!(of(None, Some((1, 3600))), (vec![], 1), "it was idle until now, and may have a job");
    assert_eq!(of(Some(own(true, false)), Some((1, 120))), (vec!["orphan"], 1), "it is deregistered first");
}

#[test]
fn a_machine_without_a_slot_is_judged_by_the_runners_of_its_launch_that_no_slot_uses() {
    let of = |slots: Vec<Slot>, list: RunnerList| {
        let mut world = World::without_slots([ObservedInstance { id: "i-9".into(), ..orphan() }]);
        (world.pools[0].1, world.list) = (view(slots.into_iter().map(Item::from)), Some(list));
        let plan = world.plan();
        plan.reaps
            .into_iter()
            .map(|reap| match reap {
                Reap::Condemn { runners, .. } => format!("condemned with {} runners", runners.len()),
                other => other.reason().to_owned(),
            })
            .collect::<Vec<_>>()
    };
    let other = |id: u64, busy| runner(id, &format!("drover_ci_linux_e1_4_{id}_1"), true, busy);
    let elsewhere = runner(8, "drover_ci_linux_e1_5_0_1", true, true);
    assert_eq!(of(vec![], list([elsewhere])), ["condemned with 0 runners"], "another launch's");
    assert_eq!(of(vec![], list([other(1, false), other(2, false)])), ["condemned with 2 runners"]);
    assert_eq!(of(vec![], list([other(1, false), other(2, true)])), ["adopted"]);
    let slot = at("busy", json!({ "launched_at": ago(3600) }));
    assert_eq!(of(vec![slot.clone()], list([own(true, true)])), ["condemned with 0 runners"], "it is the slot's");
    let renamed = at("busy", json!({ "runner_name": "drover_ci_linux_e1_4_0_2" }));
    assert_eq!(of(vec![renamed], list([own(true, true)])), ["adopted"], "the slot has another registration");
    let registering = |registration: u32| at("launched", json!({ "registration": registration }));
    assert_eq!(of(vec![registering(1)], list([own(true, true)])), ["condemned with 0 runners"]);
    assert_eq!(of(vec![registering(2)], list([own(true, true)])), ["adopted"]);
    let partly = |runners: Vec<ObservedRunner>| RunnerList { missing: Missing::PerhapsUnread, ..list(runners) };
    assert_eq!(of(vec![], partly(vec![other(1, false)])), NOTHING, "another one may be busy");
    assert_eq!(of(vec![], partly(vec![other(1, true)])), ["adopted"]);
}

#[test]
fn a_registration_that_no_slot_uses_is_deleted_after_its_grace() {
    let stale = |name: &str, online: bool, busy: bool, seconds: i64| {
        let list = list([runner(9, name, online, busy)]);
        let world = World::of(at("online", json!({})), Some(list)).suspected(Suspect::Stale(name.to_owned()), seconds);
        world.reaped().contains(&"stale_runner")
    };
    let unused = "drover_ci_linux_e1_3_0_1";
    assert!(stale(unused, false, false, 300) && !stale(unused, false, false, 299));
    assert!(!stale(unused, true, false, 300) && !stale(unused, false, true, 300), "it is connected or has a job");
    assert!(!stale(common::RUNNER, false, false, 300), "a slot uses it");
    assert!(stale("drover_ci_linux_e0_4_0_1", false, false, 300), "it is of a lost table");
    assert!(!stale("drover_ci_other_e1_3_0_1", false, false, 300), "its pool was not read");
    assert!(!stale("somebody's", false, false, 300));
    let mut of_other_owner = World::of(at("online", json!({})), Some(list([runner(9, unused, false, false)])));
    of_other_owner.pools[0].0.owner = "octo/widgets".parse().expect("a scope");
    assert!(!of_other_owner.suspected(Suspect::Stale(unused.to_owned()), 300).reaped().contains(&"stale_runner"));
}

#[test]
fn a_sweep_ends_at_most_ten_machines_or_a_fifth_without_a_deregistration() {
    let ended = |orphans: usize, others: usize| {
        let machine = |index: usize| ObservedInstance { id: format!("i-{index}").as_str().into(), ..orphan() };
        let young = (0..others).map(|index| ObservedInstance { launched_at: noon(), ..machine(1000 + index) });
        let plan = World::without_slots((0..orphans).map(machine).chain(young)).plan();
        (plan.reaps.len(), plan.safety_limits.len())
    };
    assert_eq!((ended(10, 0), ended(11, 0)), ((10, 0), (10, 1)));
    assert_eq!((ended(20, 80), ended(21, 79), ended(20, 79)), ((20, 0), (20, 1), (19, 1)));
    let condemned = |why: Condemned, deregistered: bool| {
        let launched_at = if why == Condemned::MaxLife { ago(12 * 3600) } else { ago(600) };
        let tag = |index: usize| format!("linux.e1.{index}.1").parse().expect("a tag");
        let machine = |index: usize| ObservedInstance {
            id: format!("i-{index}").as_str().into(),
            batch: Some(tag(index)),
            launched_at,
            ..listed()
        };
        let mut world = World::without_slots((1..=12).map(machine));
        let runners = (1..=12_u64).map(|id| runner(id, &format!("drover_ci_linux_e1_{id}_0_1"), true, false));
        world.list = Some(list(runners.filter(|_| deregistered)));
        world.plan().reaps.len()
    };
    assert_eq!((condemned(Condemned::Orphan, true), condemned(Condemned::Orphan, false)), (12, 10));
    assert_eq!((condemned(Condemned::MaxLife, true), condemned(Condemned::MaxLife, false)), (10, 10));
    let stopped = |launched: i64, list: RunnerList| {
        let slots = (0..12_u8).map(|index| {
            let more = json!({ "instance": format!("i-{index}"), "launched_at": ago(launched), "runner_id": index,
                "runner_name": format!("drover_ci_linux_e1_4_{index}_1") });
            Item::from(Slot { id: SlotId { version: 4, index }, ..at("configured", more) })
        });
        let mut world = World::without_slots((0..12).map(|index| ObservedInstance {
            id: format!("i-{index}").as_str().into(),
            launched_at: ago(launched),
            ..listed()
        }));
        (world.pools[0].1, world.list) = (view(slots), Some(list));
        for index in 0..12 {
            world.suspects.insert(Suspect::Unregistered(format!("drover_ci_linux_e1_4_{index}_1")), ago(60));
        }
        let plan = world.plan();
        assert!(plan.reaps.iter().all(|reap| matches!(reap, Reap::Stop(..))), "{:?}", plan.reaps);
        (plan.reaps.len(), plan.reaps.iter().all(|it| it.reason() == StopReason::MaxLife.as_str()))
    };
    assert_eq!(stopped(13 * 3600, list([])), (10, true));
    assert_eq!(stopped(600, list([])), (12, false), "GitHub has removed their registrations");
}

#[test]
fn instances_that_ec2_reclaimed_are_reported_until_that_is_recorded() {
    let reason = StateReason { code: "Server.SpotInstanceTermination".to_owned(), message: String::new() };
    let reclaimed = ObservedInstance { state: MachineState::Terminated, state_reason: Some(reason), ..listed() };
    let interrupted = |recorded: Option<Instance>| {
        let mut world = World::without_slots([reclaimed.clone()]);
        world.recorded = recorded.into_iter().map(|it| (it.id.clone(), it)).collect();
        let plan = world.plan();
        assert_eq!(plan.reasons.expect("EC2's list was read").len(), 1);
        plan.interrupted
    };
    assert_eq!(interrupted(Some(instance())), ["i-1".into()]);
    assert_eq!(interrupted(Some(Instance { interrupted_at: Some(ago(9)), ..instance() })), []);
    assert_eq!(interrupted(None), [], "nothing is known of it");
}

#[test]
fn a_sweep_divides_its_time() {
    let shares = shares(noon(), later(100));
    assert_eq!((shares.lists, shares.removals), (later(30), later(60)));
    assert_eq!((shares.pools, shares.deliveries), (later(80), later(90)));
}
