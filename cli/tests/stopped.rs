//! Pools that keep machines stopped: what an operator sees before a change, and which format the table has.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use domain::log::Transaction;
use domain::policy::format;
use domain::state::{Config, FunctionName, Item, Key, Slot};
use engine::ports::{Clock, Store};
use platform::clock::SystemClock;
use sandbox::sandbox::{Driven, Options, Sandbox};
use serde_json::{Value, json};

const POOLS: &str = include_str!("../../pools.toml");

const SCHEDULE: &str = "[[pool.schedule]]\ndays = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]\nfrom = \"00:00\"\n\
     to = \"24:00\"\ntime_zone = \"utc\"\nstopped = 4\n";

struct Stack {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
}

impl Stack {
    /// Whose functions support the newest format.
    async fn new() -> Self {
        let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
        let functions = FunctionName::ALL.map(|name| format::report(name, None, SystemClock.now()).unwrap());
        sandbox.table().await.commit(&Transaction::new().put_all(functions)).await.unwrap();
        Self { sandbox, folder: tempfile::tempdir().unwrap() }
    }

    /// Runs a command of `drover pools` with a file.
    async fn pools(&self, command: &str, file: &str, options: &[&str], code: i32, parts: &[&str]) -> String {
        let path = self.folder.path().join("pools.toml");
        std::fs::write(&path, file).unwrap();
        self.says(&[&["pools", command, path.to_str().unwrap()], options].concat(), code, parts).await
    }

    async fn says(&self, arguments: &[&str], code: i32, parts: &[&str]) -> String {
        let output = self.sandbox.drover(arguments).await.unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{arguments:?}: {parts:?}: {text}");
        text
    }

    async fn config(&self) -> Config {
        match self.sandbox.table().await.get(&Key::Config).await.unwrap() {
            Some(Item::Config(config)) => config,
            other => panic!("no configuration: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_machines_are_shown_and_fewer_than_before_need_an_agreement() {
    let stack = Stack::new().await;
    let always = format!("{POOLS}stopped = 2\n{SCHEDULE}");
    stack.pools("apply", &always, &[], 0, &["in force"]).await;
    stack.says(&["pools"], 0, &["0/0, stopped 0/4 until 24:00 UTC"]).await;
    let rows: Value = serde_json::from_str(&stack.says(&["pools", "--json"], 0, &[]).await).unwrap();
    let row = |name: &str| rows.as_array().unwrap().iter().find(|row| row["pool"] == name).unwrap();
    assert_eq!((&row("large")["stopped"], &row("large")["stopped_wanted"]), (&json!(0), &json!(4)));
    assert_eq!(row("linux").get("stopped"), None);

    // What is shown is a pool file.
    let shown = stack.says(&["pools", "show"], 0, &[]).await;
    stack.pools("diff", &shown, &[], 0, &["no differences"]).await;

    let days = "schedule mon tue wed thu fri sat sun 00:00-24:00 UTC: stopped";
    let falls = [
        format!("  - {days} = 4\n  + {days} = 3\n"),
        "large: stopped falls from 4 to 3 on ".to_owned(),
        " UTC, by a schedule".to_owned(),
    ];
    let falls: Vec<&str> = falls.iter().map(String::as_str).collect();
    stack.pools("diff", &always.replace("stopped = 4", "stopped = 3"), &[], 1, &falls).await;
    let fewer = ["  - stopped = 2\n  + stopped = 1\n", "large: stopped falls from 2 to 1\n", "nothing was applied"];
    stack.pools("apply", &always.replace("stopped = 2", "stopped = 1"), &[], 1, &fewer).await;
    let more = stack.pools("diff", &always.replace("stopped = 4", "stopped = 5"), &[], 1, &["large: changed"]).await;
    assert!(!more.contains("falls"), "{more}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_keeps_its_format_until_no_machine_is_left_that_was_stopped() {
    let stack = Stack::new().await;
    stack.pools("apply", &format!("{POOLS}stopped = 2\n"), &[], 0, &["in force"]).await;
    assert_eq!(stack.config().await.format, 5);
    // It runs a job by now. An older function would take its age from the launch.
    let slot: Slot = serde_json::from_value(json!({
        "id": "1.0", "pool": "large", "state": "busy", "wanted": true, "planned_at": "2026-11-02T11:00:00Z", "registration": 1,
        "next_at": "2026-11-02T11:00:00Z", "revision": 0, "instance": "i-1", "launched_at": "2026-11-02T11:00:00Z",
        "stopped_at": "2026-11-02T11:01:00Z", "started_at": "2026-11-02T11:30:00Z", "runner_id": 7, "runner_name": "runner",
        "configured_at": "2026-11-02T11:30:00Z", "job": 5,
    }))
    .unwrap();
    let table = stack.sandbox.table().await;
    table.commit(&Transaction::new().put(slot.clone())).await.unwrap();
    let stays = "machines that were stopped are left: the table stays in format 5 ->";
    stack.pools("apply", POOLS, &["--yes"], 0, &[stays, "in force"]).await;
    assert_eq!(stack.config().await.format, 5);
    table.commit(&Transaction::new().delete(Slot { revision: 1, ..slot })).await.unwrap();
    let applied = stack.pools("apply", POOLS, &["--yes"], 0, &["in force"]).await;
    assert!(!applied.contains("format"), "{applied}");
    assert_eq!(stack.config().await.format, 1);
}
