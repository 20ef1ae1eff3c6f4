//! The writes that follow from EC2's answers to a launch.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{after, ago, later, noon, pool, turn};
use domain::config::{LaunchOption, Market, MarketChoice, MicroUsd, Pool, Tuple};
use domain::ids::{InstanceId, JobId};
use domain::log::{Transaction, Turn, What};
use domain::policy::PoolView;
use domain::policy::circuit::{next_probe, try_again};
use domain::policy::launch::{
    AfterError, Attempt, Refused, RefusedFor, after_empty_look_up, after_error, after_failed_look_up, bind, claim,
    no_answer, refused, throttled,
};
use domain::policy::launch_error::{LaunchError, NO_ANSWER};
use domain::policy::tuple::{Budget, free_options, next_free};
use domain::state::{
    Batch, Circuit, CircuitCause, Cooldown, Item, Lease, Meta, Pause, Slot, SlotState, Throttle, WaitingJob,
};
use jiff::SignedDuration;
use serde_json::json;

fn two_zones() -> Pool {
    Pool { subnets: vec!["subnet-a".into(), "subnet-b".into()], ..pool() }
}

/// Two jobs wait, and a launch of two machines for them is due.
fn planned() -> (PoolView, Batch) {
    let mut items: Vec<Item> = Vec::new();
    for index in 0..2 {
        let slot = json!({
            "id": format!("4.{index}"), "pool": "linux", "state": "planned", "wanted": true, "planned_at": noon(),
            "registration": 0, "next_at": noon(), "revision": 1,
        });
        items.push(serde_json::from_value::<Slot>(slot).expect("a slot").into());
        let job = json!({
            "id": 5 + index, "pool": "linux", "repository": "octo/widgets", "queued_at": noon(), "open": true,
            "check_at": later(90), "checked_at": noon(), "launches": [noon()], "revision": 1,
        });
        items.push(serde_json::from_value::<WaitingJob>(job).expect("a job").into());
    }
    let batch = json!({
        "pool": "linux", "version": 4, "epoch": "e1", "attempt": 1, "count": 2, "tries": 1, "next_at": later(90),
        "planned_at": noon(), "revision": 1,
    });
    let batch: Batch = serde_json::from_value(batch).expect("a batch");
    let batch = Batch { tuple: two_zones().tuples().into_iter().next(), ..batch };
    items.push(batch.clone().into());
    (PoolView::new(Meta::new(pool().name, "e1".parse().expect("an epoch")), items), batch)
}

fn machines(view: &PoolView) -> Vec<Option<&str>> {
    view.slots.values().map(|slot| slot.machine().map(|machine| machine.instance.as_str())).collect()
}

#[test]
fn instances_are_bound_in_the_order_of_their_ids_and_the_rest_is_another_attempt() {
    let (view, batch) = planned();
    let launched = |ids: &[&str]| ids.iter().map(|id| (InstanceId::from(*id), noon())).collect::<Vec<_>>();
    let none = BTreeSet::new();
    let all = bind(&view, &batch, &launched(&["i-3", "i-1"]), &none, &turn()).expect("two to bind");
    let all = after(&view, &all);
    assert_eq!((machines(&all), all.batches.len()), (vec![Some("i-1"), Some("i-3")], 0));

    let one = bind(&view, &batch, &launched(&["i-2"]), &none, &turn()).expect("one to bind");
    let one = after(&view, &one);
    assert_eq!(machines(&one), [Some("i-2"), None]);
    let slot = one.slots.values().next().expect("the first");
    assert!(matches!(slot.state, SlotState::Launched(_)) && slot.registration == 1 && slot.lease.next_at == later(90));
    let rest = &one.batches[&4];
    assert_eq!((rest.attempt, rest.count, rest.lease.tries, rest.lease.next_at), (2, 1, 0, noon()), "another token");
    assert_ne!(rest.tag(), batch.tag());

    let taken = BTreeSet::from(["i-2".into()]);
    assert_eq!(bind(&one, rest, &launched(&["i-2"]), &taken, &turn()), None, "it is bound already");
    let last = bind(&one, rest, &launched(&["i-2", "i-4"]), &taken, &turn()).expect("one to bind");
    let last = after(&one, &last);
    assert_eq!((machines(&last), last.batches.len()), (vec![Some("i-2"), Some("i-4")], 0));
}

