//! What the functions log at the most detailed level.

use std::time::Duration;

use sandbox::pace::PATIENCE;
use sandbox::sandbox::{APP_SECRET, Options, Sandbox, WEBHOOK_SECRET};
use sandbox::short_timings::one_pool;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_level_logs_bodies_signatures_or_secrets() {
    let options = Options { log_level: Some("trace".to_owned()), ..Options::default() };
    let sandbox = Sandbox::start(options).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_millis(100));
    sandbox.reconcile(&[job], PATIENCE).await.unwrap();
    let forged = reqwest::Client::new().post(&sandbox.webhooks.url).header("x-github-event", "workflow_job");
    let signature = sandbox::deliveries::signature("another secret", b"a forged body");
    let answer = forged.header("x-hub-signature-256", &signature).body("a forged body").send().await.unwrap();
    assert_eq!(answer.status(), 401);

    let folder = std::fs::read_dir(sandbox.folder().join("functions")).unwrap();
    let log: String = folder.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    for function in ["ingest", "engine"] {
        assert!(log.contains(&format!("\"target\":\"{function}")), "the functions log something");
    }
    let stored =
        sandbox.world.look(|state| [WEBHOOK_SECRET, APP_SECRET].map(|name| state.secrets[name].current.clone()));
    let [webhook_secret, app_secret] = stored;
    // The second line of the key, as JSON writes the text.
    let key_line = app_secret.split("\\n").nth(1).unwrap();
    let never = [
        // Parts of every delivery's body, of items, of the boot item and of GitHub's answers.
        ("a webhook's body", "node_id"),
        ("a forged body", "a forged body"),
        ("an item", "TransactItems"),
        ("a JIT config", "jit_config"),
        // Headers.
        ("a webhook's signature", "sha256="),
        ("a signature", signature.strip_prefix("sha256=").unwrap()),
        ("AWS's signature", "AWS4-HMAC-SHA256"),
        ("a token", "Bearer "),
        ("the webhook's secret", &webhook_secret),
        ("the app's key", key_line),
    ];
    for (what, part) in never {
        let found = log.lines().find(|line| line.contains(part)).map(|line| &line[..line.len().min(300)]);
        assert_eq!(found, None, "{what} is logged");
    }
}
