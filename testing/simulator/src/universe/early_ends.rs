//! S8: machines that end early open the circuit of their pool, or of their class in a pool with shapes. P191: a machine has the time to come up.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::Label;
use domain::ids::PoolName;
use domain::log::{Transaction, What};
use domain::policy::early_end::FAILURES_ALLOWED;
use domain::state::{Circuit, Config, Instance, Item, Meta, Ownership, Slot, SlotOutcome, SlotState, StopReason};
use jiff::SignedDuration;
use world::ec2;

use crate::rules::Part;
use crate::universe::state::State;

/// A machine of these worlds that comes up at all does so within a minute. The pools have the default of `boot_grace`, which is
/// eight minutes.
const COMES_UP_WITHIN: SignedDuration = SignedDuration::from_mins(2);

impl State {
    /// P191: what is wrong with a stop of machines that did not come up.
    pub(super) fn given_up_too_early(&self, transaction: &Transaction) -> Vec<String> {
        let is_given_up = transaction
            .event
            .as_ref()
            .is_some_and(|event| matches!(event.what, What::Stopped { why: StopReason::BootFailure, .. }));
        let machines = transaction.puts.iter().filter(|_| is_given_up).filter_map(|item| match item {
            Item::Slot(slot) => self.ec2.instance(&slot.machine()?.instance.as_str().into()),
            _ => None,
        });
        let age = |machine: &ec2::Instance| self.now.duration_since(machine.launched_at);
        let wrong = machines.filter(|machine| age(machine) < COMES_UP_WITHIN);
        wrong.map(|machine| format!("P191: {} is given up {:#} after its launch", machine.id, age(machine))).collect()
    }

    /// Notes the machines that ended early, and returns what is wrong with the launches of a transaction.
    pub(super) fn check_early_ends(&mut self, config: Option<&Config>, transaction: &Transaction) -> Vec<String> {
        let mut metas: BTreeMap<&PoolName, &Meta> = BTreeMap::new();
        let mut launched: BTreeMap<Part, usize> = BTreeMap::new();
        for item in &transaction.puts {
            match item {
                Item::Instance(instance) => {
                    if let Some(class) = &instance.class {
                        self.classes.insert(instance.id.as_str().into(), class.clone());
                    }
                    self.note_early_end(config, instance);
                }
                Item::Meta(meta) => {
                    self.note_settings(meta);
                    metas.insert(&meta.pool, meta);
                }
                Item::Slot(slot) if slot.revision == 0 && slot.state == SlotState::Planned => {
                    *launched.entry((slot.pool.clone(), slot.class.clone())).or_default() += 1;
                }
                Item::Slot(slot) => {
                    self.note_released(slot);
                    self.note_set_aside(slot);
                }
                _ => {}
            }
        }
        let wrong = launched.into_iter().filter_map(|((pool, class), added)| {
            let in_a_row = self.early_ends_in_a_row(&pool, class.as_ref());
            let circuit = metas.get(&pool).map(|meta| match &class {
                Some(class) => meta.of_class(class).circuit,
                None => meta.circuit.clone(),
            });
            let is_open = matches!(circuit, Some(Circuit::Open { .. }));
            let is_bounded = in_a_row < FAILURES_ALLOWED as usize || (is_open && added == 1);
            let class = class.map(|class| format!(" for {class}")).unwrap_or_default();
            (!is_bounded)
                .then(|| format!("S8: {added} launches of pool {pool}{class} after {in_a_row} machines ended early"))
        });
        wrong.collect()
    }

    /// Drover records that nobody holds the slot's machine.
    fn note_released(&mut self, slot: &Slot) {
        if let Some(machine) = slot.machine().filter(|_| !slot.held && slot.gone_at.is_none()) {
            self.released.remove(&machine.instance.as_str().into());
        }
    }

    /// A machine that was set aside had come up. Once it is started, it must come up again.
    fn note_set_aside(&mut self, slot: &Slot) {
        let Some(machine) = slot.machine() else { return };
        let id = machine.instance.as_str().into();
        match slot.is_set_aside() {
            true => drop(self.set_aside.insert(id)),
            false => drop(self.set_aside.remove(&id)),
        }
    }

    fn note_early_end(&mut self, config: Option<&Config>, instance: &Instance) {
        let (Ownership::Closed { closed_at, why }, Some(pool)) = (&instance.ownership, &instance.pool) else { return };
        let Some(machine) = self.ec2.instance(&instance.id.as_str().into()) else { return };
        let by_itself = match machine.end {
            Some(ec2::EndCause::PowerOff) => true,
            Some(ec2::EndCause::Ec2) => !machine.is_reclaimed() && !machine.lacked_capacity(),
            Some(ec2::EndCause::TerminateCall) | None => false,
        };
        // Later, Drover no longer expects GitHub to say whether a job ran on it.
        let patience = config.and_then(|config| config.pool(pool)).map(|pool| pool.timings.job_check.duration() * 2);
        let in_time = patience.is_some_and(|patience| {
            closed_at.duration_since(machine.state_since) < patience - SignedDuration::from_mins(1)
        });
        // An operator took a held machine for itself. Where the tag was removed after the machine had ended, or so shortly before
        // that Drover did not record it, Drover must believe that the machine was held when it ended.
        let is_held = machine.tags.contains_key("drover:hold") || self.released.contains(&machine.id);
        let is_lost = *why == SlotOutcome::InstanceLost.to_string();
        let had_come_up = self.connected.contains(&machine.id) || self.set_aside.contains(&machine.id);
        if is_lost && by_itself && !is_held && in_time && !had_come_up {
            // A late notice of an interruption writes the item again.
            let (id, launched_at) = (machine.id.clone(), machine.launched_at);
            self.early_ends.entry((pool.clone(), instance.class.clone())).or_default().insert(id, launched_at);
        }
    }

    /// How many machines ended early that were launched after the newest one that connected, or that Drover must believe to
    /// have a job: a runner posed as its runner.
    /// Other settings are a new beginning: an operator may have corrected what machines failed because of.
    fn note_settings(&mut self, meta: &Meta) {
        let before = self.settings.insert(meta.pool.clone(), meta.config_hash.clone());
        if before.is_some_and(|before| before != meta.config_hash) {
            self.early_ends.retain(|(pool, _), _| *pool != meta.pool);
        }
    }

    fn early_ends_in_a_row(&self, pool: &PoolName, class: Option<&Label>) -> usize {
        let Some(early_ends) = self.early_ends.get(&(pool.clone(), class.cloned())) else { return 0 };
        let victims: BTreeSet<_> = self.forged.values().collect();
        let is_posed_as = |id: &ec2::InstanceId| self.configured.get(id).is_some_and(|runner| victims.contains(runner));
        let works = |id: &ec2::InstanceId| self.connected.contains(id) || is_posed_as(id);
        let connected = self.ec2.instances().filter(|machine| works(&machine.id));
        let of_pool =
            connected.filter(|machine| machine.tags.get("drover:pool").is_some_and(|tag| tag == pool.as_str()));
        let of_class = of_pool.filter(|machine| self.classes.get(&machine.id) == class);
        let newest = of_class.map(|machine| machine.launched_at).max();
        early_ends.values().filter(|at| Some(**at) > newest).count()
    }
}