#[test]
fn after_a_refusal_the_next_tuple_is_tried_or_the_launch_waits_or_ends() {
    let pool = two_zones();
    let (view, batch) = planned();
    let no = |about, view: &PoolView, batch: &Batch| {
        let code = if about == RefusedFor::Capacity { "InsufficientInstanceCapacity" } else { "No" };
        let why = Refused { about, code: code.to_owned(), message: "no".to_owned() };
        let tuple = batch.tuple.clone().expect("a way");
        after(view, &refused(&pool, view, batch, &tuple, &why, &turn()))
    };
    let first = no(RefusedFor::Capacity, &view, &batch);
    let second = &first.batches[&4];
    let subnet = |batch: &Batch| batch.tuple.as_ref().map(|tuple| tuple.subnet.as_str().to_owned());
    assert_eq!((second.attempt, second.count, second.lease.tries, second.lease.next_at), (2, 2, 1, later(90)));
    assert_eq!((subnet(&batch).as_deref(), subnet(second).as_deref()), (Some("subnet-a"), Some("subnet-b")));
    assert_eq!((first.meta.cooldowns.len(), second.answers.len(), first.meta.answers.len()), (1, 1, 1));

    let both = no(RefusedFor::Capacity, &first, second);
    let waits = &both.batches[&4];
    let free_at = both.meta.cooldowns.iter().map(|cooling| cooling.until).min().expect("two are cooling down");
    assert_eq!((waits.attempt, waits.lease.tries, subnet(waits), waits.lease.next_at), (3, 0, None, free_at));
    assert!(free_at > noon() && machines(&both) == [None, None]);

    let quota = no(RefusedFor::Quota, &view, &batch);
    assert_eq!(quota.meta.pauses.iter().map(|pause| pause.market).collect::<Vec<_>>(), [Market::OnDemand]);
    assert_eq!(subnet(&quota.batches[&4]), None, "another zone does not help");

    let first = no(RefusedFor::Tuple, &view, &batch);
    assert_eq!((&first.meta.circuit, subnet(&first.batches[&4]).as_deref()), (&Circuit::Closed, Some("subnet-b")));
    let wrong = no(RefusedFor::Tuple, &first, &first.batches[&4]);
    let Circuit::Open { cause, message, .. } = &wrong.meta.circuit else { panic!("EC2 refuses every launch option") };
    assert_eq!((cause.code(), message.as_str(), wrong.meta.answers.len()), ("No", "no", 2));
    assert_eq!((wrong.batches.len(), wrong.slots.len()), (0, 0), "given up");
    let charged = |view: &PoolView| view.waiting.values().map(|job| job.launches.len()).sum::<usize>();
    assert_eq!((charged(&view), charged(&wrong)), (2, 0), "slots without a launch are not charged");
    assert!(wrong.waiting.contains_key(&JobId(5)));
    let later_probe = next_probe(&pool, &wrong.meta, noon());
    let again = after(&wrong, &try_again(&wrong, noon()));
    assert!(
        later_probe > Some(noon()) && next_probe(&pool, &again.meta, noon()) == Some(noon()),
        "an operator asked for it"
    );
    let again = after(&both, &try_again(&both, noon()));
    assert!(again.batches[&4].lease.is_free(noon()) && again.meta.cooldowns.is_empty());
    assert!(after(&quota, &try_again(&quota, noon())).meta.pauses.is_empty());
    assert_eq!(try_again(&again, noon()), Transaction::new(), "nothing waits");

    let waiting = no(RefusedFor::Capacity, &view, &batch);
    let mixed = no(RefusedFor::Tuple, &waiting, &waiting.batches[&4]);
    assert_eq!((&mixed.meta.circuit, subnet(&mixed.batches[&4])), (&Circuit::Closed, None), "capacity may come back");
}

#[test]
fn a_launch_is_given_up_if_the_cap_pays_for_no_other_option() {
    // Subnet-b is free, and its price is not known: under a cap, nothing is launched there.
    let capped = Pool { price_per_hour: Some(MicroUsd(1_000_000)), ..two_zones() };
    let (view, batch) = planned();
    let tuple = batch.tuple.clone().expect("a way");
    let code = "InsufficientInstanceCapacity".to_owned();
    let why = Refused { about: RefusedFor::Capacity, code, message: "no".to_owned() };
    let given_up = after(&view, &refused(&capped, &view, &batch, &tuple, &why, &turn()));
    assert_eq!((given_up.batches.len(), given_up.slots.len()), (0, 0), "otherwise it would be resumed again and again");
    assert!(given_up.waiting.values().all(|job| job.launches.is_empty()), "nothing was launched");
}

