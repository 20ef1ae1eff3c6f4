//! Closing slots whose machine and registration are gone.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Label, MicroUsd, Pool, Rates, Tuple};
use crate::ids::{InstanceId, Repository, SlotId};
use crate::log::{Stream, Transaction, Turn, What};
use crate::policy::PoolView;
use crate::policy::charge::give_back_used;
use crate::policy::circuit::without_probe;
use crate::policy::class::for_class;
use crate::policy::early_end::{counted, failure, lacked_capacity};
use crate::policy::launch;
use crate::state::{BootReport, CircuitCause, ClosedRunner, Failure, Instance, Slot, Usage};
use crate::wire::StateReason;

/// Bytes of a console's end that are kept: a few hundred lines.
const CONSOLE_KEPT: usize = 16 * 1024;

/// The writes that close slots, and data about their machines.
#[derive(Debug)]
pub struct Closing {
    pub writes: Transaction,
    /// The cost of each machine, at the price that its launch was decided with, or else at the list price. Only where one is known.
    pub costs: BTreeMap<SlotId, MicroUsd>,
    /// The repositories whose jobs the slots ran.
    pub repositories: BTreeSet<Repository>,
}

/// Whether the end of the machine's console is worth keeping.
pub fn wants_console(slot: &Slot) -> bool {
    slot.outcome().is_abnormal()
}

/// The end of a console, which is kept. None if the console is empty.
pub fn console_tail(console: &str) -> Option<String> {
    let from = console.ceil_char_boundary(console.len().saturating_sub(CONSOLE_KEPT));
    (!console.is_empty()).then(|| console[from..].to_owned())
}

/// What is known about machines that have ended.
#[derive(Debug, Default)]
pub struct Ended<'a> {
    /// Their records.
    pub instances: Vec<Instance>,
    /// The consoles that could be read.
    pub consoles: BTreeMap<InstanceId, String>,
    /// The boot reports that could be read, of machines whose slots have none.
    pub reports: BTreeMap<InstanceId, BootReport>,
    /// What their jobs used, as far as they reported it, in a pool with `usage`.
    pub usages: BTreeMap<InstanceId, Usage>,
    /// Why they ended; None if EC2's list was not read.
    pub reasons: Option<&'a BTreeMap<InstanceId, StateReason>>,
}

/// Deletes the slots and closes the mappings of their instances. Machines that ended early are counted as failures, except for
/// lack of capacity: then their launch option counts as refused. A machine that has run a job is no longer charged to a job that
/// still waits: three machines that other jobs took would use up its launches.
pub fn close(pool: &Pool, view: &PoolView, slots: &[Slot], ended: Ended<'_>, rates: &Rates, turn: &Turn) -> Closing {
    let Ended { instances, mut consoles, reports, mut usages, reasons } = ended;
    let mut by_class: BTreeMap<Option<&Label>, Vec<Failure>> = BTreeMap::new();
    let mut failed = BTreeSet::new();
    for slot in slots {
        let Some(machine) = slot.machine() else { continue };
        let reason = reasons.and_then(|reasons| reasons.get(&machine.instance));
        let console = consoles.get(&machine.instance).map(String::as_str);
        if let Some(failure) = failure(view, slot, reason, console, turn.now) {
            by_class.entry(slot.class.as_ref()).or_default().push(failure);
            failed.insert(slot.id);
        }
    }
    let by_instance: BTreeMap<&InstanceId, &Slot> =
        slots.iter().filter_map(|slot| Some((&slot.machine()?.instance, slot))).collect();
    let lacking = instances.iter().filter_map(|instance| {
        let (slot, reason) = (by_instance.get(&instance.id)?, reasons?.get(&instance.id)?);
        let tuple = lacked_capacity(slot, reason).then(|| launched_as(pool, view, slot, instance)).flatten()?;
        Some((tuple, reason.message.as_str()))
    });
    let meta = lacking
        .fold(view.meta.clone(), |meta, (tuple, message)| launch::lacked_capacity(meta, tuple, message, turn.now));
    let mut writes = Transaction::new();
    if pool.rerun_on_interruption {
        let interrupted = instances.iter().filter(|instance| instance.interrupted_at.is_some());
        let interrupted: BTreeSet<&InstanceId> = interrupted.map(|instance| &instance.id).collect();
        let is_interrupted = |slot: &Slot| slot.machine().is_some_and(|it| interrupted.contains(&it.instance));
        writes = writes.put_all(slots.iter().filter_map(|slot| ClosedRunner::of(slot, is_interrupted(slot), turn.now)));
    }
    let mut repositories = BTreeSet::new();
    let mut costs = BTreeMap::new();
    for instance in instances {
        repositories.extend(instance.repository.clone());
        let Some(slot) = by_instance.get(&instance.id) else { continue };
        let Some(machine) = slot.machine() else { continue };
        let lived = machine.has_run_for(slot.gone_at.unwrap_or(turn.now));
        let at_list_price = || instance.instance_type.as_ref().and_then(|it| rates.cost(it, lived));
        let cost = slot.price_per_hour.map(|price| price.during(lived)).or_else(at_list_price);
        costs.extend(cost.map(|cost| (slot.id, cost)));
        let console = consoles.remove(&instance.id);
        let boot = slot.boot.map(|boot| boot.report).or_else(|| reports.get(&instance.id).copied());
        let usage = usages.remove(&instance.id);
        let closed = instance.closed(slot.outcome(), turn.now);
        // A warm machine was given to a class after its launch. Only the slot shows which claimed jobs have ended.
        let (class, claims) = (slot.class.clone(), slot.claims.clone());
        writes = writes.put(Instance { class, claims, boot, usage, cost_micro_usd: cost, console, ..closed });
    }
    let meta = by_class.iter().fold(meta, |meta, (class, failures)| {
        counted(pool, &meta, *class, failures, CircuitCause::EndedEarly, turn.now)
    });
    let meta = slots.iter().filter(|slot| !failed.contains(&slot.id)).fold(meta, |meta, slot| match &slot.class {
        None => without_probe(pool, &meta, [slot], turn.now),
        Some(class) => meta.with_class(class, without_probe(pool, &meta.of_class(class), [slot], turn.now)),
    });
    if meta != view.meta {
        writes = writes.put(meta);
    }
    let failures = by_class.into_values().flatten().collect();
    writes = writes.put_all(give_back_used(view, slots.iter()));
    let what = What::Closed { slots: slots.iter().map(|slot| slot.id).collect(), failures };
    let writes = slots.iter().cloned().fold(writes, Transaction::delete);
    Closing { writes: writes.emit(Stream::Pool(pool.name.clone()), what, turn), costs, repositories }
}

/// The launch option of the slot's machine. None if the pool does not have it any more.
fn launched_as(pool: &Pool, view: &PoolView, slot: &Slot, instance: &Instance) -> Option<Tuple> {
    let is_it = |tuple: &Tuple| {
        Some(&tuple.instance_type) == instance.instance_type.as_ref()
            && Some(tuple.market) == instance.market
            && Some(&tuple.subnet) == instance.subnet.as_ref()
    };
    let options = for_class(pool, slot.class.as_ref(), &view.meta).launch_options();
    options.into_iter().map(|option| option.tuple).find(is_it)
}
