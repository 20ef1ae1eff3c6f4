//! StopInstances and StartInstances.

use jiff::Timestamp;
use rand::Rng;

use super::launch::whole_seconds;
use super::*;

impl Ec2 {
    /// StopInstances. It stops a machine whatever its `InstanceInitiatedShutdownBehavior`, and changes nothing for one that is
    /// stopped or being stopped. If one machine cannot be stopped, the call fails and stops none.
    pub fn stop_instances(&mut self, ids: &[InstanceId], now: Timestamp) -> Result<Vec<StateChange>, Failure> {
        self.call(Operation::StopInstances, now, |ec2| ec2.stop_each(ids, now))
    }

    /// StartInstances. The machines keep their ids, disks and addresses; their LaunchTime moves. It changes nothing for a machine
    /// that runs or is being started. If one machine cannot be started, the call fails and starts none.
    pub fn start_instances(&mut self, ids: &[InstanceId], now: Timestamp) -> Result<Vec<StateChange>, Failure> {
        self.call(Operation::StartInstances, now, |ec2| ec2.start_each(ids, now))
    }

    fn stop_each(&mut self, ids: &[InstanceId], now: Timestamp) -> Result<Vec<StateChange>, Failure> {
        for id in ids {
            let instance = self.visible(id, now)?;
            if instance.market == Market::Spot {
                return Err(unsupported(id, "stop"));
            }
            match instance.state {
                State::Running | State::Stopping | State::Stopped => {}
                State::Pending | State::ShuttingDown | State::Terminated => return Err(incorrect_state(id, "stopped")),
            }
        }
        let running = ids.iter().filter(|id| self.state(id) == State::Running).count();
        if self.config.throttle && !self.throttle.stop_instances.take(running as f64, now) {
            return Err(Failure::new(Code::RequestLimitExceeded, "Request limit exceeded: instances."));
        }
        Ok(ids.iter().map(|id| self.stop(id, now)).collect())
    }

    fn stop(&mut self, id: &InstanceId, now: Timestamp) -> StateChange {
        let previous = self.state(id);
        if previous == State::Running {
            self.enter(id, State::Stopping, now);
            if let Some(instance) = self.instance_mut(id) {
                let reason = StateReason::new("Client.UserInitiatedShutdown", "User initiated shutdown");
                instance.state_reason = Some(reason);
            }
            self.agenda.plan(now, Due::Report(Happening::ShutDown { instance: id.clone() }));
            let stopped_at = now + self.config.stopping;
            self.agenda.plan(stopped_at, Due::Report(Happening::PowerLost { instance: id.clone() }));
            self.agenda.plan(stopped_at, Due::Stopped(id.clone()));
        }
        StateChange { id: id.clone(), previous, current: self.state(id) }
    }

    fn start_each(&mut self, ids: &[InstanceId], now: Timestamp) -> Result<Vec<StateChange>, Failure> {
        for id in ids {
            let instance = self.visible(id, now)?;
            match instance.state {
                State::Pending | State::Running => {}
                State::Stopped if instance.market == Market::Spot => return Err(unsupported(id, "start")),
                State::Stopped => {}
                State::Stopping | State::ShuttingDown | State::Terminated => {
                    return Err(incorrect_state(id, "started"));
                }
            }
        }
        let mut stopped: Vec<InstanceId> = Vec::new();
        for id in ids {
            if self.state(id) == State::Stopped && !stopped.contains(id) {
                stopped.push(id.clone());
            }
        }
        if self.config.throttle && !self.throttle.start_instances.take(stopped.len() as f64, now) {
            return Err(Failure::new(Code::RequestLimitExceeded, "Request limit exceeded: instances."));
        }
        for id in &stopped {
            self.check_start(id)?;
        }
        Ok(ids.iter().map(|id| self.start(id, now)).collect())
    }

    /// Refuses the start of a stopped machine if a fault says so or the capacity is used up.
    fn check_start(&mut self, id: &InstanceId) -> Result<(), Failure> {
        let Some(at) = self.by_id.get(id) else { return Ok(()) };
        let (instance, rng) = (&self.instances[*at], &mut self.rng);
        let refusal = self.faults.start_refusal(instance, || rng.random());
        let refused = refusal.map_or_else(|| self.faults.draw_for_start(instance), Err);
        if let Err(Failure::Refused { code, .. }) = &refused {
            *self.start_refusals.entry(*code).or_default() += 1;
        }
        refused
    }

    fn start(&mut self, id: &InstanceId, now: Timestamp) -> StateChange {
        let previous = self.state(id);
        if previous == State::Stopped {
            let can_boot = self.rng.random::<f64>() >= self.faults.boot_failures;
            let fails = self.faults.failed_starts > 0.0 && self.rng.random::<f64>() < self.faults.failed_starts;
            self.enter(id, State::Pending, now);
            if let Some(instance) = self.instance_mut(id) {
                instance.launched_at = whole_seconds(now);
                instance.starts += 1;
                instance.state_reason = None;
                instance.can_boot = can_boot;
                let run = Run { instance: id.clone(), starts: instance.starts };
                if fails {
                    self.agenda.plan(now + self.config.start_pending / 2, Due::StartFailed(run.clone()));
                }
                self.agenda.plan(now + self.config.start_pending, Due::Running(run));
            }
        }
        StateChange { id: id.clone(), previous, current: self.state(id) }
    }

    /// EC2 accepted a start, and cannot run the machine after all.
    pub(super) fn fail_start(&mut self, run: Run, at: Timestamp) -> Option<Happening> {
        if !self.is_in(&run, State::Pending) {
            return None;
        }
        self.enter(&run.instance, State::Stopped, at);
        if let Some(instance) = self.instance_mut(&run.instance) {
            instance.state_reason = Some(StateReason::new("Server.InternalError", "Internal error on launch"));
        }
        Some(Happening::Stopped { instance: run.instance })
    }
}

fn incorrect_state(id: &InstanceId, to_be: &str) -> Failure {
    let message = format!("The instance '{id}' is not in a state from which it can be {to_be}.");
    Failure::new(Code::IncorrectInstanceState, message)
}

/// Only a persistent spot request allows it, and every spot instance of the model belongs to a one-time request.
fn unsupported(id: &InstanceId, action: &str) -> Failure {
    let message = format!(
        "You can't {action} the Spot Instance '{id}' because it is associated with a one-time Spot Instance request."
    );
    Failure::new(Code::UnsupportedOperation, message)
}