#[test]
fn a_probe_that_is_not_launched_because_nothing_needs_it_keeps_no_job_waiting() {
    let (mut view, batch) = planned();
    view.waiting.clear();
    // The decision to launch the probe has doubled the back-off.
    let backoff_seconds = 2 * pool().timings.backoff_min.duration().as_secs();
    let until = noon() + pool().timings.boot_grace.duration() + SignedDuration::from_secs(backoff_seconds);
    let cause = CircuitCause::BootFailures;
    view.meta.circuit = Circuit::Open { until, backoff_seconds, since: ago(300), cause, message: String::new() };
    let why = Refused {
        about: RefusedFor::Capacity,
        code: "InsufficientInstanceCapacity".to_owned(),
        message: String::new(),
    };
    let tuple = batch.tuple.clone().expect("a way");
    let given_up = after(&view, &refused(&two_zones(), &view, &batch, &tuple, &why, &turn()));
    assert!(given_up.batches.is_empty() && given_up.slots.is_empty());
    assert_eq!(next_probe(&two_zones(), &given_up.meta, noon()), Some(noon()));
    let Circuit::Open { backoff_seconds: left, .. } = given_up.meta.circuit else { panic!("no machine works yet") };
    assert_eq!(left, backoff_seconds / 2, "nothing was learnt");
}

#[test]
fn an_answer_about_the_caller_or_without_a_code_repeats_the_same_attempt() {
    let (_, batch) = planned();
    for (status, code) in [(400, Some("RequestExpired")), (401, Some("AuthFailure")), (502, None), (500, Some("Oops"))]
    {
        let error = LaunchError::answered(status, code, "no");
        for attempt in [Attempt::First, Attempt::Repeated] {
            let AfterError::Later(later) = after_error(&pool(), &batch, attempt, &error, noon()) else {
                panic!("{error} ends the attempt");
            };
            assert_eq!((later.attempt, &later.tuple, later.missing_since), (1, &batch.tuple, None), "{error}");
            assert!(later.lease.next_at > noon(), "{error}");
            assert_eq!(later.answers.iter().map(|answer| &answer.code).collect::<Vec<_>>(), [&error.code]);
        }
    }
}

#[test]
fn a_repeated_call_forgets_the_empty_look_ups_before_it_in_case_nobody_answers() {
    let (view, batch) = planned();
    let batch = Batch { missing_since: Some(ago(30)), ..batch };
    let claimed = claim(&pool(), &view, &batch, &turn());
    let [Item::Batch(claimed)] = &claimed.puts[..] else { panic!("one launch: {claimed:?}") };
    assert_eq!((claimed.missing_since, claimed.attempt), (None, 1));
    assert_eq!((claimed.lease.tries, claimed.lease.next_at), (2, turn().lease));
    let unanswered = LaunchError::answered(500, Some("InternalError"), "no");
    let AfterError::Later(later) = after_error(&pool(), &batch, Attempt::Repeated, &unanswered, noon()) else {
        panic!("the call may have launched machines")
    };
    assert_eq!(later.missing_since, None);
}

#[test]
fn after_three_calls_without_an_answer_two_empty_look_ups_end_the_attempt() {
    let (view, batch) = planned();
    let pool = two_zones();
    let unanswered = LaunchError::answered(500, Some("InternalError"), "no");
    let called = |batch: Batch| match after_error(&pool, &batch, Attempt::Repeated, &unanswered, noon()) {
        AfterError::Later(later) => *later,
        other => panic!("the call may have launched machines: {other:?}"),
    };
    let calls: Vec<Batch> =
        std::iter::successors(Some(called(batch)), |last| Some(called(last.clone()))).take(3).collect();
    assert_eq!(calls.iter().map(Batch::is_unanswered).collect::<Vec<_>>(), [false, false, true]);
    let silent = &calls[2];
    assert!(!after_failed_look_up(&pool, &calls[1], &unanswered, noon()).is_unanswered(), "a look-up is no call");

    let empty = |batch: &Batch, now| after_empty_look_up(&pool, batch, &no_answer(batch), now);
    let AfterError::Later(once) = empty(silent, noon()) else { panic!("one look-up is not enough") };
    assert_eq!((once.missing_since, once.attempt, once.lease.next_at), (Some(noon()), 1, later(60)));
    let claimed = claim(&pool, &view, &once, &turn());
    let [Item::Batch(claimed)] = &claimed.puts[..] else { panic!("one launch: {claimed:?}") };
    assert_eq!(claimed.missing_since, Some(noon()), "no call is made");
    assert_eq!(
        after_failed_look_up(&pool, claimed, &unanswered, later(60)).missing_since,
        None,
        "what is not known is not empty"
    );

    let AfterError::Refused(why) = empty(claimed, later(60)) else { panic!("two are enough") };
    assert_eq!((why.about, why.code.as_str()), (RefusedFor::NoAnswer, "NoAnswer"));
    assert_eq!(why.message, "no answer to 3 calls, InternalError: no");
    let tuple = once.tuple.clone().expect("a tuple");
    let next = after(&view, &refused(&pool, &view, &once, &tuple, &why, &turn()));
    let batch = &next.batches[&4];
    assert_eq!((batch.attempt, batch.unanswered, batch.missing_since), (2, 0, None));
    assert_ne!(batch.tuple, Some(tuple), "another zone may answer");
    assert_eq!(next.meta.cooldowns[0].seconds, 15 * 60, "to find out again takes minutes");
}

