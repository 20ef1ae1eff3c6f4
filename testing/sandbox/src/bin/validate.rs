//! Checks `drover simulate` against a run of the real executables. Jobs run in the sandbox, whose models take as long as EC2 and
//! GitHub do; `drover` records the stack's log and simulates it with the same pools; then queue times and machine hours of both are
//! compared.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use drover::output::table;
use engine::ports::Clock;
use jiff::Timestamp;
use platform::clock::SystemClock;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sandbox::demo::take_real_time;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Options, Sandbox};
use sandbox::short_timings::machine;
use sandbox::state::State;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use world::ec2;
use world::github::{self, JobId};

/// Run jobs on the real executables, simulate the recorded log with the same pools, and compare.
#[derive(Debug, Parser)]
#[command(name = "make validate ARGS=\"...\"")]
struct Arguments {
    /// Number of jobs.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(10..=2000))]
    jobs: u32,
    /// Minutes within which the jobs are queued.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    minutes: u32,
    /// Also write the recorded log to this file.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Seed of the jobs and of the models' random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How far the simulation may be off.
const QUEUE_TIME_WITHIN: f64 = 0.15;
const MACHINE_HOURS_WITHIN: f64 = 0.05;

/// Several jobs are queued at once, as by one push. Some find a warm machine, most need a new one, and some must wait for room.
const GROUP: std::ops::RangeInclusive<usize> = 1..=8;
const RUNS_FOR: std::ops::Range<f64> = 10.0..90.0;

const POOLS: &str = r#"
[[pool]]
name = "linux"
owner = "octo-org"
labels = ["linux"]
repositories = ["octo-org/widgets"]
launch_template = "drover-runner"
instance_types = ["m7i.large"]
max = 30
warm = 3
"#;

/// What is compared.
#[derive(Debug)]
struct Metrics {
    p50: f64,
    p90: f64,
    machine_hours: f64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match validate(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("validate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn validate(arguments: &Arguments) -> anyhow::Result<()> {
    // As long as in AWS and at GitHub, and with the event source mapping of the template.
    let mut options = Options {
        seed: arguments.seed,
        ec2: ec2::Config::default(),
        github: github::Config::default(),
        batch_size: 10,
        scaler_concurrency: 5,
        sweep_every: Duration::from_secs(60),
        ..Options::default()
    };
    take_real_time(&mut options);
    let mut sandbox = Sandbox::start(options).await?;
    let compared = compare(&sandbox, arguments).await;
    if compared.is_err() {
        println!("Logs of all processes: {}", sandbox.keep_logs().display());
    }
    compared
}

async fn compare(sandbox: &Sandbox, arguments: &Arguments) -> anyhow::Result<()> {
    sandbox.apply(POOLS).await?;
    println!(
        "{} jobs within {} min on the real executables, seed {}",
        arguments.jobs, arguments.minutes, arguments.seed
    );
    let jobs = queue(sandbox, arguments).await;
    let ended = |state: &State| {
        let has_ended = |id: &JobId| state.github.job(*id).is_some_and(|job| job.completed_at.is_some());
        let delivered = state.github.deliveries().all(|delivery| delivery.attempted.is_some());
        (delivered && jobs.iter().all(has_ended)).then_some(())
    };
    sandbox.world.until("all jobs ended", PATIENCE + Duration::from_secs(10 * 60), ended).await?;
    let folder = tempfile::tempdir()?;
    let kept = arguments.record.clone();
    let (pools, trace) = (folder.path().join("pools.toml"), kept.unwrap_or_else(|| folder.path().join("trace.jsonl")));
    std::fs::write(&pools, POOLS)?;
    let paths = [&pools, &trace].map(|path| path.to_str().context("a path that is not UTF-8"));
    let [pools, trace] = paths;
    let command = ["simulate", pools?, "--history", "1d", "--record", trace?, "--json"];
    let (output, now) = (sandbox.drover(&command).await?, SystemClock.now());
    ensure!(output.status.success(), "drover simulate: {}", String::from_utf8_lossy(&output.stderr));
    let simulated: Value = serde_json::from_slice(&output.stdout)?;
    judge(&sandbox.world.look(|state| measured(state, &jobs, now))?, &Metrics::of(&simulated)?)
}

/// Queues the jobs in groups, at random times.
async fn queue(sandbox: &Sandbox, arguments: &Arguments) -> Vec<JobId> {
    let mut rng = SmallRng::seed_from_u64(arguments.seed);
    let mut times = Vec::new();
    while times.len() < arguments.jobs as usize {
        let at = rng.random_range(0.0..f64::from(arguments.minutes) * 60.0);
        let left = arguments.jobs as usize - times.len();
        times.extend(std::iter::repeat_n(at, rng.random_range(GROUP).min(left)));
    }
    times.sort_by(f64::total_cmp);
    let began = Instant::now();
    let mut jobs = Vec::new();
    for at in times {
        sleep_until(began + Duration::from_secs_f64(at)).await;
        let runs_for = Duration::from_secs_f64(rng.random_range(RUNS_FOR));
        jobs.push(sandbox.queue_job("octo-org/widgets", &["linux"], runs_for));
    }
    jobs
}

/// What the models of GitHub and EC2 saw.
fn measured(state: &State, jobs: &[JobId], now: Timestamp) -> anyhow::Result<Metrics> {
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64();
    let wait = |id: &JobId| {
        let history = &state.github.job(*id)?.history;
        Some(seconds(*history.queued.first()?, history.started.first()?.at))
    };
    let mut waits: Vec<f64> = jobs.iter().filter_map(wait).collect();
    ensure!(waits.len() == jobs.len(), "{} of {} jobs started", waits.len(), jobs.len());
    waits.sort_by(f64::total_cmp);
    // The smallest wait that at least this share of the jobs did not exceed.
    let at = |share: f64| waits[((waits.len() as f64 * share).ceil() as usize).max(1) - 1];
    let ended = state.ec2.ended().iter().filter_map(|it| Some((state.ec2.instance(&it.instance)?.created_at, it.at)));
    let alive = state.ec2.alive().map(|machine| (machine.created_at, now));
    let lived: f64 = ended.chain(alive).map(|(from, to)| seconds(from, to)).sum();
    Ok(Metrics { p50: at(0.5), p90: at(0.9), machine_hours: lived / 3600.0 })
}

impl Metrics {
    /// Those of the only pool file in the output of `drover simulate`.
    fn of(simulated: &Value) -> anyhow::Result<Self> {
        let file = &simulated["files"][0];
        let number = |value: &Value| value.as_f64().with_context(|| format!("no such figure in {simulated}"));
        Ok(Self {
            p50: number(&file["wait_seconds"]["p50"])?,
            p90: number(&file["wait_seconds"]["p90"])?,
            machine_hours: number(&file["machine_hours"])?,
        })
    }
}

fn judge(measured: &Metrics, simulated: &Metrics) -> anyhow::Result<()> {
    let rows = [
        ("queue time p50, s", measured.p50, simulated.p50, QUEUE_TIME_WITHIN),
        ("queue time p90, s", measured.p90, simulated.p90, QUEUE_TIME_WITHIN),
        ("machine hours", measured.machine_hours, simulated.machine_hours, MACHINE_HOURS_WITHIN),
    ];
    let off = |(_, measured, simulated, _): &(&str, f64, f64, f64)| simulated / measured - 1.0;
    let lines = rows.iter().map(|row| {
        let (what, measured, simulated, within) = row;
        let off = format!("{:+.1} % (target {:.0} %)", 100.0 * off(row), 100.0 * within);
        vec![(*what).to_owned(), format!("{measured:.2}"), format!("{simulated:.2}"), off]
    });
    println!("{}\n{}", table(&["", "MEASURED", "SIMULATED", "OFF BY"], lines), machine());
    // Also if there is nothing to compare.
    let is_near = |row: &&(&str, f64, f64, f64)| off(row).abs() <= row.3;
    let missed: Vec<&str> = rows.iter().filter(|row| !is_near(row)).map(|row| row.0).collect();
    ensure!(missed.is_empty(), "the simulation is off by more than the target: {}", missed.join(", "));
    Ok(())
}
