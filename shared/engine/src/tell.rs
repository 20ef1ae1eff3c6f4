//! The author of a job that waits is told so, and later that it waits no more.

use domain::config::Pool;
use domain::ids::JobId;
use domain::log::{Stream, Transaction, What};
use domain::policy::PoolView;
use domain::policy::budget::is_scarce;
use domain::policy::due::backoff;
use domain::policy::notify::{Word, due_notification, reasons, text};
use domain::state::{CheckRun, Item, Key, Stage};

use crate::context::Context;
use crate::effect::{Next, ReconcileError, commit_unlogged, remember_limit};
use crate::ports::{CheckRunUpdate, GitHubError};

/// Tells a job's author what is due.
///
/// Crash windows: the item stands in the table, leased, before GitHub is called. A reply that is lost costs a second check
/// run of the same name and reference, of which GitHub shows the newer one.
pub(crate) async fn tell(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    job: JobId,
) -> Result<Next, ReconcileError> {
    let now = context.now();
    let Some(word) = due_notification(pool, view, job, now) else { return Ok(None) };
    let owner = pool.owner.owner();
    if word == Word::Stage(Stage::Waiting) && is_scarce(context.ports.github.budget(owner)) {
        return Ok(None);
    }
    let Some(check) = taken(context, pool, view, job).await? else { return Ok(None) };
    let waiting = view.waiting.get(&job);
    let why = waiting.map(|waiting| reasons(pool, view, waiting, now)).unwrap_or_default();
    let waited = waiting.map(|waiting| now.duration_since(waiting.waits_since())).unwrap_or_default();
    let (title, summary) = text(pool, word, &why, waited);
    let conclusion = match word {
        Word::Stage(Stage::Waiting) => "neutral",
        Word::Stage(Stage::Failed) => "failure",
        Word::Over => "success",
    };
    let answer = match (word, check.id) {
        // GitHub would not take the first word: there is nothing to take back.
        (Word::Over, None) => Ok(None),
        (Word::Over | Word::Stage(_), _) => {
            let update = CheckRunUpdate {
                repository: check.repository.clone(),
                head_sha: check.head_sha.clone(),
                external_id: job.to_string(),
                check_run: check.id,
                conclusion,
                title: title.clone(),
                summary,
                details_url: check.html_url.clone(),
            };
            context.ports.github.write_check_run(&update).await.map(Some)
        }
    };
    match answer {
        Ok(id) => told(context, pool, check, word, id, title).await,
        // Nothing more depends on it, and what GitHub shows is out of date.
        Err(error) if word == Word::Over && error.is_refusal() => {
            tracing::warn!(job.id = %job, "the author of job {job} could not be told {title:?}: {error}");
            told(context, pool, check, word, None, title).await
        }
        Err(error) => {
            let next_at = match &error {
                GitHubError::Limited { until, .. } => {
                    remember_limit(context, pool, *until, &error).await?;
                    *until
                }
                _ => now + backoff(pool, check.tries, &job.to_string()),
            };
            tracing::warn!(job.id = %job, "the author of job {job} is not told yet: {error}");
            let mut writes = Transaction::new().put(CheckRun { next_at, ..check });
            // Not allowed, perhaps only for now: the app may be installed again, or be given the permission.
            if error.is_refusal() {
                let what = What::Notified { job, title, check_run: None };
                writes = writes.told(Stream::Pool(pool.name.clone()), context.cause(), what, now);
            }
            commit_unlogged(context, writes).await?;
            Ok(Some(next_at))
        }
    }
}

/// The item, leased; None if somebody else has it, or nothing is known of the job.
async fn taken(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    job: JobId,
) -> Result<Option<CheckRun>, ReconcileError> {
    let next_at = context.lease(pool);
    let check = match view.check_runs.get(&job) {
        Some(check) => CheckRun { tries: check.tries + 1, next_at, ..check.clone() },
        None => {
            let Some(Item::Job(known)) = context.ports.store.get(&Key::Job(job)).await? else { return Ok(None) };
            CheckRun {
                job,
                pool: pool.name.clone(),
                repository: known.repository.clone(),
                head_sha: known.head_sha.clone(),
                html_url: known.html_url.clone(),
                told: None,
                id: None,
                tries: 1,
                next_at,
                revision: 0,
            }
        }
    };
    let is_ours = commit_unlogged(context, Transaction::new().put(check.clone())).await?;
    Ok(is_ours.then_some(CheckRun { revision: check.revision + 1, ..check }))
}

/// Writes down what was told; after the last word nothing more is kept.
async fn told(
    context: &Context<'_>,
    pool: &Pool,
    check: CheckRun,
    word: Word,
    id: Option<u64>,
    title: String,
) -> Result<Next, ReconcileError> {
    let now = context.now();
    let what = What::Notified { job: check.job, title, check_run: id };
    let writes = match word {
        Word::Over => Transaction::new().delete(check),
        Word::Stage(stage) => {
            Transaction::new().put(CheckRun { told: Some(stage), id: id.or(check.id), tries: 0, next_at: now, ..check })
        }
    };
    commit_unlogged(context, writes.told(Stream::Pool(pool.name.clone()), context.cause(), what, now)).await?;
    Ok(None)
}
