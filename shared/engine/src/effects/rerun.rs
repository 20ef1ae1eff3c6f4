//! Re-running a job whose machine EC2 reclaimed.

use std::collections::BTreeSet;

use domain::config::Pool;
use domain::ids::JobId;
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::rerun::{RerunOutcome, RerunStep, close, next_step, wait};
use domain::state::Rerun;

use crate::context::Context;
use crate::effects::Next;
use crate::error::ReconcileError;
use crate::ports::{self, GitHubError};
use crate::table::{claim, commit_or_leave};

/// Re-runs a job once its run has ended: GitHub refuses earlier requests.
///
/// Crash windows: the record stays in the table until the re-run is requested or given up. If the answer is lost, the run
/// has a later attempt, which shows that the re-run was requested.
pub(crate) async fn rerun(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    job: JobId,
) -> Result<Next, ReconcileError> {
    let Some(rerun) = view.reruns.get(&job).cloned() else { return Ok(None) };
    let Some(rerun) = claim(context, rerun, context.lease(pool)).await? else { return Ok(None) };
    let reclaimed = view.reruns.keys().copied().collect();
    match request(context, &rerun, &reclaimed).await {
        Ok(Some(outcome)) => end(context, pool, rerun, outcome).await,
        Ok(None) => put_off(context, pool, rerun).await,
        Err(error @ GitHubError::Refused(_)) => {
            tracing::error!(%job, "job {job} lost its machine and cannot be re-run: {error}");
            end(context, pool, rerun, RerunOutcome::Refused(error.to_string())).await
        }
        Err(error) => {
            tracing::warn!(%job, "job {job} is not re-run yet: {error}");
            put_off(context, pool, rerun).await
        }
    }
}

/// The outcome; None while the run has not ended.
async fn request(
    context: &Context<'_>,
    rerun: &Rerun,
    reclaimed: &BTreeSet<JobId>,
) -> Result<Option<RerunOutcome>, GitHubError> {
    let jobs = context.ports.github.run_jobs(&rerun.repository, rerun.run_id).await?.jobs;
    match next_step(rerun, &jobs, reclaimed) {
        RerunStep::AlreadyDone => Ok(Some(RerunOutcome::AlreadyDone)),
        RerunStep::RunUnderWay => Ok(None),
        RerunStep::GiveUp(why) => Ok(Some(RerunOutcome::GivenUp(why))),
        RerunStep::Request => match context.ports.github.rerun(&rerun.repository, rerun.job).await? {
            ports::Rerun::Begun => Ok(Some(RerunOutcome::Begun)),
            ports::Rerun::RunUnderWay => Ok(None),
        },
    }
}

async fn put_off(context: &Context<'_>, pool: &Pool, rerun: Rerun) -> Result<Next, ReconcileError> {
    let Some(later) = wait(pool, &rerun, context.now()) else {
        return end(context, pool, rerun, RerunOutcome::RunNeverEnded).await;
    };
    let next_at = later.lease.next_at;
    commit_or_leave(context, Transaction::new().put(later)).await?;
    Ok(Some(next_at))
}

async fn end(context: &Context<'_>, pool: &Pool, rerun: Rerun, outcome: RerunOutcome) -> Result<Next, ReconcileError> {
    commit_or_leave(context, close(pool, rerun, &outcome, &context.turn(pool))).await?;
    Ok(None)
}
