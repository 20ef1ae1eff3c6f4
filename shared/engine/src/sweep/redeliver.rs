//! Requesting failed webhook deliveries again.

use domain::policy::redeliver::{due, examine, examine_part, list_since};
use domain::state::Janitor;
use domain::wire::DeliveryAttempt;
use jiff::Timestamp;

use crate::context::Context;
use crate::ports::GitHubError;
use crate::sweep::report::Report;

/// Pages that one sweep reads at most. More deliveries than that only follow an outage of hours: the next sweep goes on.
const MAX_PAGES: usize = 50;

/// Lists new attempts, and requests those again that failed.
///
/// Crash windows: a request that was not stored is repeated. A delivery may arrive twice in any case.
pub(super) async fn redeliver(context: &Context<'_>, memory: &mut Janitor, report: &mut Report) {
    let now = context.now();
    let Some(since) = list_since(memory, now) else { return };
    // Without a page nothing is known, which is not the same as no delivery.
    if context.short_of_time() {
        return;
    }
    let from = memory.unread_deliveries.as_ref().map(|unread| unread.from.clone());
    let (attempts, next, error) = list(context, since, from, report).await;
    match next {
        Some(next) => examine_part(memory, &attempts, next, now),
        None if error.is_none() => examine(memory, &attempts, now),
        None => {}
    }
    if let Some(error) = error {
        return note_failure(memory, &error, report);
    }
    for guid in due(memory, now) {
        if context.short_of_time() {
            break;
        }
        let Some(event) = memory.undelivered.get_mut(&guid) else { continue };
        match context.ports.github.redeliver(event.attempt).await {
            Ok(()) => {
                event.requested(now);
                report.redelivered += 1;
                tracing::info!(delivery = %guid, "delivery {guid} failed and is requested again");
            }
            Err(error) if error.is_refusal() => event.refused(now),
            Err(error) => {
                note_failure(memory, &error, report);
                break;
            }
        }
    }
}

/// The attempts since a time, as far as time allows. Returns them, with the cursor of the first page that was not read, and
/// the error that ended the reading.
async fn list(
    context: &Context<'_>,
    since: Timestamp,
    mut from: Option<String>,
    report: &mut Report,
) -> (Vec<DeliveryAttempt>, Option<String>, Option<GitHubError>) {
    let mut attempts = Vec::new();
    for _ in 0..MAX_PAGES {
        let page = match context.ports.github.deliveries(from.as_deref()).await {
            Ok(page) => page,
            // GitHub does not know the stored cursor any more: the listing begins again.
            Err(GitHubError::Refused(_)) if attempts.is_empty() && from.is_some() => {
                from = None;
                continue;
            }
            Err(error) => return (attempts, from, Some(error)),
        };
        report.unreadable += page.unreadable;
        let reaches_back = page.attempts.last().is_some_and(|last| last.delivered_at < since);
        attempts.extend(page.attempts.into_iter().filter(|attempt| attempt.delivered_at >= since));
        match page.next {
            Some(next) if !reaches_back => from = Some(next),
            _ => return (attempts, None, None),
        }
        if context.short_of_time() {
            break;
        }
    }
    (attempts, from, None)
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
