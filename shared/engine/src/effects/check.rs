//! Asking GitHub whether a job still waits. Only GitHub's answer opens a gate.

use domain::config::Pool;
use domain::ids::JobId;
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::check::{self, Answer, close_too_old, held, is_run_doubtful, needs_facts, run_is_over, waits};
use domain::policy::retry::next_attempt;
use domain::state::{Config, Item, Job, Key, WaitingJob};
use domain::wire::JobNotice;
use jiff::Timestamp;

use crate::context::Context;
use crate::effects::Next;
use crate::error::ReconcileError;
use crate::ports::{GitHubError, RunReference};
use crate::record::record_answer;
use crate::table::{Commit, commit, commit_or_leave};

pub(crate) async fn check(
    context: &Context<'_>,
    config: &Config,
    pool: &Pool,
    view: &PoolView,
    job: JobId,
) -> Result<Next, ReconcileError> {
    let Some(waiting) = view.waiting.get(&job) else { return Ok(None) };
    let claimed = check::claim(waiting, context.lease(pool));
    let Commit::Written = commit(context, &Transaction::new().put(claimed.clone())).await? else { return Ok(None) };
    let waiting = &WaitingJob { revision: claimed.revision + 1, ..claimed };
    let asked_at = context.now();
    match context.ports.github.job(&waiting.repository, job).await {
        Ok(reported) => {
            // A machine that ended without a report did not run a job that still waits, and may have to be replaced.
            let may_replace = view.slots.values().any(|slot| slot.awaits_report(asked_at)) && reported.is_some();
            let next = answered(context, config, pool, view, waiting, reported, asked_at).await?;
            Ok(next.or(may_replace.then_some(asked_at)))
        }
        Err(error) => put_off(context, pool, waiting, asked_at, &error).await,
    }
}

async fn answered(
    context: &Context<'_>,
    config: &Config,
    pool: &Pool,
    view: &PoolView,
    waiting: &WaitingJob,
    reported: Option<JobNotice>,
    asked_at: Timestamp,
) -> Result<Next, ReconcileError> {
    if reported.is_none() {
        tracing::warn!(job = %waiting.id, "GitHub does not know job {}", waiting.id);
    }
    let facts = match needs_facts(waiting, reported.as_ref(), asked_at) {
        true => facts(context, waiting).await?,
        false => None,
    };
    match (check::answer(pool, waiting, facts.as_ref(), reported.as_ref(), asked_at), reported) {
        (Answer::Waits { job, demand_changed }, _) => {
            let is_over = match &facts {
                Some(facts) if is_run_doubtful(&job, asked_at) => is_run_over(context, facts).await,
                Some(_) | None => false,
            };
            let job = if is_over { run_is_over(*job, asked_at) } else { *job };
            commit_or_leave(context, waits(pool, waiting, job, &context.turn(pool))).await?;
            Ok((demand_changed || is_over).then_some(asked_at))
        }
        (Answer::Held { job, demand_changed }, _) => {
            commit_or_leave(context, held(pool, *job, facts, &context.turn(pool))).await?;
            Ok(demand_changed.then_some(asked_at))
        }
        (Answer::Advanced(action), Some(reported)) => {
            record_answer(context, config, &waiting.repository, reported, action, asked_at).await?;
            Ok(Some(asked_at))
        }
        (Answer::TooOld, _) => {
            let facts = self::facts(context, waiting).await?;
            let turn = context.turn(pool);
            commit_or_leave(context, close_too_old(pool, view, waiting, facts, &turn)).await?;
            Ok(Some(turn.now))
        }
        (Answer::Advanced(_) | Answer::Unknown, _) => close(context, pool, waiting).await,
    }
}

async fn facts(context: &Context<'_>, waiting: &WaitingJob) -> Result<Option<Job>, ReconcileError> {
    match context.ports.store.get(&Key::Job(waiting.id)).await? {
        Some(Item::Job(job)) => Ok(Some(*job)),
        _ => Ok(None),
    }
}

/// Whether GitHub reports the job's run as completed. If GitHub does not answer, the job counts as before.
async fn is_run_over(context: &Context<'_>, job: &Job) -> bool {
    let run = RunReference {
        repository: job.repository.clone(),
        run: job.run_id,
        attempt: job.run_attempt,
        head_sha: job.head_sha.clone(),
    };
    match context.ports.github.is_run_over(&run).await {
        Ok(is_over) => is_over,
        Err(error) => {
            tracing::warn!(job = %job.id, "the run of job {} cannot be read: {error}", job.id);
            false
        }
    }
}

/// Closes a job that GitHub does not know and would have failed by now.
async fn close(context: &Context<'_>, pool: &Pool, waiting: &WaitingJob) -> Result<Next, ReconcileError> {
    let job = facts(context, waiting).await?;
    let turn = context.turn(pool);
    let next = job.is_some().then_some(turn.now);
    commit_or_leave(context, check::close_unknown(pool, waiting, job, &turn)).await?;
    Ok(next)
}

async fn put_off(
    context: &Context<'_>,
    pool: &Pool,
    waiting: &WaitingJob,
    asked_at: Timestamp,
    error: &GitHubError,
) -> Result<Next, ReconcileError> {
    tracing::warn!(job = %waiting.id, "job {} cannot be checked yet: {error}", waiting.id);
    let check_at = next_attempt(error.failure(), asked_at, pool.timings.backoff_min.duration());
    commit_or_leave(context, Transaction::new().put(check::put_off(waiting, check_at))).await?;
    Ok(Some(check_at))
}
