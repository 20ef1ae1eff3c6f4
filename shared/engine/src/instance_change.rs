//! Recording what EC2 reports about an instance: in a notice, or in its list of instances.

use std::collections::BTreeSet;

use domain::config::Pool;
use domain::ids::{InstanceId, JobId, PoolName};
use domain::policy::interruption::{Reported, bound_slot, pool_of, record_change};
use domain::state::{Config, Item, Key};
use domain::wire::InstanceChange;

use crate::context::Context;
use crate::error::ReconcileError;
use crate::ports::StoreError;
use crate::table::{Commit, MAX_RACES, commit};

/// Records what EC2 reports about an instance. Returns the pool to reconcile; None if the instance does not belong to the
/// stack, or nothing changes. A lost race is repeated here: on the queue, the message would wait until it is visible again,
/// and the slot may be closed by then.
pub(crate) async fn instance_changed(
    context: &Context<'_>,
    config: &Config,
    id: &InstanceId,
    change: InstanceChange,
) -> Result<Option<PoolName>, ReconcileError> {
    if change == InstanceChange::Other {
        return Ok(None);
    }
    let mut lost = String::new();
    for _ in 0..MAX_RACES {
        let Some((pool, reported)) = read_reported(context, config, id).await? else { return Ok(None) };
        let Some(writes) = record_change(pool, reported, change, &context.turn(pool)) else { return Ok(None) };
        match commit(context, &writes).await? {
            Commit::Written => return Ok(Some(pool.name.clone())),
            Commit::Lost(what) => lost = what,
        }
    }
    Err(ReconcileError::Contention(lost))
}

/// Reads the records about an instance: the slot first, because the end of a job writes slot and job together.
async fn read_reported<'a>(
    context: &Context<'_>,
    config: &'a Config,
    id: &InstanceId,
) -> Result<Option<(&'a Pool, Reported)>, ReconcileError> {
    let store = context.ports.store;
    let Some(Item::Instance(instance)) = store.get(&Key::Instance(id.clone())).await? else { return Ok(None) };
    let Some(pool) = pool_of(config, &instance) else { return Ok(None) };
    let slot = match bound_slot(&instance) {
        Some(slot) => match store.get(&Key::Slot(pool.name.clone(), slot)).await? {
            Some(Item::Slot(slot)) => Some(slot),
            _ => None,
        },
        None => None,
    };
    let of_job = |job: JobId| [Key::Job(job), Key::Rerun(pool.name.clone(), job)];
    let claimed: Vec<Key> = instance.claimed_jobs().into_iter().flat_map(of_job).collect();
    let mut reported = Reported { instance, slot, jobs: Vec::new(), reruns: BTreeSet::new() };
    if claimed.is_empty() {
        return Ok(Some((pool, reported)));
    }
    let read = store.get_readable(&claimed).await?;
    for item in read.items {
        match item {
            Item::Job(job) => reported.jobs.push(*job),
            item => reported.reruns.extend(rerun(&item.key())),
        }
    }
    for key in read.unreadable {
        // The re-run is recorded, whatever its form.
        reported.reruns.insert(rerun(&key).ok_or_else(|| StoreError::new(format!("{key} cannot be read")))?);
    }
    Ok(Some((pool, reported)))
}

fn rerun(key: &Key) -> Option<JobId> {
    if let Key::Rerun(_, job) = key { Some(*job) } else { None }
}
