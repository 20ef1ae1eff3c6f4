//! Which lists of runners are read less often, because nothing can change in them.

mod common;

use std::collections::BTreeMap;

use common::{ago, later, list, listed, noon, pool, slot, view};
use domain::config::Pool;
use domain::ids::{RunnerId, Scope};
use domain::policy::PoolView;
use domain::policy::listing::{RunnerList, due, note_quiet};
use domain::state::{Batch, Item, Janitor, ListReading, ListState, Suspect};
use domain::wire::{MachineState, ObservedInstance, ObservedRunner};
use serde_json::json;

fn octo() -> Scope {
    "octo".parse().expect("a scope")
}

/// A sweep in which nothing is left of pool `linux`, and the list was read before with this result.
struct World {
    before: ListState,
    pools: Vec<(Pool, PoolView)>,
    list: Option<RunnerList>,
    machines: Option<Vec<ObservedInstance>>,
    suspects: Vec<Suspect>,
}

impl World {
    fn of(before: ListState) -> Self {
        let pools = vec![(pool(), view([]))];
        Self { before, pools, list: Some(list([])), machines: Some(Vec::new()), suspects: Vec::new() }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn noted(&self) -> ListState {
        let reading = ListReading { read_at: ago(60), counted: 1, state: self.before };
        let suspects = self.suspects.iter().map(|it| (it.clone(), ago(60))).collect();
        let mut memory = Janitor { lists: [(octo(), reading)].into(), suspects, ..Janitor::default() };
        let lists = self.list.iter().map(|list| (octo(), list.clone())).collect();
        note_quiet(&mut memory, &[pool()], &self.pools, &lists, self.machines.as_deref(), noon());
        memory.lists[&octo()].state
    }
}

#[test]
fn a_list_is_quiet_if_nothing_of_the_stack_is_there() {
    assert_eq!(World::of(ListState::Finished).noted(), ListState::Quiet);
    assert_eq!(World::of(ListState::Quiet).noted(), ListState::Quiet);
    assert_eq!(World::of(ListState::Unfinished).noted(), ListState::Unfinished);
    let runner = ObservedRunner { id: RunnerId(7), name: common::RUNNER.to_owned(), online: true, busy: false };
    let listed = World::of(ListState::Finished).with(|it| it.list = Some(list([runner])));
    assert_eq!(listed.noted(), ListState::Finished);
    assert_eq!(World::of(ListState::Finished).with(|it| it.list = None).noted(), ListState::Finished);
    assert_eq!(World::of(ListState::Quiet).with(|it| it.list = None).noted(), ListState::Quiet, "it was not read now");
}

#[test]
fn a_slot_a_launch_a_machine_or_a_suspicion_of_its_pool_ends_the_quiet() {
    let batch = json!({
        "pool": "linux", "version": 4, "epoch": "e1", "attempt": 1, "count": 1, "tries": 1, "next_at": noon(),
        "planned_at": noon(), "revision": 1,
    });
    let batch = Item::from(serde_json::from_value::<Batch>(batch).expect("a batch"));
    let other_pool = || Some("other".parse().expect("a pool"));
    let machine = |change: &dyn Fn(&mut ObservedInstance)| {
        let mut seen = listed();
        change(&mut seen);
        seen
    };
    let suspect = |name: &str| Suspect::Stale(name.to_owned());
    for before in [ListState::Finished, ListState::Quiet] {
        let state = |change: &dyn Fn(&mut World)| World::of(before).with(change).noted();
        let machines = |seen: ObservedInstance| state(&|it| it.machines = Some(vec![seen.clone()]));
        let is_live = [
            state(&|it| it.pools = vec![(pool(), view([slot("planned", 60, json!({})).into()]))]),
            state(&|it| it.pools = vec![(pool(), view([batch.clone()]))]),
            state(&|it| it.pools.clear()),
            state(&|it| it.machines = None),
            state(&|it| it.suspects = vec![suspect(common::RUNNER)]),
            machines(machine(&|_| {})),
            machines(machine(&|seen| seen.batch = None)),
            machines(machine(&|seen| seen.pool = None)),
        ];
        assert_eq!(is_live, [ListState::Finished; 8], "{before:?}");
        let is_quiet = [
            machines(machine(&|seen| seen.state = MachineState::Terminated)),
            machines(machine(&|seen| (seen.pool, seen.batch) = (other_pool(), None))),
            machines(machine(&|seen| (seen.pool, seen.batch) = (None, None))),
            state(&|it| it.suspects = vec![suspect("drover_ci_other_e1_4_0_1"), suspect("somebody's")]),
        ];
        assert_eq!(is_quiet, [ListState::Quiet; 4], "{before:?}");
    }
}

#[test]
fn lists_without_a_pool_are_forgotten_and_a_wrong_clock_is_corrected() {
    let reading = ListReading { read_at: later(600), counted: 1, state: ListState::Finished };
    let gone: Scope = "gone".parse().expect("a scope");
    let mut memory = Janitor { lists: [(octo(), reading), (gone, reading)].into(), ..Janitor::default() };
    note_quiet(&mut memory, &[pool()], &[], &BTreeMap::new(), None, noon());
    assert_eq!(memory.lists.keys().collect::<Vec<_>>(), [&octo()]);
    assert_eq!(memory.lists[&octo()].read_at, noon());
}

#[test]
fn of_several_lists_the_one_that_was_read_first_comes_first() {
    let of = |scope: &str| Pool { owner: scope.parse().expect("a scope"), ..pool() };
    let reading = |seconds| ListReading { read_at: ago(seconds), counted: 1, state: ListState::Finished };
    let lists = [("a", 60), ("b", 90)].map(|(scope, seconds)| (scope.parse().expect("a scope"), reading(seconds)));
    let memory = Janitor { lists: lists.into(), ..Janitor::default() };
    let due = due(&memory, &[of("a"), of("b"), of("c"), of("a")], |_| None, noon());
    assert_eq!(due.iter().map(ToString::to_string).collect::<Vec<_>>(), ["c", "b", "a"]);
}
