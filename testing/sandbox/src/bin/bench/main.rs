//! `make bench`: measures what `docs/performance.md` reports, on this machine. A missed target is not an error.

mod growth;
mod life;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::http::{HeaderMap, HeaderValue};
use clap::Parser;
use drover::output::table;
use sandbox::calls::{Counts, Kill};
use sandbox::deliveries::{TEMPLATES, signature};
use sandbox::interruption::unless_interrupted;
use sandbox::lambda::request_event;
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox};
use sandbox::short_timings::{machine, one_pool};
use sandbox::state::State;
use serde_json::Value;
use tokio::time::{Instant, interval};
use world::ec2::Operation;
use world::github::Endpoint;

/// Measure ingest, the scaler and a burst of jobs, and print a table.
#[derive(Debug, Parser)]
#[command(name = "make bench ARGS=\"...\"")]
struct Arguments {
    /// Number of runs of each measurement. The table shows the median.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Number of warm invocations of ingest.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000))]
    invocations: u32,
    /// Number of jobs in the burst.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=5000))]
    jobs: u32,
    /// Measure instead what a job costs in bursts and pools of different sizes.
    #[arg(long)]
    growth: bool,
    /// Numbers of jobs in the bursts of --growth.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,10000", requires = "growth")]
    bursts: Vec<usize>,
    /// Numbers of busy machines in the pools of --growth. The first is what the others are compared with.
    #[arg(long, value_delimiter = ',', default_value = "0,1000,10000", requires = "growth")]
    pools: Vec<usize>,
}

/// The size of a pool that never reaches its limit.
const MAX_MACHINES: &str = "max = 5000";

/// The length of the burst.
const BURST: Duration = Duration::from_secs(10);

/// The event source mapping of the burst.
const BATCH_SIZE: usize = 100;
const WINDOW: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    match unless_interrupted(bench(&Arguments::parse())).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One line of the table.
struct Measurement {
    what: String,
    measured: String,
    target: String,
    met: bool,
}

impl Measurement {
    fn at_most(what: &str, measured: f64, limit: f64, unit: &str) -> Self {
        let (text, target) = (format!("{measured:.2} {unit}"), format!("at most {limit} {unit}"));
        Self { what: what.to_owned(), measured: text, target, met: measured <= limit }
    }

    fn without_target(what: &str, measured: impl ToString) -> Self {
        Self { what: what.to_owned(), measured: measured.to_string(), target: String::new(), met: true }
    }
}

async fn bench(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.growth {
        println!("On {}", machine());
        return growth::growth(&arguments.bursts, &arguments.pools).await;
    }
    let mut measurements = ingest(arguments).await?;
    measurements.extend(scaler(arguments).await?);
    measurements.extend(burst(arguments).await?);
    let rows = measurements.iter().map(|it| {
        let verdict = if it.met { "" } else { "MISSED" };
        vec![it.what.clone(), it.measured.clone(), it.target.clone(), verdict.to_owned()]
    });
    println!("\nMedians of {} runs on {}\n", arguments.runs, machine());
    print!("{}", table(&["WHAT", "MEASURED", "TARGET", ""], rows));
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Resident memory of a process in MB.
fn resident(process: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1024.0)
}

/// Processor time of a process so far, user and system.
fn processor_time(process: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, after) = stat.rsplit_once(") ").context("no stat")?;
    let ticks: Vec<u64> = after.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    // /proc always shows hundredths of a second.
    Ok(Duration::from_millis(10 * ticks.iter().sum::<u64>()))
}