#[test]
fn an_attempt_that_an_invocation_has_begun_is_repeated_with_its_tuple() {
    let (_, batch) = planned();
    let of = |tries: u32, tuple: Option<Tuple>| {
        Attempt::of(&Batch { lease: Lease { tries, next_at: noon() }, tuple, ..batch.clone() })
    };
    assert_eq!(of(1, batch.tuple.clone()), Attempt::Repeated);
    assert_eq!(of(2, batch.tuple.clone()), Attempt::Repeated);
    assert_eq!(of(0, batch.tuple.clone()), Attempt::First);
    assert_eq!(of(1, None), Attempt::First, "the next call has another token");
}

#[test]
fn a_launch_that_waited_for_a_free_tuple_is_resumed_as_its_next_attempt() {
    let (view, batch) = planned();
    let waiting = Batch { tuple: None, attempt: 3, ..batch.clone() };
    let resumed = claim(&two_zones(), &view, &waiting, &turn());
    let event = resumed.event.clone().expect("an event");
    let What::Resumed { attempt, next, .. } = event.what else { panic!("{event:?}") };
    let following = &after(&view, &resumed).batches[&4];
    assert_eq!((attempt, following.attempt, following.lease.tries), (4, 4, 1));
    assert_eq!((&next, &following.tuple), (&batch.tuple, &batch.tuple));
}

#[test]
fn an_open_circuit_ends_a_launch_of_several_machines_that_waited() {
    let (mut view, batch) = planned();
    let (cause, message) = (CircuitCause::BootFailures, String::new());
    view.meta.circuit = Circuit::Open { until: later(300), backoff_seconds: 60, since: ago(60), cause, message };
    let waiting = Batch { tuple: None, attempt: 3, ..batch };
    let resumed = after(&view, &claim(&two_zones(), &view, &waiting, &turn()));
    assert!(resumed.batches.is_empty() && resumed.slots.is_empty(), "only probes are launched");
    assert!(resumed.waiting.values().all(|job| job.launches.is_empty()), "slots without a launch are not charged");

    view.slots.pop_last();
    let probe = Batch { count: 1, ..waiting };
    let resumed = after(&view, &claim(&two_zones(), &view, &probe, &turn()));
    assert_eq!((resumed.batches[&4].attempt, resumed.slots.len()), (4, 1), "a probe goes on");
}

#[test]
fn machines_that_ended_before_they_were_seen_count_as_a_failure() {
    let (view, batch) = planned();
    let failures = |code: &str| {
        let why = Refused { about: RefusedFor::Token, code: code.to_owned(), message: "no".to_owned() };
        let tuple = batch.tuple.clone().expect("a way");
        after(&view, &refused(&two_zones(), &view, &batch, &tuple, &why, &turn())).meta.boot_failures
    };
    assert_eq!((failures("IdempotentInstanceTerminated"), failures("IdempotentParameterMismatch")), (1, 0));
}

#[test]
fn a_used_up_quota_replaces_the_pause_that_it_repeats_and_ended_ones() {
    let (mut view, batch) = planned();
    let pause = |market, until| Pause {
        market,
        instance_type: Some("m7i.large".into()),
        until,
        code: "Before".to_owned(),
        message: String::new(),
    };
    view.meta.pauses =
        vec![pause(Market::OnDemand, later(9)), pause(Market::Spot, later(9)), pause(Market::Spot, noon())];
    let why = Refused { about: RefusedFor::Quota, code: "VcpuLimitExceeded".to_owned(), message: String::new() };
    let tuple = batch.tuple.clone().expect("a way");
    let after = after(&view, &refused(&two_zones(), &view, &batch, &tuple, &why, &turn()));
    let pauses: Vec<_> = after.meta.pauses.iter().map(|it| (it.market, it.until, it.code.as_str())).collect();
    assert_eq!(pauses, [(Market::Spot, later(9), "Before"), (Market::OnDemand, later(300), "VcpuLimitExceeded")]);
}

