//! The state of a slot: when it is supply, idle or over, and which effect is due, each at the exact moment.

mod common;

use common::{ago, job, later, noon, pool, slot, turn, view};
use domain::ids::{JobId, SlotId};
use domain::log::{Stream, Transaction, What};
use domain::policy::decide::decide;
use domain::policy::due::{Effect, due, is_being_retired, lease_of, next_effect};
use domain::policy::observe::{Observation, record_observations};
use domain::policy::retry::{Failure, backoff, next_attempt, throttle_backoff};
use domain::state::{Item, Slot, SlotOutcome, SlotState, StopReason, Unserved, WaitingJob};
use jiff::SignedDuration;
use serde_json::json;

#[test]
fn a_slot_is_supply_until_it_is_stopped_or_has_a_job() {
    for state in ["planned", "launched", "configured", "online"] {
        assert!(slot(state, 10, json!({})).is_supply(noon()), "{state}");
        assert!(!slot(state, 10, json!({ "stop": { "why": "surplus", "at": ago(1) } })).is_supply(noon()), "{state}");
    }
    for state in ["busy", "done"] {
        assert!(!slot(state, 10, json!({})).is_supply(noon()), "{state}");
    }
    // Busy without a webhook: for half a minute it counts as busy with a job of the pool, then as busy with another job. The
    // report is trusted for five minutes.
    for (seen, since, supply) in [(0, 0, true), (0, 29, true), (0, 30, false), (299, 330, false), (300, 330, true)] {
        let slot = slot("online", 400, json!({ "busy_seen_at": ago(seen), "busy_since": ago(since) }));
        assert_eq!(slot.is_supply(noon()), supply, "seen {seen} s ago, busy for {since} s");
        assert_eq!(slot.is_observed_busy(noon()), seen < 300);
    }
    // Gone without a webhook: the end of its job may be reported within half a minute.
    for (state, gone, unknown) in [
        ("configured", 29, true),
        ("online", 29, true),
        ("online", 30, false),
        ("launched", 1, false),
        ("busy", 1, false),
    ] {
        let slot = slot(state, 60, json!({ "gone_at": ago(gone) }));
        assert_eq!((slot.awaits_report(noon()), slot.is_supply(noon())), (unknown, unknown), "{state} {gone}");
        assert!(!slot.is_live());
    }
    // A held machine receives no runner, but keeps the one that it has.
    assert!(!slot("launched", 10, json!({ "held": true })).is_supply(noon()));
    assert!(slot("online", 10, json!({ "held": true })).is_supply(noon()));
}

#[test]
fn busy_counts_from_the_first_of_consecutive_reports() {
    let again = slot("online", 400, json!({ "busy_seen_at": ago(299), "busy_since": ago(310) })).observed_busy(noon());
    assert_eq!((again.busy_seen_at, again.busy_since), (Some(noon()), Some(ago(310))));
    let anew = slot("online", 400, json!({ "busy_seen_at": ago(300), "busy_since": ago(310) })).observed_busy(noon());
    assert_eq!(anew.busy_since, Some(noon()), "the earlier report was not trusted any more");
}

#[test]
fn a_slot_is_idle_since_its_state_began() {
    for state in ["launched", "configured", "online", "done"] {
        assert_eq!(slot(state, 77, json!({})).idle_since(), ago(77), "{state}");
    }
    assert_eq!(slot("planned", 77, json!({})).idle_since(), ago(3600));
    assert_eq!(slot("launched", 4000, json!({})).idle_since(), ago(3600), "not before it was planned");
    assert_eq!(slot("online", 77, json!({})).online_at(), Some(ago(77)));
    assert_eq!(slot("configured", 77, json!({})).online_at(), None);
}

#[test]
fn a_failed_call_is_repeated_when_the_limit_ends_or_after_a_pause() {
    let next = |failure| next_attempt(failure, noon(), SignedDuration::from_secs(30));
    assert_eq!(next(Failure::Limited { until: later(600) }), later(600));
    assert_eq!((next(Failure::Refused), next(Failure::Unavailable)), (later(30), later(30)));
}

#[test]
fn a_registration_begins_for_a_machine_that_is_up_and_wanted() {
    let begun = |slot: Slot| slot.begin_registration_if_wanted(later(90)).registration;
    let up = |wanted: bool| common::slot("launched", 60, json!({ "wanted": wanted, "registration": 1 }));
    assert_eq!((begun(up(true)), begun(up(false))), (2, 1));
    assert_eq!(begun(common::slot("online", 60, json!({}))), 1, "it has one");
}