async fn ingest(arguments: &Arguments) -> anyhow::Result<Vec<Measurement>> {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await?;
    let (_, body) = TEMPLATES[0];
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-github-event", "workflow_job".to_owned()),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958".to_owned()),
        ("x-hub-signature-256", signature("It's a Secret to Everybody", body.as_bytes())),
        ("content-type", "application/json".to_owned()),
    ] {
        headers.insert(name, HeaderValue::from_str(&value)?);
    }
    let event = request_event(&headers, body.as_bytes());
    let answered = |answer: Value| -> anyhow::Result<()> {
        ensure!(answer["statusCode"] == 202, "{answer}");
        Ok(())
    };

    let mut cold = Vec::new();
    let mut process = 0;
    for _ in 0..arguments.runs {
        let began = Instant::now();
        process = sandbox.ingest.cold_start().await?;
        answered(sandbox.ingest.invoke(event.clone()).await?)?;
        cold.push(millis(began.elapsed()));
    }
    let early = arguments.invocations / 10;
    for _ in 0..early {
        answered(sandbox.ingest.invoke(event.clone()).await?)?;
    }
    let (memory_early, before) = (resident(process)?, processor_time(process)?);
    let rest = arguments.invocations - early;
    for number in 0..rest {
        answered(sandbox.ingest.invoke(event.clone()).await?)?;
        if number % 1000 == 0 {
            // A long queue would be measured, too.
            sandbox.world.act(|state, _| state.sqs.purge_queue(QUEUE));
        }
    }
    let used = processor_time(process)? - before;
    let memory = resident(process)?;
    Ok(vec![
        Measurement::at_most("ingest: start to first answer", median(cold), 12.0, "ms"),
        Measurement::at_most(
            &format!("ingest: resident memory after {} invocations", arguments.invocations),
            memory,
            14.0,
            "MB",
        ),
        Measurement::without_target(
            &format!("ingest: resident memory after {early} invocations"),
            format!("{memory_early:.2} MB"),
        ),
        Measurement::at_most("ingest: processor time per warm invocation", millis(used) / f64::from(rest), 0.35, "ms"),
    ])
}

/// EC2 and GitHub without rate limits, webhooks without delay, and machines that never boot.
fn without_limits(mut options: Options) -> Options {
    options.ec2.throttle = false;
    options.ec2.pending = Duration::from_secs(3600);
    options.github.limits.enforced = false;
    options.github.webhook_delay = (Duration::ZERO, Duration::ZERO);
    options
}

/// A sandbox without rate limits, with a pool.
async fn unlimited() -> anyhow::Result<Sandbox> {
    let options = Options { driven: Driven::ByHand, ..Options::default() };
    let sandbox = Sandbox::start(without_limits(options)).await?;
    sandbox.apply(&one_pool(MAX_MACHINES)).await?;
    Ok(sandbox)
}

/// Pushes jobs and waits until their deliveries are on the queue.
async fn enqueue(sandbox: &Sandbox, jobs: usize) -> anyhow::Result<()> {
    for _ in 0..jobs {
        sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1));
    }
    let arrived = |state: &State| (state.sqs.bodies(QUEUE).len() == jobs).then_some(());
    sandbox.world.until("all deliveries on the queue", Duration::from_secs(30), arrived).await
}

fn difference(after: &Counts, before: &Counts) -> Vec<(String, u64)> {
    let grown = after.iter().map(|(call, times)| (call, times - before.get(call).copied().unwrap_or_default()));
    grown.filter(|(_, times)| *times > 0).map(|((service, call), times)| (format!("{service} {call}"), times)).collect()
}

fn describe(calls: &[(String, u64)]) -> String {
    calls.iter().map(|(call, times)| format!("{times} {call}")).collect::<Vec<_>>().join(", ")
}

