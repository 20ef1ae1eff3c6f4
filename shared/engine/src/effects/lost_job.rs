//! Asking GitHub about the jobs of a slot whose machine has ended.

use domain::config::Pool;
use domain::ids::SlotId;
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::check::{LostJob, after_lost_job_check, lost_job};
use domain::state::{Config, Item, Key};
use domain::wire::Action;

use crate::context::Context;
use crate::effects::Next;
use crate::error::ReconcileError;
use crate::record::record_answer;
use crate::table::{claim, commit_or_leave};

/// Asks about each claimed job that has not ended. The first one that ended on the slot's runner is recorded; the pool is
/// then reconciled again, because the recording changes the slot.
pub(crate) async fn check_lost_job(
    context: &Context<'_>,
    config: &Config,
    pool: &Pool,
    view: &PoolView,
    slot: SlotId,
) -> Result<Next, ReconcileError> {
    let Some(slot) = view.slots.get(&slot) else { return Ok(None) };
    let Some(slot) = claim(context, slot.clone(), context.lease(pool)).await? else { return Ok(None) };
    let (Some(_), Some(machine)) = (slot.gone_at, slot.machine()) else { return Ok(None) };
    let now = context.now();
    let instance = match context.ports.store.get(&Key::Instance(machine.instance.clone())).await? {
        Some(Item::Instance(instance)) => Some(instance),
        _ => None,
    };
    let mut answers = Vec::new();
    for claimed in slot.claimed_jobs().into_iter().filter(|claimed| !claimed.ended) {
        let repository = claimed.repository.or_else(|| instance.as_ref()?.repository.clone());
        let Some(repository) = repository else {
            answers.push((claimed.job, LostJob::EndedElsewhere));
            continue;
        };
        let Ok(reported) = context.ports.github.job(&repository, claimed.job).await else {
            answers.push((claimed.job, LostJob::Undecided));
            continue;
        };
        let lost = lost_job(&slot, reported.as_ref());
        if let Some(reported) = reported.filter(|_| lost != LostJob::Undecided) {
            record_answer(context, config, &repository, reported, Action::Completed, now).await?;
        }
        if lost == LostJob::EndedHere {
            return Ok(Some(now));
        }
        answers.push((claimed.job, lost));
    }
    commit_or_leave(context, Transaction::new().put(after_lost_job_check(&slot, &answers, now))).await?;
    Ok(None)
}
