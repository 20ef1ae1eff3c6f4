//! Publishing the check run that explains why a job waits.

use domain::config::Pool;
use domain::ids::JobId;
use domain::log::{Transaction, Turn};
use domain::policy::PoolView;
use domain::policy::notify::{Notification, due_notification, first_check_run, published, refused, update};
use domain::policy::retry::{backoff, next_attempt};
use domain::state::{CheckRun, Item, Key, Leased};

use crate::context::Context;
use crate::effects::Next;
use crate::error::ReconcileError;
use crate::ports::GitHubError;
use crate::table::{claim, commit_or_leave};

/// Publishes the notification that is due.
///
/// Crash windows: the record is in the table, leased, before GitHub is called. If the answer is lost, a second check run with
/// the same name and external id is created, and GitHub shows the newer one.
pub(crate) async fn notify(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    job: JobId,
) -> Result<Next, ReconcileError> {
    let turn = context.turn(pool);
    let Some(notification) = due_notification(pool, view, job, turn.now) else { return Ok(None) };
    let Some(check) = claimed(context, pool, view, job).await? else { return Ok(None) };
    let (title, update) = update(pool, view, &check, notification, turn.now);
    let answer = match update {
        Some(update) => context.ports.github.write_check_run(&update).await.map(Some),
        None => Ok(None),
    };
    let id = match answer {
        Ok(id) => id,
        // Nothing depends on this update. The check run on GitHub stays out of date.
        Err(error) if notification == Notification::Over && error.is_refusal() => {
            tracing::warn!(%job, "the check run of job {job} cannot be closed: {error}");
            None
        }
        Err(error) => return put_off(context, pool, check, title, &error, &turn).await,
    };
    commit_or_leave(context, published(pool, check, notification, id, title, &context.turn(pool))).await?;
    Ok(None)
}

/// The record, claimed; None if another invocation holds it, or nothing is stored about the job.
async fn claimed(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    job: JobId,
) -> Result<Option<CheckRun>, ReconcileError> {
    let check = match view.check_runs.get(&job) {
        Some(check) => check.clone(),
        None => match context.ports.store.get(&Key::Job(job)).await? {
            Some(Item::Job(job)) => first_check_run(pool, &job, context.now()),
            _ => return Ok(None),
        },
    };
    claim(context, check, context.lease(pool)).await
}

async fn put_off(
    context: &Context<'_>,
    pool: &Pool,
    check: CheckRun,
    title: String,
    error: &GitHubError,
    turn: &Turn,
) -> Result<Next, ReconcileError> {
    let job = check.job;
    tracing::warn!(%job, "the check run of job {job} is not written yet: {error}");
    let next_at = next_attempt(error.failure(), turn.now, backoff(pool, check.lease.tries, &job.to_string()));
    let check = check.put_off(next_at);
    let writes = if error.is_refusal() { refused(pool, check, title, turn) } else { Transaction::new().put(check) };
    commit_or_leave(context, writes).await?;
    Ok(Some(next_at))
}