/// The cool-downs after EC2 refuses the first tuple for lack of capacity.
fn cooled(before: Vec<Cooldown>) -> Vec<Cooldown> {
    let (mut view, batch) = planned();
    view.meta.cooldowns = before;
    let why = Refused {
        about: RefusedFor::Capacity,
        code: "InsufficientInstanceCapacity".to_owned(),
        message: String::new(),
    };
    let tuple = batch.tuple.clone().expect("a way");
    after(&view, &refused(&two_zones(), &view, &batch, &tuple, &why, &turn())).meta.cooldowns
}

fn cooldown(tuple: Tuple, until: i64, seconds: i64) -> Cooldown {
    Cooldown { tuple, until: later(until), seconds, code: "InsufficientInstanceCapacity".to_owned() }
}

#[test]
fn each_refusal_of_a_tuple_within_a_quarter_of_an_hour_doubles_its_wait() {
    let first = || two_zones().tuples().remove(0);
    let waits = |before: Vec<Cooldown>| {
        let after = cooled(before);
        let own = after.iter().find(|it| it.tuple == first()).expect("it cools down");
        assert_eq!(own.until, later(own.seconds));
        (after.len(), own.seconds)
    };
    assert_eq!(waits(vec![]), (1, 60));
    assert_eq!(waits(vec![cooldown(first(), 0, 60)]), (1, 120));
    assert_eq!(waits(vec![cooldown(first(), -899, 300)]), (1, 600));
    assert_eq!(waits(vec![cooldown(first(), 0, 600)]), (1, 900), "never longer than a quarter of an hour");
    assert_eq!(waits(vec![cooldown(first(), -900, 60)]), (1, 60), "it is forgotten");
    let second = two_zones().tuples().remove(1);
    assert_eq!(waits(vec![cooldown(second.clone(), 0, 600)]), (2, 60), "another subnet's is kept");
    assert_eq!(waits(vec![cooldown(second, -900, 600)]), (1, 60), "another subnet's is forgotten");
}

/// When the launch is tried again after EC2 refused the first of two tuples, and where, if the second has this cool-down.
fn after_both(first: &str, second: Cooldown) -> (i64, Vec<String>) {
    let (mut view, batch) = planned();
    view.meta.cooldowns = vec![cooldown(two_zones().tuples().remove(0), 0, 600), second];
    let about = if first == NO_ANSWER { RefusedFor::NoAnswer } else { RefusedFor::Capacity };
    let why = Refused { about, code: first.to_owned(), message: String::new() };
    let tuple = batch.tuple.clone().expect("a way");
    let view = after(&view, &refused(&two_zones(), &view, &batch, &tuple, &why, &turn()));
    let next = next_free(&two_zones(), &view.meta, Budget::UNLIMITED, noon()).expect("a time");
    assert_eq!(view.batches[&4].tuple.is_none(), next > noon());
    assert!(next == noon() || view.batches[&4].lease.next_at == next);
    let places_at = |at| -> Vec<String> {
        let free: Vec<_> = free_options(&two_zones(), &view.meta, Budget::UNLIMITED, at).collect();
        free.into_iter().map(|option| option.tuple.subnet.to_string()).collect()
    };
    assert!(next == noon() || places_at(next - SignedDuration::from_secs(1)).is_empty(), "not before");
    (next.duration_since(noon()).as_secs(), places_at(next))
}

#[test]
fn a_pool_that_can_launch_nothing_tries_again_a_minute_after_the_last_refusal() {
    let capacity = "InsufficientInstanceCapacity";
    let second = |until, code: &str| {
        let cooling = cooldown(two_zones().tuples().remove(1), until, 900);
        Cooldown { code: code.to_owned(), ..cooling }
    };
    let tries = |first: &str, second: Cooldown| {
        let (wait, places) = after_both(first, second);
        (wait, places.concat())
    };
    let place = |name: &str| name.to_owned();
    assert_eq!(tries(capacity, second(700, capacity)), (60, place("subnet-b")), "refused longer ago");
    assert_eq!(
        tries("Unsupported", second(700, "Blocked")),
        (60, place("subnet-a")),
        "the other one is a wrong setting"
    );
    assert_eq!(tries(capacity, second(700, NO_ANSWER)), (60, place("subnet-a")), "to ask the other one takes minutes");
    assert_eq!(tries(NO_ANSWER, second(890, capacity)), (50, place("subnet-b")), "a minute after its own refusal");
    assert_eq!(tries(NO_ANSWER, second(700, NO_ANSWER)), (700, place("subnet-b")));
    assert_eq!(tries(capacity, second(30, capacity)), (30, place("subnet-b")), "free before");
    assert_eq!(tries(capacity, second(0, capacity)), (0, place("subnet-b")), "free now");
}

