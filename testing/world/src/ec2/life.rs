//! The life cycle of instances, their tags and their consoles.

use jiff::Timestamp;

use super::*;

const WITHOUT_NITRO: [&str; 4] = ["c4.", "m4.", "r4.", "t2."];

impl Ec2 {
    /// TerminateInstances. If one id does not exist or is not visible yet, the call fails and terminates nothing.
    pub fn terminate_instances(&mut self, ids: &[InstanceId], now: Timestamp) -> Result<Vec<StateChange>, Failure> {
        self.admit(Operation::TerminateInstances, now)?;
        let lost = self.faults.lost_reply(Operation::TerminateInstances);
        if lost == Some(LostReply::NotApplied) {
            return Err(Failure::NoReply);
        }
        for id in ids {
            self.visible(id, now)?;
        }
        let mut changes = Vec::new();
        for id in ids {
            let previous = self.state(id);
            let reason = StateReason::new("Client.UserInitiatedShutdown", "User initiated shutdown");
            self.end(id, EndCause::TerminateCall, reason, now);
            changes.push(StateChange { id: id.clone(), previous, current: self.state(id) });
        }
        match lost {
            Some(_) => Err(Failure::NoReply),
            None => Ok(changes),
        }
    }

    /// The machine powers itself off. The launch template's `InstanceInitiatedShutdownBehavior` decides whether it stops or
    /// terminates.
    pub fn power_off(&mut self, id: &InstanceId, now: Timestamp) {
        let Some(instance) = self.instance_mut(id) else {
            return;
        };
        if instance.state != State::Running {
            return;
        }
        match instance.on_power_off {
            OnPowerOff::Terminate => {
                let reason = StateReason::new("Client.InstanceInitiatedShutdown", "Instance initiated shutdown");
                self.end(id, EndCause::PowerOff, reason, now);
            }
            OnPowerOff::Stop => {
                self.enter(id, State::Stopping, now);
                self.agenda.plan(now, Due::Report(Happening::PowerLost { instance: id.clone() }));
                self.agenda.plan(now + self.config.stopping, Due::Stopped(id.clone()));
            }
        }
    }

    /// EC2 reclaims a spot machine: it sends the warning now and terminates the machine later. No effect on other machines.
    pub fn interrupt_spot(&mut self, id: &InstanceId, now: Timestamp) {
        let is_spot =
            self.instance(id).is_some_and(|instance| instance.market == Market::Spot && instance.state.is_live());
        if is_spot {
            let at = now + self.config.spot_notice;
            if let Some(instance) = self.instance_mut(id) {
                instance.reclaimed_at = Some(at);
            }
            self.agenda.plan(now, Due::Report(Happening::SpotNotice { instance: id.clone(), at }));
            self.agenda.plan(at, Due::SpotTake(id.clone()));
        }
    }

    /// EC2 reclaims a spot machine. The warning, which is sent at best, was not.
    pub fn reclaim_without_notice(&mut self, id: &InstanceId, now: Timestamp) {
        let message = "Instance terminated due to lack of capacity";
        self.end(id, EndCause::Ec2, StateReason::new("Server.SpotInstanceTermination", message), now);
    }

    /// The machine will reach `running`, but its programs will not start before it is stopped and started again. No effect on
    /// a machine that has booted.
    pub fn fail_boot(&mut self, id: &InstanceId) {
        if let Some(instance) = self.instance_mut(id) {
            instance.can_boot = false;
        }
    }

    /// The host fails: EC2 terminates the machine without a warning. A stopped machine has no host.
    pub fn fail_host(&mut self, id: &InstanceId, now: Timestamp) {
        if self.state(id) == State::Stopped {
            return;
        }
        let reason = StateReason::new("Server.InternalError", "Internal error on launch");
        self.end(id, EndCause::Ec2, reason, now);
    }

    /// An instance begins to end. No effect if it is ending already.
    fn end(&mut self, id: &InstanceId, why: EndCause, reason: StateReason, now: Timestamp) {
        let Some(instance) = self.instance_mut(id) else {
            return;
        };
        if !instance.state.is_live() {
            return;
        }
        instance.end = Some(why);
        instance.state_reason = Some(reason);
        self.enter(id, State::ShuttingDown, now);
        self.ended.push(Ended { instance: id.clone(), why, at: now });
        self.agenda.plan(now, Due::Report(Happening::PowerLost { instance: id.clone() }));
        self.agenda.plan(now + self.config.shutting_down, Due::Terminated(id.clone()));
    }

