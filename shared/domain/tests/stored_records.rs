//! What stored records and messages say.

mod common;

use std::collections::BTreeSet;

use common::{ago, facts, instance, later, meta, noon, notice, pool, slot};
use domain::config::{Label, Market, MicroUsd, Tuple};
use domain::ids::{JobId, RunId, RunnerId};
use domain::log::Transaction;
use domain::state::{
    Answer, Batch, BootItem, CheckRun, Circuit, CircuitCause, ClassState, ClosedRunner, Condemned, Config, Failure,
    Instance, Janitor, Job, Key, Leased, Meta, Pause, Rerun, StopReason, Suspect, UnreadSlots, UnroutedJob, WaitingJob,
};
use domain::wire::{Action, InstanceChange, MESSAGE_VERSION, Message, Notice, RunnerNotice};
use jiff::SignedDuration;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn stored<T: DeserializeOwned>(item: Value) -> T {
    serde_json::from_value(item).expect("an item")
}

#[test]
fn each_record_that_is_written_has_the_next_revision() {
    let batch: Batch = stored(json!({
        "pool": "linux", "version": 4, "epoch": "e1", "attempt": 1, "count": 2, "tries": 0, "next_at": noon(),
        "planned_at": noon(), "revision": 3,
    }));
    let check: CheckRun = stored(json!({
        "pool": "linux", "job": 5, "repository": "octo/widgets", "head_sha": "c0ffee", "tries": 0,
        "next_at": noon(), "revision": 3,
    }));
    let rerun: Rerun = stored(json!({
        "job": 5, "pool": "linux", "repository": "octo/widgets", "run_id": 2, "run_attempt": 1, "since": noon(), "tries": 0,
        "next_at": noon(), "revision": 3,
    }));
    let unrouted = UnroutedJob { revision: 3, ..UnroutedJob::new(notice(Action::Queued), noon()) };
    let slot = slot("online", 60, json!({ "revision": 3 }));
    assert_eq!((batch.written().revision, check.written().revision, rerun.written().revision), (4, 4, 4));
    assert_eq!((unrouted.written().revision, slot.written().revision), (4, 4));
}

#[test]
fn a_pool_can_be_read_without_a_waiting_job_and_not_without_a_slot() {
    let (linux, id) = (pool().name, JobId(5));
    let reruns = [Key::Waiting(linux.clone(), id), Key::CheckRun(linux.clone(), id), Key::Rerun(linux.clone(), id)];
    assert!(reruns.iter().all(Key::is_dispensable) && Key::Nudge(linux.clone()).is_dispensable());
    for key in
        [Key::Meta(linux.clone()), Key::Batch(linux.clone(), 4), Key::Slot(linux, slot("online", 60, json!({})).id)]
    {
        assert!(!key.is_dispensable(), "{key}");
    }
}

#[test]
fn pools_that_say_no_format_are_in_the_first_one_and_know_what_was_removed() {
    let config: Config = stored(json!({ "pools": [], "removed": ["gone"], "applied_at": noon(), "revision": 1 }));
    assert_eq!(config.format, 1);
    assert!(config.is_removed(&"gone".parse().expect("a pool")) && !config.is_removed(&pool().name));
}

#[test]
fn a_cause_is_read_back_from_its_text() {
    let refused = CircuitCause::LaunchRefused("InvalidAMIID.NotFound".to_owned());
    for (cause, text) in [
        (CircuitCause::BootFailures, "BootFailures"),
        (CircuitCause::EndedEarly, "EndedEarly"),
        (CircuitCause::RegistrationRefused, "RegistrationRefused"),
        (refused, "InvalidAMIID.NotFound"),
    ] {
        assert_eq!((CircuitCause::from(text.to_owned()), cause.to_string().as_str()), (cause.clone(), text));
    }
    assert_eq!((Condemned::Orphan.as_str(), Condemned::MaxLife.as_str()), ("orphan", "max_life"));
    assert_eq!((StopReason::Surplus.as_str(), StopReason::MaxLife.to_string().as_str()), ("surplus", "max_life"));
}

