//! The demo with each of its faults. It fails if the models report a lost job, a machine left or a job that Drover killed,
//! or if a requested fault never happened.

use clap::Parser;
use sandbox::demo::{Arguments, demo};

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
