//! Decisions about a pool with many busy machines, from a reading without them.

mod common;
#[path = "common/shapes.rs"]
mod shapes;

use common::{ago, noon};
use domain::config::{MicroUsd, Pool};
use domain::ids::{JobId, SlotId};
use domain::policy::decide::{Decision, decide};
use domain::policy::unread::{after, ranges, readable_without, suffices};
use domain::policy::{PoolView, unread};
use domain::state::{Circuit, CircuitCause, Item, Key, Meta, Slot, UnreadSlots, WaitingJob};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

/// Slot `<version>.0`.
fn slot_of(version: u64, state: &str, more: serde_json::Value) -> Slot {
    let id = SlotId { version, index: 0 };
    let instance = format!("i-{version}");
    Slot { id, ..common::slot(state, 100, merged(json!({ "instance": instance, "planned_at": ago(200) }), more)) }
}

fn merged(mut one: serde_json::Value, other: serde_json::Value) -> serde_json::Value {
    let fields = one.as_object_mut().expect("an object");
    fields.extend(other.as_object().expect("an object").clone());
    one
}

fn meta(unread: Option<UnreadSlots>) -> Meta {
    Meta { revision: 99, unread, ..common::meta() }
}

fn busy(versions: std::ops::Range<u64>) -> Vec<Slot> {
    versions.map(|version| slot_of(version, "busy", json!({}))).collect()
}

fn view(slots: impl IntoIterator<Item = Slot>) -> PoolView {
    PoolView::new(meta(None), slots.into_iter().map(Item::from))
}

/// The reading that an invocation makes after the decision from the whole.
fn without(unread: &UnreadSlots, slots: &[Slot], jobs: &[WaitingJob]) -> PoolView {
    let is_read = |item: &Item| !matches!(item.key(), Key::Slot(_, slot) if unread.contains(slot));
    let items = slots.iter().cloned().map(Item::from).chain(jobs.iter().cloned().map(Item::from));
    PoolView::without(Some(unread.clone()), meta(Some(unread.clone())), items.filter(is_read))
}

#[test]
fn slots_whose_runner_had_a_job_are_left_out_and_the_others_are_exceptions() {
    let gone = slot_of(12, "busy", json!({ "gone_at": ago(5) }));
    let slots =
        [vec![slot_of(10, "online", json!({}))], busy(13..33), vec![gone, slot_of(40, "launched", json!({}))]].concat();
    let left_out = after(&view(slots)).expect("it is worthwhile");
    assert_eq!(
        left_out,
        UnreadSlots {
            before: 33,
            except: vec![SlotId { version: 10, index: 0 }],
            live: 20,
            price_per_hour: MicroUsd(0)
        }
    );
    assert!(
        !left_out.contains(SlotId { version: 10, index: 0 }) && left_out.contains(SlotId { version: 12, index: 0 })
    );
    assert_eq!(after(&view(busy(10..20))), None, "one query for everything is cheaper");
}

#[test]
fn what_a_reading_left_out_stays_left_out() {
    let known = UnreadSlots {
        before: 50,
        except: vec![SlotId { version: 10, index: 0 }, SlotId { version: 11, index: 0 }],
        live: 300,
        price_per_hour: MicroUsd(0),
    };
    let slots = [
        slot_of(10, "online", json!({})),
        slot_of(11, "done", json!({})),
        slot_of(50, "busy", json!({})),
        slot_of(51, "planned", json!({})),
    ];
    let found = after(&without(&known, &slots, &[])).expect("it was worthwhile before");
    assert_eq!(
        found,
        UnreadSlots {
            before: 51,
            except: vec![SlotId { version: 10, index: 0 }],
            live: 302,
            price_per_hour: MicroUsd(0)
        }
    );
}

#[test]
fn many_idle_machines_are_not_read_one_by_one() {
    let idle = (40..60).map(|version| slot_of(version, "online", json!({})));
    let slots: Vec<Slot> = busy(10..40).into_iter().chain(idle).chain(busy(60..70)).collect();
    let left_out = after(&view(slots)).expect("it is worthwhile");
    assert_eq!((left_out.before, left_out.except.len(), left_out.live), (40, 0, 30));
    let before = |idle: u64| {
        let idle = (40..40 + idle).map(|version| slot_of(version, "online", json!({})));
        let slots: Vec<Slot> = busy(10..40).into_iter().chain(idle).chain(busy(60..70)).collect();
        after(&view(slots)).map(|left_out| (left_out.before, left_out.except.len()))
    };
    assert_eq!((before(16), before(17)), (Some((70, 16)), Some((40, 0))));
}

#[test]
fn a_failing_pool_is_read_whole() {
    let left_out = Some(UnreadSlots { before: 50, except: Vec::new(), live: 30, price_per_hour: MicroUsd(0) });
    assert_eq!(readable_without(&meta(left_out.clone())), left_out.as_ref());
    assert_eq!(readable_without(&Meta { boot_failures: 1, ..meta(left_out.clone()) }), None);
    let circuit = Circuit::Open {
        until: noon(),
        backoff_seconds: 30,
        since: noon(),
        cause: CircuitCause::BootFailures,
        message: String::new(),
    };
    assert_eq!(readable_without(&Meta { circuit, ..meta(left_out) }), None);
}

