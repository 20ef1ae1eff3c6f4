//! Small rules of stored records: how long they are kept, when they need an operator, and how they are written.

mod common;

use common::{noon, turn};
use domain::config::{Label, Span};
use domain::ids::{InstanceId, JobId};
use domain::log::{Event, Stream, Transaction, What};
use domain::policy::PoolView;
use domain::policy::launch::throttled;
use domain::policy::launch_error::LaunchError;
use domain::state::{Batch, Condemned, Instance, Meta, Ownership, Slot, SlotOutcome, StopReason, Throttle};
use domain::wire::{InstanceChange, MachineState, Message, ObservedInstance};
use jiff::SignedDuration;
use serde_json::json;

const MONTH: i64 = 30 * 24 * 60 * 60;

fn batch(tries: u32) -> Batch {
    let batch = json!({
        "pool": "linux", "version": 4, "epoch": "e1", "attempt": 1, "count": 2, "tries": tries, "next_at": noon(),
        "planned_at": noon(), "revision": 1,
    });
    serde_json::from_value(batch).expect("a batch")
}

#[test]
fn a_launch_is_stuck_from_the_fifth_try_on() {
    assert_eq!((4..=6).map(|tries| batch(tries).is_stuck()).collect::<Vec<_>>(), [false, true, true]);
}

#[test]
fn closed_instances_and_events_are_kept_for_a_month() {
    let listed = ObservedInstance {
        id: InstanceId::from("i-1"),
        state: MachineState::Running,
        launched_at: noon(),
        image: None,
        pool: None,
        batch: None,
        hold: false,
        state_reason: None,
    };
    let unowned = Instance::unowned(&listed, None, Ownership::Condemned { why: Condemned::Orphan }, noon());
    assert_eq!(unowned.expires_at, Some(noon().as_second() + MONTH));
    let closed = Instance { expires_at: None, ..unowned }.closed(SlotOutcome::JobDone, noon());
    assert_eq!(closed.expires_at, Some(noon().as_second() + MONTH));
    assert_eq!(closed.ownership, Ownership::Closed { closed_at: noon(), why: "job_done".to_owned() });
    let what = What::Checked { job: JobId(5), status: "queued".to_owned() };
    let writes = Transaction::new().put(closed).emit(Stream::Stack, what, &turn());
    let event: Event = writes.event.expect("an event was emitted");
    assert_eq!(event.expires_at, noon().as_second() + MONTH);
    let own = Stream::Pool("linux".parse().expect("a pool"));
    assert_eq!((Stream::Stack.pk(), own.pk()), ("LOG#STACK".to_owned(), "LOG#linux".to_owned()));
}

#[test]
fn only_an_operator_forces_a_stop_and_a_later_reason_keeps_the_force() {
    let slot = json!({
        "id": "4.0", "pool": "linux", "state": "planned", "wanted": true, "planned_at": noon(), "registration": 0,
        "next_at": noon(), "revision": 1,
    });
    let slot: Slot = serde_json::from_value(slot).expect("a slot");
    let forced = slot.clone().forced(noon()).stop.expect("it is stopped");
    assert_eq!((forced.why, forced.forced), (StopReason::Operator, true));
    let later = slot.clone().forced(noon()).stopped(StopReason::Halted, noon(), noon()).stop.expect("it is stopped");
    assert_eq!((later.why, later.forced), (StopReason::Halted, true), "another reason keeps it");
    assert!(!slot.stopped(StopReason::Operator, noon(), noon()).stop.expect("it is stopped").forced);
}

#[test]
fn each_event_of_ec2_is_read_as_its_change() {
    let change = "EC2 Instance State-change Notification";
    for (kind, state, expected) in [
        ("EC2 Spot Instance Interruption Warning", None, InstanceChange::Interrupted(Some(noon()))),
        (change, Some("shutting-down"), InstanceChange::Ended),
        (change, Some("terminated"), InstanceChange::Ended),
        (change, Some("running"), InstanceChange::Other),
        ("EC2 Instance Rebalance Recommendation", None, InstanceChange::Other),
    ] {
        let body = json!({ "detail-type": kind, "time": noon(), "detail": { "instance-id": "i-1", "state": state.unwrap_or_default() } });
        let message = Message::parse(&body.to_string()).expect(kind);
        assert_eq!(message, Message::Instance { id: InstanceId::from("i-1"), change: expected }, "{kind} {state:?}");
    }
}

#[test]
fn launches_refused_together_are_one_throttling_and_the_next_one_waits_longer() {
    let view = |throttled: Option<Throttle>| {
        let meta = Meta { throttled, ..Meta::new("linux".parse().expect("a pool"), "e1".parse().expect("an epoch")) };
        PoolView::new(meta, Vec::new())
    };
    let times = |at: Option<i64>| {
        let last = at.map(|seconds| Throttle { until: noon() + SignedDuration::from_secs(seconds), times: 2 });
        let mut after = view(last.clone());
        let error = LaunchError::answered(503, Some("RequestLimitExceeded"), "slow down");
        after.apply(&throttled(&view(last), &batch(1), &error, noon()));
        let throttle = after.meta.throttled.expect("it is throttled");
        assert_eq!(after.batches[&4].lease.next_at, throttle.until, "the launch waits as long as the pool");
        Some(throttle.times)
    };
    assert_eq!(times(None), Some(1));
    assert_eq!(times(Some(1)), Some(2), "the wait has not ended: the same throttling");
    assert_eq!(times(Some(0)), Some(3), "the wait has ended: another throttling");
    assert_eq!(times(Some(-3600)), Some(1), "an old throttling does not count");
}

#[test]
fn a_label_is_lower_cased_and_has_at_most_256_characters() {
    assert_eq!("Self-Hosted".parse::<Label>().expect("a label").as_str(), "self-hosted");
    let longest = "ü".repeat(256);
    assert_eq!(longest.parse::<Label>().expect("256 characters").as_str(), longest);
    for bad in ["", " ", "a,b", "a\nb", &"a".repeat(257)] {
        assert!(bad.parse::<Label>().is_err(), "{bad:?} is accepted");
    }
}

#[test]
fn a_duration_is_written_in_its_largest_whole_unit() {
    for (text, seconds) in [("1s", 1), ("90s", 90), ("8m", 480), ("61m", 3660), ("12h", 43_200)] {
        let span: Span = text.parse().expect(text);
        assert_eq!(span.duration().as_secs(), seconds, "{text}");
    }
    for (text, shown) in [
        ("59s", "59s"),
        ("60s", "1m"),
        ("90s", "90s"),
        ("3600s", "1h"),
        ("61m", "61m"),
        ("60m", "1h"),
        ("250ms", "250ms"),
        ("1500ms", "1s 500ms"),
        ("720h", "720h"),
    ] {
        assert_eq!(text.parse::<Span>().expect(text).to_string(), shown);
    }
    for bad in ["", "s", "5", "-1s", "721h", "an hour"] {
        assert!(bad.parse::<Span>().is_err(), "{bad:?} is accepted");
    }
}
