//! Values that a shell completes: pools and machines, read from the stack that the environment or a profile names. Without a stack, without
//! credentials or without an answer in time there are none.

use std::time::Duration;

use clap_complete::CompletionCandidate;
use drover::ps;
use drover::read;
use drover::settings::{self, Reading, StackChoice};
use engine::ports::Clock;
use platform::clock::SystemClock;
use platform::control;
use platform::table::Table;

/// A shell waits for the answer.
const TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) fn pools() -> Vec<CompletionCandidate> {
    of_table(async |table| {
        let config = read::config(&table).await.ok()?;
        Some(config.pools.iter().map(|pool| CompletionCandidate::new(pool.name.as_str())).collect())
    })
}

pub(crate) fn instances() -> Vec<CompletionCandidate> {
    of_table(async |table| {
        let machines = ps::machines(&table, SystemClock.now()).await.ok()?;
        let candidate = |(id, what): (String, String)| CompletionCandidate::new(id).help(Some(what.into()));
        Some(machines.into_iter().map(candidate).collect())
    })
}

fn of_table(read: impl AsyncFn(Table) -> Option<Vec<CompletionCandidate>>) -> Vec<CompletionCandidate> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let found = runtime.block_on(async {
        let answer = async {
            settings::load(&StackChoice::default(), Reading::OnlyCached).await.ok()?;
            let aws = platform::aws::config().await.ok()?;
            read(control::table(&aws).ok()?).await
        };
        tokio::time::timeout(TIMEOUT, answer).await.ok().flatten()
    });
    found.unwrap_or_default()
}
