//! Waiting for the region, for the boot item and for EC2's interruption notice.

use std::path::Path;
use std::time::Duration;

use domain::state::{BootItem, BootReport};
use platform::aws::AwsError;
use platform::boot::{BootError, BootTable, Clients, SpotNotice, clients};
use platform::reports::ReportsTable;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::prepare::{self, Read};
use crate::report;

/// How often the agent looks at first. If the machine was launched for a job, its boot item exists or is about to.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);

/// How long the agent looks at the first interval.
const FIRST_INTERVAL_FOR: Duration = Duration::from_secs(120);

/// How often the agent looks after that. A warm machine may wait for hours, and its job waits for half of this on average. Each read
/// consumes half a read unit: 0.16 USD per month.
const LATER_INTERVAL: Duration = Duration::from_secs(1);

/// How long the agent looks before the machine prepares itself. The item of a machine that was launched for a job is there
/// earlier, and the machine does nothing besides.
const PREPARES_AFTER: Duration = Duration::from_secs(5);

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

/// Waits for the boot item, and deletes it before anything of a job can run. Returns it with its key, which is also that of this
/// machine's report. Meanwhile the machine reports its boot and prepares itself, and the job waits for neither.
pub(crate) async fn for_boot_item(
    table: &BootTable,
    reports: Option<ReportsTable>,
    runner_dir: &Path,
) -> (String, BootItem) {
    let began = Instant::now();
    let key = repeated(began, async || table.key().await.map(Some)).await;
    let item = repeated(began, async || table.read(&key).await);
    let item = match reports {
        Some(reports) => {
            // A task of its own: the machine of a job that is there at once reports its boot, too.
            let booted = tokio::spawn(report::booted(reports.clone(), key.clone()));
            preparing_meanwhile(item, sleep(PREPARES_AFTER), prepare(&reports, &key, booted, runner_dir)).await
        }
        None => item.await,
    };
    repeated(began, async || table.delete(&key).await.map(Some)).await;
    (key, item)
}

/// Waits for the item. The preparation begins if the item has not arrived until then, and is dropped when the item arrives.
async fn preparing_meanwhile<T>(
    item: impl Future<Output = T>,
    until: impl Future<Output = ()>,
    preparation: impl Future<Output = ()>,
) -> T {
    let mut item = std::pin::pin!(item);
    let preparation = async {
        until.await;
        preparation.await;
    };
    tokio::select! {
        biased;
        item = &mut item => item,
        () = preparation => item.await,
    }
}

/// Prepares the machine and reports that, once its boot is reported.
async fn prepare(reports: &ReportsTable, key: &str, booted: JoinHandle<Option<BootReport>>, runner_dir: &Path) {
    let Ok(Some(booted)) = booted.await else { return };
    match prepare::read_all(runner_dir).await {
        Ok(Read { files, bytes }) => {
            tracing::info!("this machine is prepared: {bytes} bytes of {files} files are read");
            report::prepared(reports, key, booted).await;
        }
        Err(error) => tracing::warn!("this machine is not prepared: {error:#}"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_machine_whose_item_is_there_does_not_prepare_itself() {
        let preparation = async { panic!("the preparation begins") };
        assert_eq!(preparing_meanwhile(ready(7), ready(()), preparation).await, 7);
        let preparation = async { panic!("the preparation begins too early") };
        assert_eq!(preparing_meanwhile(async { 7 }, pending(), preparation).await, 7);
    }

    #[tokio::test]
    async fn an_item_that_arrives_during_the_preparation_is_not_delayed_by_it() {
        let ((give, item), (alive, dropped)) = (oneshot::channel(), oneshot::channel::<()>());
        let preparation = async move {
            give.send(7).unwrap();
            pending::<()>().await;
            drop(alive);
        };
        assert_eq!(preparing_meanwhile(item, ready(()), preparation).await, Ok(7));
        assert!(dropped.await.is_err(), "the preparation is dropped");
    }

    #[tokio::test]
    async fn a_prepared_machine_still_waits_for_its_item() {
        let ((give, item), (prepared, is_prepared)) = (oneshot::channel(), oneshot::channel());
        let preparation = async move { prepared.send(()).unwrap() };
        let hand_over = async move {
            is_prepared.await.unwrap();
            give.send(7).unwrap();
        };
        let (item, ()) = tokio::join!(preparing_meanwhile(item, ready(()), preparation), hand_over);
        assert_eq!(item, Ok(7));
    }
}