#[test]
fn a_shortage_of_every_tuple_costs_one_call_per_minute_and_forgets_none() {
    let types = (0..9).map(|index| format!("m7i.{index}xlarge").as_str().into()).collect();
    let pool = Pool { instance_types: types, subnets: vec!["subnet-a".into()], ..pool() };
    let (mut view, batch) = planned();
    view.meta.cooldowns = pool.tuples().into_iter().map(|tuple| cooldown(tuple, 900, 900)).collect();
    let mut last = BTreeMap::new();
    for minute in 1..=30 {
        let now = later(60 * minute);
        assert_eq!(next_free(&pool, &view.meta, Budget::UNLIMITED, later(60 * minute - 30)), Some(now));
        let free: Vec<LaunchOption> = free_options(&pool, &view.meta, Budget::UNLIMITED, now).collect();
        let [option] = &free[..] else { panic!("one call at {now}, not {free:?}") };
        last.insert(option.tuple.clone(), minute);
        let batch = Batch { tuple: Some(option.tuple.clone()), ..batch.clone() };
        let why = Refused { about: RefusedFor::Capacity, code: "Unsupported".to_owned(), message: String::new() };
        let turn = Turn { now, ..turn() };
        view.meta = after(&view, &refused(&pool, &view, &batch, &option.tuple, &why, &turn)).meta;
    }
    assert_eq!((last.len(), last.into_values().min()), (9, Some(22)), "in turn");
}

#[test]
fn an_option_that_cannot_be_launched_anyway_does_not_lengthen_the_wait_for_capacity() {
    let cheap = two_zones().tuples().remove(0);
    let dear = two_zones().tuples().remove(1);
    let price = |tuple: &Tuple, price| LaunchOption { tuple: tuple.clone(), price_per_hour: Some(MicroUsd(price)) };
    let options = [price(&cheap, 100), price(&dear, 400)].into_iter().collect();
    let pool = Pool { price_per_hour: Some(MicroUsd(1_000)), options: Some(options), ..two_zones() };
    let (view, _) = planned();
    let meta = Meta { cooldowns: vec![cooldown(cheap.clone(), 800, 900)], ..view.meta.clone() };
    let at = |meta: &Meta, others| next_free(&pool, meta, Budget::of(&pool, MicroUsd(others)), later(-50));
    assert_eq!(at(&meta, 700), Some(later(-40)), "the cap does not pay for the other one");
    assert_eq!(at(&meta, 0), Some(later(-50)), "it is free");
    let quota = Pause {
        market: dear.market,
        instance_type: None,
        until: later(200),
        code: "VcpuLimitExceeded".to_owned(),
        message: String::new(),
    };
    let paused = Meta { pauses: vec![quota], ..meta };
    assert_eq!(at(&paused, 0), Some(later(200)), "the pause is for both, and capacity may be back then");
}

#[test]
fn the_pool_remembers_the_150_cool_downs_that_end_last() {
    let other = |index: i64| {
        let tuple =
            Tuple { instance_type: format!("m7i.{index}xlarge").as_str().into(), ..two_zones().tuples().remove(0) };
        cooldown(tuple, index, 60)
    };
    let kept = |count: i64| {
        let kept = cooled((1..=count).rev().map(other).collect());
        (kept.len(), kept.iter().map(|it| it.until).min())
    };
    assert_eq!(kept(149), (150, Some(later(1))));
    assert_eq!(kept(150), (150, Some(later(2))));
    assert_eq!(kept(155), (150, Some(later(7))));
}

#[test]
fn a_launch_goes_on_for_the_jobs_and_the_machines_that_are_kept_ready() {
    let (view, batch) = planned();
    let count = |pool: Pool, view: &PoolView| {
        let why = Refused {
            about: RefusedFor::Capacity,
            code: "InsufficientInstanceCapacity".to_owned(),
            message: String::new(),
        };
        let tuple = batch.tuple.clone().expect("a way");
        let after = after(view, &refused(&pool, view, &batch, &tuple, &why, &turn()));
        (after.batches.get(&4).map_or(0, |batch| batch.count), after.slots.len())
    };
    let without = |jobs: usize| {
        let mut view = view.clone();
        (0..jobs).for_each(|_| drop(view.waiting.pop_last()));
        view
    };
    let kept = |warm, stopped| Pool { warm, stopped, ..two_zones() };
    assert_eq!(count(two_zones(), &view), (2, 2));
    assert_eq!(count(two_zones(), &without(1)), (1, 1));
    assert_eq!(count(two_zones(), &without(2)), (0, 0));
    assert_eq!(count(kept(1, 0), &without(1)), (2, 2));
    assert_eq!(count(kept(0, 1), &without(1)), (2, 2));
    assert_eq!(count(kept(1, 1), &without(2)), (2, 2));
    assert_eq!(count(Pool { paused: true, ..two_zones() }, &view), (0, 0));
}

