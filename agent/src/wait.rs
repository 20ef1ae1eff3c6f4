//! Waiting for the region, for the boot item and for EC2's interruption notice.

use std::time::Duration;

use domain::state::BootItem;
use platform::aws::AwsError;
use platform::boot::{BootError, BootTable, Clients, SpotNotice, clients};
use platform::reports::ReportsTable;
use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::report;

/// How often the agent looks at first. If the machine was launched for a job, its boot item exists or is about to.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);

/// How long the agent looks at the first interval.
const FIRST_INTERVAL_FOR: Duration = Duration::from_secs(120);

/// How often the agent looks after that. A warm machine may wait for hours. Each read consumes half a read unit: a
/// tenth of a cent in twelve hours.
const LATER_INTERVAL: Duration = Duration::from_secs(2);

/// How often the interruption notice is read. EC2 recommends five seconds.
const SPOT_INTERVAL: Duration = Duration::from_secs(5);

/// Waits until the AWS region is known. Without `AWS_REGION` the metadata service knows it, and it may not answer yet when
/// the agent starts.
///
/// # Errors
/// If AWS cannot be configured, which does not change while the machine runs.
pub(crate) async fn for_region(config: &Config) -> Result<Clients, AwsError> {
    let began = Instant::now();
    loop {
        if let Some(clients) = clients(&config.boot_table, config.reports_table.as_deref()).await? {
            return Ok(clients);
        }
        tracing::warn!("AWS_REGION is not set, and the metadata service does not name the region");
        sleep(interval(began)).await;
    }
}

/// Waits for the boot item, and deletes it before anything of a job can run. Meanwhile the machine's boot is reported, which
/// nothing waits for.
pub(crate) async fn for_boot_item(table: &BootTable, reports: Option<ReportsTable>) -> BootItem {
    let began = Instant::now();
    let key = repeated(began, async || table.key().await.map(Some)).await;
    if let Some(reports) = reports {
        tokio::spawn(report::send(reports, key.clone()));
    }
    let item = repeated(began, async || table.read(&key).await).await;
    repeated(began, async || table.delete(&key).await.map(Some)).await;
    item
}

/// Repeats a call until it returns something. A failed call is logged: the network of a machine that has just booted may not be
/// up yet.
async fn repeated<T>(began: Instant, call: impl AsyncFn() -> Result<Option<T>, BootError>) -> T {
    loop {
        match call().await {
            Ok(Some(value)) => return value,
            Ok(None) => {}
            Err(error) => tracing::warn!("{error}"),
        }
        sleep(interval(began)).await;
    }
}

fn interval(began: Instant) -> Duration {
    if began.elapsed() < FIRST_INTERVAL_FOR { FIRST_INTERVAL } else { LATER_INTERVAL }
}

/// Waits for EC2's interruption notice.
pub(crate) async fn for_spot_notice(spot: &SpotNotice) -> String {
    loop {
        if let Some(notice) = spot.read().await {
            return notice;
        }
        sleep(SPOT_INTERVAL).await;
    }
}
