//! Retiring a slot that was stopped: deregister, then terminate.

use domain::config::Pool;
use domain::ids::{InstanceId, SlotId};
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::due::Effect;
use domain::policy::retire::{
    AfterDeregistration, RetireStep, TERMINATE_AGAIN_AFTER, TagReading, Tags, TerminationPermit, after_deregistration,
    next_step, unregistered,
};
use domain::policy::retry::{Failure, backoff, next_attempt};
use domain::state::{Leased, Slot};
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use tracing::Instrument;

use crate::context::Context;
use crate::effects::deregister::deregister;
use crate::effects::{Holder, Next};
use crate::error::ReconcileError;
use crate::ports::{INSTANCES_PER_READING, Terminated};
use crate::table::{Commit, commit, commit_or_leave};

/// Slots whose writes share a transaction. Each waits for GitHub's answers about the others.
pub(crate) const RETIRED_TOGETHER: usize = 16;

/// Concurrent retirements of those that share a transaction.
const MAX_CONCURRENT: usize = 2;

/// Reads the tags of the machines that the effects end or stop. Machines that cannot be read are left out, and are left alone.
pub(crate) async fn read_tags<'a>(
    context: &Context<'_>,
    view: &PoolView,
    effects: impl IntoIterator<Item = &'a Effect>,
) -> TagReading {
    let machines: Vec<InstanceId> = effects
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Retire(slot) | Effect::StopMachine(slot) => Some(view.slots.get(slot)?.machine()?.instance.clone()),
            Effect::Launch(_)
            | Effect::Register(_)
            | Effect::Check(_)
            | Effect::CheckLostJob(_)
            | Effect::Notify(_)
            | Effect::Rerun(_) => None,
        })
        .collect();
    let mut listed = Vec::new();
    for ids in machines.chunks(INSTANCES_PER_READING) {
        match context.ports.compute.instances(ids).await {
            Ok(instances) => listed.extend(instances),
            Err(error) => tracing::warn!("tags cannot be read, and these machines are left alone: {ids:?}: {error}"),
        }
    }
    TagReading::of(&listed)
}

/// The result of retiring slots.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    /// When the next step of one of them is due.
    pub(crate) next: Next,
    /// The retirements that failed stay due.
    pub(crate) failed: Vec<ReconcileError>,
}

