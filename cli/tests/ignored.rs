//! What an operator reads about a job that no pool accepts.

use domain::ids::JobId;
use domain::state::Key;
use engine::ports::Store;
use sandbox::deliveries::signature;
use sandbox::lambda::Batch;
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox, WEBHOOK_SECRET};
use sandbox::short_timings::one_pool;

/// A delivery about a job with a runner group and no labels, without a commit.
const GROUP_ONLY: &str = r#"{"action":"queued","workflow_job":{"id":71000000001,"run_id":971000000001,"run_attempt":1,
"name":"build","labels":[],"status":"queued","conclusion":null,"runner_id":0,"runner_name":"",
"started_at":"2026-11-25T12:00:00Z","created_at":"2026-11-25T12:00:00Z","steps":[]},
"repository":{"id":2,"name":"widgets","full_name":"octo-org/widgets","private":true,
"owner":{"login":"octo-org","id":3,"type":"Organization"}}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_names_only_a_runner_group_is_explained() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let secret = sandbox.world.look(|state| state.secrets[WEBHOOK_SECRET].current.clone());
    let delivery = reqwest::Client::new()
        .post(&sandbox.webhooks.url)
        .header("content-type", "application/json")
        .header("x-github-event", "workflow_job")
        .header("x-github-delivery", "d-1")
        .header("x-hub-signature-256", signature(&secret, GROUP_ONLY.as_bytes()))
        .body(GROUP_ONLY);
    assert_eq!(delivery.send().await.unwrap().status(), 202);
    assert_eq!(sandbox.world.look(|state| state.sqs.bodies(QUEUE).len()), 1);
    assert_eq!(sandbox.scale().await.unwrap(), Batch { messages: 1, failed: 0 });

    let output = sandbox.drover(&["explain", "71000000001"]).await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "job 71000000001 of octo-org/widgets: queued, and ignored",
        "it names a runner group and no labels: pool linux has the labels drover",
    ] {
        assert!(text.contains(part), "{part:?}: {text}");
    }
    assert_eq!(sandbox.world.look(|state| state.ec2.launches()), 0);
    sandbox.sweep().await.unwrap();
    let kept = sandbox.table().await.get(&Key::Unrouted(JobId(71_000_000_001))).await.unwrap();
    assert!(kept.is_some(), "a pool that accepts the job may follow");
}