#[test]
fn a_slot_is_over_when_its_machine_and_its_registration_are_gone() {
    let gone = json!({ "gone_at": ago(1) });
    let both = json!({ "gone_at": ago(1), "unregistered_at": ago(1) });
    for state in ["configured", "online", "done"] {
        assert!(!slot(state, 9, json!({ "unregistered_at": ago(1) })).is_over(), "{state}");
        assert!(!slot(state, 9, gone.clone()).is_over() && slot(state, 9, both.clone()).is_over(), "{state}");
    }
    assert!(!slot("launched", 9, gone.clone()).is_over(), "it may have been registered");
    assert!(slot("launched", 9, json!({ "gone_at": ago(1), "registration": 0 })).is_over());
    assert!(slot("launched", 9, both.clone()).is_over());
    assert!(!slot("busy", 9, both).is_over(), "the end of its job is not known");
    assert!(slot("busy", 9, json!({ "gone_at": ago(1), "unregistered_at": ago(1), "lost_sight": true })).is_over());
    let stopped = json!({ "gone_at": ago(1), "stop": { "why": "surplus", "at": ago(1) } });
    assert!(slot("planned", 9, stopped).is_over() && !slot("planned", 9, gone).is_over());

    let stop = |state: &str, why: &str| slot(state, 9, json!({ "stop": { "why": why, "at": ago(1) } })).outcome();
    assert_eq!(stop("done", "surplus"), SlotOutcome::JobDone);
    assert_eq!(stop("online", "surplus"), SlotOutcome::Stopped(StopReason::Surplus));
    assert_eq!(slot("planned", 9, json!({})).outcome(), SlotOutcome::NeverLaunched);
    assert_eq!(slot("online", 9, json!({})).outcome(), SlotOutcome::InstanceLost);
    for (why, abnormal) in [("boot_failure", true), ("disconnected", true), ("surplus", false), ("operator", false)] {
        assert_eq!(stop("online", why).is_abnormal(), abnormal, "{why}");
    }
    assert!(SlotOutcome::InstanceLost.is_abnormal() && !SlotOutcome::JobDone.is_abnormal());
}

#[test]
fn the_next_effect_follows_from_the_state_of_the_slot() {
    let id = SlotId { version: 4, index: 0 };
    let stop = |why: &str| json!({ "stop": { "why": why, "at": ago(1) } });
    assert_eq!(next_effect(&slot("planned", 9, json!({}))), None);
    assert_eq!(next_effect(&slot("launched", 9, json!({}))), Some(Effect::Register(id)));
    assert_eq!(next_effect(&slot("launched", 9, json!({ "wanted": false }))), None);
    assert_eq!(next_effect(&slot("launched", 9, json!({ "held": true }))), None);
    for state in ["launched", "configured", "online"] {
        assert_eq!(next_effect(&slot(state, 9, stop("surplus"))), Some(Effect::Retire(id)), "{state}");
    }
    for (why, retired) in [("surplus", false), ("halted", true), ("max_life", true), ("interrupted", false)] {
        assert_eq!(is_being_retired(&slot("busy", 9, stop(why))), retired, "{why}");
    }
    assert_eq!(next_effect(&slot("busy", 9, json!({ "gone_at": ago(1) }))), Some(Effect::CheckLostJob(id)));
    assert_eq!(next_effect(&slot("busy", 9, json!({ "gone_at": ago(1), "lost_sight": true }))), None);
    assert_eq!(
        next_effect(&slot("online", 9, json!({ "gone_at": ago(1), "stop": { "why": "surplus", "at": ago(1) } }))),
        None
    );

    let due_at = |seconds: i64| {
        let slot = slot("launched", 9, json!({ "next_at": later(seconds) }));
        due(&pool(), &view([slot.into()]), None, noon()).effects
    };
    assert_eq!((due_at(0), due_at(1)), (vec![Effect::Register(id)], Vec::new()));
}

#[test]
fn after_a_machine_ended_without_a_report_the_longest_waiting_jobs_are_checked() {
    let waiting = |id: u64, queued: i64| Item::from(WaitingJob { id: JobId(id), ..job(queued) });
    let gone = slot("online", 60, json!({ "gone_at": ago(5) }));
    let items = [waiting(1, 50), waiting(2, 90), waiting(3, 70), gone.into()];
    assert_eq!(
        due(&pool(), &view(items.clone()), None, noon()).effects,
        [Effect::Check(JobId(2)), Effect::Check(JobId(3))]
    );
    assert_eq!(view(items.clone()).supply(noon()).count(), 1, "it may have run one of them");
    let asked = items.map(|item| match item {
        Item::Waiting(job) => WaitingJob { checked_at: ago(4), ..job }.into(),
        other => other,
    });
    assert_eq!(due(&pool(), &view(asked.clone()), None, noon()).effects, [], "they were checked since");
    assert_eq!(view(asked).supply(noon()).count(), 0, "it ran none of them");
}

