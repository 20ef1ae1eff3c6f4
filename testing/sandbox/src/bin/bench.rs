//! `make bench`: the figures of `docs/performance.md`, measured on this machine. Nothing here passes or fails.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::http::{HeaderMap, HeaderValue};
use clap::Parser;
use drover::output::table;
use sandbox::calls::{Counts, Kill};
use sandbox::deliveries::{TEMPLATES, signature};
use sandbox::lambda::request_event;
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox};
use sandbox::short_timings::{machine, one_pool};
use sandbox::state::State;
use serde_json::Value;
use tokio::time::{Instant, interval};
use world::ec2::Operation;
use world::github::Endpoint;

/// Measures ingest, the scaler, and a burst of a thousand jobs; prints a table.
#[derive(Debug, Parser)]
#[command(name = "make bench ARGS=\"...\"")]
struct Arguments {
    /// Runs of each measurement; the median is printed.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Warm invocations of ingest.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000))]
    invocations: u32,
    /// Jobs of the burst.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=5000))]
    jobs: u32,
}

/// A pool that is never full.
const LARGE: &str = "max = 5000";

/// The length of the burst.
const BURST: Duration = Duration::from_secs(10);

/// The event source mapping of the burst.
const BATCH_SIZE: usize = 100;
const WINDOW: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    match bench(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One line of the table.
struct Figure {
    what: String,
    is: String,
    wanted: String,
    met: bool,
}

impl Figure {
    fn at_most(what: &str, is: f64, most: f64, unit: &str) -> Self {
        let (is_text, wanted) = (format!("{is:.2} {unit}"), format!("at most {most} {unit}"));
        Self { what: what.to_owned(), is: is_text, wanted, met: is <= most }
    }

    fn shown(what: &str, is: impl ToString) -> Self {
        Self { what: what.to_owned(), is: is.to_string(), wanted: String::new(), met: true }
    }
}

async fn bench(arguments: &Arguments) -> anyhow::Result<()> {
    let mut figures = ingest(arguments).await?;
    figures.extend(scaler(arguments).await?);
    figures.extend(burst(arguments).await?);
    let rows = figures.iter().map(|it| {
        let verdict = if it.met { "" } else { "MISSED" };
        vec![it.what.clone(), it.is.clone(), it.wanted.clone(), verdict.to_owned()]
    });
    println!("\nmedians of {} runs, {}\n", arguments.runs, machine());
    print!("{}", table(&["WHAT", "MEASURED", "WANTED", ""], rows));
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
    // Linux counts in hundredths of a second for every reader of /proc.
    Ok(Duration::from_millis(10 * ticks.iter().sum::<u64>()))
}

async fn ingest(arguments: &Arguments) -> anyhow::Result<Vec<Figure>> {
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
            // A queue of ten thousand would measure the queue.
            sandbox.world.act(|state, _| state.sqs.purge_queue(QUEUE));
        }
    }
    let used = processor_time(process)? - before;
    let memory = resident(process)?;
    Ok(vec![
        Figure::at_most("ingest: start to first answer", median(cold), 12.0, "ms"),
        Figure::at_most(&format!("ingest: resident after {} invocations", arguments.invocations), memory, 14.0, "MB"),
        Figure::shown(&format!("ingest: resident after {early}"), format!("{memory_early:.2} MB")),
        Figure::at_most("ingest: processor time a warm invocation", millis(used) / f64::from(rest), 0.35, "ms"),
    ])
}

/// A world that limits nothing, with the pool applied.
async fn unlimited() -> anyhow::Result<Sandbox> {
    let mut options = Options { driven: Driven::ByHand, ..Options::default() };
    options.ec2.throttle = false;
    options.ec2.pending = Duration::from_secs(3600);
    options.github.limits.enforced = false;
    options.github.webhook_delay = (Duration::ZERO, Duration::ZERO);
    let sandbox = Sandbox::start(options).await?;
    sandbox.apply(&one_pool(LARGE)).await?;
    Ok(sandbox)
}

/// Pushes jobs, and waits until all of them are on the queue.
async fn on_the_queue(sandbox: &Sandbox, jobs: usize) -> anyhow::Result<()> {
    for _ in 0..jobs {
        sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1));
    }
    let arrived = |state: &State| (state.sqs.bodies(QUEUE).len() == jobs).then_some(());
    sandbox.world.until("the deliveries on the queue", Duration::from_secs(30), arrived).await
}

fn since(after: &Counts, before: &Counts) -> Vec<(String, u64)> {
    let grown = after.iter().map(|(call, times)| (call, times - before.get(call).copied().unwrap_or_default()));
    grown.filter(|(_, times)| *times > 0).map(|((service, call), times)| (format!("{service} {call}"), times)).collect()
}

fn told(calls: &[(String, u64)]) -> String {
    calls.iter().map(|(call, times)| format!("{times} {call}")).collect::<Vec<_>>().join(", ")
}

