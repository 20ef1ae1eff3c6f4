//! For every pool, deciding ends, and each decision keeps the invariants.

mod common;
#[path = "common/shapes.rs"]
mod shapes;

use std::collections::BTreeSet;

use common::{ago, noon};
use domain::config::{Label, Market, MarketChoice, MicroUsd, Pool, Tuple};
use domain::ids::{JobId, RunnerId, SlotId};
use domain::log::{Cause, Transaction, Turn};
use domain::policy::PoolView;
use domain::policy::charge::RELAUNCH_LIMIT;
use domain::policy::class::for_class;
use domain::policy::decide::decide;
use domain::policy::stopped::is_stoppable;
use domain::state::{Boot, BootReport, Item, Lease, Machine, Meta, Runner, Slot, SlotState, StopReason, WaitingJob};
use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::sample::select;

fn pools() -> impl Strategy<Value = Pool> {
    let marks = (any::<bool>(), prop::bool::weighted(0.2));
    // Half of the pools keep no machine stopped.
    let stopped = prop_oneof![Just(0), 0..6u32];
    let market = select(vec![MarketChoice::OnDemand, MarketChoice::SpotThenOnDemand]);
    (0..60u32, 0..6u32, stopped, market, marks).prop_map(|(max, warm, stopped, market, (draining, paused))| Pool {
        max,
        warm,
        stopped,
        market,
        draining,
        paused,
        ..common::pool()
    })
}

fn jobs() -> impl Strategy<Value = Vec<WaitingJob>> {
    let job = (any::<bool>(), prop::collection::vec(0..7200i64, 0..3), 0..7200i64);
    prop::collection::vec(job, 0..120).prop_map(|jobs| {
        (1..)
            .zip(jobs)
            .map(|(id, (open, launches, queued))| WaitingJob {
                id: JobId(id),
                pool: "linux".parse().expect("a pool"),
                repository: "octo-org/widgets".parse().expect("a repository"),
                class: None,
                queued_at: ago(queued),
                open,
                check_at: noon() + SignedDuration::from_secs(60),
                checked_at: ago(queued),
                launches: launches.into_iter().map(ago).collect(),
                opened_at: None,
                run_over_at: None,
                unknown_since: None,
                attempt: None,
                asked_until: None,
                unserved: None,
                revision: 1,
            })
            .collect()
    })
}

fn spare_tuple() -> Tuple {
    common::pool().tuples().remove(0)
}

/// A report that the machine has booted and prepared itself.
fn prepared() -> Boot {
    let report = BootReport { reported_at: ago(60), uptime_seconds: 9, prepared_at: Some(ago(50)) };
    Boot { report, seen_at: ago(40) }
}

fn slots() -> impl Strategy<Value = Vec<Slot>> {
    // Some are so old that a warm machine is replaced.
    let age = prop_oneof![9 => 0..600i64, 1 => 40_000..50_000i64];
    // Of a launch for spare machines, on demand or spot, which are up and prepared or not.
    let spare = (select(vec![None, Some(Market::OnDemand), Some(Market::Spot)]), any::<bool>());
    let slot = (0..9usize, any::<bool>(), any::<bool>(), age, select(vec![None, Some(10), Some(400)]), spare);
    // More than one decision can stop.
    let count = prop_oneof![3 => 0..60usize, 1 => 100..200usize];
    count.prop_flat_map(move |count| prop::collection::vec(slot.clone(), count)).prop_map(|slots| {
        slots
            .into_iter()
            .enumerate()
            .map(|(index, (state, wanted, stopped, age, busy_seen, (market, is_prepared)))| {
                let machine = Machine::launched(format!("i-{index:08x}").as_str().into(), ago(age));
                let runner = Runner {
                    runner_id: RunnerId(index as u64 + 1),
                    runner_name: format!("runner-{index}"),
                    configured_at: ago(age),
                    runner_group: None,
                };
                // A runner has a job, and a stopped machine has no runner.
                let busy_seen = busy_seen.filter(|_| !(5..8).contains(&state));
                let job = JobId(9000 + index as u64);
                let slot = Slot {
                    id: SlotId { version: 1, index: index as u8 },
                    pool: "linux".parse().expect("a pool"),
                    class: None,
                    price_per_hour: None,
                    warm_as: market.map(|market| Box::new(Tuple { market, ..spare_tuple() })),
                    state: match state {
                        0 => SlotState::Planned,
                        1 => SlotState::Launched(machine),
                        2 => SlotState::Configured { machine, runner },
                        3 => SlotState::Online { machine, runner, online_at: ago(age) },
                        4 => SlotState::Busy { machine, runner, job },
                        5 => SlotState::Prepared(Machine { stopped_at: Some(ago(age)), ..machine }),
                        6 | 7 => SlotState::Stopped(Machine { stopped_at: Some(ago(age)), ..machine }),
                        _ => SlotState::Done { machine, runner, job, done_at: ago(age) },
                    },
                    wanted: (wanted || state > 1) && !(5..8).contains(&state),
                    planned_at: ago(age),
                    wanted_at: None,
                    stop: None,
                    registration: 0,
                    claims: Vec::new(),
                    busy_seen_at: busy_seen.map(ago),
                    busy_since: busy_seen.map(|seen| ago(seen + age)),
                    gone_at: None,
                    unregistered_at: None,
                    job_check_ended: false,
                    charge_returned: false,
                    boot: is_prepared.then(prepared),
                    held: false,
                    lease: Lease::due(noon()),
                    revision: 1,
                };
                if stopped { slot.stopped(StopReason::Surplus, ago(age), noon()) } else { slot }
            })
            .collect()
    })
}