#[test]
fn a_machine_that_is_only_to_be_stopped_is_never_a_spot_machine() {
    let (mut view, batch) = planned();
    view.waiting.clear();
    view.slots.values_mut().for_each(|slot| slot.wanted = false);
    let pool = Pool { market: MarketChoice::SpotThenOnDemand, ..two_zones() };
    let on_demand = |tuple: &Tuple| Tuple { market: Market::OnDemand, ..tuple.clone() };
    let next = |pool: &Pool, view: &PoolView| {
        let tuple = on_demand(&batch.tuple.clone().expect("a way"));
        let why = Refused { about: RefusedFor::Quota, code: "VcpuLimitExceeded".to_owned(), message: String::new() };
        let after = after(
            view,
            &refused(pool, view, &Batch { tuple: Some(tuple.clone()), ..batch.clone() }, &tuple, &why, &turn()),
        );
        after.batches.get(&4).map(|batch| batch.tuple.as_ref().map(|tuple| tuple.market))
    };
    assert_eq!(next(&Pool { stopped: 2, ..pool.clone() }, &view), None, "only spot machines are left");
    assert_eq!(
        next(&Pool { stopped: 1, warm: 1, ..pool.clone() }, &view),
        Some(Some(Market::Spot)),
        "one is to be warm"
    );
    view.slots.values_mut().for_each(|slot| slot.wanted = true);
    assert_eq!(next(&Pool { stopped: 2, ..pool }, &view), Some(Some(Market::Spot)), "jobs wanted them");
}

#[test]
fn the_next_attempt_stays_in_the_market_of_the_last_one_while_that_is_possible() {
    let (view, batch) = planned();
    let pool = Pool { market: MarketChoice::SpotThenOnDemand, ..two_zones() };
    let tuples = pool.tuples();
    let next = |tuple: &Tuple, about, cooling: Vec<Cooldown>| {
        let mut view = view.clone();
        view.meta.cooldowns = cooling;
        let why = Refused { about, code: "No".to_owned(), message: String::new() };
        let after = after(
            &view,
            &refused(&pool, &view, &Batch { tuple: Some(tuple.clone()), ..batch.clone() }, tuple, &why, &turn()),
        );
        after.batches[&4].tuple.as_ref().map(|tuple| (tuple.market, tuple.subnet.as_str().to_owned()))
    };
    let [_, _, on_demand, other] = &tuples[..] else { panic!("two markets in two subnets: {tuples:?}") };
    assert_eq!(next(on_demand, RefusedFor::Capacity, vec![]), Some((Market::OnDemand, "subnet-b".to_owned())));
    let cooling = vec![cooldown(other.clone(), 60, 60)];
    assert_eq!(next(on_demand, RefusedFor::Capacity, cooling), Some((Market::Spot, "subnet-a".to_owned())));
}

#[test]
fn the_slots_of_a_launch_record_what_the_next_attempt_costs_and_launches() {
    let (mut view, batch) = planned();
    view.waiting.clear();
    view.slots.values_mut().for_each(|slot| slot.wanted = false);
    let [first, second] = &two_zones().tuples()[..] else { panic!("two subnets") };
    let option = |tuple: &Tuple| LaunchOption { tuple: tuple.clone(), price_per_hour: Some(MicroUsd(7)) };
    let options = Some([option(first), option(second)].into());
    let pool = Pool { warm: 2, stopped: 1, options, ..two_zones() };
    let why = Refused {
        about: RefusedFor::Capacity,
        code: "InsufficientInstanceCapacity".to_owned(),
        message: String::new(),
    };
    let rewritten = |price: Option<u64>, warm_as: Option<&Tuple>| {
        let mut view = view.clone();
        for slot in view.slots.values_mut() {
            (slot.price_per_hour, slot.warm_as) = (price.map(MicroUsd), warm_as.cloned().map(Box::new));
        }
        let writes = refused(&pool, &view, &batch, first, &why, &turn());
        let all = after(&view, &writes);
        assert!(all.slots.values().all(|it| it.price_per_hour == Some(MicroUsd(7))), "{all:?}");
        assert!(all.slots.values().all(|it| it.warm_as.as_deref() == Some(second)), "{all:?}");
        common::slots(&writes).len()
    };
    assert_eq!((rewritten(None, None), rewritten(Some(7), Some(first)), rewritten(Some(9), Some(second))), (2, 2, 2));
    assert_eq!(rewritten(Some(7), Some(second)), 0, "nothing changes");
}

