//! Which effects are due, and when the next one is.

mod common;

use std::collections::BTreeMap;

use common::{ago, job, later, noon, pool, slot, view};
use domain::ids::{JobId, PoolName, SlotId};
use domain::policy::PoolView;
use domain::policy::due::{Effect, asked_again_at, due, next_due, quiet_first};
use domain::state::{Batch, Item, Throttle, WaitingJob};
use jiff::Timestamp;
use serde_json::{Value, json};

const SLOT: SlotId = SlotId { version: 4, index: 0 };

fn batch(next_at: Timestamp) -> Item {
    let batch = json!({
        "pool": "linux", "version": 4, "epoch": "e1", "attempt": 1, "count": 1, "tries": 1, "next_at": next_at,
        "planned_at": noon(), "revision": 1,
    });
    Item::from(serde_json::from_value::<Batch>(batch).expect("a batch"))
}

fn throttled(view: PoolView, until: Timestamp) -> PoolView {
    let mut view = view;
    view.meta.throttled = Some(Throttle { until, times: 1 });
    view
}

/// A slot whose machine waits for its registration.
fn registering(next_at: Timestamp) -> Item {
    slot("launched", 60, json!({ "next_at": next_at })).into()
}

#[test]
fn a_launch_is_due_once_its_lease_and_the_pools_throttling_have_ended() {
    let launches = |view: &PoolView| due(&pool(), view, None, noon()).effects;
    assert_eq!(launches(&view([batch(noon())])), [Effect::Launch(4)]);
    assert_eq!(launches(&view([batch(later(1))])), []);
    assert_eq!(launches(&throttled(view([batch(noon())]), later(1))), []);
    assert_eq!(launches(&throttled(view([batch(noon())]), noon())), [Effect::Launch(4)]);
    assert_eq!(launches(&throttled(view([batch(later(1))]), noon())), []);
}

#[test]
fn the_next_effect_is_the_first_that_is_not_due_yet() {
    let next = |items: Vec<Item>| next_due(&view(items), noon());
    assert_eq!(next(vec![]), None);
    assert_eq!(next(vec![batch(later(9)), registering(later(5))]), Some(later(5)));
    assert_eq!(next(vec![batch(later(9)), registering(noon())]), Some(later(9)), "the registration is due now");
    assert_eq!(next(vec![batch(ago(1)), registering(noon())]), None);
    let waits = slot("online", 60, json!({ "next_at": later(5) }));
    assert_eq!(next(vec![waits.into()]), None, "an idle runner waits for nothing");
    let throttle = |until| next_due(&throttled(view([batch(later(9))]), until), noon());
    assert_eq!((throttle(later(20)), throttle(later(2))), (Some(later(20)), Some(later(9))));
}

#[test]
fn pools_with_few_messages_come_first() {
    let name = |text: &str| text.parse::<PoolName>().expect("a pool");
    let messages: BTreeMap<PoolName, usize> = [(name("a"), 9), (name("b"), 1), (name("c"), 4)].into();
    assert_eq!(quiet_first(&messages), [&name("b"), &name("c"), &name("a")]);
}

#[test]
fn only_questions_about_jobs_may_be_put_off() {
    for question in [Effect::Check(JobId(5)), Effect::CheckLostJob(SLOT), Effect::Notify(JobId(5))] {
        assert!(question.is_question(), "{question}");
    }
    let others = [
        (Effect::Launch(4), "the launch of batch 4"),
        (Effect::Register(SLOT), "the registration of slot 4.0"),
        (Effect::StopMachine(SLOT), "stopping the machine of slot 4.0"),
        (Effect::Retire(SLOT), "the retirement of slot 4.0"),
        (Effect::Rerun(JobId(5)), "the re-run of job 5"),
    ];
    for (effect, shown) in others {
        assert_eq!((effect.is_question(), effect.to_string().as_str()), (false, shown));
    }
}

/// A machine ended ten seconds ago without a report, and these jobs wait.
fn ended(jobs: impl IntoIterator<Item = WaitingJob>, more: Value) -> PoolView {
    let mut gone = json!({ "gone_at": ago(10) });
    gone.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    view(jobs.into_iter().map(Item::from).chain([Item::from(slot("configured", 60, gone))]))
}

/// Job `id`, about which GitHub answered that many seconds ago.
fn asked(id: u64, seconds: i64) -> WaitingJob {
    WaitingJob { id: JobId(id), checked_at: ago(seconds), check_at: later(300 - seconds), ..job(600) }
}

#[test]
fn a_job_that_the_ended_machine_may_run_is_asked_about_again_twenty_seconds_after_the_last_answer() {
    let again = |jobs: Vec<WaitingJob>| asked_again_at(&pool(), &ended(jobs, json!({})), None, noon());
    assert_eq!(again(vec![asked(1, 12)]), Some(later(8)));
    assert_eq!(again(vec![asked(1, 12), asked(2, 15)]), Some(later(5)));
    assert_eq!(again(vec![asked(1, 9)]), None, "GitHub answered after the machine had ended");
    assert_eq!(again(vec![asked(1, 20)]), None, "it is due now");
    assert_eq!(again(vec![asked(1, 12), asked(2, 12), asked(3, 15)]), Some(later(8)), "a machine ran one of two jobs");
    assert_eq!(again(vec![WaitingJob { open: false, ..asked(1, 12) }]), None, "a gate holds it");
    let over = WaitingJob { run_over_at: Some(ago(60)), ..asked(1, 12) };
    assert_eq!(again(vec![over]), None, "nothing is launched for it any more");
}
