//! What a slot is worth, what is next_effect to it and what its job's author is told, each from its moment on and not before.

mod common;

use common::pool;
use domain::config::Market;
use domain::ids::{JobId, SlotId};
use domain::log::{Cause, Stream, Transaction, Turn, What};
use domain::policy::PoolView;
use domain::policy::due::{Effect, due, is_being_retired, next_effect};
use domain::policy::notify::{Notification, due_notification, reasons, summary, title};
use domain::policy::retry::{backoff, throttle_backoff};
use domain::state::{
    CheckRun, Circuit, CircuitCause, Item, Meta, Pause, Slot, SlotOutcome, SlotState, Stage, StopReason, Throttle,
    Unserved, WaitingJob,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

fn noon() -> Timestamp {
    "2026-11-02T12:00:00Z".parse().expect("a time")
}

fn ago(seconds: i64) -> Timestamp {
    noon() - SignedDuration::from_secs(seconds)
}

/// A slot in that state, entered so many seconds ago, and whatever else is said of it.
fn slot(state: &str, since: i64, more: Value) -> Slot {
    let at = ago(since);
    let mut all = json!({
        "id": "4.0", "pool": "linux", "state": state, "wanted": true, "planned_at": ago(3600), "registration": 1,
        "next_at": noon(), "revision": 1, "instance": "i-1", "launched_at": at, "runner_id": 7, "runner_name": "r",
        "configured_at": at, "online_at": at, "job": 5, "done_at": at,
    });
    let fields = all.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    serde_json::from_value(all).expect("a slot")
}

fn job(queued: i64) -> WaitingJob {
    WaitingJob {
        id: JobId(5),
        pool: pool().name,
        repository: "octo/widgets".parse().expect("a repository"),
        queued_at: ago(queued),
        open: true,
        check_at: noon() + SignedDuration::from_secs(60),
        checked_at: ago(queued),
        launches: Vec::new(),
        opened_at: None,
        unserved: None,
        revision: 1,
    }
}

fn view(items: impl IntoIterator<Item = Item>) -> PoolView {
    PoolView::new(Meta::new(pool().name, "e1".parse().expect("an epoch")), items)
}

#[test]
fn a_slot_is_supply_until_it_has_a_job_or_is_lost_to_one() {
    for state in ["planned", "launched", "configured", "online"] {
        assert!(slot(state, 10, json!({})).is_supply(noon()), "{state}");
        assert!(!slot(state, 10, json!({ "stop": { "why": "surplus", "at": ago(1) } })).is_supply(noon()), "{state}");
    }
    for state in ["busy", "done"] {
        assert!(!slot(state, 10, json!({})).is_supply(noon()), "{state}");
    }
    // Busy without a word: believed for half a minute to have one of ours, then for five minutes to have another's.
    for (seen, since, supply) in [(0, 0, true), (0, 29, true), (0, 30, false), (299, 330, false), (300, 330, true)] {
        let slot = slot("online", 400, json!({ "busy_seen_at": ago(seen), "busy_since": ago(since) }));
        assert_eq!(slot.is_supply(noon()), supply, "seen {seen} s ago, busy for {since} s");
        assert_eq!(slot.is_observed_busy(noon()), seen < 300);
    }
    // Gone without a word: its job's end may be on its way for half a minute.
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
    // A held machine is given no runner; one that has one keeps it.
    assert!(!slot("launched", 10, json!({ "held": true })).is_supply(noon()));
    assert!(slot("online", 10, json!({ "held": true })).is_supply(noon()));
}

#[test]
fn busy_is_counted_from_the_first_of_the_readings_that_followed_each_other() {
    let again = slot("online", 400, json!({ "busy_seen_at": ago(299), "busy_since": ago(310) })).observed_busy(noon());
    assert_eq!((again.busy_seen_at, again.busy_since), (Some(noon()), Some(ago(310))));
    let anew = slot("online", 400, json!({ "busy_seen_at": ago(300), "busy_since": ago(310) })).observed_busy(noon());
    assert_eq!(anew.busy_since, Some(noon()), "it was not believed any more in between");
}

#[test]
fn a_slot_is_idle_since_it_came_to_be_as_it_is() {
    for state in ["launched", "configured", "online", "done"] {
        assert_eq!(slot(state, 77, json!({})).idle_since(), ago(77), "{state}");
    }
    assert_eq!(slot("planned", 77, json!({})).idle_since(), ago(3600));
    assert_eq!(slot("launched", 4000, json!({})).idle_since(), ago(3600), "not before it was decided");
    assert_eq!(slot("online", 77, json!({})).online_at(), Some(ago(77)));
    assert_eq!(slot("configured", 77, json!({})).online_at(), None);
}

#[test]
fn a_slot_is_over_when_neither_ec2_nor_github_has_anything_of_it() {
    let gone = json!({ "gone_at": ago(1) });
    let both = json!({ "gone_at": ago(1), "unregistered_at": ago(1) });
    for state in ["configured", "online", "done"] {
        assert!(!slot(state, 9, json!({ "unregistered_at": ago(1) })).is_over(), "{state}");
        assert!(!slot(state, 9, gone.clone()).is_over() && slot(state, 9, both.clone()).is_over(), "{state}");
    }
    assert!(!slot("launched", 9, gone.clone()).is_over(), "it may have been registered");
    assert!(slot("launched", 9, json!({ "gone_at": ago(1), "registration": 0 })).is_over());
    assert!(slot("launched", 9, both.clone()).is_over());
    assert!(!slot("busy", 9, both).is_over(), "what became of its job is not known");
    assert!(
        slot("busy", 9, json!({ "gone_at": ago(1), "unregistered_at": ago(1), "job_check_ended": true })).is_over()
    );
    let stopped = json!({ "gone_at": ago(1), "stop": { "why": "surplus", "at": ago(1) } });
    assert!(slot("planned", 9, stopped).is_over() && !slot("planned", 9, gone).is_over());

    let stop = |state: &str, why: &str| slot(state, 9, json!({ "stop": { "why": why, "at": ago(1) } })).outcome();
    assert_eq!(stop("done", "surplus"), SlotOutcome::JobDone);
    assert_eq!(stop("online", "surplus"), SlotOutcome::Stopped(StopReason::Surplus));
    assert_eq!(slot("planned", 9, json!({})).outcome(), SlotOutcome::NeverLaunched);
    assert_eq!(slot("online", 9, json!({})).outcome(), SlotOutcome::InstanceLost);
    for (why, untoward) in [("boot_failure", true), ("disconnected", true), ("surplus", false), ("operator", false)] {
        assert_eq!(stop("online", why).is_abnormal(), untoward, "{why}");
    }
    assert!(SlotOutcome::InstanceLost.is_abnormal() && !SlotOutcome::JobDone.is_abnormal());
}

#[test]
fn what_is_owed_to_a_slot_follows_from_how_far_it_is() {
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
    assert_eq!(next_effect(&slot("busy", 9, json!({ "gone_at": ago(1), "job_check_ended": true }))), None);
    assert_eq!(
        next_effect(&slot("online", 9, json!({ "gone_at": ago(1), "stop": { "why": "surplus", "at": ago(1) } }))),
        None
    );

    let due_at = |seconds: i64| {
        let slot = slot("launched", 9, json!({ "next_at": noon() + SignedDuration::from_secs(seconds) }));
        due(&pool(), &view([slot.into()]), noon())
    };
    assert_eq!((due_at(0), due_at(1)), (vec![Effect::Register(id)], Vec::new()));
}

#[test]
fn a_machine_that_went_away_has_the_longest_waiting_jobs_asked_about() {
    let waiting = |id: u64, queued: i64| Item::from(WaitingJob { id: JobId(id), ..job(queued) });
    let gone = slot("online", 60, json!({ "gone_at": ago(5) }));
    let items = [waiting(1, 50), waiting(2, 90), waiting(3, 70), gone.into()];
    assert_eq!(due(&pool(), &view(items.clone()), noon()), [Effect::Check(JobId(2)), Effect::Check(JobId(3))]);
    assert_eq!(view(items.clone()).supply(noon()).count(), 1, "one of them may have been its");
    let asked = items.map(|item| match item {
        Item::Waiting(job) => WaitingJob { checked_at: ago(4), ..job }.into(),
        other => other,
    });
    assert_eq!(due(&pool(), &view(asked.clone()), noon()), [], "they were asked about since");
    assert_eq!(view(asked).supply(noon()).count(), 0, "none of them was");
}

#[test]
fn a_back_off_doubles_to_its_most_and_spreads_by_a_quarter() {
    let pool = pool();
    for (tries, most) in [(0, 30), (1, 60), (2, 120), (5, 960), (6, 1800), (40, 1800)] {
        for subject in ["a", "b", "4.0"] {
            let wait = backoff(&pool, tries, subject);
            assert!(wait.as_secs_f64() <= most as f64 && wait.as_secs_f64() >= 0.75 * most as f64, "{tries}: {wait:?}");
            assert_eq!(wait, backoff(&pool, tries, subject), "the same each time");
        }
    }
    let spread = |tries| ["a", "b", "c", "d"].map(|subject| backoff(&pool, tries, subject));
    assert!(spread(3).iter().any(|wait| *wait != spread(3)[0]), "what failed together is not tried together");
    for (times, most) in [(1, 2.0), (2, 4.0), (3, 8.0), (4, 10.0), (30, 10.0)] {
        let wait = throttle_backoff(times, "linux.e1.4.1").as_secs_f64();
        assert!((0.75 * most..=most).contains(&wait), "{times}: {wait}");
    }
}

#[test]
fn an_author_is_told_after_the_pools_patience_once_a_stage_and_when_it_is_over() {
    let check = |published: Option<Stage>, next_at: Timestamp| {
        let value = json!({ "job": 5, "pool": "linux", "repository": "octo/widgets", "head_sha": "a", "tries": 1,
            "next_at": next_at, "revision": 1 });
        CheckRun { published, ..serde_json::from_value(value).expect("a check run") }
    };
    let due = |queued: i64, check: Option<CheckRun>| {
        let items = [Item::from(job(queued))].into_iter().chain(check.map(Item::from));
        due_notification(&pool(), &view(items), JobId(5), noon())
    };
    assert_eq!(due(899, None), None);
    assert_eq!(due(900, None), Some(Notification::Stage(Stage::Waiting)));
    assert_eq!(due(3600, None), Some(Notification::Stage(Stage::Failed)));
    assert_eq!(due(3599, Some(check(Some(Stage::Waiting), noon()))), None, "it was told");
    assert_eq!(due(3600, Some(check(Some(Stage::Waiting), noon()))), Some(Notification::Stage(Stage::Failed)));
    assert_eq!(due(900, Some(check(None, noon()))), Some(Notification::Stage(Stage::Waiting)), "it could not be told");
    assert_eq!(due(900, Some(check(None, noon() + SignedDuration::from_secs(1)))), None, "somebody is at it");
    let gated = WaitingJob { open: false, ..job(5000) };
    assert_eq!(due_notification(&pool(), &view([gated.into()]), JobId(5), noon()), None, "a person knows");
    let opened = WaitingJob { opened_at: Some(ago(899)), ..job(5000) };
    assert_eq!(
        due_notification(&pool(), &view([opened.into()]), JobId(5), noon()),
        None,
        "its wait began with its gate"
    );
    let over = view([check(Some(Stage::Waiting), noon()).into()]);
    assert_eq!(due_notification(&pool(), &over, JobId(5), noon()), Some(Notification::Over));
    assert_eq!(due_notification(&pool(), &view([]), JobId(5), noon()), None);

    let waited = SignedDuration::from_mins(61);
    let failed = Notification::Stage(Stage::Failed);
    let reasons = ["no room".to_owned()];
    let summary = summary(&pool(), failed, &reasons, waited);
    assert_eq!(title(failed, &reasons, waited), "No machine for 61 minutes: no room");
    assert!(summary.contains("waited 61 minutes") && summary.contains("- no room"), "{summary}");
    let long = title(Notification::Stage(Stage::Waiting), &["x".repeat(500)], waited);
    assert_eq!(long.chars().count(), 200);
}

#[test]
fn why_a_job_waits_names_what_is_in_the_way_and_nothing_that_is_not() {
    let why = |job: &WaitingJob, change: &dyn Fn(&mut Meta), slots: &[Slot]| {
        let slots = slots.iter().cloned().map(Item::from);
        let mut view = view([Item::from(job.clone())].into_iter().chain(slots));
        change(&mut view.meta);
        reasons(&pool(), &view, job, noon()).join("; ")
    };
    let nothing = |_: &mut Meta| {};
    let (soon, past) = (noon() + SignedDuration::from_secs(9), noon());
    assert_eq!(why(&job(60), &nothing, &[]), "a machine will be launched shortly");
    assert_eq!(why(&job(60), &nothing, &[slot("planned", 9, json!({}))]), "a machine is on its way");
    let pause = |until| Pause { market: Market::Spot, until, code: "MaxSpot".to_owned(), message: "m".to_owned() };
    let quota = |until| move |meta: &mut Meta| meta.pauses.push(pause(until));
    assert_eq!(why(&job(60), &quota(soon), &[]), "the account's EC2 quota is used up: MaxSpot: m");
    assert_eq!(why(&job(60), &quota(past), &[]), "a machine will be launched shortly");
    let throttled = |until| move |meta: &mut Meta| meta.throttled = Some(Throttle { until, times: 1 });
    assert!(why(&job(60), &throttled(soon), &[]).contains("throttles RunInstances"));
    assert!(!why(&job(60), &throttled(past), &[]).contains("RunInstances"));
    let open = |meta: &mut Meta| {
        let (cause, message) = (CircuitCause::from("Blocked".to_owned()), "m".to_owned());
        meta.circuit = Circuit::Open { until: noon(), backoff_seconds: 30, since: noon(), cause, message };
    };
    assert!(why(&job(60), &open, &[]).starts_with("the pool launches only test machines: Blocked: m"));
    let unserved = Unserved { since: ago(9), until: noon(), seconds: 30 };
    assert!(why(&WaitingJob { unserved: Some(unserved), ..job(60) }, &nothing, &[]).contains("runner group 1"));
    let launched =
        |times: i64, age: i64| WaitingJob { launches: (0..times).map(|it| ago(age - it)).collect(), ..job(60) };
    assert!(why(&launched(3, 900), &nothing, &[]).contains("3 machines were launched for it"));
    assert!(!why(&launched(2, 900), &nothing, &[]).contains("were launched for it"));
    assert!(!why(&launched(3, 3603), &nothing, &[]).contains("were launched for it"), "longer ago than an hour");
    let busy = |index: u8| Slot { id: SlotId { version: 4, index }, ..slot("busy", 9, json!({})) };
    assert!(why(&job(60), &nothing, &[busy(0), busy(1)]).contains("its maximum of 2 machines"));
    assert!(!why(&job(60), &nothing, &[busy(0)]).contains("maximum"));
    let again = |registration: u32| slot("launched", 9, json!({ "registration": registration }));
    assert!(why(&job(60), &nothing, &[again(2)]).contains("GitHub has not registered its runner yet"));
    assert_eq!(why(&job(60), &nothing, &[again(1)]), "a machine is on its way");
}

#[test]
fn a_rank_only_grows() {
    let (online, done) = (slot("online", 9, json!({})).state, slot("done", 9, json!({})).state);
    assert_eq!(SlotState::advanced(&online, done.clone()), Some(done.clone()));
    assert_eq!(SlotState::advanced(&done, online.clone()), None);
    assert_eq!(SlotState::advanced(&online, online.clone()), None);
}

#[test]
fn a_transaction_is_as_long_as_what_dynamodb_counts() {
    let writes = Transaction::new().put(job(1)).put(slot("online", 9, json!({}))).delete(job(2));
    assert_eq!((writes.len(), writes.is_empty(), Transaction::new().is_empty()), (3, false, true));
    let boot = json!({ "jit_config": "c", "max_life_seconds": 60, "repositories": [], "expires_at": 0 });
    let what = What::Unregistered { slot: SlotId { version: 4, index: 0 } };
    let all = writes.put_boot_item("k".to_owned(), serde_json::from_value(boot).expect("a boot item")).emit(
        Stream::Stack,
        what,
        &Turn { now: noon(), lease: noon(), cause: Cause::Invocation("1".to_owned()) },
    );
    assert_eq!(all.len(), 5, "a boot item and an event are one each");
}
