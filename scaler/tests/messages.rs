//! The scaler as a process behind an event source mapping, with valid and invalid messages.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::time::Duration;

use domain::state::{Item, Key};
use engine::ports::Store;
use sandbox::lambda::Batch;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{DEAD_LETTERS, Driven, Options, QUEUE, Sandbox};
use sandbox::short_timings::one_pool;
use sandbox::state::State;
use serde_json::{Value, json};
use world::github::{JobId, JobState};

async fn by_hand() -> Sandbox {
    let retry_after = Duration::ZERO;
    Sandbox::start(Options { driven: Driven::ByHand, retry_after, ..Options::default() }).await.unwrap()
}

async fn with_pools() -> Sandbox {
    let sandbox = by_hand().await;
    sandbox.apply(&one_pool("")).await.unwrap();
    sandbox
}

fn send(sandbox: &Sandbox, body: &str) {
    sandbox.world.act(|state, now| state.sqs.send(QUEUE, body, Duration::ZERO, now)).unwrap();
}

/// Queues a job, and returns the message about it.
async fn message_about_a_job(sandbox: &Sandbox, runs_for: Duration) -> (JobId, Value) {
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], runs_for);
    let arrived = |state: &State| state.sqs.bodies(QUEUE).first().map(|body| serde_json::from_str(body).unwrap());
    (job, sandbox.world.until("the delivery on the queue", PATIENCE, arrived).await.unwrap())
}

