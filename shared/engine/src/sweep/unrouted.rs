//! Jobs that no pool accepted when they arrived.

use std::collections::BTreeSet;

use domain::ids::PoolName;
use domain::log::Transaction;
use domain::policy::budget::{Optional, is_scarce};
use domain::policy::notify::CheckRunUpdate;
use domain::policy::retry::next_attempt;
use domain::policy::search::remember;
use domain::policy::unrouted::{Step, next_step, no_longer_waits, notified};
use domain::state::{Config, Item, Janitor, Leased, UnroutedJob};
use jiff::SignedDuration;

use crate::context::Context;
use crate::error::ReconcileError;
use crate::record::record;
use crate::sweep::report::Report;
use crate::table::{claim, commit_or_leave};

/// The most check runs that one sweep creates for jobs that no pool accepts. They share GitHub's limits with registrations.
const MAX_CHECK_RUNS: usize = 20;

/// The wait after GitHub did not answer.
const RETRY_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// Routes the jobs that a pool accepts now, and notifies the authors of those that a pool's owner could have meant.
/// Repositories of these jobs are searched, too. Returns the pools to reconcile.
pub(super) async fn route_again(
    context: &Context<'_>,
    config: &Config,
    memory: &mut Janitor,
    report: &mut Report,
) -> BTreeSet<PoolName> {
    let mut touched = BTreeSet::new();
    let reading = match context.ports.store.unrouted().await {
        Ok(reading) => reading,
        Err(error) => {
            let what = format!("the jobs that no pool accepts cannot be read: {error}");
            tracing::warn!("{what}");
            report.fail(what);
            return touched;
        }
    };
    let mut check_runs = 0;
    report.unreadable += reading.unreadable.len();
    for item in reading.items {
        let Item::Unrouted(job) = item else { continue };
        let job = *job;
        if context.short_of_time() {
            break;
        }
        if !job.is_expired(context.now()) {
            remember(memory, job.notice.repository.clone(), job.notice.received_at);
        }
        let id = job.notice.job.id;
        let done = match next_step(config, &job, context.now()) {
            Step::Wait => Ok(()),
            Step::Expired => commit_or_leave(context, Transaction::new().delete(job)).await,
            Step::Route => {
                let recorded = record(context, config, std::slice::from_ref(&job.notice)).await;
                touched.extend(recorded.touched.into_keys());
                match recorded.failed.into_values().next() {
                    Some(error) => Err(ReconcileError::NotRecorded(format!("job {id}: {error}"))),
                    None => commit_or_leave(context, Transaction::new().delete(job)).await,
                }
            }
            Step::Notify(_) if check_runs >= MAX_CHECK_RUNS => Ok(()),
            Step::Notify(update) => {
                check_runs += 1;
                notify(context, job, &update).await
            }
        };
        if let Err(error) = done {
            let what = format!("job {id}, which no pool accepted, is not handled: {error}");
            tracing::warn!(job = %id, "{what}");
            report.fail(what);
        }
    }
    touched
}

/// Creates the check run, if GitHub says that the job still waits. If the answer is lost, a later sweep creates a second one
/// with the same name and external id, and GitHub shows the newer one.
async fn notify(context: &Context<'_>, job: UnroutedJob, update: &CheckRunUpdate) -> Result<(), ReconcileError> {
    let owner = &update.repository.owner;
    if is_scarce(context.ports.github.budget(owner), Optional::Notice, context.now()) {
        return Ok(());
    }
    let Some(job) = claim(context, job, context.deadline).await? else { return Ok(()) };
    let now = context.now();
    let github = context.ports.github;
    let answer = match github.job(&update.repository, job.notice.job.id).await {
        Ok(reported) if no_longer_waits(reported.as_ref()) => {
            return commit_or_leave(context, Transaction::new().delete(job)).await;
        }
        Ok(_) => github.write_check_run(update).await,
        Err(error) => Err(error),
    };
    let job = match answer {
        Ok(_) => notified(job, now),
        Err(error) if error.is_refusal() => {
            tracing::warn!(job = %update.external_id, "GitHub refuses the check run of a job of no pool: {error}");
            notified(job, now)
        }
        Err(error) => job.put_off(next_attempt(error.failure(), now, RETRY_AFTER)),
    };
    commit_or_leave(context, Transaction::new().put(job)).await
}