#[test]
fn a_nearly_full_pool_is_read_whole() {
    let left_out = UnreadSlots { before: 50, except: Vec::new(), live: 30, price_per_hour: MicroUsd(0) };
    let jobs: Vec<WaitingJob> = (1..=5).map(|id| WaitingJob { id: JobId(id), ..common::job(60) }).collect();
    let view = without(&left_out, &[], &jobs);
    let with_max = |max| domain::config::Pool { max, ..common::pool() };
    assert!(unread::suffices(&with_max(35), &view, noon()));
    assert!(!unread::suffices(&with_max(34), &view, noon()), "some of the 30 may have ended");
    let keeping = |max, warm, stopped| Pool { warm, stopped, ..with_max(max) };
    for (max, warm, stopped) in [(38, 3, 0), (38, 0, 3), (38, 1, 2)] {
        assert!(unread::suffices(&keeping(max, warm, stopped), &view, noon()), "{warm} {stopped}");
        assert!(!unread::suffices(&keeping(max - 1, warm, stopped), &view, noon()), "{warm} {stopped}");
    }
}

/// What a decision changes. The two readings may count the machines that have ended differently.
fn changes(decision: Option<Decision>) -> Option<impl PartialEq + std::fmt::Debug> {
    decision.map(|decision| (decision.batch, decision.slots, decision.jobs, decision.reruns))
}

fn slots() -> impl Strategy<Value = Vec<Slot>> {
    let states = vec!["planned", "launched", "configured", "online", "busy", "busy", "busy", "busy", "done"];
    let slot = (select(states), any::<bool>(), prop::bool::weighted(0.1), 1..900i64);
    prop::collection::vec(slot, 10..80).prop_map(|slots| {
        (10..)
            .zip(slots)
            .map(|(version, (state, wanted, gone, since))| {
                let gone = gone.then(|| ago(since.min(60)));
                let times =
                    json!({ "wanted": wanted, "gone_at": gone, "launched_at": ago(since), "online_at": ago(since) });
                slot_of(version, state, times)
            })
            .collect()
    })
}

#[test]
fn under_a_cap_the_whole_pool_is_read_unless_the_rest_pays_for_every_machine() {
    let pool = |cap: u64| {
        let mut pool = Pool { max: 100, price_per_hour: Some(MicroUsd(cap)), ..shapes::pool() };
        pool.shapes.as_mut().expect("a pool with shapes").policy.price_per_hour = Some(MicroUsd(2_000_000));
        pool
    };
    let unread = UnreadSlots { before: 50, except: Vec::new(), live: 40, price_per_hour: MicroUsd(8_000_000) };
    let jobs = [common::job(60)];
    let read = without(&unread, &[], &jobs);
    assert!(suffices(&pool(10_000_000), &read, noon()), "one machine costs at most 2 USD per hour");
    assert!(!suffices(&pool(9_000_000), &read, noon()), "unread machines may have ended");
    assert!(suffices(&pool(9_000_000), &without(&unread, &[], &[]), noon()), "nothing is needed");
    for (warm, stopped) in [(3, 0), (0, 3), (1, 2)] {
        let of = |cap| Pool { warm, stopped, ..pool(cap) };
        let (enough, less) = (of(8_000_000 + 4 * 2_000_000), of(8_000_000 + 4 * 2_000_000 - 1));
        assert!(suffices(&enough, &read, noon()) && !suffices(&less, &read, noon()), "{warm} {stopped}");
    }
}

proptest! {
    #[test]
    fn every_later_version_is_in_one_range_in_which_text_has_the_order_of_numbers(
        before in 0..20_000u64, more in 0..20_000u64, version in 0..40_000u64,
    ) {
        let newest = before + more;
        let ranges = ranges(&UnreadSlots { before, except: Vec::new(), live: 0, price_per_hour: MicroUsd(0) }, newest);
        let found = ranges.iter().filter(|range| range.contains(&version)).count();
        prop_assert_eq!(found, usize::from((before..=newest).contains(&version)));
        for range in ranges {
            prop_assert_eq!(range.start().to_string().len(), range.end().to_string().len());
        }
    }

    #[test]
    fn a_reading_without_them_leads_to_the_same_decision(
        slots in slots(), max in 0..200u32, warm in 0..6u32, queued in prop::collection::vec(1..900i64, 0..30),
        ended in prop::collection::vec(any::<bool>(), 80),
    ) {
        let pool = domain::config::Pool { max, warm, ..common::pool() };
        let jobs: Vec<WaitingJob> =
            (1..).zip(queued).map(|(id, queued)| WaitingJob { id: JobId(id), ..common::job(queued) }).collect();
        let Some(left_out) = after(&view(slots.clone())) else { return Ok(()) };
        // Since then some of them were closed.
        let is_left = |slot: &Slot| !left_out.contains(slot.id) || !ended[slot.id.version as usize - 10];
        let slots: Vec<Slot> = slots.into_iter().filter(is_left).collect();
        let whole = PoolView::new(
            meta(Some(left_out.clone())),
            slots.iter().cloned().map(Item::from).chain(jobs.iter().cloned().map(Item::from)),
        );
        let partial = without(&left_out, &slots, &jobs);
        prop_assert!(partial.live() >= whole.live());
        prop_assert_eq!(partial.supply(noon()).count(), whole.supply(noon()).count());
        if suffices(&pool, &partial, noon()) {
            let turn = common::turn();
            prop_assert_eq!(changes(decide(&pool, &partial, &turn)), changes(decide(&pool, &whole, &turn)));
        }
    }
}
