//! Asking GitHub whether a job still waits. Only GitHub's answer opens a gate.

use domain::config::Pool;
use domain::ids::JobId;
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::budget::is_scarce;
use domain::policy::check::{self, Answer};
use domain::policy::retry::next_attempt;
use domain::state::{Config, Item, Key, WaitingJob};
use domain::wire::JobNotice;
use jiff::Timestamp;

use crate::context::Context;
use crate::effects::Next;
use crate::error::ReconcileError;
use crate::ports::GitHubError;
use crate::record::record_answer;
use crate::table::{commit_or_leave, record_limit};

pub(crate) async fn check(
    context: &Context<'_>,
    config: &Config,
    pool: &Pool,
    view: &PoolView,
    job: JobId,
) -> Result<Next, ReconcileError> {
    let Some(waiting) = view.waiting.get(&job) else { return Ok(None) };
    // An open job most likely still waits. A gated job can only be opened by the answer.
    if waiting.open && is_scarce(context.ports.github.budget(pool.owner.owner())) {
        return Ok(None);
    }
    let asked_at = context.now();
    match context.ports.github.job(&waiting.repository, job).await {
        Ok(reported) => {
            // A machine that ended without a report did not run a job that still waits, and may have to be replaced.
            let may_replace = view.slots.values().any(|slot| slot.awaits_report(asked_at)) && reported.is_some();
            let next = answered(context, config, pool, waiting, reported, asked_at).await?;
            Ok(next.or(may_replace.then_some(asked_at)))
        }
        Err(error) => put_off(context, pool, waiting, asked_at, &error).await,
    }
}

async fn answered(
    context: &Context<'_>,
    config: &Config,
    pool: &Pool,
    waiting: &WaitingJob,
    reported: Option<JobNotice>,
    asked_at: Timestamp,
) -> Result<Next, ReconcileError> {
    if reported.is_none() {
        tracing::warn!(job = %waiting.id, "GitHub does not know job {}", waiting.id);
    }
    match (check::answer(pool, waiting, reported.as_ref(), asked_at), reported) {
        (Answer::Waits { job, demand_changed }, _) => {
            commit_or_leave(context, Transaction::new().put(*job)).await?;
            Ok(demand_changed.then_some(asked_at))
        }
        (Answer::Advanced(action), Some(reported)) => {
            record_answer(context, config, &waiting.repository, reported, action, asked_at).await?;
            Ok(Some(asked_at))
        }
        (Answer::Advanced(_) | Answer::Unknown, _) => close(context, pool, waiting).await,
    }
}

/// Closes a job that GitHub does not know and would have failed by now.
async fn close(context: &Context<'_>, pool: &Pool, waiting: &WaitingJob) -> Result<Next, ReconcileError> {
    let job = match context.ports.store.get(&Key::Job(waiting.id)).await? {
        Some(Item::Job(job)) => Some(*job),
        _ => None,
    };
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
    record_limit(context, pool.owner.owner(), error).await?;
    let check_at = next_attempt(error.failure(), asked_at, pool.timings.backoff_min.duration());
    commit_or_leave(context, Transaction::new().put(WaitingJob { check_at, ..waiting.clone() })).await?;
    Ok(Some(check_at))
}
