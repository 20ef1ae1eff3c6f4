//! The program on a runner's machine: fetches the one secret it may read, runs GitHub's runner for one job, and powers the
//! machine off.
//!
//! **Every path ends in power off**: a machine of ours that does nothing is the one fault that costs money while nobody
//! notices. There is no idle deadline: only the control plane may retire an idle runner, because only it can deregister
//! the runner first, and a runner that is merely switched off may just have been given a job.

mod config;
mod hook;
mod power;
mod runner;
mod wait;

use std::process::ExitCode;

use anyhow::Context;
use platform::boot::{BootTable, SpotNotice};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::config::Config;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (None, _) => life(),
        // How the job-started hook comes back to us.
        (Some(command), Some(allowed)) if command == hook::CHECK_REPOSITORY => hook::check_repository(&allowed),
        _ => {
            eprintln!("usage: agent (no arguments; it is configured by its environment)");
            ExitCode::from(2)
        }
    }
}

/// From boot to power off.
fn life() -> ExitCode {
    platform::telemetry::init();
    power::off_on_panic();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.context("no runtime").and_then(|runtime| runtime.block_on(serve()));
    match &served {
        Ok(()) => tracing::info!("nothing left to do: powering off"),
        Err(error) => tracing::error!("powering off: {error:#}"),
    }
    match power::off() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("cannot power off: {error:#}");
            // The unit that runs us powers off when we fail.
            ExitCode::FAILURE
        }
    }
}

/// Serves one job, or nothing. Returns when there is nothing left for this machine to do.
async fn serve() -> anyhow::Result<()> {
    let began = Instant::now();
    let config = Config::from_environment()?;
    let aws = platform::aws::config().await?;
    let (table, spot) = (BootTable::new(&aws, config.boot_table.clone()), SpotNotice::new(&aws));
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen to signals")?;

    let item = tokio::select! {
        item = wait::for_boot_item(&table) => item,
        () = sleep_until(began + config.wait) => {
            tracing::info!("no JIT config within {:?}", config.wait);
            return Ok(());
        }
        // Without a job there is nothing to finish.
        notice = wait::for_spot_notice(&spot) => {
            tracing::info!("EC2 takes the machine back before it had a runner: {notice}");
            return Ok(());
        }
        _ = terminated.recv() => return Ok(()),
    };

    let mut running = runner::start(&config, &item)?;
    // From the machine's beginning, not from here: that is how the control plane reckons, too.
    let max_life = began + std::time::Duration::from_secs(item.max_life_seconds);
    let mut noticed = false;
    loop {
        tokio::select! {
            ended = running.wait() => {
                // Exit code 0 proves nothing: run.sh maps several failures to it. What became of the job, GitHub says.
                tracing::info!("the runner has ended: {}", ended.context("cannot wait for the runner")?);
                return Ok(());
            }
            () = sleep_until(max_life) => {
                tracing::warn!("the machine is {} s old, and may not be older", item.max_life_seconds);
                return Ok(());
            }
            notice = wait::for_spot_notice(&spot), if !noticed => {
                // Two minutes may be enough for the job. A runner without a job is the control plane's to deregister.
                tracing::warn!("EC2 takes the machine back; the runner may finish what it can: {notice}");
                noticed = true;
            }
            _ = terminated.recv() => return Ok(()),
        }
    }
}