/// The pool is drained while many jobs arrive and three jobs wait beside an idle runner that GitHub does not give them.
#[test]
fn a_decision_that_changes_everything_at_once_fits_in_a_transaction() {
    let job = |id: u64, queued: i64| Item::from(WaitingJob { id: JobId(id), ..common::job(queued) });
    let warm = |index: u8| {
        let instance = format!("i-{index}");
        let slot = common::slot("launched", 60, serde_json::json!({ "instance": instance, "wanted": false }));
        Item::from(Slot { id: SlotId { version: 1, index }, planned_at: ago(60), ..slot })
    };
    let idle = common::slot("online", 600, serde_json::json!({}));
    let jobs = (1..=49).map(|id| job(id, 1)).chain((100..103).map(|id| job(id, 600)));
    let view = common::view(jobs.chain((0..150).map(warm)).chain([Item::from(idle)]));
    let pool = Pool { draining: true, max: 200, warm: 150, ..common::pool() };
    let decision = decide(&pool, &view, &common::turn()).expect("a decision");
    let stopped = decision.slots.iter().filter(|slot| slot.stop.is_some()).count();
    let writes = decision.transaction(&common::turn());
    assert!(stopped > 0 && writes.len() <= Transaction::MAX_WRITES, "{stopped} stopped in {} writes", writes.len());
}

/// The agent of a warm machine powers off after twelve hours, which would count as a failure.
#[test]
fn a_warm_machine_is_replaced_before_its_agent_gives_up() {
    let pool = |max_life: &str| {
        let mut pool = Pool { warm: 1, ..common::pool() };
        pool.timings.max_life = max_life.parse().expect("a time");
        pool
    };
    let replaced = |max_life: &str, hours: i64| {
        let warm = common::slot("launched", hours * 3600, serde_json::json!({ "wanted": false }));
        let decision = decide(&pool(max_life), &common::view([Item::from(warm)]), &common::turn());
        decision.is_some_and(|it| it.slots.iter().any(|slot| slot.stop.is_some()))
    };
    assert!(!replaced("48h", 10) && replaced("48h", 11), "the agent waits for twelve hours");
    assert!(!replaced("8h", 3) && replaced("8h", 4), "a job that starts now may outlast the machine");
}

/// The slots whose machines are kept stopped.
fn aside(view: &PoolView) -> impl Iterator<Item = &Slot> {
    view.slots.values().filter(|slot| slot.is_set_aside() && slot.stop.is_none())
}