#[test]
fn a_refusal_counts_at_once_if_ec2_has_answered_every_call_of_the_attempt() {
    let (view, batch) = planned();
    let slow_down = LaunchError::answered(503, Some("RequestLimitExceeded"), "slow down");
    let throttled = |batch: &Batch| after(&view, &throttled(&view, batch, &slow_down, noon())).batches[&4].clone();
    let claimed = |batch: &Batch| after(&view, &claim(&pool(), &view, batch, &turn())).batches[&4].clone();
    let called = |batch: &Batch, status: u16, code: &str| {
        let error = LaunchError::answered(status, Some(code), "no");
        let AfterError::Later(later) = after_error(&pool(), batch, Attempt::of(batch), &error, noon()) else {
            panic!("{code} ends the attempt")
        };
        *later
    };
    let answered = [throttled(&batch), called(&batch, 400, "RequestExpired"), throttled(&claimed(&throttled(&batch)))];
    for batch in answered {
        assert_eq!(Attempt::of(&batch), Attempt::First, "{batch:?}");
        let begun = claimed(&batch);
        assert_eq!(Attempt::of(&begun), Attempt::Repeated, "of an invocation that ended");
        for (status, code) in [(500, "InternalError"), (400, "IdempotentParameterMismatch")] {
            let unclear = called(&begun, status, code);
            assert_eq!(Attempt::of(&unclear), Attempt::Repeated, "{code}");
            assert_eq!(Attempt::of(&throttled(&claimed(&unclear))), Attempt::Repeated, "{code}");
        }
    }
}

#[test]
fn a_launch_without_any_launch_option_is_tried_again_after_a_quarter_of_an_hour() {
    let (view, batch) = planned();
    let pool = Pool { instance_types: Vec::new(), ..two_zones() };
    let waiting = Batch { tuple: None, ..batch };
    let after = after(&view, &claim(&pool, &view, &waiting, &turn()));
    assert_eq!((&after.batches[&4].tuple, after.batches[&4].lease.next_at), (&None, later(900)));
}

#[test]
fn a_throttling_is_forgotten_after_a_minute() {
    let (view, batch) = planned();
    let error = LaunchError::answered(503, Some("RequestLimitExceeded"), "slow down");
    let times = |ended: i64| {
        let mut view = view.clone();
        view.meta.throttled = Some(Throttle { until: ago(ended), times: 4 });
        let writes = throttled(&view, &batch, &error, noon());
        let throttle = after(&view, &writes).meta.throttled.expect("it is throttled");
        assert!(throttle.until > noon());
        throttle.times
    };
    assert_eq!((times(59), times(60)), (5, 1));
}

#[test]
fn after_an_unanswered_call_or_a_used_token_two_empty_look_ups_are_needed() {
    let (view, batch) = planned();
    let pool = two_zones();
    let used = LaunchError::answered(400, Some("IdempotentParameterMismatch"), "no");
    let wrong = LaunchError::answered(400, Some("TagPolicyViolation"), "no");
    assert!(matches!(after_error(&pool, &batch, Attempt::First, &wrong, noon()), AfterError::Refused(_)));
    let AfterError::Later(first) = after_error(&pool, &batch, Attempt::First, &used, noon()) else {
        panic!("nothing was looked up")
    };
    assert_eq!(first.missing_since, None);
    for error in [used, wrong] {
        let AfterError::Later(once) = after_error(&pool, &first, Attempt::Repeated, &error, later(30)) else {
            panic!("one look-up is not enough")
        };
        assert_eq!((once.missing_since, once.attempt), (Some(later(30)), 1));
        assert_eq!(once.lease.next_at, later(90), "confirm_gap");
        let AfterError::Refused(why) = after_error(&pool, &once, Attempt::Repeated, &error, later(90)) else {
            panic!("two empty look-ups are enough")
        };
        let tuple = once.tuple.clone().expect("a tuple");
        let next = after(&view, &refused(&pool, &view, &once, &tuple, &why, &turn()));
        assert_eq!((next.batches[&4].attempt, next.batches[&4].missing_since), (2, None), "another token");
        let is_used = why.about == RefusedFor::Token;
        assert_eq!(next.meta.cooldowns.is_empty(), is_used, "a used token says nothing about the tuple");
    }
}