fn tuple(instance_type: &str, market: Market) -> Tuple {
    Tuple { instance_type: instance_type.into(), market, ..pool().tuples().remove(0) }
}

#[test]
fn a_used_up_quota_affects_types_that_share_it_in_its_market() {
    let of = |instance_type: Option<&str>| Pause {
        market: Market::Spot,
        instance_type: instance_type.map(Into::into),
        until: later(60),
        code: "MaxSpotInstanceCountExceeded".to_owned(),
        message: String::new(),
    };
    let pause = of(Some("m7i.large"));
    assert!(pause.affects(&tuple("c7i.xlarge", Market::Spot)));
    assert!(!pause.affects(&tuple("g6.xlarge", Market::Spot)), "it has a quota of its own");
    assert!(!pause.affects(&tuple("c7i.xlarge", Market::OnDemand)));
    assert!(
        of(None).affects(&tuple("g6.xlarge", Market::Spot)) && !of(None).affects(&tuple("g6.xlarge", Market::OnDemand))
    );
}

fn label(terms: &str) -> Label {
    format!("linux/{terms}").parse().expect("a label")
}

fn open(until: i64) -> Circuit {
    Circuit::Open {
        until: later(until),
        backoff_seconds: 60,
        since: ago(60),
        cause: CircuitCause::BootFailures,
        message: "m".repeat(1000),
    }
}

fn class(circuit: Circuit) -> ClassState {
    ClassState { circuit, boot_failures: 0, failures: Vec::new(), answers: Vec::new() }
}

fn failure(seconds: i64) -> Failure {
    Failure {
        at: ago(seconds),
        instance: None,
        launched_at: ago(seconds),
        reason: "r".to_owned(),
        console: String::new(),
    }
}

fn answer(seconds: i64) -> Answer {
    Answer { at: ago(seconds), tuple: tuple("m7i.large", Market::Spot), code: "No".to_owned(), message: String::new() }
}

#[test]
fn a_class_has_its_own_circuit_failures_and_answers() {
    let (own, other) = (label("8cpu"), label("2cpu"));
    let of_pool =
        Meta { circuit: open(9), boot_failures: 2, failures: vec![failure(5)], answers: vec![answer(5)], ..meta() };
    let fresh = of_pool.of_class(&own);
    assert_eq!((&fresh.circuit, fresh.boot_failures), (&Circuit::Closed, 0));
    assert!(fresh.failures.is_empty() && fresh.answers.is_empty());
    let decided = Meta {
        circuit: open(60),
        boot_failures: 1,
        failures: vec![failure(1)],
        answers: vec![answer(1)],
        ..fresh.clone()
    };
    let after = of_pool.with_class(&own, decided.clone());
    let back = after.of_class(&own);
    assert_eq!((&back.circuit, back.boot_failures), (&decided.circuit, 1));
    assert_eq!((&back.failures, &back.answers), (&decided.failures, &decided.answers));
    assert_eq!((&after.circuit, after.boot_failures), (&of_pool.circuit, 2), "the pool's own are kept");
    assert_eq!((&after.failures, &after.answers), (&of_pool.failures, &of_pool.answers));
    assert_eq!(after.of_class(&other).circuit, Circuit::Closed);
    for known in [
        Meta { circuit: open(60), ..fresh.clone() },
        Meta { boot_failures: 1, ..fresh.clone() },
        Meta { failures: vec![failure(1)], ..fresh.clone() },
        Meta { answers: vec![answer(1)], ..fresh.clone() },
    ] {
        assert!(meta().with_class(&own, known.clone()).classes.contains_key(&own), "{known:?}");
    }
    assert!(!after.with_class(&own, fresh).classes.contains_key(&own), "nothing is known of it any more");
}