#[test]
fn a_back_off_doubles_to_its_maximum_and_varies_by_a_quarter() {
    let pool = pool();
    for (tries, most) in [(0, 30), (1, 60), (2, 120), (5, 960), (6, 1800), (40, 1800)] {
        for subject in ["a", "b", "4.0"] {
            let wait = backoff(&pool, tries, subject);
            assert!(wait.as_secs_f64() <= most as f64 && wait.as_secs_f64() >= 0.75 * most as f64, "{tries}: {wait:?}");
            assert_eq!(wait, backoff(&pool, tries, subject), "the same each time");
        }
    }
    let spread = |tries| ["a", "b", "c", "d"].map(|subject| backoff(&pool, tries, subject));
    assert!(
        spread(3).iter().any(|wait| *wait != spread(3)[0]),
        "attempts that failed together are not repeated together"
    );
    for (times, most) in [(1, 2.0), (2, 4.0), (3, 8.0), (4, 10.0), (30, 10.0)] {
        let wait = throttle_backoff(times, "linux.e1.4.1").as_secs_f64();
        assert!((0.75 * most..=most).contains(&wait), "{times}: {wait}");
    }
}

#[test]
fn a_state_only_advances() {
    let (online, done) = (slot("online", 9, json!({})).state, slot("done", 9, json!({})).state);
    assert_eq!(SlotState::advanced(&online, done.clone()), Some(done.clone()));
    assert_eq!(SlotState::advanced(&done, online.clone()), None);
    assert_eq!(SlotState::advanced(&online, online.clone()), None);
}

#[test]
fn a_transaction_counts_every_write_of_dynamodb() {
    let writes = Transaction::new().put(job(1)).put(slot("online", 9, json!({}))).delete(job(2));
    assert_eq!((writes.len(), writes.is_empty(), Transaction::new().is_empty()), (3, false, true));
    let boot = json!({ "jit_config": "c", "max_life_seconds": 60, "repositories": [], "expires_at": 0 });
    let what = What::Unregistered { slot: SlotId { version: 4, index: 0 }, others: Vec::new() };
    let all = writes.put_boot_item("k".to_owned(), serde_json::from_value(boot).expect("a boot item")).emit(
        Stream::Stack,
        what,
        &turn(),
    );
    assert_eq!(all.len(), 5, "a boot item and an event are one write each");
}

#[test]
fn an_observation_that_a_newer_reading_is_past_changes_nothing() {
    let changes = |slot: Slot, seen: fn(SlotId) -> Observation| {
        let (read, seen) = (view([slot.clone().into()]), seen(slot.id));
        record_observations(&pool(), &read, &[seen], &turn()).is_some()
    };
    let ended = || slot("launched", 60, json!({ "gone_at": ago(9), "unregistered_at": ago(9) }));
    assert!(changes(slot("configured", 60, json!({})), Observation::Online));
    assert!(!changes(slot("busy", 60, json!({})), Observation::Online), "a slot never goes back");
    assert!(changes(slot("busy", 60, json!({})), Observation::Gone) && !changes(ended(), Observation::Gone));
    assert!(!changes(ended(), Observation::Unregistered));
}

#[test]
fn a_slot_that_a_later_decision_stops_is_not_registered() {
    let wanted = slot("launched", 60, json!({}));
    let register = Effect::Register(wanted.id);
    assert_eq!(lease_of(&view([wanted.clone().into()]), register), Some(wanted.lease));
    let stopped = wanted.clone().stopped(StopReason::Surplus, noon(), later(90));
    let (id, lease) = (stopped.id, stopped.lease);
    let read = view([stopped.into()]);
    assert_eq!((lease_of(&read, register), lease_of(&read, Effect::Retire(id))), (None, Some(lease)));
    assert_eq!((lease_of(&view([]), register), lease_of(&view([]), Effect::Launch(4))), (None, None));
}

#[test]
fn jobs_that_no_runner_gets_do_not_keep_an_idle_machine_in_turn() {
    let pool = pool();
    let until = |id, until| {
        let unserved = Some(Unserved { since: ago(900), until, seconds: 60 });
        Item::from(WaitingJob { id: JobId(id), unserved, ..job(1800) })
    };
    let idle = slot("online", 600, json!({ "wanted": true }));
    // The first job has been demand again since a second ago, the second one will be later.
    let mut read = view([idle.clone().into(), until(1, ago(1)), until(2, later(30))]);
    read.meta.config_hash = pool.config_hash();
    let decision = decide(&pool, &read, &turn()).expect("a decision");
    assert_eq!(decision.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [JobId(1)], "passed over again");
    let stopped = decision.slots.iter().filter(|slot| slot.stop.is_some()).map(|slot| slot.id);
    assert_eq!(stopped.collect::<Vec<_>>(), [idle.id], "no job needs the machine");
}
