//! Waiting for what others decide.

use std::time::Duration;

use domain::state::BootItem;
use platform::boot::{BootTable, SpotNotice};
use tokio::time::{Instant, sleep};

/// A machine that was launched for a job finds its JIT config there already, or gets it any moment.
const EAGER: Duration = Duration::from_millis(500);

/// How long it is eager.
const EAGER_FOR: Duration = Duration::from_secs(120);

/// A warm machine may wait for hours. Each look is one write of a capacity unit: a cent in twelve hours.
const PATIENT: Duration = Duration::from_secs(2);

/// EC2 recommends to look every five seconds.
const SPOT_EVERY: Duration = Duration::from_secs(5);

/// The boot item, once it is there. Failures are logged and tried again: the network of a machine that just booted may not
/// be there yet.
pub(crate) async fn for_boot_item(table: &BootTable) -> BootItem {
    let began = Instant::now();
    let mut key = None;
    loop {
        match look(table, &mut key).await {
            Ok(Some(item)) => return item,
            Ok(None) => {}
            Err(error) => tracing::warn!("{error}"),
        }
        sleep(if began.elapsed() < EAGER_FOR { EAGER } else { PATIENT }).await;
    }
}

async fn look(table: &BootTable, key: &mut Option<String>) -> Result<Option<BootItem>, platform::boot::BootError> {
    let key = match key {
        Some(key) => key,
        None => key.insert(table.key().await?),
    };
    table.take(key).await
}

/// EC2's notice, once it is given.
pub(crate) async fn for_spot_notice(spot: &SpotNotice) -> String {
    loop {
        if let Some(notice) = spot.read().await {
            return notice;
        }
        sleep(SPOT_EVERY).await;
    }
}
