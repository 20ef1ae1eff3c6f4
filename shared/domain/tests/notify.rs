//! The check run that explains why a job waits: when it is published, and what it says.

mod common;

use common::{ago, job, later, noon, pool, slot, turn, view};
use domain::config::{Market, Tuple};
use domain::ids::{JobId, SlotId};
use domain::policy::PoolView;
use domain::policy::budget::Optional;
use domain::policy::notify::{
    Conclusion, Notification, Reader, due_notification, optional, published, reasons, refused, summary, title, update,
};
use domain::state::{
    Answer, Batch, CheckRun, Circuit, CircuitCause, Cooldown, Item, Meta, Pause, Slot, Stage, Throttle, Unserved,
    WaitingJob,
};
use jiff::{SignedDuration, Timestamp};
use proptest::proptest;
use serde_json::json;

fn check(published: Option<Stage>, next_at: Timestamp) -> CheckRun {
    let value = json!({ "job": 5, "pool": "linux", "repository": "octo/widgets", "head_sha": "a", "tries": 1,
        "next_at": next_at, "revision": 1 });
    CheckRun { published, ..serde_json::from_value(value).expect("a check run") }
}

#[test]
fn each_stage_is_published_once_from_its_moment_on_and_so_is_the_end() {
    let due = |queued: i64, check: Option<CheckRun>| {
        let items = [Item::from(job(queued))].into_iter().chain(check.map(Item::from));
        due_notification(&pool(), &view(items), JobId(5), noon())
    };
    assert_eq!(due(899, None), None);
    assert_eq!(due(900, None), Some(Notification::Stage(Stage::Waiting)));
    assert_eq!(due(3600, None), Some(Notification::Stage(Stage::Failed)));
    assert_eq!(due(3599, Some(check(Some(Stage::Waiting), noon()))), None, "it was published");
    assert_eq!(due(3600, Some(check(Some(Stage::Waiting), noon()))), Some(Notification::Stage(Stage::Failed)));
    assert_eq!(
        due(900, Some(check(None, noon()))),
        Some(Notification::Stage(Stage::Waiting)),
        "GitHub refused it before"
    );
    assert_eq!(due(900, Some(check(None, later(1)))), None, "another invocation publishes it");
    let gated = WaitingJob { open: false, ..job(5000) };
    assert_eq!(due_notification(&pool(), &view([gated.into()]), JobId(5), noon()), None, "it waits for an approval");
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
fn each_reason_is_given_only_while_it_applies() {
    let why = |job: &WaitingJob, change: &dyn Fn(&mut Meta), slots: &[Slot]| {
        let slots = slots.iter().cloned().map(Item::from);
        let mut view = view([Item::from(job.clone())].into_iter().chain(slots));
        change(&mut view.meta);
        reasons(&pool(), &view, job, Reader::Operator, noon()).join("; ")
    };
    let nothing = |_: &mut Meta| {};
    let (soon, past) = (later(9), noon());
    assert_eq!(why(&job(60), &nothing, &[]), "a machine will be launched shortly");
    assert_eq!(why(&job(60), &nothing, &[slot("planned", 9, json!({}))]), "a machine is on its way");
    let pause = |until| Pause {
        market: Market::Spot,
        instance_type: None,
        until,
        code: "MaxSpot".to_owned(),
        message: "m".to_owned(),
    };
    let quota = |until| move |meta: &mut Meta| meta.pauses.push(pause(until));
    assert_eq!(why(&job(60), &quota(soon), &[]), "no spot launches for now: MaxSpot: m");
    assert_eq!(why(&job(60), &quota(past), &[]), "a machine will be launched shortly");
    let throttled = |until| move |meta: &mut Meta| meta.throttled = Some(Throttle { until, times: 1 });
    assert!(why(&job(60), &throttled(soon), &[]).contains("throttles RunInstances"));
    assert!(!why(&job(60), &throttled(past), &[]).contains("RunInstances"));
    let open = |meta: &mut Meta| {
        let (cause, message) = (CircuitCause::from("Blocked".to_owned()), "m.".to_owned());
        meta.circuit = Circuit::Open { until: noon(), backoff_seconds: 30, since: noon(), cause, message };
    };
    let probes = |at: Timestamp| format!("the pool launches only probes: Blocked: m; next one after {at:.0}");
    assert_eq!(why(&job(60), &open, &[]), probes(noon()));
    let open_and_cooling = |meta: &mut Meta| {
        open(meta);
        let cool = |tuple| Cooldown { tuple, until: soon, seconds: 60, code: "Blocked".to_owned() };
        meta.cooldowns = pool().tuples().into_iter().map(cool).collect();
    };
    assert_eq!(why(&job(60), &open_and_cooling, &[]), probes(soon), "until then EC2 is not called");
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
    let online = Slot { id: SlotId { version: 4, index: 1 }, ..slot("online", 9, json!({})) };
    assert!(!why(&job(60), &nothing, &[busy(0), online]).contains("maximum"), "a machine is there for the job");
    let again = |registration: u32| slot("launched", 9, json!({ "registration": registration }));
    assert!(why(&job(60), &nothing, &[again(2)]).contains("GitHub has not registered its runner yet"));
    assert_eq!(why(&job(60), &nothing, &[again(1)]), "a machine is on its way");
    let warm = Slot { wanted: false, ..again(2) };
    assert!(!why(&job(60), &nothing, &[warm]).contains("registered"), "no job wants it");
    let hours = |hours: i64| why(&WaitingJob { opened_at: None, ..job(hours * 3600) }, &nothing, &[]);
    assert!(hours(71).contains("for 71 hours") && hours(72).contains("for 3 days"), "{}", hours(72));
}

#[test]
fn the_end_of_the_wait_needs_no_call_without_a_check_run() {
    let of = |id, notification, read: &PoolView| {
        update(&pool(), read, &CheckRun { id, ..check(None, noon()) }, notification, noon())
    };
    let (title, call) = of(None, Notification::Over, &view([]));
    assert_eq!((title.as_str(), call), ("No longer waiting", None));
    let closed = of(Some(9), Notification::Over, &view([])).1.expect("a call");
    assert_eq!((closed.check_run, closed.conclusion), (Some(9), Conclusion::Success));
    let waiting = view([job(900).into()]);
    let first = of(None, Notification::Stage(Stage::Waiting), &waiting).1.expect("a call");
    assert_eq!((first.check_run, first.conclusion, first.external_id.as_str()), (None, Conclusion::Neutral, "5"));
    let failed = of(Some(9), Notification::Stage(Stage::Failed), &waiting).1.expect("a call");
    assert_eq!((failed.check_run, failed.conclusion), (Some(9), Conclusion::Failure));
}

#[test]
fn what_was_published_is_recorded_and_the_end_deletes_the_record() {
    let stage = Notification::Stage(Stage::Waiting);
    let writes = published(&pool(), check(None, later(90)), stage, Some(9), "t".to_owned(), &turn());
    let [Item::CheckRun(kept)] = &writes.puts[..] else { panic!("one check run: {writes:?}") };
    assert_eq!(
        (kept.published, kept.id, kept.lease.tries, kept.lease.next_at),
        (Some(Stage::Waiting), Some(9), 0, noon())
    );
    let over = published(&pool(), check(None, later(90)), Notification::Over, None, "t".to_owned(), &turn());
    assert_eq!((over.puts.len(), over.deletes.len()), (0, 1));
    let refused = refused(&pool(), check(None, later(90)), "t".to_owned(), &turn());
    assert!(matches!(&refused.puts[..], [Item::CheckRun(kept)] if kept.published.is_none()));
    let all = [stage, Notification::Over, Notification::Stage(Stage::Failed)];
    assert_eq!(all.map(optional), [Optional::Notice, Optional::Closing, Optional::Notice]);
}

/// Why a job may wait, each in a pool with nothing else unusual.
fn situations() -> Vec<(&'static str, WaitingJob, PoolView)> {
    let pool_with = |change: &dyn Fn(&mut PoolView)| {
        let mut view = view([job(960).into()]);
        change(&mut view);
        (job(960), view)
    };
    let tuple = |subnet: &str, market| Tuple {
        template: "lt-0".into(),
        template_version: 1,
        subnet: subnet.into(),
        instance_type: "m7i.large".into(),
        market,
        root: None,
    };
    let batch = |tries: u32, refusals: &[(&str, Market)]| {
        let value = json!({ "pool": "linux", "version": 4, "epoch": "e1", "attempt": 3, "count": 1, "tries": tries,
            "next_at": noon(), "planned_at": ago(960), "revision": 1 });
        let refusal = |(subnet, market): &(&str, Market)| Answer {
            at: ago(60),
            tuple: tuple(subnet, *market),
            code: "InsufficientInstanceCapacity".to_owned(),
            message: "We currently do not have sufficient capacity.".to_owned(),
        };
        Batch { answers: refusals.iter().map(refusal).collect(), ..serde_json::from_value(value).expect("a batch") }
    };
    let open = |cause: CircuitCause, message: &str| Circuit::Open {
        until: later(300),
        backoff_seconds: 300,
        since: ago(600),
        cause,
        message: message.to_owned(),
    };
    let with_slot = |view: &mut PoolView, index: u8, slot: Slot| {
        let id = SlotId { version: 4, index };
        view.slots.insert(id, Slot { id, ..slot });
    };
    let unserved =
        WaitingJob { unserved: Some(Unserved { since: ago(60), until: later(60), seconds: 120 }), ..job(960) };
    let relaunched = WaitingJob { launches: vec![ago(900), ago(600), ago(300)], ..job(960) };
    let situation = |name, (job, view): (WaitingJob, PoolView)| (name, job, view);
    vec![
        situation("a launch is due", pool_with(&|_| {})),
        situation("a machine boots", pool_with(&|it| with_slot(it, 0, slot("launched", 30, json!({}))))),
        situation(
            "EC2 has no capacity",
            pool_with(&|it| {
                let refusals = [("subnet-a", Market::Spot), ("subnet-b", Market::Spot), ("subnet-a", Market::OnDemand)];
                it.batches.insert(4, batch(0, &refusals));
            }),
        ),
        situation("EC2 does not answer", pool_with(&|it| drop(it.batches.insert(4, batch(5, &[]))))),
        situation("EC2 throttles", pool_with(&|it| it.meta.throttled = Some(Throttle { until: later(5), times: 2 }))),
        situation(
            "the quota is used up",
            pool_with(&|it| {
                it.meta.pauses.push(Pause {
                    instance_type: None,
                    market: Market::OnDemand,
                    until: later(300),
                    code: "VcpuLimitExceeded".to_owned(),
                    message: "You have requested more vCPU capacity than your current vCPU limit of 32 allows."
                        .to_owned(),
                })
            }),
        ),
        situation(
            "EC2 refuses the configuration",
            pool_with(&|it| {
                let cause = CircuitCause::LaunchRefused("InvalidAMIID.NotFound".to_owned());
                it.meta.circuit = open(cause, "The image id '[ami-1]' does not exist");
            }),
        ),
        situation(
            "machines do not boot",
            pool_with(&|it| {
                it.meta.circuit = open(CircuitCause::BootFailures, "3 machines in a row never came online");
            }),
        ),
        situation(
            "GitHub refuses registrations",
            pool_with(&|it| {
                it.meta.circuit = open(CircuitCause::RegistrationRefused, "GitHub refused: 404 Not Found");
            }),
        ),
        situation("GitHub does not assign the job", (unserved.clone(), view([unserved.into()]))),
        situation("launched machines did not run it", (relaunched.clone(), view([relaunched.into()]))),
        situation(
            "the pool is full",
            pool_with(&|it| {
                (0..2).for_each(|index| with_slot(it, index, slot("busy", 600, json!({}))));
            }),
        ),
        situation(
            "GitHub has not registered a runner yet",
            pool_with(&|it| {
                with_slot(it, 0, slot("launched", 60, json!({ "registration": 2, "next_at": later(30) })));
            }),
        ),
    ]
}

/// The text of the check run in each situation, with the code and message of every error replaced.
fn published_texts(code: &str, text: &str) -> Vec<String> {
    let (code, text) = (|| code.to_owned(), || text.to_owned());
    let situations = situations().into_iter().map(|(_, job, mut view)| {
        if let Circuit::Open { cause, message, .. } = &mut view.meta.circuit {
            *message = text();
            if matches!(cause, CircuitCause::LaunchRefused(_)) {
                *cause = CircuitCause::LaunchRefused(code());
            }
        }
        view.meta.pauses.iter_mut().for_each(|pause| (pause.code, pause.message) = (code(), text()));
        let answers = view.batches.values_mut().flat_map(|batch| &mut batch.answers);
        answers.for_each(|answer| (answer.code, answer.message) = (code(), text()));
        let view = PoolView { waiting: [(job.id, job)].into(), ..view };
        let (title, call) = update(&pool(), &view, &check(None, noon()), Notification::Stage(Stage::Waiting), noon());
        format!("{title}\n{}", call.expect("a call").summary)
    });
    situations.collect()
}

#[test]
fn a_check_run_shows_error_codes_and_no_message_of_ec2_or_github() {
    let message = "User: arn:aws:sts::123456789012:assumed-role/drover-scaler/x is not authorized to perform: \
        ec2:RunInstances on resource: arn:aws:ec2:eu-central-1:123456789012:subnet/subnet-0123456789abcdef0";
    let texts = published_texts("UnauthorizedOperation", message);
    assert!(texts.iter().any(|text| text.contains("UnauthorizedOperation: Drover is not allowed to launch it")));
    let shown = |code: &str| published_texts(code, message).iter().any(|text| text.contains(code));
    assert!(shown("Error12345") && !shown("Error123456"), "an id has six digits or more");
    for code in ["UnauthorizedOperation", "TagPolicyViolation", message, "123456789012", "arn:aws:iam::1:role/x"] {
        for text in published_texts(code, message) {
            let digits = text.split(|it: char| !it.is_ascii_digit()).map(str::len).max().unwrap_or_default();
            assert!(!text.contains("arn:") && digits < 12, "{text}");
        }
    }
}

proptest! {
    #[test]
    fn no_check_run_depends_on_the_message_of_an_error(message in "\\PC{0,80}") {
        assert_eq!(published_texts("TagPolicyViolation", &message), published_texts("TagPolicyViolation", "another"));
    }
}

#[test]
fn a_check_run_that_gives_up_keeps_its_id_and_is_due_again_at_once() {
    let given_up = |id: Option<u64>| {
        let check = check(None, later(600));
        let writes =
            published(&pool(), CheckRun { id: Some(3), ..check }, Notification::GivenUp, id, String::new(), &turn());
        let [Item::CheckRun(check)] = &writes.puts[..] else { panic!("one check run: {writes:?}") };
        (check.published, check.given_up, check.id, check.lease.tries, check.lease.next_at)
    };
    assert_eq!(given_up(None), (Some(Stage::Failed), true, Some(3), 0, noon()));
    assert_eq!(given_up(Some(4)), (Some(Stage::Failed), true, Some(4), 0, noon()));
}

#[test]
fn the_check_run_explains_every_situation() {
    let mut text = String::new();
    for (name, job, view) in situations() {
        let notification = Notification::Stage(Stage::Waiting);
        let view = PoolView { waiting: [(job.id, job)].into(), ..view };
        let (title, call) = update(&pool(), &view, &check(None, noon()), notification, noon());
        let summary = call.expect("a call").summary;
        text += &format!("# {name}\n\n{title}\n\n{summary}\n");
    }
    insta::assert_snapshot!(text);
}