fn launches(sandbox: &Sandbox) -> u64 {
    sandbox.world.look(|state| state.ec2.launches())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_ends_in_the_dead_letters_and_harms_no_other_message() {
    let sandbox = with_pools().await;
    let (_, good) = message_about_a_job(&sandbox, Duration::from_secs(1)).await;
    let mut newer = good.clone();
    newer["v"] = json!(99);
    let poison = ["not JSON", "{}", r#"{"v":1,"kind":"surprise"}"#, &newer.to_string(), r#"{"v":1,"kind":"nudge"}"#];
    for body in poison {
        send(&sandbox, body);
    }
    let first = sandbox.scale().await.unwrap();
    assert_eq!(first, Batch { messages: 6, failed: 5 });
    assert_eq!(launches(&sandbox), 1, "the valid one is done");
    let dead = |state: &State| (state.sqs.bodies(DEAD_LETTERS).len() == poison.len()).then_some(());
    for _ in 0..100 {
        sandbox.scale().await.unwrap();
        if sandbox.world.look(dead).is_some() {
            break;
        }
        let next = sandbox.world.look(|state| state.sqs.next_visible(QUEUE));
        sandbox::state::until(next).await;
    }
    assert_eq!(sandbox.world.look(|state| state.sqs.bodies(DEAD_LETTERS).len()), poison.len());
    assert!(sandbox.world.look(|state| state.sqs.bodies(QUEUE).is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_pools_every_message_is_delivered_again() {
    let sandbox = by_hand().await;
    message_about_a_job(&sandbox, Duration::from_secs(1)).await;
    assert_eq!(sandbox.scale().await.unwrap(), Batch { messages: 1, failed: 1 });
    sandbox.apply(&one_pool("")).await.unwrap();
    let visible = sandbox.world.look(|state| state.sqs.next_visible(QUEUE));
    sandbox::state::until(visible).await;
    assert_eq!(sandbox.scale().await.unwrap(), Batch { messages: 1, failed: 0 });
    assert_eq!(launches(&sandbox), 1);
}

/// The scaler keeps the pools for a minute, and the janitor reads them each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_with_older_pools_does_not_undo_what_one_with_newer_pools_decided() {
    let sandbox = with_pools().await;
    message_about_a_job(&sandbox, Duration::from_secs(1)).await;
    sandbox.scale().await.unwrap();
    sandbox.apply(&one_pool("max = 1\n")).await.unwrap();
    sandbox.sweep().await.unwrap();
    let decided_with = async || {
        let table = sandbox.table().await;
        let Some(Item::Meta(meta)) = table.get(&Key::Meta("linux".parse().unwrap())).await.unwrap() else { panic!() };
        meta.config_hash
    };
    let newest = decided_with().await;
    message_about_a_job(&sandbox, Duration::from_secs(1)).await;
    sandbox.scale().await.unwrap();
    assert_eq!(decided_with().await, newest);
    assert_eq!(launches(&sandbox), 1, "the pool has at most one machine now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_arrives_before_its_pool_is_applied_is_served_after_that() {
    let sandbox = with_pools().await;
    sandbox.queue_job("octo-org/widgets", &["gpu"], Duration::from_secs(1));
    let arrived = |state: &State| (state.sqs.bodies(QUEUE).len() == 1).then_some(());
    sandbox.world.until("the delivery on the queue", PATIENCE, arrived).await.unwrap();
    assert_eq!(sandbox.scale().await.unwrap(), Batch { messages: 1, failed: 0 });
    assert_eq!(launches(&sandbox), 0);
    let gpu = one_pool("").replace("\"linux\"", "\"gpu\"").replace("\"drover\"", "\"gpu\"");
    sandbox.apply(&gpu).await.unwrap();
    sandbox.sweep().await.unwrap();
    assert_eq!(launches(&sandbox), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_and_unrelated_messages_launch_one_machine() {
    let sandbox = with_pools().await;
    let (_, message) = message_about_a_job(&sandbox, Duration::from_secs(1)).await;
    for _ in 0..4 {
        send(&sandbox, &message.to_string());
    }
    let change = |change: &dyn Fn(&mut Value)| {
        let mut changed = message.clone();
        changed["job"]["id"] = json!(77);
        change(&mut changed);
        send(&sandbox, &changed.to_string());
    };
    change(&|message| {
        // A job that is unknown and was cancelled while queued.
        message["action"] = json!("completed");
        message["job"]["conclusion"] = json!("cancelled");
    });
    change(&|message| message["job"]["labels"] = json!(["another"]));
    change(&|message| message["job"]["labels"] = json!([]));
    change(&|message| message["repository"] = json!("elsewhere/widgets"));
    change(&|message| message["public"] = json!(true));
    change(&|message| message["job"]["labels"] = json!(["drover", "$(reboot)", "`id`", "\u{1b}[2J", "a;b|c"]));
    let ended = json!({
        "detail-type": "EC2 Instance State-change Notification",
        "detail": { "instance-id": "i-0123456789abcdef0", "state": "terminated" },
    });
    send(&sandbox, &ended.to_string());
    send(&sandbox, r#"{"v":1,"kind":"nudge","pool":"linux"}"#);
    send(&sandbox, r#"{"v":1,"kind":"nudge","pool":"unheard-of"}"#);
    assert_eq!(sandbox.scale().await.unwrap(), Batch { messages: 14, failed: 0 });
    assert_eq!(launches(&sandbox), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_about_a_foreign_runner_with_a_name_of_this_stack_change_nothing() {
    let mut sandbox = with_pools().await;
    let (job, message) = message_about_a_job(&sandbox, Duration::from_secs(3600)).await;
    sandbox.scale().await.unwrap();
    let running = |state: &State| match &state.github.job(job)?.state {
        JobState::InProgress { runner } => Some(runner.clone()),
        _ => None,
    };
    let runner = sandbox.world.until("the job to run", PATIENCE, running).await.unwrap();
    for (id, repository) in [(runner.id.0 + 1, "octo-org/widgets"), (runner.id.0, "umbrella/widgets")] {
        let mut forged = message.clone();
        forged["action"] = json!("completed");
        forged["repository"] = json!(repository);
        forged["job"]["id"] = json!(78);
        forged["job"]["conclusion"] = json!("success");
        forged["job"]["runner"] = json!({ "id": id, "name": runner.name });
        send(&sandbox, &forged.to_string());
    }
    sandbox.go_live();
    sandbox.serve(&[job]).await.unwrap();
    assert_eq!(launches(&sandbox), 1);
}

/// The lines that the scaler's processes have written so far.
fn log_lines(sandbox: &Sandbox) -> Vec<Value> {
    let files = std::fs::read_dir(sandbox.folder().join("functions")).unwrap();
    let scaler = files.map(|file| file.unwrap().path()).filter(|path| path.to_string_lossy().contains("scaler-"));
    let text: String = scaler.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The value of a field, from the innermost span that has it.
fn span_field<'a>(line: &'a Value, name: &str) -> Option<&'a str> {
    line["spans"].as_array()?.iter().rev().find_map(|span| span[name].as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_line_of_an_effect_names_its_invocation_and_its_pool() {
    let sandbox = with_pools().await;
    message_about_a_job(&sandbox, Duration::from_secs(1)).await;
    sandbox.scale().await.unwrap();
    let lines = log_lines(&sandbox);
    let of_effect: Vec<&Value> = lines.iter().filter(|line| span_field(line, "effect").is_some()).collect();
    assert!(!of_effect.is_empty(), "{lines:#?}");
    for line in of_effect {
        assert_eq!(span_field(line, "pool"), Some("linux"), "{line}");
        assert!(span_field(line, "request_id").is_some_and(|id| !id.is_empty()), "{line}");
    }
    for line in lines.iter().filter(|line| line["target"].as_str().is_some_and(|target| target.starts_with("engine"))) {
        assert!(span_field(line, "request_id").is_some(), "{line}");
    }
}