proptest! {
    #[test]
    fn deciding_ends_and_adds_no_more_than_is_needed(pool in pools(), jobs in jobs(), slots in slots()) {
        let items = jobs.into_iter().map(Item::from).chain(slots.into_iter().map(Item::from));
        let mut meta = Meta::new(pool.name.clone(), "e1".parse().expect("an epoch"));
        meta.revision = 1;
        let mut view = PoolView::new(meta, items);
        let lease = noon() + SignedDuration::from_secs(90);
        let turn = Turn { now: noon(), lease, cause: Cause::Invocation("test".to_owned()) };
        let kept = if pool.draining { (0, 0) } else { (pool.warm as usize, pool.stopped as usize) };
        let warm = kept.0 + kept.1;
        for round in 0.. {
            let Some(decision) = decide(&pool, &view, &turn) else { break };
            prop_assert!(round < 64, "deciding does not end: {decision:?}");
            // Those that are set aside and too many are ended.
            let (supply, live) = (view.supply(noon()).count() + aside(&view).count().min(kept.1), view.live());
            // Also by a machine that can be stopped, if machines are to be kept stopped.
            let is_spare = |slot: &Slot| kept.1 > 0 && !slot.wanted && !is_stoppable(slot);
            let is_replaced = |slot: &&Slot| {
                slot.stop.as_ref().is_some_and(|stop| stop.why == StopReason::Recycled || is_spare(slot))
            };
            let replaced = decision.slots.iter().filter(is_replaced).count();
            let writes: Transaction = decision.transaction(&turn);
            prop_assert!(writes.len() <= Transaction::MAX_WRITES);
            let keys: BTreeSet<_> = writes.puts.iter().map(Item::key).collect();
            prop_assert_eq!(keys.len(), writes.puts.len(), "a slot is both wanted and stopped");
            view.apply(&writes);
            let (now, added) = (view.supply(noon()).count(), view.live() - live);
            prop_assert!(added == 0 || now <= view.demand(noon()) + warm, "S3: {now} for {} + {warm}", view.demand(noon()));
            prop_assert!(added == 0 || view.live() <= pool.max as usize, "S3: {} of {}", view.live(), pool.max);
            prop_assert!(added == 0 || !pool.paused, "a paused pool launches");
            // What is set aside is no supply any more, and is not lost.
            let has = now + aside(&view).count();
            let is_enough = has + replaced >= supply || has + replaced >= view.demand(noon()) + warm;
            prop_assert!(is_enough, "a slot that is needed was stopped: {supply}, then {now} and {has} for {} and {kept:?}, {replaced} replaced", view.demand(noon()));
        }
        let held_back = aside(&view).count();
        prop_assert!(held_back <= kept.1, "{held_back} are set aside instead of {}", kept.1);
        for slot in aside(&view).filter(|slot| slot.id.version > 1 || slot.revision > 1) {
            let is_on_demand = slot.warm_as.as_ref().is_some_and(|tuple| tuple.market == Market::OnDemand);
            prop_assert!(is_on_demand && slot.boot.is_some() && !slot.wanted, "it cannot be stopped: {slot:?}");
        }
        for job in view.waiting.values() {
            let recent = job.launches.iter().filter(|at| noon().duration_since(**at) < pool.timings.relaunch_window.duration()).count();
            prop_assert!(recent <= RELAUNCH_LIMIT, "S6: {job:?}");
        }
        // Every open job has a wanted slot, unless the pool is full or a job's launches are used up.
        let wanted = view.supply(noon()).filter(|slot| slot.wanted).count();
        let full = view.live() >= pool.max as usize;
        let spent = view.waiting.values().any(|job| job.open && job.launches.len() >= RELAUNCH_LIMIT);
        // As many machines are kept as the pool asks for.
        let (has, needs) = (view.supply(noon()).count() + held_back, view.demand(noon()) + warm);
        prop_assert!(has >= needs || full || spent || pool.paused, "{has} slots for {needs}");
        prop_assert!(wanted >= view.demand(noon()) || full || spent || pool.paused, "{wanted} wanted for {}", view.demand(noon()));
    }
}

/// One class of a pool with shapes, or None for jobs without a shape.
fn class() -> impl Strategy<Value = Option<Label>> {
    let labels = ["linux/2cpu", "linux/8cpu", "linux/8cpu/arm64"];
    select(vec![0, 1, 2, 3])
        .prop_map(move |index: usize| labels.get(index).map(|label| label.parse().expect("a label")))
}

