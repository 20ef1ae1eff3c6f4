//! The demo with each of its faults. It fails if the models report a lost job, a machine left or a job that Drover killed,
//! or if a requested fault never happened.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::demo::{Arguments, demo};
use sandbox::pace::PATIENCE;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

const POOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pools.toml");

async fn survives(faults: &[&str]) -> anyhow::Result<()> {
    let own = ["demo", "--pools", POOLS, "--jobs", "8"];
    demo(Arguments::try_parse_from(own.iter().chain(faults))?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_capacity_in_one_subnet_and_throttled_launches() -> anyhow::Result<()> {
    survives(&["--capacity", "--throttle"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spot_quota_that_is_used_up() -> anyhow::Result<()> {
    survives(&["--quota"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_and_an_outage_of_github() -> anyhow::Result<()> {
    survives(&["--github-limit", "--github-down"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_that_fail_and_deliveries_that_are_never_sent() -> anyhow::Result<()> {
    survives(&["--lose-webhooks", "--never-sent"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_whose_labels_ask_for_machines() -> anyhow::Result<()> {
    survives(&["--shapes", "--steal", "--spot-kill", "--capacity"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spot_machines_that_ec2_reclaims_during_their_jobs() -> anyhow::Result<()> {
    survives(&["--spot-kill"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_that_never_boot() -> anyhow::Result<()> {
    survives(&["--boot-fail"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_is_uninstalled_and_installed_again() -> anyhow::Result<()> {
    survives(&["--uninstall"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_that_are_killed_at_random_calls() -> anyhow::Result<()> {
    survives(&["--crash", "--seed", "1..2"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_faults_at_once() -> anyhow::Result<()> {
    survives(&["--all"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attacker_in_the_organisation_kills_exposes_and_loses_no_other_job() -> anyhow::Result<()> {
    survives(&["--attack"]).await
}

#[tokio::test]
async fn invalid_arguments_are_refused() {
    for wrong in [&["--seed", "3..1"][..], &["--seed", "x"], &["--steal=2"], &["--jobs", "0"]] {
        assert!(Arguments::try_parse_from(["demo"].iter().chain(wrong)).is_err(), "{wrong:?}");
    }
    let few = Arguments::try_parse_from(["demo", "--pools", POOLS, "--all", "--jobs", "3"]);
    let refused = demo(few.expect("it parses")).await.expect_err("three jobs are too few for all faults");
    assert!(refused.to_string().contains("--jobs 8"), "{refused}");
}

/// The processes that write to a file of the folder, or have its path in a variable. Machines and functions do.
fn processes_of(folder: &Path) -> Vec<i32> {
    let folder = folder.as_os_str().as_encoded_bytes();
    let has = |bytes: &[u8]| bytes.windows(folder.len()).any(|part| part == folder);
    let is_of = |process: &i32| {
        let of = |name: &str| Path::new("/proc").join(process.to_string()).join(name);
        std::fs::read(of("environ")).is_ok_and(|environment| has(&environment))
            || std::fs::read_link(of("fd/1")).is_ok_and(|output| has(output.as_os_str().as_encoded_bytes()))
    };
    let all = std::fs::read_dir("/proc").into_iter().flatten();
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(is_of).collect()
}

/// Whether a file of this name is anywhere in the folder.
fn contains(folder: &Path, name: &str) -> bool {
    let mut entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name() == name || contains(&entry.path(), name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_ctrl_c_no_process_and_no_file_is_left() -> anyhow::Result<()> {
    for (signal, serve) in [(Signal::SIGINT, false), (Signal::SIGTERM, true)] {
        let temporary = tempfile::tempdir()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
        command
            .args(["--pools", POOLS, "--jobs", "3"])
            .args(serve.then_some("--serve"))
            .env("TMPDIR", temporary.path());
        let mut running =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
        let own = running.id().context("it has not ended")?.try_into()?;
        let mut lines = BufReader::new(running.stdout.take().context("it is piped")?).lines();
        loop {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await??.context("the demo ended")?;
            if line.contains("running on drover_") {
                break;
            }
        }
        let others = || processes_of(temporary.path()).into_iter().filter(|process| *process != own);
        assert!(others().count() > 2, "an agent, its runner and functions");
        assert!(contains(temporary.path(), "job-started.sh"), "an agent writes its hook elsewhere");
        kill(Pid::from_raw(own), signal)?;
        let ended = tokio::time::timeout(PATIENCE, running.wait()).await??;
        let mut said = String::new();
        running.stderr.take().context("it is piped")?.read_to_string(&mut said).await?;
        assert_eq!(ended.code(), Some(if serve { 0 } else { 1 }), "{said}");
        assert_eq!(said.contains("interrupted"), !serve, "{said}");
        // The kernel ends a killed process soon, not at once.
        let gone = async {
            while others().count() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone)
            .await
            .with_context(|| format!("{:?} are left", others().collect::<Vec<_>>()))?;
        assert_eq!(std::fs::read_dir(temporary.path())?.count(), 0);
    }
    Ok(())
}
