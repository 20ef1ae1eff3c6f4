//! Asking GitHub about the job of a slot whose machine has ended.

use domain::ids::SlotId;
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::check::{LostJob, after_lost_job_check, job_of_lost_machine, lost_job};
use domain::state::{Config, Item, Key};
use domain::wire::Action;

use crate::context::Context;
use crate::effects::Next;
use crate::error::ReconcileError;
use crate::record::record_answer;
use crate::table::commit_or_leave;

pub(crate) async fn check_lost_job(
    context: &Context<'_>,
    config: &Config,
    view: &PoolView,
    slot: SlotId,
) -> Result<Next, ReconcileError> {
    let Some(slot) = view.slots.get(&slot) else { return Ok(None) };
    let (Some(job), Some(machine)) = (job_of_lost_machine(slot), slot.machine()) else { return Ok(None) };
    let now = context.now();
    let repository = match context.ports.store.get(&Key::Instance(machine.instance.clone())).await? {
        Some(Item::Instance(instance)) => instance.repository,
        _ => None,
    };
    let lost = match &repository {
        None => LostJob::EndedElsewhere,
        Some(repository) => match context.ports.github.job(repository, job).await {
            Err(_) => LostJob::Undecided,
            Ok(reported) => {
                let lost = lost_job(slot, reported.as_ref());
                if let Some(reported) = reported.filter(|_| lost != LostJob::Undecided) {
                    record_answer(context, config, repository, reported, Action::Completed, now).await?;
                }
                lost
            }
        },
    };
    if lost == LostJob::EndedHere {
        return Ok(Some(now));
    }
    commit_or_leave(context, Transaction::new().put(after_lost_job_check(slot, lost, now))).await?;
    Ok(None)
}