proptest! {
    #[test]
    fn each_class_gets_what_it_needs_and_no_more(
        pool in pools(),
        jobs in jobs(),
        slots in slots(),
        of_jobs in prop::collection::vec(class(), 120),
        of_slots in prop::collection::vec(class(), 60),
        cap in prop::option::of(100_000..2_000_000_u64),
    ) {
        let price_per_hour = cap.map(MicroUsd);
        let Pool { max, draining, warm, stopped, paused, .. } = pool;
        let pool = Pool { max, draining, warm, stopped, paused, price_per_hour, ..shapes::pool() };
        // As a warm machine of the smallest shape is launched.
        let smallest = for_class(&pool, None, &Meta::new(pool.name.clone(), "e1".parse().expect("an epoch")));
        let smallest = smallest.launch_options().into_iter().next().expect("an option");
        let priced = |slot: Slot| Slot {
            class: if slot.is_set_aside() { None } else { slot.class.clone() },
            warm_as: (slot.is_set_aside() || slot.class.is_none() && !slot.wanted).then(|| Box::new(Tuple { market: Market::OnDemand, ..smallest.tuple.clone() })),
            price_per_hour: smallest.price_per_hour,
            ..slot
        };
        let jobs = jobs.into_iter().zip(of_jobs).map(|(job, class)| Item::from(WaitingJob { class, ..job }));
        let slots = slots.into_iter().zip(of_slots).map(|(slot, class)| Item::from(priced(Slot { class, ..slot })));
        let mut meta = Meta::new(pool.name.clone(), "e1".parse().expect("an epoch"));
        meta.revision = 1;
        let mut view = PoolView::new(meta, jobs.chain(slots));
        let lease = noon() + SignedDuration::from_secs(90);
        let turn = Turn { now: noon(), lease, cause: Cause::Invocation("test".to_owned()) };
        for round in 0.. {
            let Some(decision) = decide(&pool, &view, &turn) else { break };
            prop_assert!(round < 64, "deciding does not end: {decision:?}");
            let (live, cost) = (view.live(), view.price_per_hour());
            let launched = decision.batch.as_ref().map(|batch| batch.class.clone());
            prop_assert!(decision.slots.iter().all(|slot| {
                launched.is_none() || slot.id.version == 1 || Some(&slot.class) == launched.as_ref()
            }), "a launch is for one class");
            let writes: Transaction = decision.transaction(&turn);
            prop_assert!(writes.len() <= Transaction::MAX_WRITES);
            view.apply(&writes);
            let Some(class) = launched else { continue };
            let part = view.of_class(class.as_ref());
            let warm = if class.is_some() || pool.draining { 0 } else { (pool.warm + pool.stopped) as usize };
            let (supply, demand) = (part.supply(noon()).count(), part.demand(noon()));
            prop_assert!(supply <= demand + warm, "S3: {supply} for {demand} of {class:?}");
            prop_assert!(view.live() <= pool.max as usize || view.live() == live, "S3: {} of {}", view.live(), pool.max);
            let (now, cap) = (view.price_per_hour(), pool.price_per_hour);
            prop_assert!(now == cost || cap.is_none_or(|cap| now <= cap), "S10: {now} of {cap:?}");
        }
        // The dearest machine of the catalogue costs 0.41 USD.
        let is_dear = pool.price_per_hour.is_some_and(|cap| view.price_per_hour() + MicroUsd(410_000) > cap);
        let full = view.live() >= pool.max as usize || is_dear;
        let stops = |slot: &Slot| slot.stop.is_some() && slot.is_live();
        let is_ending = view.slots.values().any(stops);
        // A machine that GitHub shows as busy runs a job that Drover does not know, and one that is about to be stopped can be
        // started for a job in a moment.
        let is_unneeded = |slot: &&Slot| slot.class.is_none() && !slot.wanted && slot.stop.is_none() && !slot.held && slot.is_live()
            && slot.busy_seen_at.is_none()
            && (matches!(slot.state, SlotState::Launched(_)) || slot.is_ready(noon()));
        for class in view.classes() {
            let part = view.of_class(class);
            prop_assert_eq!(part.live(), view.live(), "max is one for all");
            let wanted = part.supply(noon()).filter(|slot| slot.wanted).count();
            let spent = part.waiting.values().any(|job| job.open && job.launches.len() >= RELAUNCH_LIMIT);
            let is_served = wanted >= part.demand(noon());
            prop_assert!(is_served || full || spent || pool.paused, "{class:?}: {wanted} wanted");
            let keeps_room = class.is_some() && view.slots.values().any(|slot| is_unneeded(&slot));
            prop_assert!(is_served || spent || pool.paused || is_ending || !keeps_room, "{class:?} waits beside warm machines");
        }
    }
}
