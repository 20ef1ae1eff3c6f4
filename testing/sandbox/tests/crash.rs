//! The scaler's process is killed at every request that it makes, before and after the request takes effect.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use sandbox::calls::Kill;
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox};
use sandbox::short_timings::one_pool;

/// Runs at a time. A run spends most of its time waiting for the lease of the killed process to end.
const MAX_CONCURRENT_RUNS: usize = 8;

/// Longer than the reserve that the scaler keeps before it begins an effect, plus the time that the effects take.
const SCALER_TIMEOUT: Duration = Duration::from_secs(13);

/// One run: `jobs` jobs are on the queue, and a newly started scaler is killed at one of its requests. Returns its requests.
async fn run(jobs: usize, kill: Kill) -> anyhow::Result<Vec<String>> {
    let options = Options {
        driven: Driven::ByHand,
        scaler_timeout: SCALER_TIMEOUT,
        visibility: Duration::from_secs(1),
        sweep_every: Duration::from_secs(1),
        ..Options::default()
    };
    let mut sandbox = Sandbox::start(options).await?;
    let ended = serve(&mut sandbox, jobs, kill).await;
    let log = if ended.is_err() { sandbox.log(&"linux".parse()?).await } else { String::new() };
    ended.with_context(|| format!("{kill:?}, {jobs} jobs, logs in {}\n{log}", sandbox.keep_logs().display()))
}

async fn serve(sandbox: &mut Sandbox, jobs: usize, kill: Kill) -> anyhow::Result<Vec<String>> {
    sandbox.apply(&one_pool("lease_margin = \"0s\"")).await?;
    // Long enough for `in_progress` to be consumed while the machine exists. If a machine ends before any webhook says that it
    // has a job, Drover assumes that it had none, and launches another one.
    let runs_for = Duration::from_secs(3);
    let pushed: Vec<_> = (0..jobs).map(|_| sandbox.queue_job("octo-org/widgets", &["drover"], runs_for)).collect();
    let arrived = |state: &sandbox::state::State| (state.sqs.bodies(QUEUE).len() == jobs).then_some(());
    sandbox.world.until("the deliveries on the queue", Duration::from_secs(30), arrived).await?;

    let process = sandbox.scaler.cold_start().await?;
    sandbox.calls.trace("scaler", process, kill);
    let scaled = sandbox.scale().await;
    let called = sandbox.calls.traced();
    match kill {
        Kill::Never => ensure!(scaled.is_ok(), "{scaled:?}"),
        Kill::Before(at) | Kill::After(at) => {
            ensure!(scaled.is_err(), "the process was to be killed at call {at} of {called:?}");
            ensure!(called.len() > at, "call {at} was never made: {called:?}");
        }
    }
    sandbox.go_live();
    sandbox.reconcile(&pushed, Duration::from_secs(60)).await?;
    let launches = sandbox.world.look(|state| state.ec2.launches());
    ensure!(launches == jobs as u64, "{launches} instances for {jobs} jobs");
    Ok(called)
}

async fn every_boundary(jobs: usize) -> anyhow::Result<()> {
    let called = run(jobs, Kill::Never).await?;
    for wanted in ["DynamoDB TransactWriteItems", "EC2 RunInstances", "Secrets Manager GetSecretValue"] {
        assert!(called.iter().any(|call| call == wanted), "{wanted} is not among {called:?}");
    }
    let registered = called.iter().filter(|call| call.ends_with("generate-jitconfig")).count();
    assert_eq!(registered, jobs, "{called:?}");
    let kills: Vec<Kill> = (0..called.len()).flat_map(|at| [Kill::Before(at), Kill::After(at)]).collect();
    assert_eq!(kills.len(), 2 * called.len());
    let runs = stream::iter(kills.iter().copied().map(|kill| run(jobs, kill))).buffer_unordered(MAX_CONCURRENT_RUNS);
    let all: Vec<Vec<String>> = runs.try_collect().await?;
    assert_eq!(all.len(), kills.len(), "every boundary was covered");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scaler_killed_at_any_call_loses_no_job_and_launches_nothing_twice() -> anyhow::Result<()> {
    every_boundary(1).await?;
    every_boundary(2).await
}
