//! Does this job still wait? GitHub's answer is a fact like any other, and the only one that opens a gate.

use domain::config::Pool;
use domain::ids::{JobId, Repository, SlotId};
use domain::log::{Stream, Transaction, What};
use domain::policy::PoolView;
use domain::policy::budget::is_scarce;
use domain::state::{
    ASK_AFTER, Config, GIVE_UP_ASKING_AFTER, Item, Job, Key, Rank, Slot, TRUST_QUEUED_FOR, WaitingJob,
};
use domain::wire::{Action, JobNotice, Notice};
use jiff::Timestamp;

use crate::context::Context;
use crate::effect::{Next, ReconcileError, commit_unlogged, remember_limit};
use crate::ports::{GitHubError, StoreError};
use crate::record::record;

/// Asks GitHub about a waiting job.
pub(crate) async fn check(
    context: &Context<'_>,
    config: &Config,
    pool: &Pool,
    view: &PoolView,
    job: JobId,
) -> Result<Next, ReconcileError> {
    let Some(waiting) = view.waiting.get(&job) else {
        return Ok(None);
    };
    let asked_at = context.now();
    // Of an open job the answer is most likely known already; of a held one only the answer opens it.
    if waiting.open && is_scarce(context.ports.github.budget(pool.owner.owner())) {
        return Ok(None);
    }
    let again_at = asked_at + pool.timings.job_check.duration();
    // A machine that went away without a word did not run a job that still waits: there may be one to replace.
    let fates = view.slots.values().any(|slot| slot.is_fate_unknown(asked_at)).then_some(asked_at);
    match context.ports.github.job(&waiting.repository, job).await {
        Ok(Some(said)) => {
            let next = answered(context, config, waiting, said, asked_at, again_at).await?;
            Ok(next.or(fates))
        }
        Ok(None) => {
            // Deleted, or moved, or not ours to see any more. It is no reason to launch anything; whether the job is over
            // is certain only once GitHub itself would have failed it.
            tracing::warn!(job.id = %job, "job {job} is not known to GitHub");
            if asked_at.duration_since(waiting.queued_at) >= TRUST_QUEUED_FOR {
                return give_up(context, pool, waiting, asked_at).await;
            }
            observe(context, waiting, false, asked_at, again_at).await
        }
        Err(error) => {
            tracing::warn!(job.id = %job, "job {job} cannot be checked yet: {error}");
            let next_at = match &error {
                GitHubError::Limited { until, .. } => {
                    remember_limit(context, pool, *until, &error).await?;
                    *until
                }
                GitHubError::NameTaken
                | GitHubError::Denied(_)
                | GitHubError::Refused(_)
                | GitHubError::Unavailable { .. }
                | GitHubError::SecretUnreadable { .. }
                | GitHubError::SecretUnusable(_) => asked_at + pool.timings.backoff_min.duration(),
            };
            commit_unlogged(context, Transaction::new().put(WaitingJob { check_at: next_at, ..waiting.clone() }))
                .await?;
            Ok(Some(next_at))
        }
    }
}

async fn answered(
    context: &Context<'_>,
    config: &Config,
    waiting: &WaitingJob,
    said: JobNotice,
    asked_at: Timestamp,
    again_at: Timestamp,
) -> Result<Next, ReconcileError> {
    let action = match said.status.as_str() {
        "queued" => return observe(context, waiting, true, asked_at, again_at).await,
        "in_progress" => Action::InProgress,
        "completed" => Action::Completed,
        // `waiting`, `pending`, `requested`: GitHub has words for more than one gate.
        _ => return observe(context, waiting, false, asked_at, again_at).await,
    };
    let notice = answer(context, &waiting.repository, said, action, asked_at).await?;
    let recorded = record(context, config, &[notice]).await;
    match recorded.failed.into_values().next() {
        Some(error) => Err(ReconcileError::NotRecorded(error)),
        None => Ok(Some(asked_at)),
    }
}