#[test]
fn a_pool_has_an_open_circuit_if_a_class_has_one() {
    assert!(!meta().has_open_circuit() && Meta { circuit: open(9), ..meta() }.has_open_circuit());
    let of_class = |circuit| Meta { classes: [(label("8cpu"), class(circuit))].into(), ..meta() };
    assert!(of_class(open(9)).has_open_circuit() && !of_class(Circuit::Closed).has_open_circuit());
}

#[test]
fn a_class_without_jobs_and_machines_is_forgotten_after_an_hour() {
    let (own, none) = (label("8cpu"), BTreeSet::new());
    let is_kept = |state: &ClassState, present: &BTreeSet<Option<&Label>>| {
        let mut meta = Meta { classes: [(own.clone(), state.clone())].into(), ..meta() };
        meta.forget_classes(present, noon());
        meta.classes.contains_key(&own)
    };
    for (state, kept) in [
        (class(open(-3599)), true),
        (class(open(-3600)), false),
        (ClassState { failures: vec![failure(3599)], ..class(Circuit::Closed) }, true),
        (ClassState { failures: vec![failure(3600)], ..class(Circuit::Closed) }, false),
        (ClassState { answers: vec![answer(3599)], ..class(Circuit::Closed) }, true),
        (ClassState { answers: vec![answer(3600), answer(9000)], ..class(Circuit::Closed) }, false),
    ] {
        assert_eq!(is_kept(&state, &none), kept, "{state:?}");
        assert!(is_kept(&state, &BTreeSet::from([Some(&own)])), "it has jobs or machines");
    }
}

#[test]
fn of_very_many_classes_the_latest_are_remembered_in_half_of_an_item() {
    let kept = |state: &dyn Fn(i64) -> ClassState| {
        let classes = (1..=1000).map(|cpus| (label(&format!("{cpus}cpu")), state(cpus))).collect();
        let mut meta = Meta { classes, ..meta() };
        meta.forget_classes(&BTreeSet::new(), noon());
        let bytes = serde_json::to_string(&meta.classes).expect("text").len();
        assert!((60_000..210_000).contains(&bytes), "{bytes} bytes for {} classes", meta.classes.len());
        assert!(meta.classes.contains_key(&label("1000cpu")) && !meta.classes.contains_key(&label("1cpu")));
    };
    kept(&|cpus| class(open(cpus)));
    let long = |seconds: i64| Answer { message: "m".repeat(1000), ..answer(seconds) };
    kept(&|cpus| ClassState { answers: vec![long(1001 - cpus)], ..class(Circuit::Closed) });
    let short = |seconds: i64| Answer { message: String::new(), ..answer(seconds) };
    kept(&|cpus| ClassState { answers: vec![short(1001 - cpus); 4], ..class(Circuit::Closed) });
}

#[test]
fn a_job_of_a_later_attempt_says_which() {
    let waiting = |run_attempt| {
        WaitingJob::of(&Job { run_attempt, ..facts(&[Action::Queued]) }, None, noon(), SignedDuration::from_mins(5))
    };
    assert_eq!(waiting(1).attempt, None);
    let second = waiting(2).attempt.expect("a later attempt");
    assert_eq!((second.run_id, second.run_attempt, second.name.as_str()), (RunId(2), 2, "build"));
    assert!(!second.follows_interruption);
    assert_eq!((waiting(1).open, waiting(1).check_at), (true, later(300)));
    let old = Job { queued_at: ago(24 * 3600), ..facts(&[Action::Queued]) };
    let old = WaitingJob::of(&old, None, noon(), SignedDuration::from_mins(5));
    assert_eq!((old.open, old.check_at), (false, noon()), "GitHub is asked first");
    let charged = WaitingJob { launches: vec![ago(600), ago(599)], ..waiting(1) };
    assert_eq!(charged.launches_within(SignedDuration::from_mins(10), noon()).collect::<Vec<_>>(), [&ago(599)]);
}

