//! Advances the world outside Drover second by second. Machines behave correctly.

use std::time::Duration;

use domain::state::BootReport;
use domain::wire::{InstanceChange, Message};
use jiff::{SignedDuration, Timestamp};
use world::Model;
use world::ec2::{self, InstanceId};
use world::github::{self, Answer};

use crate::universe::notices::notice;
use crate::universe::state::{Ingest, Machine, Reports, Runners, State};
use crate::universe::{ROLE, Universe};

/// How long after its boot an agent without a job has prepared its machine.
const PREPARES_WITHIN: SignedDuration = SignedDuration::from_secs(8);

impl Universe {
    /// One second passes in the world outside Drover.
    pub fn tick(&self) {
        let mut state = self.state();
        state.now += SignedDuration::from_secs(1);
        let now = state.now;
        for happening in state.ec2.advance(now) {
            state.machine_happened(happening, now);
        }
        state.report_states(now);
        for happening in state.github.advance(now) {
            state.github_happened(happening, now);
        }
        self.boot(&mut state);
        state.finish_jobs(now);
    }

    /// Waiting agents look for their boot items.
    fn boot(&self, state: &mut State) {
        let waiting: Vec<InstanceId> = state
            .machines
            .iter()
            .filter(|(_, machine)| **machine == Machine::Waiting)
            .map(|(id, _)| id.clone())
            .collect();
        let now = state.now;
        for id in waiting {
            self.report(state, &id);
            let key = domain::state::boot_key(ROLE, &id.as_str().into());
            let Some(item) = self.store.take_boot_item(&key) else { continue };
            if state.runners == Runners::Refused {
                state.ec2.print(&id, "Listening for Jobs\nGitHub refuses this version of the runner.\n");
                state.power_off(&id, now);
                continue;
            }
            match state.github.connect(&item.jit_config, now) {
                Ok(runner) => {
                    state.connected.insert(id.clone());
                    state.machines.insert(id, Machine::Runner(runner));
                }
                Err(_) => state.power_off(&id, now),
            }
        }
    }
}

impl Universe {
    /// The agent reports that its machine has booted, and that it is prepared if no job has come by then.
    fn report(&self, state: &mut State, id: &InstanceId) {
        if state.reports == Reports::Lost {
            return;
        }
        let now = state.now;
        let reported_at = *state.reported.entry(id.clone()).or_insert(now);
        let is_prepared = now.duration_since(reported_at) >= PREPARES_WITHIN;
        let prepared_at = is_prepared.then_some(reported_at + PREPARES_WITHIN);
        if reported_at == now || is_prepared && state.prepared.insert(id.clone()) {
            let report = BootReport { reported_at, uptime_seconds: 12, prepared_at };
            let own = domain::state::boot_key(ROLE, &id.as_str().into());
            self.write_report(id, &own, report.stored()).expect("a machine may write its own report");
        }
    }
}

impl State {
    fn machine_happened(&mut self, happening: ec2::Happening, now: Timestamp) {
        match happening {
            ec2::Happening::Booted { instance } => {
                // It may have been stopped and started.
                self.reported.remove(&instance);
                self.machines.insert(instance, Machine::Waiting);
            }
            ec2::Happening::ShutDown { instance } | ec2::Happening::PowerLost { instance } => {
                match self.machines.remove(&instance) {
                    Some(Machine::Runner(runner) | Machine::Busy(runner, ..)) => self.github.disconnect(runner, now),
                    Some(Machine::Waiting) | None => {}
                }
            }
            ec2::Happening::SpotNotice { instance, .. } => {
                let id = instance.as_str().into();
                self.messages
                    .push_back((now, Message::Instance { id, change: InstanceChange::Interrupted(Some(now)) }));
            }
            // See `Universe::report_states`.
            ec2::Happening::Stopped { .. } | ec2::Happening::Terminated { .. } => {}
        }
    }

    pub(super) fn report_states(&mut self, now: Timestamp) {
        for ec2::Entered { instance, state, .. } in self.ec2.changes() {
            let change = match state {
                ec2::State::ShuttingDown | ec2::State::Terminated => InstanceChange::Ended,
                ec2::State::Stopped => InstanceChange::Stopped,
                ec2::State::Pending | ec2::State::Running | ec2::State::Stopping => continue,
            };
            self.messages.push_back((now, Message::Instance { id: instance.as_str().into(), change }));
        }
    }

    fn github_happened(&mut self, happening: github::Happening, now: Timestamp) {
        match happening {
            github::Happening::Deliver(delivery) => {
                if self.ingest == Ingest::Down {
                    self.github.record_answer(delivery.id, Answer::Status(503), Duration::from_millis(20), now);
                    return;
                }
                self.received(&delivery.event, now);
                let mut notice = notice(&delivery.event, &delivery.guid, now);
                notice.job = self.with_forged_id(notice.job);
                self.messages.push_back((now, Message::WorkflowJob(Box::new(notice))));
                self.github.record_answer(delivery.id, Answer::Status(202), Duration::from_millis(20), now);
            }
            github::Happening::Offered(offer) => {
                if let Some(machine) = self.machine_of(offer.runner)
                    && self.github.acquire(offer.runner, offer.job, now).is_ok()
                {
                    let until = now + SignedDuration::try_from(offer.runs_for).unwrap_or_default();
                    self.machines.insert(machine, Machine::Busy(offer.runner, offer.job, until, offer.ends));
                }
            }
            github::Happening::CancelWanted { runner, job } => {
                if let Some(machine) = self.machine_of(runner) {
                    let cancelled = Machine::Busy(runner, job, now, github::Conclusion::Cancelled);
                    self.machines.insert(machine, cancelled);
                }
            }
            github::Happening::RunnerRemoved { runner } => {
                if let Some(machine) = self.machine_of(runner) {
                    self.power_off(&machine, now);
                }
            }
        }
    }

    fn machine_of(&self, wanted: github::RunnerId) -> Option<InstanceId> {
        self.machines
            .iter()
            .find(|(_, machine)| match machine {
                Machine::Runner(runner) | Machine::Busy(runner, ..) => *runner == wanted,
                Machine::Waiting => false,
            })
            .map(|(id, _)| id.clone())
    }

    fn power_off(&mut self, machine: &InstanceId, now: Timestamp) {
        self.machines.remove(machine);
        self.ec2.power_off(machine, now);
    }

    fn finish_jobs(&mut self, now: Timestamp) {
        let done: Vec<_> = self
            .machines
            .values()
            .filter_map(|machine| match machine {
                Machine::Busy(runner, job, until, ends) if *until <= now => Some((*runner, *job, *ends)),
                Machine::Busy(..) | Machine::Runner(_) | Machine::Waiting => None,
            })
            .collect();
        for (runner, job, ends) in done {
            // The removal of the ephemeral runner, which follows, powers the machine off.
            let _ = self.github.complete(runner, job, ends, now);
        }
    }
}
