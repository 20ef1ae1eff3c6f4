//! The scaler's process is killed at every request that it makes, before and after the request takes effect.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use sandbox::calls::Kill;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox};
use sandbox::short_timings::one_pool;

/// Runs at a time. A run spends most of its time waiting for the lease of the killed process to end.
const MAX_CONCURRENT_RUNS: usize = 8;

/// The time that the scaler keeps before it begins an effect. A lease lasts until the time-out, so a run waits this long at
/// least.
const RESERVE: Duration = Duration::from_secs(8);

/// The shortest and the longest time that a scaler has for its effects.
const EFFECTS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(120));

/// How an invocation ended.
enum Ran {
    /// As ordered. These are its requests.
    AsOrdered(Vec<String>),
    /// It stopped early, because too little time was left: this machine is slow.
    ShortOfTime,
}

/// One run: `jobs` jobs are on the queue, and a newly started scaler is killed at one of its requests.
async fn run_once(jobs: usize, kill: Kill, effects: Duration) -> anyhow::Result<Ran> {
    let options = Options {
        driven: Driven::ByHand,
        scaler_timeout: RESERVE + effects,
        retry_after: Duration::from_secs(1),
        sweep_every: Duration::from_secs(1),
        ..Options::default()
    };
    let mut sandbox = Sandbox::start(options).await?;
    let ended = serve(&mut sandbox, jobs, kill).await;
    let log = if ended.is_err() { sandbox.log(&"linux".parse()?).await } else { String::new() };
    ended.with_context(|| format!("{kill:?}, {jobs} jobs, logs in {}\n{log}", sandbox.keep_logs().display()))
}

async fn serve(sandbox: &mut Sandbox, jobs: usize, kill: Kill) -> anyhow::Result<Ran> {
    sandbox.apply(&one_pool("lease_margin = \"0s\"")).await?;
    // They end when Drover has recorded that they run.
    let runs_for = Duration::from_secs(3600);
    let pushed: Vec<_> = (0..jobs).map(|_| sandbox.queue_job("octo-org/widgets", &["drover"], runs_for)).collect();
    let arrived = |state: &sandbox::state::State| (state.sqs.bodies(QUEUE).len() == jobs).then_some(());
    sandbox.world.until("the deliveries on the queue", PATIENCE, arrived).await?;

    let process = sandbox.scaler.cold_start().await?;
    sandbox.calls.trace("scaler", process, kill);
    let scaled = sandbox.scale().await;
    let called = sandbox.calls.traced();
    let registered = called.iter().filter(|call| call.ends_with("generate-jitconfig")).count();
    match kill {
        Kill::Never if registered < jobs => return Ok(Ran::ShortOfTime),
        Kill::Before(at) | Kill::After(at) if called.len() <= at => return Ok(Ran::ShortOfTime),
        Kill::Never => ensure!(scaled.is_ok(), "{scaled:?}"),
        Kill::Before(at) | Kill::After(at) => {
            ensure!(scaled.is_err(), "the process was to be killed at call {at} of {called:?}");
        }
    }
    sandbox.go_live();
    sandbox.serve(&pushed).await?;
    let launches = sandbox.world.look(|state| state.ec2.launches());
    ensure!(launches == jobs as u64, "{launches} instances for {jobs} jobs");
    Ok(Ran::AsOrdered(called))
}

/// Repeats a run that was short of time with twice the time. Returns the requests of the scaler.
async fn run(jobs: usize, kill: Kill) -> anyhow::Result<Vec<String>> {
    let mut effects = EFFECTS.0;
    loop {
        match run_once(jobs, kill, effects).await? {
            Ran::AsOrdered(called) => return Ok(called),
            Ran::ShortOfTime => {
                effects *= 2;
                ensure!(effects <= EFFECTS.1, "{kill:?}, {jobs} jobs: the scaler never came that far");
            }
        }
    }
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
