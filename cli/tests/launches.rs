//! What an operator reads if EC2 refuses launches, or if machines end before their runner comes online.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use domain::state::{Circuit, Item, Key};
use engine::ports::Store;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Options, Sandbox};
use sandbox::short_timings::one_pool;
use world::ec2::{Code, LaunchMatch, Market, Refusal, When};

async fn says(sandbox: &Sandbox, arguments: &[&str], parts: &[&str]) {
    let output = sandbox.drover(arguments).await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(parts.iter().all(|part| text.contains(part)), "{arguments:?}: {parts:?}: {text}");
}

/// Sweeps until the pool's circuit is open. Returns its cause and message.
async fn circuit(sandbox: &Sandbox) -> (String, String) {
    let table = sandbox.table().await;
    let opened = async {
        loop {
            sandbox.sweep().await.unwrap();
            let Some(Item::Meta(meta)) = table.get(&Key::Meta("linux".parse().unwrap())).await.unwrap() else {
                panic!("no pool")
            };
            if let Circuit::Open { cause, message, .. } = meta.circuit {
                return (cause.code().to_owned(), message);
            }
        }
    };
    tokio::time::timeout(PATIENCE, opened).await.expect("the circuit opens")
}

fn refuse(sandbox: &Sandbox, market: Option<Market>, code: Code) {
    let matches = LaunchMatch { market, ..LaunchMatch::default() };
    sandbox.world.act(|state, _| state.ec2.faults.refusals.push(Refusal { matches, code, when: When::Chance(1.0) }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_launch_option_is_followed_by_the_next_and_its_message_is_shown() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&one_pool("market = \"spot-then-on-demand\"\n")).await.unwrap();
    refuse(&sandbox, Some(Market::Spot), Code::SpotRoleMissing);
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1));
    sandbox.reconcile(&[job], PATIENCE).await.unwrap();
    let answer = ["AuthFailure.ServiceLinkedRoleCreationNotPermitted", "injected fault: launch of m7i.large"];
    says(&sandbox, &["pools"], &answer).await;
    says(&sandbox, &["doctor"], &answer).await;

    refuse(&sandbox, None, Code::TagPolicyViolation);
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1)).to_string();
    assert_eq!(circuit(&sandbox).await.0, "TagPolicyViolation");
    let answer = ["TagPolicyViolation", "injected fault: launch of m7i.large"];
    for command in [&["explain", &job][..], &["pools"], &["doctor"]] {
        says(&sandbox, command, &answer).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reason_why_ec2_ends_machines_is_shown() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    sandbox.world.act(|state, _| state.ec2.faults.ends_at_once = 1.0);
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1)).to_string();
    let (cause, message) = circuit(&sandbox).await;
    assert_eq!(cause, "EndedEarly");
    assert!(message.contains("Client.InvalidKMSKey.InvalidState"), "{message}");
    assert!(sandbox.world.look(|state| state.ec2.launches()) <= 4, "three, and a probe");
    for command in [&["explain", &job][..], &["pools"], &["doctor"], &["events"]] {
        says(&sandbox, command, &["Client.InvalidKMSKey.InvalidState"]).await;
    }
}

/// In place of GitHub's runner, one that GitHub refuses as soon as it listens.
const REFUSED_RUNNER: &str = r#"#!/bin/bash
if [ "$(basename "$0")" = poweroff ]; then
  exec -a poweroff "$(dirname "$(readlink -f "$0")")/real" "$@"
fi
echo "Listening for Jobs"
echo "GitHub refuses this version of the runner."
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_of_runners_that_github_refuses_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let runner = folder.path().join("runner");
    std::fs::write(&runner, REFUSED_RUNNER).unwrap();
    std::fs::set_permissions(&runner, std::fs::Permissions::from_mode(0o755)).unwrap();
    let real = Path::new(env!("CARGO_BIN_EXE_drover")).with_file_name("stand-in");
    symlink(real, folder.path().join("real")).unwrap();
    let sandbox = Sandbox::start(Options { runner: Some(runner), ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1)).to_string();
    let (cause, message) = circuit(&sandbox).await;
    assert_eq!(cause, "EndedEarly");
    assert!(message.contains("GitHub refuses this version of the runner."), "{message}");
    assert!(sandbox.world.look(|state| state.ec2.launches()) <= 4, "three, and a probe");
    for command in [&["explain", &job][..], &["pools"], &["doctor"]] {
        says(&sandbox, command, &["GitHub refuses this version of the runner."]).await;
    }
}