#[test]
fn a_notice_with_the_status_waiting_shows_a_gate_whatever_its_action() {
    let mut queued = notice(Action::Queued);
    assert!(!Job::first(pool().name, &queued).gated);
    queued.job.status = "waiting".to_owned();
    assert!(Job::first(pool().name, &queued).gated && facts(&[Action::Waiting]).gated);
}

#[test]
fn facts_of_a_job_that_drover_closed_are_kept_until_no_notice_can_make_it_demand() {
    let (week, limit) = (7 * 24 * 3600, 35 * 24 * 3600);
    let closed =
        |queued| Job { queued_at: ago(queued), ..facts(&[Action::Queued]) }.closed("unknown", noon()).expires_at;
    assert_eq!(closed(60), Some(later(limit - 60).as_second()));
    assert_eq!(closed(limit), Some(later(week).as_second()));
}

#[test]
fn of_two_runners_of_one_job_the_same_is_recorded_in_any_order() {
    let named = |id: u64, name: &str| {
        let mut started = notice(Action::InProgress);
        started.job.runner = Some(RunnerNotice { id: RunnerId(id), name: name.to_owned(), group: None });
        started
    };
    let both =
        |one: &Notice, other: &Notice| Job::first(pool().name, one).join(other).runner.map(|it| (it.id.0, it.name));
    let (low, high) = (named(7, "b"), named(8, "a"));
    assert_eq!((both(&low, &high), both(&high, &low)), (Some((8, "a".to_owned())), Some((8, "a".to_owned()))));
}

#[test]
fn a_closed_runner_is_kept_for_a_week_and_named_by_id_name_and_group() {
    let online = slot("online", 60, json!({ "gone_at": ago(9) }));
    let closed = ClosedRunner::of(&online, false, noon()).expect("no job was reported for it");
    assert_eq!((closed.expires_at, closed.gone_at), (later(7 * 24 * 3600).as_second(), Some(ago(9))));
    let named = |id: u64, name: &str| {
        closed.is_named_by(&RunnerNotice { id: RunnerId(id), name: name.to_owned(), group: None })
    };
    assert!(named(7, common::RUNNER) && !named(8, common::RUNNER) && !named(7, "another"));
}

#[test]
fn what_a_job_used_is_known_if_it_was_the_only_one_on_its_machine() {
    let usage = json!({
        "seconds": 9, "vcpus": 1, "memory_mib": 9, "disk_mib": 9, "cpu_mean": 0, "cpu_peak": 0, "cpu_beyond": [],
        "memory_mean_mib": 0, "memory_peak_mib": 0, "disk_peak_mib": 0, "received_mib": 0, "sent_mib": 0, "cpu_chart": [],
        "memory_chart": [],
    });
    let claim = |job: u64| stored(json!({ "job": job }));
    let of = |job, claims| Instance { usage: Some(stored(usage.clone())), job, claims, ..instance() };
    let older = of(Some(JobId(5)), vec![]);
    assert_eq!(older.claimed_jobs(), [JobId(5)], "an older version recorded no claims");
    assert!(older.usage_of(JobId(5)).is_some() && older.usage_of(JobId(6)).is_none());
    let two = of(Some(JobId(5)), vec![claim(5), claim(6)]);
    assert_eq!(two.claimed_jobs(), [JobId(5), JobId(6)]);
    assert!(two.usage_of(JobId(5)).is_none(), "a report cannot be divided between two jobs");
    assert_eq!(of(None, vec![]).claimed_jobs(), []);
}

#[test]
fn failures_of_a_sweep_are_kept_on_one_short_line_each() {
    let texts =
        ["one\ntwo".to_owned(), "x".repeat(300), "x".repeat(301), String::new(), "e".to_owned(), "f".to_owned()];
    let janitor = Janitor::default().keep_failures(&texts);
    assert_eq!(janitor.failed, 6);
    let cut = format!("{} ...", "x".repeat(300));
    assert_eq!(janitor.failures, ["one two", &texts[1], &cut, "", "e"]);
}

