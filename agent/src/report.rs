//! The report that the machine has booted. It is a service to the control plane: nothing on the machine waits for it, and the
//! job runs without it.

use std::time::Duration;

use anyhow::Context;
use domain::state::BootReport;
use engine::ports::Clock;
use platform::clock::SystemClock;
use platform::reports::ReportsTable;
use tokio::time::{Instant, sleep};

/// How long the report is tried. A control plane that misses the report may end a machine without a runner after
/// `boot_grace`, which is eight minutes by default.
const TRIED_FOR: Duration = Duration::from_secs(10 * 60);

/// The pauses between attempts. The table may not exist yet, or throttle because another machine floods it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Reports that the machine with this key has booted. Repeats the report until it is written, for some minutes.
pub(crate) async fn send(table: ReportsTable, key: String) {
    let report = match now() {
        Ok(report) => report,
        Err(error) => return tracing::warn!("the boot of this machine is not reported: {error:#}"),
    };
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut is_logged = false;
    while let Err(error) = table.write(&key, &report).await {
        // Once, because the console has little room.
        if !is_logged {
            tracing::warn!("the boot of this machine is not reported yet: {error}");
            is_logged = true;
        }
        if began.elapsed() + pause >= TRIED_FOR {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn now() -> anyhow::Result<BootReport> {
    let uptime = std::fs::read_to_string("/proc/uptime").context("cannot read /proc/uptime")?;
    let seconds = uptime.split('.').next().and_then(|seconds| seconds.parse().ok());
    let uptime_seconds = seconds.with_context(|| format!("/proc/uptime has an unknown form: {uptime:?}"))?;
    Ok(BootReport { reported_at: SystemClock.now(), uptime_seconds })
}
