//! The demo with each of its faults: zero jobs lost, zero machines left, zero running jobs killed by Drover, by the word of
//! the models; and every fault that was asked for really struck, or the demo fails.

use clap::Parser;
use sandbox::demo::{Arguments, demo};

const POOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pools.toml");

async fn survives(faults: &[&str]) -> anyhow::Result<()> {
    let own = ["demo", "--pools", POOLS, "--jobs", "8"];
    demo(Arguments::try_parse_from(own.iter().chain(faults))?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_capacity_in_one_place_and_throttled_launches() -> anyhow::Result<()> {
    survives(&["--capacity", "--throttle"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spot_quota_that_is_used_up() -> anyhow::Result<()> {
    survives(&["--quota"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_githubs_and_githubs_outage() -> anyhow::Result<()> {
    survives(&["--github-limit", "--github-down"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_that_fail_and_deliveries_that_are_never_sent() -> anyhow::Result<()> {
    survives(&["--lose-webhooks", "--never-sent"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spot_machines_that_are_taken_under_their_jobs() -> anyhow::Result<()> {
    survives(&["--spot-kill"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_that_never_boot() -> anyhow::Result<()> {
    survives(&["--boot-fail"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_is_uninstalled_and_installed_anew() -> anyhow::Result<()> {
    survives(&["--uninstall"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_that_are_killed_at_random_calls() -> anyhow::Result<()> {
    survives(&["--crash", "--seed", "1..2"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_it_at_once() -> anyhow::Result<()> {
    survives(&["--all"]).await
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    for wrong in [&["--seed", "3..1"][..], &["--seed", "x"], &["--steal=2"], &["--jobs", "0"]] {
        assert!(Arguments::try_parse_from(["demo"].iter().chain(wrong)).is_err(), "{wrong:?}");
    }
    let few = Arguments::try_parse_from(["demo", "--pools", POOLS, "--all", "--jobs", "3"]);
    let refused = demo(few.expect("it parses")).await.expect_err("three jobs are too few for everything");
    assert!(refused.to_string().contains("--jobs 8"), "{refused}");
}
