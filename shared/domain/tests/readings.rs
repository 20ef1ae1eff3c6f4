//! What one reading of a pool shows.

mod common;

use common::{ago, job, meta, noon, pool, slot, view};
use domain::config::{Label, MicroUsd};
use domain::ids::{JobId, SlotId};
use domain::policy::PoolView;
use domain::state::{Answer, Batch, Failure, Item, Meta, Nudge, Slot, WaitingJob};
use serde_json::{Value, json};

fn batch(more: Value) -> Batch {
    let mut all = json!({
        "pool": "linux", "version": 4, "epoch": "e1", "attempt": 1, "count": 2, "tries": 0, "next_at": noon(),
        "planned_at": noon(), "revision": 1,
    });
    all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    serde_json::from_value(all).expect("a batch")
}

fn rerun() -> Item {
    let rerun = json!({
        "job": 5, "pool": "linux", "repository": "octo/widgets", "run_id": 2, "run_attempt": 1, "since": noon(), "tries": 0,
        "next_at": noon(), "revision": 1,
    });
    Item::Rerun(serde_json::from_value(rerun).expect("a re-run"))
}

fn check_run() -> Item {
    let check = json!({
        "pool": "linux", "job": 5, "repository": "octo/widgets", "head_sha": "c0ffee", "tries": 0, "next_at": noon(),
        "revision": 1,
    });
    Item::CheckRun(serde_json::from_value(check).expect("a check run"))
}

fn answer(seconds: i64) -> Answer {
    Answer { at: ago(seconds), tuple: pool().tuples().remove(0), code: "No".to_owned(), message: String::new() }
}

#[test]
fn a_reading_with_a_slot_that_is_newer_than_meta_mixes_two_states() {
    let is_torn = |revision| {
        let meta = Meta { revision, ..meta() };
        PoolView::new(meta, [Item::from(slot("planned", 60, json!({})))]).is_torn()
    };
    assert!(is_torn(3) && !is_torn(4) && !is_torn(5));
    assert!(!view([]).is_torn());
}

#[test]
fn a_pool_is_empty_once_it_has_none_of_its_items() {
    assert!(view([]).is_empty());
    let nudge = Nudge { pool: pool().name, due_at: noon(), revision: 1 };
    assert!(view([nudge.into()]).is_empty(), "a message that asks to look at the pool is nothing to finish");
    let items = [job(60).into(), batch(json!({})).into(), slot("planned", 60, json!({})).into(), check_run(), rerun()];
    for item in items.clone() {
        let read = view([item]);
        assert!(!read.is_empty() && read.size() == 1, "{read:?}");
    }
    let second = Slot { id: SlotId { version: 4, index: 1 }, ..slot("planned", 60, json!({})) };
    let all = view(items.into_iter().chain([Item::from(second), WaitingJob { id: JobId(6), ..job(60) }.into()]));
    assert_eq!(all.size(), 7);
}

#[test]
fn the_part_of_a_class_has_its_jobs_launches_slots_and_check_runs_and_counts_the_others() {
    let class: Label = "linux/8cpu".parse().expect("a label");
    let of = |class: Option<&Label>, id: u64| WaitingJob { id: JobId(id), class: class.cloned(), ..job(60) };
    let priced = |version: u64, class: Option<&Label>| {
        let more = json!({ "id": format!("{version}.0"), "class": class, "price_per_hour": 100 });
        Item::from(slot("online", 60, more))
    };
    let read = view([
        of(Some(&class), 5).into(),
        of(None, 6).into(),
        batch(json!({ "version": 4, "class": class })).into(),
        batch(json!({ "version": 5 })).into(),
        priced(4, Some(&class)),
        priced(5, None),
        priced(6, None),
        check_run(),
    ]);
    let part = read.of_class(Some(&class));
    assert_eq!(part.waiting.keys().collect::<Vec<_>>(), [&JobId(5)]);
    assert_eq!((part.batches.keys().collect::<Vec<_>>(), part.slots.len()), (vec![&4], 1));
    assert_eq!(part.check_runs.len(), 1);
    assert_eq!((part.live(), part.price_per_hour()), (3, MicroUsd(300)));
    let others = read.of_class(None);
    assert_eq!((others.waiting.len(), others.batches.keys().collect::<Vec<_>>()), (1, vec![&5]));
    assert_eq!((others.slots.len(), others.check_runs.len(), others.live()), (2, 0, 3));
}

#[test]
fn a_machine_that_has_ended_is_supply_for_a_job_about_which_github_was_not_asked_since() {
    let gone = |more: Value| -> Item { slot("online", 60, more).into() };
    let supply = |job: WaitingJob, slot: Item| view([job.into(), slot]).supply(noon()).count();
    let asked = |seconds: i64| WaitingJob { checked_at: ago(seconds), ..job(600) };
    let ended = || gone(json!({ "gone_at": ago(5) }));
    assert_eq!((supply(asked(6), ended()), supply(asked(5), ended()), supply(asked(4), ended())), (1, 0, 0));
    assert_eq!(supply(WaitingJob { open: false, ..asked(6) }, ended()), 0, "a gate held the job");
    assert_eq!(supply(asked(6), gone(json!({ "gone_at": ago(5), "class": "linux/8cpu" }))), 0, "it runs other jobs");
    let over = WaitingJob { run_over_at: Some(ago(60)), ..asked(6) };
    assert_eq!(supply(over, ended()), 0, "nothing is launched for the job any more");
}

#[test]
fn a_pool_is_short_if_slots_are_missing_or_ec2_has_refused_a_launch() {
    let online = || Item::from(slot("online", 60, json!({})));
    let answered = Batch { answers: vec![answer(5)], ..batch(json!({})) };
    assert!(!view([]).is_short(noon()) && view([job(60).into()]).is_short(noon()));
    assert!(!view([job(60).into(), online()]).is_short(noon()));
    assert!(!view([job(60).into(), online(), batch(json!({})).into()]).is_short(noon()));
    assert!(view([job(60).into(), online(), answered.into()]).is_short(noon()));
}

#[test]
fn answers_and_failures_of_the_last_hour_are_shown_and_each_answer_once() {
    let failure = |seconds: i64| Failure {
        at: ago(seconds),
        instance: None,
        launched_at: ago(seconds + 60),
        reason: "it did not boot".to_owned(),
        console: String::new(),
    };
    let meta = Meta {
        answers: vec![answer(3600), answer(3599), answer(30)],
        failures: vec![failure(3600), failure(3599)],
        ..meta()
    };
    let unfinished = Batch { answers: vec![answer(60), answer(30)], ..batch(json!({})) };
    let read = PoolView::new(meta, [Item::from(unfinished)]);
    let answers: Vec<_> = read.latest_answers(noon()).iter().map(|it| it.at).collect();
    assert_eq!(answers, [ago(3599), ago(60), ago(30)], "newest last");
    let meta = Meta { answers: vec![answer(3600), answer(3599)], ..common::meta() };
    let only_recent = PoolView::new(meta, []).latest_answers(noon()).len();
    assert_eq!(only_recent, 1);
    assert_eq!(read.latest_failures(noon()).map(|it| it.at).collect::<Vec<_>>(), [ago(3599)]);
}
