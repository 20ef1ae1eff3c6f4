//! Re-running a job whose machine EC2 reclaimed.

use std::collections::BTreeMap;

use domain::config::Pool;
use domain::ids::JobId;
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::rerun::{RerunOutcome, RerunStep, close, next_step, requested, wait};
use domain::state::Rerun;

use crate::context::Context;
use crate::effects::Next;
use crate::error::ReconcileError;
use crate::ports::{self, GitHubError};
use crate::table::{claim, commit_or_leave};

/// Re-runs a job once its run has ended: GitHub refuses earlier requests.
///
/// Crash windows: the record stays in the table until the job of the next attempt is recorded or the re-run is given up. If
/// the answer is lost, the run has a later attempt, which shows that the re-run was requested.
pub(crate) async fn rerun(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    job: JobId,
) -> Result<Next, ReconcileError> {
    let Some(rerun) = view.reruns.get(&job).cloned() else { return Ok(None) };
    let Some(rerun) = claim(context, rerun, context.lease(pool)).await? else { return Ok(None) };
    match request(context, &rerun, &view.reruns).await {
        Ok(Answer::Requested) => {
            let writes = requested(pool, rerun, &context.turn(pool));
            commit_or_leave(context, writes).await?;
            Ok(Some(context.now() + pool.timings.job_check.duration()))
        }
        Ok(Answer::Ended(outcome)) => end(context, pool, rerun, outcome).await,
        Ok(Answer::Later) => put_off(context, pool, rerun, RerunOutcome::RunNeverEnded).await,
        Err(error @ GitHubError::Refused(_)) if !error.is_not_found() => {
            tracing::error!(%job, "job {job} lost its machine and cannot be re-run: {error}");
            end(context, pool, rerun, RerunOutcome::Refused(error.to_string())).await
        }
        // GitHub also answers 404 while the app has no access to the repository.
        Err(error) => {
            tracing::warn!(%job, "job {job} is not re-run yet: {error}");
            put_off(context, pool, rerun, RerunOutcome::Refused(error.to_string())).await
        }
    }
}

enum Answer {
    Requested,
    Later,
    Ended(RerunOutcome),
}

async fn request(context: &Context<'_>, rerun: &Rerun, owed: &BTreeMap<JobId, Rerun>) -> Result<Answer, GitHubError> {
    let run = context.ports.github.run_jobs(&rerun.repository, rerun.run_id).await?;
    match next_step(rerun, &run, owed, context.now()) {
        RerunStep::UnderWay => Ok(Answer::Ended(RerunOutcome::UnderWay)),
        RerunStep::Wait => Ok(Answer::Later),
        RerunStep::GiveUp(why) => Ok(Answer::Ended(RerunOutcome::GivenUp(why))),
        RerunStep::Request(job) => match context.ports.github.rerun(&rerun.repository, job).await? {
            ports::Rerun::Begun => Ok(Answer::Requested),
            ports::Rerun::RunUnderWay => Ok(Answer::Later),
        },
    }
}

/// Tries again later. After a day it ends with this outcome.
async fn put_off(
    context: &Context<'_>,
    pool: &Pool,
    rerun: Rerun,
    outcome: RerunOutcome,
) -> Result<Next, ReconcileError> {
    let Some(later) = wait(pool, &rerun, context.now()) else {
        return end(context, pool, rerun, outcome).await;
    };
    let next_at = later.lease().next_at;
    commit_or_leave(context, Transaction::new().put(later)).await?;
    Ok(Some(next_at))
}

async fn end(context: &Context<'_>, pool: &Pool, rerun: Rerun, outcome: RerunOutcome) -> Result<Next, ReconcileError> {
    commit_or_leave(context, close(pool, rerun, &outcome, &context.turn(pool))).await?;
    Ok(None)
}
