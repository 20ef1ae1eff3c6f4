//! Asking GitHub how the job of a slot whose machine is gone ended.

use domain::ids::SlotId;
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::check::{Fate, asked, fate, job_of_lost_machine};
use domain::state::{Config, Item, Key};
use domain::wire::Action;

use crate::context::Context;
use crate::effects::Next;
use crate::error::ReconcileError;
use crate::record::record_answer;
use crate::table::commit_or_leave;

pub(crate) async fn ask_fate(
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
    let fate = match &repository {
        None => Fate::EndedElsewhere,
        Some(repository) => match context.ports.github.job(repository, job).await {
            Err(_) => Fate::Undecided,
            Ok(said) => {
                let fate = fate(slot, said.as_ref());
                if let Some(said) = said.filter(|_| fate != Fate::Undecided) {
                    record_answer(context, config, repository, said, Action::Completed, now).await?;
                }
                fate
            }
        },
    };
    if fate == Fate::EndedHere {
        return Ok(Some(now));
    }
    commit_or_leave(context, Transaction::new().put(asked(slot, fate, now))).await?;
    Ok(None)
}