async fn scaler(arguments: &Arguments) -> anyhow::Result<Vec<Figure>> {
    const N: usize = 10;
    let sandbox = unlimited().await?;
    let launches = || sandbox.world.look(|state| state.ec2.launches());
    let (mut cold, mut memory, mut cold_calls) = (Vec::new(), 0.0, Vec::new());
    for _ in 0..arguments.runs {
        on_the_queue(&sandbox, N).await?;
        let (already, before) = (launches(), sandbox.calls.counts());
        let began = Instant::now();
        let process = sandbox.scaler.cold_start().await?;
        let launched = |state: &State| (state.ec2.launches() > already).then_some(());
        let (first, batch) = tokio::join!(
            async {
                sandbox.world.until("the first launch", Duration::from_secs(30), launched).await?;
                Ok::<_, anyhow::Error>(began.elapsed())
            },
            sandbox.scale(),
        );
        ensure!(batch?.failed == 0, "a message failed");
        cold.push(millis(first?));
        memory = resident(process)?;
        cold_calls = since(&sandbox.calls.counts(), &before);
    }

    let (mut warm, mut calls, mut ahead) = (Vec::new(), Vec::new(), 0);
    let process = sandbox.scaler.cold_start().await?;
    on_the_queue(&sandbox, 1).await?;
    sandbox.scale().await?;
    for _ in 0..arguments.runs {
        on_the_queue(&sandbox, N).await?;
        let (already, before) = (launches(), sandbox.calls.counts());
        sandbox.calls.trace("scaler", process, Kill::Never);
        let began = Instant::now();
        ensure!(sandbox.scale().await?.failed == 0, "a message failed");
        warm.push(began.elapsed().as_secs_f64());
        let traced = sandbox.calls.traced();
        ahead = traced.iter().position(|call| call == "EC2 RunInstances").context("nothing was launched")?;
        calls = since(&sandbox.calls.counts(), &before);
        ensure!(launches() == already + N as u64, "{N} jobs are to launch {N} machines");
    }
    let total: u64 = calls.iter().map(|(_, times)| times).sum();
    let cold_total: u64 = cold_calls.iter().map(|(_, times)| times).sum();
    Ok(vec![
        Figure::at_most("scaler: start to first RunInstances answered", median(cold), 40.0, "ms"),
        Figure::at_most("scaler: resident after a batch", memory, 40.0, "MB"),
        Figure::at_most(&format!("scaler: {N} jobs in one warm batch"), median(warm), 0.2, "s"),
        Figure::at_most(
            &format!("scaler: its calls, warm ({})", told(&calls)),
            total as f64,
            (2 * N + 8) as f64,
            "calls",
        ),
        Figure::shown(&format!("scaler: its calls, cold ({})", told(&cold_calls)), format!("{cold_total} calls")),
        Figure::at_most("scaler: calls before RunInstances", ahead as f64, 4.0, "calls"),
    ])
}

/// Jobs in a burst, against EC2's and GitHub's published limits. No machine boots: what is measured is the launching.
async fn burst(arguments: &Arguments) -> anyhow::Result<Vec<Figure>> {
    let mut options = Options { batch_size: BATCH_SIZE, window: WINDOW, ..Options::default() };
    options.ec2.pending = Duration::from_secs(3600);
    options.visibility = Duration::from_secs(360);
    options.sweep_every = Duration::from_secs(60);
    let sandbox = Sandbox::start(options).await?;
    sandbox.apply(&one_pool(LARGE)).await?;
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

    // Three of GitHub's minutes, to see whether its limit is used.
    let wanted = jobs.min(3 * 180);
    let registered = |state: &State| (state.github.registrations().count() as u64 >= wanted).then_some(());
    sandbox.world.until("three minutes' worth of JIT configs", Duration::from_secs(600), registered).await?;
    let all_registered = began.elapsed().as_secs_f64();
    let (launches, refused) = sandbox.world.look(|state| {
        let asked = state.github.calls().get(&Endpoint::GenerateJit).copied().unwrap_or_default();
        (state.ec2.launches(), asked - state.github.registrations().count() as u64)
    });
    let how = format!("{jobs} jobs in {} s (batches of {BATCH_SIZE}, window {} s)", BURST.as_secs(), WINDOW.as_secs());
    // The first 180 at once, then 180 each minute that begins.
    let at_best = (wanted.div_ceil(180) - 1) * 60;
    Ok(vec![
        Figure::at_most(&format!("{how}: all launches accepted"), all_launched, 60.0, "s"),
        Figure::at_most(&format!("{how}: RunInstances"), calls as f64, 60.0, "calls"),
        Figure::at_most(&format!("{how}: surplus"), (launches - jobs) as f64, 0.0, "machines"),
        Figure::shown(
            &format!("{how}: {wanted} JIT configs (GitHub's limit allows it after {at_best} s)"),
            format!("{all_registered:.1} s, {refused} refused"),
        ),
    ])
}
