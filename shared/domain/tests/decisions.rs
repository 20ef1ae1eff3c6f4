//! For every pool, deciding ends, and each decision keeps the invariants.

mod common;

use std::collections::BTreeSet;

use common::{ago, noon};
use domain::config::Pool;
use domain::ids::{JobId, RunnerId, SlotId};
use domain::log::{Cause, Transaction, Turn};
use domain::policy::PoolView;
use domain::policy::charge::RELAUNCH_LIMIT;
use domain::policy::decide::decide;
use domain::state::{Item, Lease, Machine, Meta, Runner, Slot, SlotState, StopReason, WaitingJob};
use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::sample::select;

fn pools() -> impl Strategy<Value = Pool> {
    let marks = (any::<bool>(), prop::bool::weighted(0.2));
    (0..60u32, 0..6u32, marks).prop_map(|(max, warm, (draining, paused))| Pool {
        max,
        warm,
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

fn slots() -> impl Strategy<Value = Vec<Slot>> {
    let slot = (0..6usize, any::<bool>(), any::<bool>(), 0..600i64, select(vec![None, Some(10), Some(400)]));
    prop::collection::vec(slot, 0..60).prop_map(|slots| {
        slots
            .into_iter()
            .enumerate()
            .map(|(index, (state, wanted, stopped, age, busy_seen))| {
                let machine = Machine { instance: format!("i-{index:08x}").as_str().into(), launched_at: ago(age) };
                let runner = Runner {
                    runner_id: RunnerId(index as u64 + 1),
                    runner_name: format!("runner-{index}"),
                    configured_at: ago(age),
                    runner_group: None,
                };
                let job = JobId(9000 + index as u64);
                let slot = Slot {
                    id: SlotId { version: 1, index: index as u8 },
                    pool: "linux".parse().expect("a pool"),
                    state: match state {
                        0 => SlotState::Planned,
                        1 => SlotState::Launched(machine),
                        2 => SlotState::Configured { machine, runner },
                        3 => SlotState::Online { machine, runner, online_at: ago(age) },
                        4 => SlotState::Busy { machine, runner, job },
                        _ => SlotState::Done { machine, runner, job, done_at: ago(age) },
                    },
                    wanted: wanted || state > 1,
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
                    held: false,
                    lease: Lease::due(noon()),
                    revision: 1,
                };
                if stopped { slot.stopped(StopReason::Surplus, ago(age), noon()) } else { slot }
            })
            .collect()
    })
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
        let warm = if pool.draining { 0 } else { pool.warm as usize };
        for round in 0.. {
            let Some(decision) = decide(&pool, &view, &turn) else { break };
            prop_assert!(round < 64, "deciding does not end: {decision:?}");
            let (supply, live) = (view.supply(noon()).count(), view.live());
            let writes: Transaction = decision.transaction(&turn);
            prop_assert!(writes.len() <= Transaction::MAX_WRITES);
            let keys: BTreeSet<_> = writes.puts.iter().map(Item::key).collect();
            prop_assert_eq!(keys.len(), writes.puts.len(), "a slot is both wanted and stopped");
            view.apply(&writes);
            let (now, added) = (view.supply(noon()).count(), view.live() - live);
            prop_assert!(added == 0 || now <= view.demand(noon()) + warm, "S3: {now} for {} + {warm}", view.demand(noon()));
            prop_assert!(added == 0 || view.live() <= pool.max as usize, "S3: {} of {}", view.live(), pool.max);
            prop_assert!(added == 0 || !pool.paused, "a paused pool launches");
            prop_assert!(now >= supply || now >= view.demand(noon()) + warm, "a slot that is needed was stopped");
        }
        for job in view.waiting.values() {
            let recent = job.launches.iter().filter(|at| noon().duration_since(**at) < pool.timings.relaunch_window.duration()).count();
            prop_assert!(recent <= RELAUNCH_LIMIT, "S6: {job:?}");
        }
        // Every open job has a wanted slot, unless the pool is full or a job's launches are used up.
        let wanted = view.supply(noon()).filter(|slot| slot.wanted).count();
        let full = view.live() >= pool.max as usize;
        let spent = view.waiting.values().any(|job| job.open && job.launches.len() >= RELAUNCH_LIMIT);
        prop_assert!(wanted >= view.demand(noon()) || full || spent || pool.paused, "{wanted} wanted for {}", view.demand(noon()));
    }
}