#[test]
fn a_price_of_nothing_is_not_stored() {
    let stored = |price: u64| {
        let unread = UnreadSlots { before: 9, except: Vec::new(), live: 1, price_per_hour: MicroUsd(price) };
        let item = serde_json::to_value(&unread).expect("an item");
        assert_eq!(serde_json::from_value::<UnreadSlots>(item.clone()).expect("it is read back"), unread);
        item.get("price_per_hour").is_some()
    };
    assert!(stored(1) && !stored(0));
}

#[test]
fn suspects_are_read_back_and_those_about_runners_name_one() {
    let name = common::RUNNER;
    let all = [
        Suspect::Unlisted("i-1".into()),
        Suspect::Stopping("i-1".into()),
        Suspect::Running("i-1".into()),
        Suspect::Jobless("i-1".into(), 2),
        Suspect::Offline(name.to_owned()),
        Suspect::Idle(name.to_owned()),
        Suspect::Unregistered(name.to_owned()),
        Suspect::Stale(name.to_owned()),
    ];
    let janitor = Janitor { suspects: all.clone().map(|it| (it, noon())).into(), ..Janitor::default() };
    let read: Janitor = stored(serde_json::to_value(&janitor).expect("an item"));
    assert_eq!(read.suspects, janitor.suspects);
    let runners = all.iter().filter_map(Suspect::runner).map(|it| it.to_string()).collect::<Vec<_>>();
    assert_eq!(runners, [name; 4]);
    assert_eq!(Suspect::Stale("another".to_owned()).runner(), None);
}

#[test]
fn the_secret_of_a_boot_item_is_not_shown() {
    let item = BootItem {
        jit_config: "a secret".to_owned(),
        max_life_seconds: 3600,
        repositories: Vec::new(),
        allow_public: Some(false),
        usage: None,
        expires_at: 0,
    };
    let shown = format!("{item:?}");
    assert!(!shown.contains("a secret") && shown.contains("max_life_seconds: 3600"), "{shown}");
}

#[test]
fn messages_of_one_repository_are_a_group_of_the_queue_and_newer_versions_are_refused() {
    let of = |repository_id| Message::WorkflowJob(Box::new(Notice { repository_id, ..notice(Action::Queued) }));
    assert_eq!((of(Some(7)).group().as_str(), of(Some(8)).group().as_str()), ("7", "8"));
    assert_eq!(of(None).group(), of(None).group());
    assert!(!of(None).group().is_empty() && of(None).group() != of(Some(7)).group());
    let instance = Message::Instance { id: "i-1".into(), change: InstanceChange::Ended };
    let stopped = json!({
        "detail-type": "EC2 Instance State-change Notification", "time": noon(),
        "detail": { "instance-id": "i-1", "state": "stopped" },
    });
    let stopped = Message::parse(&stopped.to_string()).expect("an event of EC2");
    assert_eq!(stopped, Message::Instance { id: "i-1".into(), change: InstanceChange::Stopped });
    let nudge = |name: &str, v| Message::Nudge { v, pool: name.parse().expect("a pool") };
    assert_eq!(nudge("linux", MESSAGE_VERSION).group(), "pool:linux");
    assert!(!instance.group().is_empty() && instance.group() != of(None).group());
    let read = |v| Message::parse(&nudge("linux", v).to_body());
    assert!(read(MESSAGE_VERSION).is_ok() && read(MESSAGE_VERSION - 1).is_ok());
    let error = read(MESSAGE_VERSION + 1).expect_err("it is too new").to_string();
    assert!(error.contains("deploy the scaler before ingest"), "{error}");
}

#[test]
fn a_transaction_is_as_long_as_its_writes_and_checks() {
    let machine = instance();
    let writes =
        Transaction::new().put(machine.clone()).delete(machine).check_absent(Key::Config).check_absent(Key::Catalogue);
    assert_eq!((writes.len(), writes.is_empty(), Transaction::new().is_empty()), (4, false, true));
}