/// GitHub's answer as a notice: a fact like any other, without a delivery.
async fn answer(
    context: &Context<'_>,
    repository: &Repository,
    said: JobNotice,
    action: Action,
    asked_at: Timestamp,
) -> Result<Notice, StoreError> {
    let public = match context.ports.store.get(&Key::Job(said.id)).await? {
        Some(Item::Job(job)) => job.public,
        _ => false,
    };
    Ok(Notice::asked(repository.clone(), public, action, said, asked_at))
}

/// Asks what became of the job of a slot whose machine is gone: its `completed` may be lost, and GitHub fails a job whose
/// runner vanished only after some minutes.
pub(crate) async fn ask(
    context: &Context<'_>,
    config: &Config,
    view: &PoolView,
    slot: SlotId,
) -> Result<Next, ReconcileError> {
    let Some(slot) = view.slots.get(&slot) else { return Ok(None) };
    let (Some(job), Some(machine), Some(gone_at)) = (slot.job(), slot.machine(), slot.gone_at) else {
        return Ok(None);
    };
    let now = context.now();
    let repository = match context.ports.store.get(&Key::Instance(machine.instance.clone())).await? {
        Some(Item::Instance(instance)) => instance.repository,
        _ => None,
    };
    let said = match &repository {
        Some(repository) => context.ports.github.job(repository, job).await,
        None => Ok(None),
    };
    let is_over = match (said, repository) {
        (Ok(Some(said)), Some(repository)) if said.status == "completed" => {
            let ours = said.runner.as_ref().map(|runner| runner.id) == slot.runner().map(|runner| runner.runner_id);
            let notice = answer(context, &repository, said, Action::Completed, now).await?;
            let recorded = record(context, config, &[notice]).await;
            if let Some(error) = recorded.failed.into_values().next() {
                return Err(ReconcileError::NotRecorded(error));
            }
            if ours {
                return Ok(Some(now));
            }
            true
        }
        (Ok(None), _) => true,
        (Ok(Some(_)) | Err(_), _) => now.duration_since(gone_at) >= GIVE_UP_ASKING_AFTER,
    };
    let slot = Slot { lost_sight: is_over, next_at: now + ASK_AFTER * 2, ..slot.clone() };
    commit_unlogged(context, Transaction::new().put(slot)).await?;
    Ok(None)
}

/// Writes down what GitHub said. There is more to do at once if that changed the demand.
async fn observe(
    context: &Context<'_>,
    waiting: &WaitingJob,
    open: bool,
    asked_at: Timestamp,
    again_at: Timestamp,
) -> Result<Next, ReconcileError> {
    let opened_at = if open && !waiting.open { Some(asked_at) } else { waiting.opened_at };
    let job = WaitingJob { open, opened_at, checked_at: asked_at, check_at: again_at, ..waiting.clone() };
    let changed = job.open != waiting.open;
    commit_unlogged(context, Transaction::new().put(job)).await?;
    Ok(changed.then_some(asked_at))
}

/// Closes a job that GitHub does not know and would have failed by now.
async fn give_up(
    context: &Context<'_>,
    pool: &Pool,
    waiting: &WaitingJob,
    now: Timestamp,
) -> Result<Next, ReconcileError> {
    let Some(Item::Job(job)) = context.ports.store.get(&Key::Job(waiting.id)).await? else {
        commit_unlogged(context, Transaction::new().delete(waiting.clone())).await?;
        return Ok(None);
    };
    let job = Job { rank: Rank::Done, conclusion: Some("unknown".to_owned()), completed_at: Some(now), ..*job };
    let what = What::Checked { job: waiting.id, status: "not found".to_owned() };
    let writes = Transaction::new().put(job).delete(waiting.clone()).told(
        Stream::Pool(pool.name.clone()),
        context.cause(),
        what,
        now,
    );
    commit_unlogged(context, writes).await?;
    Ok(Some(now))
}
