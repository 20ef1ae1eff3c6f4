//! The reports that the machine has booted, that it has prepared itself, and what its job used. They are a service to the control
//! plane: no job waits for them, and the job runs without them.

use std::time::Duration;

use anyhow::Context;
use domain::state::{BootReport, Usage};
use engine::ports::Clock;
use platform::aws::CallError;
use platform::clock::SystemClock;
use platform::reports::ReportsTable;
use tokio::time::{Instant, sleep};

/// How long a report is tried. A control plane that misses the report may end a machine without a runner after
/// `boot_grace`, which is eight minutes by default.
const TRIED_FOR: Duration = Duration::from_secs(10 * 60);

/// The pauses between attempts. The table may not exist yet, or throttle because another machine floods it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Reports that the machine with this key has booted. None if that is not written.
pub(crate) async fn booted(table: ReportsTable, key: String) -> Option<BootReport> {
    let report =
        now().inspect_err(|error| tracing::warn!("the boot of this machine is not reported: {error:#}")).ok()?;
    send("the boot", || table.write(&key, &report)).await.then_some(report)
}

/// Reports that the machine with this key, which has reported this already, has prepared itself.
pub(crate) async fn prepared(table: &ReportsTable, key: &str, booted: BootReport) {
    let report = BootReport { prepared_at: Some(SystemClock.now()), ..booted };
    send("the preparation", || table.write(key, &report)).await;
}

/// Reports what the job of the machine with this key used. Returns whether that is written.
pub(crate) async fn used(table: ReportsTable, key: String, usage: Usage) -> bool {
    send("the usage", || table.write_usage(&key, &usage, SystemClock.now())).await
}

/// Repeats a report until it is written, for some minutes. Returns whether it is.
async fn send<F: Future<Output = Result<(), CallError>>>(what: &str, write: impl Fn() -> F) -> bool {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut is_logged = false;
    while let Err(error) = write().await {
        // Once, because the console has little room.
        if !is_logged {
            tracing::warn!("{what} of this machine is not reported yet: {error}");
            is_logged = true;
        }
        if began.elapsed() + pause >= TRIED_FOR {
            return false;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    true
}

fn now() -> anyhow::Result<BootReport> {
    let uptime = std::fs::read_to_string("/proc/uptime").context("cannot read /proc/uptime")?;
    let seconds = uptime.split('.').next().and_then(|seconds| seconds.parse().ok());
    let uptime_seconds = seconds.with_context(|| format!("/proc/uptime has an unknown form: {uptime:?}"))?;
    Ok(BootReport { reported_at: SystemClock.now(), uptime_seconds, prepared_at: None })
}
