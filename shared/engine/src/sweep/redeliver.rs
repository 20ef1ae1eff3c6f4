//! Requesting failed webhook deliveries again.

use domain::policy::redeliver::{due, examine, list_since};
use domain::state::Janitor;

use crate::context::Context;
use crate::ports::GitHubError;
use crate::sweep::report::Report;

/// Returns how many deliveries were requested.
///
/// Crash windows: a request that was not stored is repeated. A delivery may arrive twice in any case.
pub(super) async fn redeliver(context: &Context<'_>, memory: &mut Janitor, report: &mut Report) -> usize {
    let now = context.now();
    let Some(since) = list_since(memory, now) else { return 0 };
    match context.ports.github.deliveries(since).await {
        Ok(attempts) => examine(memory, &attempts, now),
        Err(error) => {
            note_failure(memory, &error, report);
            return 0;
        }
    }
    let mut requested = 0;
    for guid in due(memory, now) {
        if context.short_of_time() {
            break;
        }
        let Some(event) = memory.undelivered.get_mut(&guid) else { continue };
        match context.ports.github.redeliver(event.attempt).await {
            Ok(()) => {
                event.requested(now);
                requested += 1;
                tracing::info!(delivery = %guid, "delivery {guid} failed and is requested again");
            }
            Err(error) if error.is_refusal() => event.refused(now),
            Err(error) => {
                note_failure(memory, &error, report);
                break;
            }
        }
    }
    requested
}

/// A rate limit is waited for and is no failure of the sweep.
fn note_failure(memory: &mut Janitor, error: &GitHubError, report: &mut Report) {
    let what = format!("failed deliveries cannot be requested again: {error}");
    tracing::warn!("{what}");
    match error {
        GitHubError::Limited { until, .. } => memory.app_backoff_until = Some(*until),
        GitHubError::Denied(_)
        | GitHubError::NameTaken
        | GitHubError::Refused(_)
        | GitHubError::Unavailable { .. }
        | GitHubError::SecretUnreadable { .. }
        | GitHubError::SecretUnusable(_) => report.fail(what),
    }
}