async fn scaler(arguments: &Arguments) -> anyhow::Result<Vec<Measurement>> {
    const N: usize = 10;
    let launches = |state: &State| state.ec2.launches();
    let registrations = |state: &State| state.github.registrations().count();
    let (mut cold, mut cold_jit, mut memory, mut cold_calls) = (Vec::new(), Vec::new(), 0.0, Vec::new());
    let (mut warm, mut calls, mut ahead) = (Vec::new(), Vec::new(), 0);
    for _ in 0..arguments.runs {
        // A new pool each time: a large one is not read at once.
        let sandbox = unlimited().await?;
        enqueue(&sandbox, N).await?;
        let before = sandbox.calls.counts();
        let began = Instant::now();
        let process = sandbox.scaler.cold_start().await?;
        let launched = |state: &State| (launches(state) > 0).then_some(());
        let registered = |state: &State| (registrations(state) > 0).then_some(());
        let (first, first_jit, batch) = tokio::join!(
            async {
                sandbox.world.until("the first launch", Duration::from_secs(30), launched).await?;
                Ok::<_, anyhow::Error>(began.elapsed())
            },
            async {
                sandbox.world.until("the first JIT config", Duration::from_secs(30), registered).await?;
                Ok::<_, anyhow::Error>(began.elapsed())
            },
            sandbox.scale(),
        );
        ensure!(batch?.failed == 0, "a message failed");
        cold.push(millis(first?));
        cold_jit.push(millis(first_jit?));
        memory = resident(process)?;
        cold_calls = difference(&sandbox.calls.counts(), &before);

        enqueue(&sandbox, N).await?;
        let (already, before) = (sandbox.world.look(launches), sandbox.calls.counts());
        sandbox.calls.trace("scaler", process, Kill::Never);
        let began = Instant::now();
        ensure!(sandbox.scale().await?.failed == 0, "a message failed");
        warm.push(began.elapsed().as_secs_f64());
        let traced = sandbox.calls.traced();
        ahead = traced.iter().position(|call| call == "EC2 RunInstances").context("nothing was launched")?;
        calls = difference(&sandbox.calls.counts(), &before);
        ensure!(sandbox.world.look(launches) == already + N as u64, "{N} jobs must launch {N} machines");
    }
    let total: u64 = calls.iter().map(|(_, times)| times).sum();
    let cold_total: u64 = cold_calls.iter().map(|(_, times)| times).sum();
    Ok(vec![
        Measurement::at_most("scaler: start to first RunInstances answered", median(cold), 40.0, "ms"),
        Measurement::at_most("scaler: start to first JIT config", median(cold_jit), 40.0, "ms"),
        Measurement::at_most("scaler: resident memory after a batch", memory, 40.0, "MB"),
        Measurement::at_most(&format!("scaler: {N} jobs in one warm batch"), median(warm), 0.2, "s"),
        Measurement::at_most(
            &format!("scaler: calls of a warm batch ({})", describe(&calls)),
            total as f64,
            (2 * N + 8) as f64,
            "calls",
        ),
        Measurement::without_target(
            &format!("scaler: calls of a cold batch ({})", describe(&cold_calls)),
            format!("{cold_total} calls"),
        ),
        Measurement::at_most("scaler: calls before RunInstances", ahead as f64, 4.0, "calls"),
    ])
}

/// A burst of jobs under the published limits of EC2 and GitHub. Only the launches are measured, so no machine boots.
async fn burst(arguments: &Arguments) -> anyhow::Result<Vec<Measurement>> {
    let mut options = Options { batch_size: BATCH_SIZE, window: WINDOW, ..Options::default() };
    options.ec2.pending = Duration::from_secs(3600);
    options.sweep_every = Duration::from_secs(60);
    let sandbox = Sandbox::start(options).await?;
    sandbox.apply(&one_pool(MAX_MACHINES)).await?;
    let jobs = u64::from(arguments.jobs);
    let began = Instant::now();
    let mut ticks = interval(BURST / arguments.jobs);
    for _ in 0..jobs {
        ticks.tick().await;
        sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1));
    }
    let launched = |state: &State| (state.ec2.launches() >= jobs).then_some(());
    sandbox.world.until("all launches", Duration::from_secs(300), launched).await?;
    let all_launched = began.elapsed().as_secs_f64();
    let calls =
        sandbox.world.look(|state| state.ec2.calls().get(&Operation::RunInstances).copied().unwrap_or_default());

    // Three minutes of GitHub's limit, to see whether Drover uses it fully.
    let wanted = jobs.min(3 * 180);
    let registered = |state: &State| (state.github.registrations().count() as u64 >= wanted).then_some(());
    sandbox.world.until("the JIT configs of three minutes", Duration::from_secs(600), registered).await?;
    let all_registered = began.elapsed().as_secs_f64();
    let (launches, refused) = sandbox.world.look(|state| {
        let asked = state.github.calls().get(&Endpoint::GenerateJit).copied().unwrap_or_default();
        (state.ec2.launches(), asked - state.github.registrations().count() as u64)
    });
    let how = format!("{jobs} jobs in {} s (batches of {BATCH_SIZE}, window {} s)", BURST.as_secs(), WINDOW.as_secs());
    // 180 at once, and 180 at the start of each later minute.
    let at_best = (wanted.div_ceil(180) - 1) * 60;
    Ok(vec![
        Measurement::at_most(&format!("{how}: all launches accepted"), all_launched, 60.0, "s"),
        Measurement::at_most(&format!("{how}: RunInstances"), calls as f64, 60.0, "calls"),
        Measurement::at_most(&format!("{how}: surplus machines"), (launches - jobs) as f64, 0.0, "machines"),
        Measurement::without_target(
            &format!("{how}: {wanted} JIT configs (GitHub's limit allows it after {at_best} s)"),
            format!("{all_registered:.1} s, {refused} refused"),
        ),
    ])
}