impl Retired {
    fn due_at(&mut self, at: Timestamp) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

/// Retires stopped slots, at most [`RETIRED_TOGETHER`].
///
/// Crash windows: the stop is in the table, so the slot receives no JIT config and is not supply. GitHub answers a repeated
/// deregistration with 404 and lists no such runner, and a repeated termination changes nothing.
pub(crate) async fn retire(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    tags: &TagReading,
    slots: &[(SlotId, Holder)],
) -> Retired {
    let mut retired = Retired::default();
    let mut permitted = Vec::new();
    let mut deregistered = Vec::new();
    let (mut at_once, mut slots_left) = (Vec::new(), Vec::new());
    for slot in claimed(context, pool, view, slots, &mut retired).await {
        match permit(&slot, tags) {
            Some(permit) if !context.short_of_time() => at_once.push((slot, permit)),
            Some(_) | None => slots_left.push(slot),
        }
    }
    // First: deregistrations take seconds, in which an operator may put a hold on one of these machines.
    let mut ended = terminate(context, pool, at_once, &mut retired).await;
    let mut steps = stream::iter(slots_left)
        .map(|slot| {
            let span = tracing::error_span!("slot", slot = %slot.id);
            first_step(context, pool, tags, slot).instrument(span)
        })
        .buffer_unordered(MAX_CONCURRENT);
    while let Some(step) = steps.next().await {
        match step {
            Ok(Step::Nothing) => {}
            Ok(Step::Later(at)) => retired.due_at(at),
            Ok(Step::Record(slot)) => deregistered.push(*slot),
            Ok(Step::Terminate(slot, permit)) => permitted.push((*slot, permit)),
            Err(error) => retired.failed.push(error),
        }
    }
    drop(steps);
    let turn = context.turn(pool);
    let recorded = write_together(context, deregistered, |slots| unregistered(pool, slots, &turn), &mut retired).await;
    if recorded.is_incomplete {
        // Another invocation has recorded more about a slot: read it again.
        retired.due_at(context.now());
    }
    permitted.extend(recorded.slots.into_iter().filter_map(|slot| {
        let permit = permit(&slot, tags)?;
        Some((slot, permit))
    }));
    ended.extend(terminate(context, pool, permitted, &mut retired).await);
    write_together(context, ended, put_all, &mut retired).await;
    retired
}

/// The permit to end the slot's machine without a further call.
fn permit(slot: &Slot, tags: &TagReading) -> Option<TerminationPermit> {
    let Tags::Free(unheld) = tags.of_machine(&slot.machine()?.instance) else { return None };
    match next_step(slot, &unheld) {
        RetireStep::Terminate(permit) => Some(permit),
        RetireStep::Nothing | RetireStep::Deregister(_) => None,
    }
}

/// The slots, claimed by this invocation.
async fn claimed(
    context: &Context<'_>,
    pool: &Pool,
    view: &PoolView,
    slots: &[(SlotId, Holder)],
    retired: &mut Retired,
) -> Vec<Slot> {
    let (mut claimed, mut free) = (Vec::new(), Vec::new());
    for (slot, holder) in slots {
        match (view.slots.get(slot), holder) {
            (Some(slot), Holder::This) => claimed.push(slot.clone()),
            (Some(slot), Holder::None) => free.push(slot.clone().claimed(context.lease(pool))),
            (None, Holder::This | Holder::None) => {}
        }
    }
    claimed.extend(write_together(context, free, put_all, retired).await.slots);
    claimed
}

/// The result of the first step of a retirement.
enum Step {
    Nothing,
    /// The next step is due then.
    Later(Timestamp),
    /// The runner is deregistered: record that before anything else.
    Record(Box<Slot>),
    Terminate(Box<Slot>, TerminationPermit),
}

async fn first_step(context: &Context<'_>, pool: &Pool, tags: &TagReading, slot: Slot) -> Result<Step, ReconcileError> {
    if context.short_of_time() {
        return Ok(Step::Later(context.now()));
    }
    let Some(machine) = slot.machine() else { return Ok(Step::Nothing) };
    let unheld = match tags.of_machine(&machine.instance) {
        Tags::Free(unheld) => unheld,
        Tags::Held => {
            tracing::info!(slot = %slot.id, "slot {} is left alone: an operator holds its machine", slot.id);
            commit_or_leave(context, Transaction::new().put(Slot { held: true, ..slot })).await?;
            return Ok(Step::Nothing);
        }
        Tags::Unknown => {
            return put_off(context, pool, slot, Failure::Unavailable, "EC2 does not show its machine's tags").await;
        }
    };
    let runner = match next_step(&slot, &unheld) {
        RetireStep::Nothing => return Ok(Step::Nothing),
        RetireStep::Terminate(permit) => return Ok(Step::Terminate(Box::new(slot), permit)),
        RetireStep::Deregister(runner) => runner,
    };
    let answer = match deregister(context, &pool.owner, runner.runner_id, &runner.runner_name).await {
        Ok(answer) => answer,
        Err(error) => return put_off(context, pool, slot, error.failure(), &error.to_string()).await,
    };
    match after_deregistration(slot, &unheld, answer, context.now()) {
        AfterDeregistration::Record(slot) => Ok(Step::Record(slot)),
        AfterDeregistration::Terminate(slot, permit) => Ok(Step::Terminate(slot, permit)),
        AfterDeregistration::KeepRunning(slot) => {
            let next_at = slot.lease.next_at;
            commit_or_leave(context, Transaction::new().put(*slot)).await?;
            Ok(Step::Later(next_at))
        }
        AfterDeregistration::Leave(slot) => {
            let why = "GitHub does not know its runner, and does not show that it is not registered";
            put_off(context, pool, *slot, Failure::Refused, why).await
        }
    }
}

async fn put_off(
    context: &Context<'_>,
    pool: &Pool,
    slot: Slot,
    failure: Failure,
    why: &str,
) -> Result<Step, ReconcileError> {
    tracing::warn!(slot = %slot.id, "slot {} cannot be retired yet: {why}", slot.id);
    let wait = backoff(pool, slot.lease.tries, &slot.id.to_string());
    let next_at = next_attempt(failure, context.now(), wait);
    commit_or_leave(context, Transaction::new().put(slot.put_off(next_at))).await?;
    Ok(Step::Later(next_at))
}

/// Terminates the machines. A later sweep finds that they have ended. Returns the slots that must still be put off: the
/// write that records a deregistration has put off its slot already.
async fn terminate(
    context: &Context<'_>,
    pool: &Pool,
    permitted: Vec<(Slot, TerminationPermit)>,
    retired: &mut Retired,
) -> Vec<Slot> {
    let mut ended = stream::iter(permitted)
        .map(|(slot, permit)| async move {
            let instance = permit.instance();
            let at_most = context.now() + TERMINATE_AGAIN_AFTER;
            let next_at = match context.ports.compute.terminate(&permit).await {
                Ok(Terminated::Ending | Terminated::NotFound) => {
                    let grounds = permit.grounds();
                    tracing::info!(%instance, slot = %slot.id, %grounds, "instance {instance} is terminated: {grounds}");
                    if slot.lease.next_at > context.now() && slot.lease.next_at <= at_most {
                        slot.lease.next_at
                    } else {
                        at_most
                    }
                }
                Err(error) => {
                    tracing::warn!(%instance, slot = %slot.id, "instance {instance} cannot be terminated yet: {error}");
                    context.now() + backoff(pool, slot.lease.tries, instance.as_str())
                }
            };
            (slot, next_at)
        })
        .buffer_unordered(MAX_CONCURRENT);
    let mut put_off = Vec::new();
    while let Some((slot, next_at)) = ended.next().await {
        retired.due_at(next_at);
        if slot.lease.next_at != next_at {
            put_off.push(slot.put_off(next_at));
        }
    }
    put_off
}

/// The slots that were written, as written, and whether another invocation was faster with one of the others.
#[derive(Default)]
struct Written {
    slots: Vec<Slot>,
    is_incomplete: bool,
}

/// Writes the slots in one transaction, or one by one if another invocation has changed one of them.
async fn write_together(
    context: &Context<'_>,
    slots: Vec<Slot>,
    writes: impl Fn(&[Slot]) -> Option<Transaction>,
    retired: &mut Retired,
) -> Written {
    let mut written = Written::default();
    let mut groups = vec![slots];
    while let Some(slots) = groups.pop() {
        let Some(together) = writes(&slots) else { continue };
        match commit(context, &together).await {
            Ok(Commit::Written) => written.slots.extend(slots.into_iter().map(Slot::written)),
            Ok(Commit::Lost(_)) if slots.len() == 1 => written.is_incomplete = true,
            Ok(Commit::Lost(_)) => groups.extend(slots.into_iter().rev().map(|slot| vec![slot])),
            Err(error) => retired.failed.push(error),
        }
    }
    written
}

fn put_all(slots: &[Slot]) -> Option<Transaction> {
    (!slots.is_empty()).then(|| Transaction::new().put_all(slots.iter().cloned()))
}
