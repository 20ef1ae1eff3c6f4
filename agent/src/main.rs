//! The agent runs on each machine. It reads the JIT config, runs GitHub's runner for one job, and powers the machine off.
//!
//! **Every path ends in power off.** A machine that does nothing costs money without anybody noticing. There is no idle
//! deadline: only the control plane may retire an idle runner, because only the control plane can deregister it first. A
//! runner that is simply switched off may have received a job in the same moment.

mod config;
mod hook;
mod measure;
mod output;
mod power;
mod prepare;
mod report;
mod runner;
mod sample;
mod summary;
mod usage;
mod wait;

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use domain::state::BootItem;
use platform::boot::Clients;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::config::Config;
use crate::hook::Report;
use crate::measure::{Measurement, Subject};

const STOPPED: &str = "the machine shuts down, or the agent was stopped";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (None, _) => run(),
        // The hooks call the agent this way.
        (Some(command), Some(folder)) if command == hook::CHECK_JOB => hook::check_job(&folder),
        (Some(command), Some(folder)) if command == hook::SUMMARIZE_JOB => hook::summarize_job(&folder),
        _ => {
            eprintln!("usage: agent (no arguments; it is configured by its environment)");
            ExitCode::from(2)
        }
    }
}

/// Runs from boot to power off.
fn run() -> ExitCode {
    platform::telemetry::init();
    power::off_on_panic();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.context("cannot start the async runtime").and_then(|runtime| runtime.block_on(serve()));
    // The agent's last line. The control plane shows it if the machine ended too early.
    match &served {
        Ok(ended) => tracing::info!("powering off: {ended}"),
        Err(error) => tracing::error!("powering off: {error:#}"),
    }
    match power::off() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("cannot power off: {error:#}");
            // The systemd unit of the agent powers off if the agent fails.
            ExitCode::FAILURE
        }
    }
}

/// Serves at most one job. Returns when nothing is left to do on this machine, with the reason.
async fn serve() -> anyhow::Result<String> {
    let started_at = Instant::now();
    let config = Config::from_environment()?;
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let waited_too_long = || format!("received no JIT config within {:?}", config.wait);

    let clients = tokio::select! {
        clients = wait::for_region(&config) => clients?,
        () = sleep_until(started_at + config.wait) => return Ok(waited_too_long()),
        _ = terminated.recv() => return Ok(STOPPED.to_owned()),
    };
    let (key, item) = tokio::select! {
        item = wait::for_boot_item(&clients.boot, clients.reports.clone(), &config.runner_dir) => item,
        () = sleep_until(started_at + config.wait) => return Ok(waited_too_long()),
        // The machine has no job that could finish first.
        notice = wait::for_spot_notice(&clients.spot) => {
            return Ok(format!("EC2 reclaims the machine before it has a runner: {notice}"));
        }
        _ = terminated.recv() => return Ok(STOPPED.to_owned()),
    };

    run_runner(&config, clients, key, item, started_at, terminated).await
}

/// Runs GitHub's runner to its end or to that of the machine. Returns the reason.
async fn run_runner(
    config: &Config,
    clients: Clients,
    key: String,
    item: BootItem,
    started_at: Instant,
    mut terminated: Signal,
) -> anyhow::Result<String> {
    let Clients { region, reports, spot, .. } = clients;
    let mut running = runner::start(config, &item)?;
    let reports = reports.map(|table| (table, key));
    let mut subject = item.usage.map(|machine| Subject { machine, region, reports });
    // Counted from the agent's start and not from here: the control plane counts from the launch.
    let max_life = started_at + Duration::from_secs(item.max_life_seconds);
    // One future for the whole loop, so that nothing that happens on the machine interrupts a read of the notice.
    let mut notice = pin!(wait::for_spot_notice(&spot));
    let (mut has_notice, mut has_job, mut measurement) = (false, false, None);
    let ended = loop {
        tokio::select! {
            // The hook's report is known before the runner's end, and output without end keeps nothing else from being noticed.
            biased;
            // A runner has one job, and its first report comes before anything of the job runs. Later ones are the job's: they could keep
            // the agent busy.
            report = running.hook.report(), if !has_job => match report.context("cannot read the hook's reports")? {
                Report::Started => {
                    has_job = true;
                    let subject = subject.take().zip(running.hook.summaries.take());
                    measurement = subject.map(|(subject, summaries)| Measurement::start(subject, summaries));
                }
                Report::Refused(reason) => {
                    running.kill().await?;
                    bail!("refused a job: {reason}");
                }
            },
            ended = running.process.wait() => {
                let status = ended.context("cannot wait for the runner")?;
                let last = running.output.last_lines();
                // Exit code 0 is no proof of success: run.sh uses it for several failures. GitHub has the job's result.
                break match has_job {
                    true => format!("the runner has ended after its job: {status}"),
                    false => format!("the runner has ended without a job: {status}. Its last lines: {last}"),
                };
            }
            () = sleep_until(max_life) => {
                break format!("the machine has reached its maximum life of {} s", item.max_life_seconds);
            }
            notice = &mut notice, if !has_notice => {
                // Two minutes may be enough for the job. The control plane deregisters a runner without a job.
                tracing::warn!("EC2 reclaims the machine, and the runner continues until then: {notice}");
                has_notice = true;
            }
            _ = terminated.recv() => break STOPPED.to_owned(),
            () = running.output.copy_some() => {}
        }
    };
    if let Some(measurement) = measurement {
        measurement.end().await;
    }
    Ok(ended)
}