    pub(super) fn happen(&mut self, due: Due, at: Timestamp) -> Option<Happening> {
        match due {
            Due::Report(happening) => Some(happening),
            Due::Running(run) => {
                if self.is_in(&run, State::Pending) {
                    let boot = if run.starts == 0 { self.config.boot } else { self.config.start_boot };
                    self.enter(&run.instance, State::Running, at);
                    self.agenda.plan(at + boot, Due::Booted(run));
                }
                None
            }
            Due::Booted(run) => {
                let can_boot = self.instance(&run.instance).is_some_and(|machine| machine.can_boot);
                let has_booted = can_boot && self.is_in(&run, State::Running);
                has_booted.then_some(Happening::Booted { instance: run.instance })
            }
            Due::SpotTake(id) => {
                self.reclaim_without_notice(&id, at);
                None
            }
            Due::NotStarted(id) => {
                let message = "The KMS key provided is in an incorrect state";
                self.end(&id, EndCause::Ec2, StateReason::new("Client.InvalidKMSKey.InvalidState", message), at);
                None
            }
            Due::LacksCapacity(id) => {
                let message = "Server.InsufficientInstanceCapacity: Insufficient capacity to satisfy instance request";
                self.end(&id, EndCause::Ec2, StateReason::new("Server.InsufficientInstanceCapacity", message), at);
                None
            }
            Due::Stopped(instance) => {
                if self.state(&instance) != State::Stopping {
                    return None;
                }
                self.enter(&instance, State::Stopped, at);
                Some(Happening::Stopped { instance })
            }
            Due::StartFailed(run) => self.fail_start(run, at),
            Due::Terminated(instance) => {
                self.enter(&instance, State::Terminated, at);
                let why = self.instance(&instance).and_then(|ended| ended.end)?;
                Some(Happening::Terminated { instance, why })
            }
        }
    }

    pub(super) fn instance_mut(&mut self, id: &InstanceId) -> Option<&mut Instance> {
        self.by_id.get(id).map(|at| &mut self.instances[*at])
    }

    pub(super) fn enter(&mut self, id: &InstanceId, state: State, now: Timestamp) {
        if let Some(instance) = self.instance_mut(id) {
            instance.state = state;
            instance.state_since = now;
            self.entered.push(Entered { instance: id.clone(), state, at: now });
        }
    }

    pub(super) fn state(&self, id: &InstanceId) -> State {
        self.instance(id).map_or(State::Terminated, |instance| instance.state)
    }

    /// Whether the run is the machine's present one, and in that state.
    pub(super) fn is_in(&self, run: &Run, state: State) -> bool {
        self.instance(&run.instance).is_some_and(|it| it.starts == run.starts && it.state == state)
    }

    /// The instance as the API shows it: not before it is visible and not after it is forgotten.
    pub(super) fn visible(&self, id: &InstanceId, now: Timestamp) -> Result<&Instance, Failure> {
        let digits = id.as_str().strip_prefix("i-").unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(Failure::new(Code::InvalidInstanceIdMalformed, format!("Invalid id: \"{id}\"")));
        }
        self.instance(id).filter(|instance| self.is_visible(instance, now)).ok_or_else(|| {
            Failure::new(Code::InvalidInstanceIdNotFound, format!("The instance ID '{id}' does not exist"))
        })
    }

    pub(super) fn is_visible(&self, instance: &Instance, now: Timestamp) -> bool {
        let forgotten = instance.state == State::Terminated && instance.state_since + self.config.remembered <= now;
        instance.visible_at <= now && !forgotten
    }

    /// CreateTags on instances and volumes. If one resource is unknown, the call fails.
    pub fn create_tags(&mut self, resources: &[String], tags: &Tags, now: Timestamp) -> Result<(), Failure> {
        self.admit(Operation::CreateTags, now)?;
        self.retag(resources, now, |own| own.extend(tags.clone()))
    }

    /// DeleteTags on instances and volumes, independent of the values. If one resource is unknown, the call fails.
    pub fn delete_tags(&mut self, resources: &[String], keys: &[String], now: Timestamp) -> Result<(), Failure> {
        self.admit(Operation::DeleteTags, now)?;
        self.retag(resources, now, |own| own.retain(|key, _| !keys.contains(key)))
    }

    fn retag(&mut self, resources: &[String], now: Timestamp, change: impl Fn(&mut Tags)) -> Result<(), Failure> {
        let mut targets = Vec::new();
        for resource in resources {
            let found = self
                .instances
                .iter()
                .position(|each| {
                    self.is_visible(each, now) && (each.id.as_str() == resource || each.volume.as_str() == resource)
                })
                .ok_or_else(|| Failure::new(Code::InvalidIdNotFound, format!("The ID '{resource}' is not valid")))?;
            targets.push((found, resource));
        }
        for (at, resource) in targets {
            let instance = &mut self.instances[at];
            let own = if instance.id.as_str() == resource { &mut instance.tags } else { &mut instance.volume_tags };
            change(own);
        }
        Ok(())
    }

    /// GetConsoleOutput, as long as EC2 describes the machine. Only types of the Nitro System have the latest output.
    pub fn console_output(&mut self, id: &InstanceId, latest: bool, now: Timestamp) -> Result<&str, Failure> {
        self.admit(Operation::GetConsoleOutput, now)?;
        let instance = self.visible(id, now)?;
        if latest && WITHOUT_NITRO.iter().any(|family| instance.instance_type.starts_with(family)) {
            let message = "This instance type does not support retrieving the latest console logs.".to_owned();
            return Err(Failure::new(Code::UnsupportedOperation, message));
        }
        Ok(&instance.console)
    }

    /// The machine writes to its console.
    pub fn print(&mut self, id: &InstanceId, text: &str) {
        if let Some(instance) = self.instance_mut(id) {
            instance.console.push_str(text);
        }
    }
}
