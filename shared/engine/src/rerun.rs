//! A job that lost its machine to EC2 is run once more.

use domain::config::Pool;
use domain::ids::JobId;
use domain::log::{Stream, Transaction, What};
use domain::policy::PoolView;
use domain::policy::due::backoff;
use domain::policy::rerun::GIVE_UP_AFTER;
use domain::state::Rerun;

use crate::context::Context;
use crate::effect::{Next, ReconcileError, commit_unlogged, remember_limit};
use crate::ports::{self, GitHubError};

/// Runs a job again, once its run has ended: GitHub refuses before.
///
/// Crash windows: the intent stands in the table until the end. After a lost reply the run has a further attempt, which is
/// how it shows that nothing is owed any more.
pub(crate) async fn rerun(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    job: JobId,
) -> Result<Next, ReconcileError> {
    let Some(owed) = view.reruns.get(&job) else { return Ok(None) };
    let owed = Rerun { tries: owed.tries + 1, next_at: context.lease(pool), ..owed.clone() };
    if !commit_unlogged(context, Transaction::new().put(owed.clone())).await? {
        return Ok(None);
    }
    let owed = Rerun { revision: owed.revision + 1, ..owed };
    match begin(context, &owed).await {
        Ok(Some(outcome)) => over(context, pool, owed, outcome).await,
        Ok(None) => wait(context, pool, owed).await,
        Err(error @ GitHubError::Refused(_)) => {
            tracing::error!(job.id = %job, "job {job} lost its machine and cannot be run again: {error}");
            over(context, pool, owed, &format!("cannot be run again: {error}")).await
        }
        Err(error) => {
            tracing::warn!(job.id = %job, "job {job} is not run again yet: {error}");
            if let GitHubError::Limited { until, .. } = &error {
                remember_limit(context, pool, *until, &error).await?;
            }
            wait(context, pool, owed).await
        }
    }
}

/// What became of it; None while its run has not ended.
async fn begin(context: &Context<'_>, owed: &Rerun) -> Result<Option<&'static str>, GitHubError> {
    let jobs = context.ports.github.run_jobs(&owed.repository, owed.run_id).await?;
    if jobs.iter().any(|job| job.run_attempt > owed.run_attempt) {
        return Ok(Some("its run was run again"));
    }
    if jobs.iter().any(|job| job.status != "completed") {
        return Ok(None);
    }
    match context.ports.github.rerun(&owed.repository, owed.job).await? {
        ports::Rerun::Begun => Ok(Some("it is run again")),
        ports::Rerun::RunUnderWay => Ok(None),
    }
}

async fn wait(context: &Context<'_>, pool: &Pool, owed: Rerun) -> Result<Next, ReconcileError> {
    let now = context.now();
    if now.duration_since(owed.since) >= GIVE_UP_AFTER {
        return over(context, pool, owed, "its run does not end").await;
    }
    let next_at = now + backoff(pool, owed.tries, &owed.job.to_string());
    commit_unlogged(context, Transaction::new().put(Rerun { next_at, ..owed })).await?;
    Ok(Some(next_at))
}

async fn over(context: &Context<'_>, pool: &Pool, owed: Rerun, outcome: &str) -> Result<Next, ReconcileError> {
    let what = What::Rerun { job: owed.job, outcome: outcome.to_owned() };
    let writes = Transaction::new().delete(owed);
    let stream = Stream::Pool(pool.name.clone());
    commit_unlogged(context, writes.told(stream, context.cause(), what, context.now())).await?;
    Ok(None)
}
