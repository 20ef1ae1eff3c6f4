//! When the scaler reads the pools again.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use domain::config::Pool;
use domain::state::Key;
use domain::wire::Message;
use jiff::SignedDuration;
use scaler::{Batch, POOLS_CACHED_FOR, POOLS_READ_AGAIN_AFTER, POOLS_USED_FOR, Pools, handle};
use serde_json::{json, to_string, to_value};
use simulator::{Universe, pool};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn batch(messages: &[Message]) -> Batch {
    let record = |(id, message)| json!({ "messageId": id_of(id), "body": to_string(message).unwrap() });
    let records: Vec<_> = messages.iter().enumerate().map(record).collect();
    serde_json::from_value(json!({ "Records": records })).unwrap()
}

fn id_of(index: usize) -> String {
    format!("m-{index}")
}

/// The messages about a new job with this label.
fn messages_about(universe: &Universe, label: &str) -> Vec<Message> {
    universe.queue_job(&[label], MINUTE);
    loop {
        universe.tick();
        let messages = universe.receive();
        if !messages.is_empty() {
            return messages;
        }
    }
}

/// A warm scaler consumes the messages, and acknowledges all of them.
fn scale(universe: &Universe, pools: &Pools, messages: &[Message]) {
    let failures = universe.invoke(async |context| handle(context, pools, batch(messages)).await);
    assert_eq!(to_value(failures).unwrap(), json!({ "batchItemFailures": [] }));
}

fn launches(universe: &Universe) -> u64 {
    universe.ec2(|ec2, _| ec2.launches())
}

/// A job of a pool that is applied, and whose message comes `later` than the scaler has read the pools; the number of
/// machines launched for it.
fn launches_after(universe: &Universe, pools: &Pools, later: SignedDuration) -> u64 {
    let [gpu, linux] = ["gpu", "linux"].map(|label| messages_about(universe, label));
    scale(universe, pools, &linux);
    assert_eq!(launches(universe), 1, "the scaler has read the pools");
    universe.change_pools(|pools| {
        let launch_template = pools[0].launch_template.clone();
        pools.push(Pool { launch_template, ..pool("gpu", 10) });
    });
    universe.pass(later);
    scale(universe, pools, &gpu);
    launches(universe) - 1
}

#[test]
fn a_job_of_a_pool_that_was_just_applied_is_served_although_other_pools_are_cached() {
    assert!(POOLS_READ_AGAIN_AFTER < POOLS_CACHED_FOR);
    let universe = Universe::new(1, vec![pool("linux", 10)]);
    assert_eq!(launches_after(&universe, &Pools::default(), POOLS_READ_AGAIN_AFTER), 1);
}

#[test]
fn jobs_of_no_pool_cost_a_bounded_number_of_readings_and_none_is_dropped() {
    let universe = Universe::new(2, vec![pool("linux", 10)]);
    let just_before = POOLS_READ_AGAIN_AFTER - SignedDuration::from_millis(1);
    assert_eq!(launches_after(&universe, &Pools::default(), just_before), 0, "the pools were read a moment ago");
    universe.sweep();
    assert_eq!(launches(&universe), 2, "the janitor routes the job");
}

#[test]
fn a_short_failure_to_read_the_pools_sends_no_message_back_to_the_queue() {
    assert!(POOLS_CACHED_FOR < POOLS_USED_FOR);
    let (universe, pools) = (Universe::new(3, vec![pool("linux", 10)]), Pools::default());
    let [first, second, third] = ["linux"; 3].map(|label| messages_about(&universe, label));
    scale(&universe, &pools, &first);
    universe.malform_item(Key::Config);
    universe.pass(POOLS_CACHED_FOR);
    scale(&universe, &pools, &second);
    assert_eq!(launches(&universe), 2);
    universe.pass(POOLS_USED_FOR - POOLS_CACHED_FOR);
    let failures = universe.invoke(async |context| handle(context, &pools, batch(&third)).await);
    let all: Vec<_> = (0..third.len()).map(|index| json!({ "itemIdentifier": id_of(index) })).collect();
    assert_eq!(to_value(failures).unwrap(), json!({ "batchItemFailures": all }), "these pools are too old");
    assert_eq!(launches(&universe), 2);
}
