//! What an event records of the items that it was written with.

mod common;

use common::{facts, instance, job, noon, slot, turn};
use domain::ids::{BatchTag, Repository, RunnerName, SlotId};
use domain::log::{Event, Stream, Transaction, What, fold};
use domain::state::{Item, StopReason};
use domain::wire::Action;
use serde_json::{Value, json};

fn what() -> What {
    What::Checked { job: job(60).id, status: "queued".to_owned() }
}

fn event(writes: Transaction) -> Event {
    writes.emit(Stream::Stack, what(), &turn()).event.expect("an event")
}

fn key() -> String {
    Item::from(slot("planned", 60, json!({}))).key().to_string()
}

#[test]
fn an_event_has_the_lifecycle_of_the_items_as_they_are_after_it() {
    let job = job(60);
    let stopped = slot("online", 60, json!({})).stopped(StopReason::Surplus, noon(), noon());
    let recorded = event(Transaction::new().put(stopped).put(job).put(facts(&[Action::Queued])));
    let fields: Vec<(&str, u64)> = recorded.after.iter().map(|it| (it.key.as_str(), it.revision)).collect();
    assert_eq!(fields, [(key().as_str(), 2), ("JOB#5 STATE", 2)], "a waiting job has no lifecycle");
    let slot = &recorded.after[0].fields;
    assert_eq!((&slot["state"], &slot["runner_id"]), (&json!("online"), &json!(7)));
    assert_eq!(slot.get("revision"), None);
    assert_eq!(recorded.after[1].fields["repository"], json!("octo/widgets"));
}

#[test]
fn events_sort_by_time_and_differ_by_what_they_wrote() {
    let written = event(Transaction::new().put(slot("online", 60, json!({}))));
    let deleted = event(Transaction::new().delete(slot("online", 60, json!({ "revision": 5 }))));
    assert_eq!(written.sequence, format!("2026-11-02T12:00:00.000000Z {} 2", key()));
    assert_eq!(deleted.sequence, format!("2026-11-02T12:00:00.000000Z {} 6", key()));
}

#[test]
fn the_log_gives_the_latest_lifecycle_of_every_item_in_any_order() {
    let at =
        |state: &str, revision: u64| event(Transaction::new().put(slot(state, 60, json!({ "revision": revision }))));
    let (first, second, third) = (at("launched", 0), at("configured", 1), at("online", 2));
    let ended = event(Transaction::new().delete(slot("online", 60, json!({ "revision": 3 }))));
    let state =
        |events: &[&Event]| -> Option<Value> { Some(fold(events.iter().copied()).get(&key())?["state"].clone()) };
    assert_eq!(state(&[&first, &second, &third]), Some(json!("online")));
    assert_eq!(state(&[&third, &first, &second]), Some(json!("online")));
    assert_eq!(state(&[&ended, &third, &first]), None, "the slot was deleted");
}

#[test]
fn a_transaction_lists_the_slots_and_instances_as_they_are_stored() {
    let writes = Transaction::new().put(slot("online", 60, json!({}))).put(instance()).put(job(60));
    assert_eq!(
        writes.slots().map(|it| (it.id, it.revision)).collect::<Vec<_>>(),
        [(SlotId { version: 4, index: 0 }, 2)]
    );
    assert_eq!(writes.instances().map(|it| it.revision).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_token_of_a_launch_depends_on_the_stack_and_the_attempt_only() {
    let tag = |text: &str| text.parse::<BatchTag>().expect("a tag");
    let stack = |text: &str| text.parse().expect("a stack");
    let token = tag("linux.e1.4.1").token(&stack("ci"));
    assert_eq!(token, tag("linux.e1.4.1").token(&stack("ci")));
    assert_eq!(token.len(), 64, "EC2 accepts at most 64 characters");
    assert_ne!(token, tag("linux.e1.4.2").token(&stack("ci")));
    assert_ne!(token, tag("linux.e1.4.1").token(&stack("ci-2")));
    assert_eq!(tag("linux.e1.4.1").to_string(), "linux.e1.4.1");
    assert_eq!(RunnerName::prefix(&stack("ci")), "drover_ci_");
    assert_eq!("octo/widgets".parse::<Repository>().expect("a repository").name(), "widgets");
}
