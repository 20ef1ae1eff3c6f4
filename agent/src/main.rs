//! The agent runs on each machine. It reads the JIT config, runs GitHub's runner for one job, and powers the machine off.
//!
//! **Every path ends in power off.** A machine that does nothing costs money without anybody noticing. There is no idle
//! deadline: only the control plane may retire an idle runner, because only the control plane can deregister it first. A
//! runner that is simply switched off may have received a job in the same moment.

mod config;
mod hook;
mod output;
mod power;
mod prepare;
mod report;
mod runner;
mod wait;

use std::process::ExitCode;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::config::Config;
use crate::hook::Report;

const STOPPED: &str = "the machine shuts down, or the agent was stopped";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (None, _) => run(),
        // The job-started hook calls the agent this way.
        (Some(command), Some(folder)) if command == hook::CHECK_JOB => hook::check_job(&folder),
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
    let item = tokio::select! {
        item = wait::for_boot_item(&clients.boot, clients.reports, &config.runner_dir) => item,
        () = sleep_until(started_at + config.wait) => return Ok(waited_too_long()),
        // The machine has no job that could finish first.
        notice = wait::for_spot_notice(&clients.spot) => {
            return Ok(format!("EC2 reclaims the machine before it has a runner: {notice}"));
        }
        _ = terminated.recv() => return Ok(STOPPED.to_owned()),
    };

    let mut running = runner::start(&config, &item)?;
    // Counted from the agent's start and not from here: the control plane counts from the launch.
    let max_life = started_at + std::time::Duration::from_secs(item.max_life_seconds);
    let (mut has_notice, mut has_job) = (false, false);
    loop {
        tokio::select! {
            // In this order, so that everything the runner said before it ended is known.
            biased;
            report = running.hook.report() => match report.context("cannot read the hook's reports")? {
                Report::Started => has_job = true,
                Report::Refused(reason) => {
                    running.kill().await?;
                    bail!("refused a job: {reason}");
                }
            },
            () = running.output.copy() => {}
            ended = running.process.wait() => {
                let status = ended.context("cannot wait for the runner")?;
                let last = running.output.last_lines();
                // Exit code 0 is no proof of success: run.sh uses it for several failures. GitHub has the job's result.
                return Ok(match has_job {
                    true => format!("the runner has ended after its job: {status}"),
                    false => format!("the runner has ended without a job: {status}. Its last lines: {last}"),
                });
            }
            () = sleep_until(max_life) => {
                return Ok(format!("the machine has reached its maximum life of {} s", item.max_life_seconds));
            }
            notice = wait::for_spot_notice(&clients.spot), if !has_notice => {
                // Two minutes may be enough for the job. The control plane deregisters a runner without a job.
                tracing::warn!("EC2 reclaims the machine, and the runner continues until then: {notice}");
                has_notice = true;
            }
            _ = terminated.recv() => return Ok(STOPPED.to_owned()),
        }
    }
}
