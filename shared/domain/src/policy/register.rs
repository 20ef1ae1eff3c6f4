//! Registering a runner, and handing its JIT config over to its machine.

use jiff::{SignedDuration, Timestamp};

use crate::config::{Label, Pool};
use crate::ids::{Epoch, RunnerId, RunnerName, Scope, StackName};
use crate::log::{Stream, Transaction, Turn, What};
use crate::policy::circuit::open_circuit;
use crate::policy::class::of_pool;
use crate::policy::due::{Effect, next_effect};
use crate::state::{
    BootItem, Circuit, CircuitCause, Instance, Lease, Leased, MeasuredMachine, Meta, Runner, Slot, SlotState, boot_key,
};

/// The shortest life of a boot item. A machine that is up reads it within a second. One that never comes up must not leave a
/// JIT config in the table.
const BOOT_ITEM_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// How long a boot item outlives the slot's `boot_grace`. After the grace the slot is stopped and its runner deregistered, so
/// that nobody waits for the machine any more; the margin is for a janitor that is late.
const BOOT_ITEM_MARGIN: SignedDuration = SignedDuration::from_mins(30);

/// How long DynamoDB must keep a boot item.
pub fn boot_item_life(pool: &Pool) -> SignedDuration {
    BOOT_ITEM_LIFE.max(pool.timings.boot_grace.duration() + BOOT_ITEM_MARGIN)
}

/// The name of the slot's present registration attempt.
pub fn runner_name(stack: &StackName, pool: &Pool, epoch: &Epoch, slot: &Slot) -> RunnerName {
    RunnerName {
        stack: stack.clone(),
        pool: pool.name.clone(),
        epoch: epoch.clone(),
        slot: slot.id,
        registration: slot.registration,
    }
}

/// The slot with one more registration attempt. Each attempt has its own name: the last registration may exist although its
/// answer was lost.
pub fn next_registration(slot: Slot) -> Slot {
    Slot { registration: slot.registration + 1, ..slot }
}

/// A registration that GitHub has made.
#[expect(missing_debug_implementations, reason = "the JIT config is a secret")]
pub struct NewRunner<'a> {
    pub name: &'a RunnerName,
    pub id: RunnerId,
    pub jit_config: String,
}

/// Hands the JIT config over to the slot's machine: boot item, slot, mapping and event in one transaction. None if the slot
/// has no machine.
pub fn hand_over(
    pool: &Pool,
    role_id: &str,
    slot: &Slot,
    instance: Instance,
    registration: NewRunner<'_>,
    turn: &Turn,
) -> Option<Transaction> {
    let machine = slot.machine()?.clone();
    let key = boot_key(role_id, &machine.instance);
    let max_life = pool.timings.max_life.duration();
    let boot = BootItem {
        jit_config: registration.jit_config,
        max_life_seconds: max_life.as_secs().unsigned_abs(),
        repositories: pool.repository_patterns(),
        allow_public: Some(pool.allow_public),
        usage: measured(pool, slot, &instance),
        expires_at: (turn.now + boot_item_life(pool)).as_second(),
    };
    let (runner_id, runner_name) = (registration.id, registration.name.to_string());
    // A repository's runner belongs to no group of its own.
    let runner_group = matches!(pool.owner, Scope::Organization(_)).then_some(pool.runner_group);
    let runner = Runner { runner_id, runner_name: runner_name.clone(), configured_at: turn.now, runner_group };
    // A warm machine was given to a class after its launch.
    let class = slot.class.clone();
    let instance = Instance { class, runner_id: Some(runner_id), runner_name: Some(runner_name.clone()), ..instance };
    let state = SlotState::Configured { machine, runner };
    let slot = Slot { state, lease: Lease::due(turn.now), ..slot.clone() };
    let what = What::HandedOver { slot: slot.id, runner_name };
    let writes = Transaction::new().put(slot).put(instance).put_boot_item(key, boot);
    Some(writes.emit(Stream::Pool(pool.name.clone()), what, turn))
}

/// What to write after a hand-over that lost its race: the slot as it was found since, with its registration due again. None if the
/// registration is not needed any more, or another invocation has claimed it.
///
/// A sweep may have recorded something about the machine meanwhile, such as its boot report. The job must not wait for the end of
/// the lease because of that.
pub fn due_again(lost: &Slot, found: Slot, now: Timestamp) -> Option<Slot> {
    let is_still_claimed = found.lease == lost.lease && found.registration == lost.registration;
    let is_needed = next_effect(&found) == Some(Effect::Register(found.id));
    (is_still_claimed && is_needed).then(|| found.put_off(now))
}

/// What the boot item says about the machine, in a pool with `usage`.
fn measured(pool: &Pool, slot: &Slot, instance: &Instance) -> Option<MeasuredMachine> {
    let (instance_type, market) = (instance.instance_type.clone()?, instance.market?);
    pool.usage.then_some(MeasuredMachine { instance_type, market, price_per_hour: slot.price_per_hour })
}

/// The labels of a slot's runner. One that is for a class has exactly the label of its jobs, so that GitHub gives it no other.
pub fn labels(pool: &Pool, slot: &Slot) -> Vec<Label> {
    match &slot.class {
        Some(class) => vec![class.clone()],
        None => pool.labels.iter().cloned().collect(),
    }
}

/// Opens the circuit of a pool whose runners GitHub refuses to register: its machines wait, and no others are launched. None
/// if the circuit is open already.
pub fn registration_refused(
    pool: &Pool,
    meta: &Meta,
    class: Option<&Label>,
    message: String,
    turn: &Turn,
) -> Option<Transaction> {
    let mut of_class = class.map_or_else(|| meta.clone(), |class| meta.of_class(class));
    if of_class.circuit != Circuit::Closed {
        return None;
    }
    let cause = CircuitCause::RegistrationRefused;
    open_circuit(&mut of_class, pool, cause.clone(), message.clone(), turn.now);
    let what = What::CircuitOpened { code: cause.into(), message };
    Some(Transaction::new().put(of_pool(meta, class, of_class)).emit(Stream::Pool(pool.name.clone()), what, turn))
}
