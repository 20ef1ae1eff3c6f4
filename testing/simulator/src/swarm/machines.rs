//! The programs on machines: the agent, the runner, and how both end.

use domain::state::boot_key;
use jiff::SignedDuration;
use world::ec2::{self, InstanceId};
use world::github;

use crate::swarm::agenda::Due;
use crate::swarm::faults::Fault;
use crate::swarm::machine::{AfterExit, Doing, Life, Machine};
use crate::swarm::seed::Swarm;
use crate::swarm::shape::soon;
use crate::universe::ROLE;

impl Swarm<'_> {
    pub(super) fn ec2_happened(&mut self, happening: ec2::Happening) {
        match happening {
            ec2::Happening::Booted { instance } => {
                if self.foreign_machines.contains(&instance) {
                    return;
                }
                let configured = self.universe.state().configured.contains_key(&instance);
                self.machines.insert(instance.clone(), Machine { life: Life::Waiting, since: self.now });
                self.truth.booted.insert(instance.clone());
                let after = soon(&mut self.rng);
                self.plan_in(after, Due::Machine(instance.clone(), Doing::Report));
                if configured {
                    self.handed_over(instance);
                }
            }
            // Its programs end. The runner of one that has none can take no job.
            ec2::Happening::ShutDown { instance } => {
                if let Some(Machine { life: Life::Runner(runner), .. }) = self.machines.remove(&instance) {
                    self.runs_on.remove(&runner);
                    self.universe.github(|github, now| github.disconnect(runner, now));
                }
            }
            ec2::Happening::Stopped { instance } => {
                self.log_world(|| format!("{instance} is stopped"));
            }
            ec2::Happening::PowerLost { instance } => {
                self.log_world(|| format!("{instance} loses power"));
                self.note_dead_end(&instance);
                if let Some(Machine { life: Life::Runner(runner), .. }) = self.machines.remove(&instance) {
                    self.runs_on.remove(&runner);
                    let (reclaimed, by_ec2, lived) = self.universe.ec2(|ec2, now| {
                        let machine = ec2.instance(&instance).expect("it had power");
                        let pool = machine.tags.get("drover:pool").cloned().unwrap_or_default();
                        let lived = (pool, now.duration_since(machine.launched_at));
                        (machine.is_reclaimed(), machine.end == Some(ec2::EndCause::Ec2), lived)
                    });
                    if reclaimed {
                        self.truth.reclaimed.insert(runner);
                    }
                    let state = self.universe.state();
                    let most = state.max_life.get(&lived.0).copied().unwrap_or(SignedDuration::MAX);
                    let is_past_life = lived.1 + state.clocks_differ_by >= most;
                    drop(state);
                    if by_ec2 || is_past_life {
                        self.truth.ended_by_ec2.insert(runner);
                    }
                    self.universe.github(|github, now| github.disconnect(runner, now));
                }
            }
            ec2::Happening::SpotNotice { instance, .. } => {
                let detail = format!(r#"{{"instance-id":"{instance}","instance-action":"terminate"}}"#);
                self.send_ec2_event("EC2 Spot Instance Interruption Warning", &detail);
            }
            ec2::Happening::Terminated { .. } => {}
        }
    }

    /// EventBridge sends the state changes that the template's rule names.
    pub(super) fn report_states(&mut self) {
        for ec2::Entered { instance, state, .. } in self.universe.ec2(|ec2, _| ec2.changes()) {
            let state = match state {
                ec2::State::ShuttingDown => "shutting-down",
                ec2::State::Terminated => "terminated",
                ec2::State::Stopped => "stopped",
                ec2::State::Pending | ec2::State::Running | ec2::State::Stopping => continue,
            };
            let detail = format!(r#"{{"instance-id":"{instance}","state":"{state}"}}"#);
            self.send_ec2_event("EC2 Instance State-change Notification", &detail);
        }
    }

    /// Whether the machine's pool keeps machines stopped.
    fn keeps_stopped_machines(&self, id: &InstanceId) -> bool {
        let pool = self.universe.ec2(|ec2, _| ec2.instance(id)?.tags.get("drover:pool").cloned());
        self.shape.pools.iter().any(|it| pool.as_deref() == Some(it.name.as_str()) && it.stopped > 0)
    }

    fn send_ec2_event(&mut self, kind: &str, detail: &str) {
        if self.dice.strikes(Fault::EventLost) {
            return;
        }
        let body = format!(r#"{{"detail-type":"{kind}","time":"{:.0}","detail":{detail}}}"#, self.now);
        self.send_body(&body, "instances", SignedDuration::ZERO);
    }

    /// A machine was given a JIT config.
    pub(super) fn handed_over(&mut self, machine: InstanceId) {
        if self.machines.get(&machine).is_some_and(|machine| machine.life == Life::Waiting) {
            let after = soon(&mut self.rng);
            self.plan_in(after, Due::Machine(machine, Doing::Read));
        }
    }

    pub(super) fn machine_does(&mut self, id: InstanceId, doing: Doing) {
        let Some(machine) = self.machines.get_mut(&id) else { return };
        match doing {
            Doing::Report => {
                if machine.life != Life::Dead {
                    self.report_boot(&id, false);
                    // Only there may it matter.
                    if self.keeps_stopped_machines(&id) {
                        let after = soon(&mut self.rng) * 5;
                        self.plan_in(after, Due::Machine(id, Doing::Prepare));
                    }
                }
            }
            Doing::Prepare => {
                if machine.life != Life::Waiting {
                    return;
                }
                if self.dice.strikes(Fault::PreparationFails) {
                    return self.log_world(|| format!("{id} cannot prepare itself"));
                }
                self.report_boot(&id, true);
            }
            Doing::Read => {
                if machine.life != Life::Waiting {
                    return;
                }
                let key = boot_key(ROLE, &id.as_str().into());
                let Some(item) = self.universe.store.take_boot_item(&key) else { return };
                machine.since = self.now;
                if self.dice.strikes(Fault::LostBootRead) {
                    machine.life = Life::Dead;
                    self.log_world(|| format!("the agent of {id} loses its JIT config"));
                    self.truth.spoilt.insert(id);
                } else {
                    machine.life = Life::Starting;
                    let after = soon(&mut self.rng) * 3;
                    self.plan_in(after, Due::Machine(id, Doing::Connect(item.jit_config)));
                }
            }
            Doing::Connect(secret) => self.connect(id, &secret),
            Doing::Exit(after) => {
                let Life::Runner(runner) = machine.life else { return };
                if self.has_job(&id) {
                    return;
                }
                let Some(machine) = self.machines.get_mut(&id) else { return };
                machine.life = Life::Dead;
                machine.since = self.now;
                self.runs_on.remove(&runner);
                self.truth.spoilt.insert(id.clone());
                self.universe.github(|github, now| github.disconnect(runner, now));
                self.log_world(|| format!("runner {runner} on {id} ends without a job"));
                if after == AfterExit::PowersOff {
                    let after = soon(&mut self.rng);
                    self.plan_in(after, Due::Machine(id, Doing::PowerOff));
                }
            }
            Doing::PowerOff => {
                machine.life = Life::Dead;
                if self.dice.strikes(Fault::HungPowerOff) {
                    self.log_world(|| format!("{id} does not power off"));
                } else {
                    self.universe.ec2(|ec2, now| ec2.power_off(&id, now));
                }
            }
        }
    }

    /// Whether the runner on that machine has a job.
    pub(super) fn has_job(&self, id: &InstanceId) -> bool {
        let Some(Machine { life: Life::Runner(runner), .. }) = self.machines.get(id) else { return false };
        self.universe.github(|github, _| github.runner(*runner).is_some_and(|it| it.job.is_some()))
    }

    fn connect(&mut self, id: InstanceId, secret: &str) {
        if self.dice.strikes(Fault::RunnerRefused) {
            self.log_world(|| format!("GitHub refuses the runner of {id}"));
            self.truth.spoilt.insert(id.clone());
            self.universe.ec2(|ec2, _| ec2.print(&id, "GitHub refuses this version of the runner.\n"));
            return self.runner_ended(&id);
        }
        let expected = self.universe.state().configured.get(&id).copied();
        let connected = self.universe.github(|github, now| github.connect(secret, now));
        let Some(machine) = self.machines.get_mut(&id) else { return };
        machine.since = self.now;
        match connected {
            Ok(runner) => {
                machine.life = Life::Runner(runner);
                self.universe.state().connected.insert(id.clone());
                self.runs_on.insert(runner, id.clone());
                if expected != Some(runner) {
                    self.violate(format!("S5: runner {runner} connects from {id}, which was not given its JIT config"));
                }
                self.log_world(|| format!("runner {runner} connects from {id}"));
                for (fault, after_exit) in
                    [(Fault::RunnerExits, AfterExit::PowersOff), (Fault::RunnerVanishes, AfterExit::KeepsPower)]
                {
                    if self.dice.strikes(fault) {
                        let after = soon(&mut self.rng) * 15;
                        self.plan_in(after, Due::Machine(id.clone(), Doing::Exit(after_exit)));
                    }
                }
            }
            Err(_) => {
                machine.life = Life::Dead;
                let after = soon(&mut self.rng);
                self.plan_in(after, Due::Machine(id, Doing::PowerOff));
            }
        }
    }

    /// GitHub removed the registration of the runner on that machine. The runner's process ends, and the machine powers off.
    pub(super) fn runner_ended(&mut self, id: &InstanceId) {
        if let Some(machine) = self.machines.get_mut(id) {
            machine.life = Life::Dead;
            machine.since = self.now;
            let after = soon(&mut self.rng);
            self.plan_in(after, Due::Machine(id.clone(), Doing::PowerOff));
        }
    }

    pub(super) fn pick_up(&mut self, offer: &github::Offer) {
        let Some(instance) = self.runs_on.get(&offer.runner).cloned() else { return };
        let acquired = self.universe.github(|github, now| github.acquire(offer.runner, offer.job, now).is_ok());
        if acquired {
            self.log_world(|| format!("job {} begins on runner {} of {instance}", offer.job, offer.runner));
            if self.truth.used.insert(instance.clone()) {
                self.note_cost(&instance, offer.job);
            }
            self.check_class(&instance, offer.job);
            if self.truth.foreign.contains(&offer.job) {
                self.refuse_job(instance, offer.runner);
                return;
            }
            if self.dice.strikes(Fault::ReportForged) {
                self.forge_reports(&instance);
            }
            let runs_for = SignedDuration::try_from(offer.runs_for).unwrap_or_default();
            self.plan_in(runs_for, Due::Finish(offer.runner, offer.job, offer.ends));
        }
    }

    /// The agent of a machine refuses a foreign job: it kills the runner and powers the machine off.
    fn refuse_job(&mut self, id: InstanceId, runner: github::RunnerId) {
        if let Some(machine) = self.machines.get_mut(&id) {
            machine.life = Life::Dead;
            machine.since = self.now;
        }
        self.runs_on.remove(&runner);
        self.universe.github(|github, now| github.disconnect(runner, now));
        self.log_world(|| format!("{id} refuses the job of runner {runner}"));
        let after = soon(&mut self.rng);
        self.plan_in(after, Due::Machine(id, Doing::PowerOff));
    }

    pub(super) fn finish_job(&mut self, runner: github::RunnerId, job: github::JobId, how: github::Conclusion) {
        if !self.runs_on.contains_key(&runner) {
            return;
        }
        let finished = self.universe.github(|github, now| github.complete(runner, job, how, now).is_ok());
        if finished && self.dice.strikes(Fault::Rerun) {
            let after = SignedDuration::from_secs(5 + self.dice.pick(Fault::Rerun, 60) as i64);
            self.plan_in(after, Due::Rerun(job));
        }
    }

    pub(super) fn rerun(&mut self, job: github::JobId) {
        let again = {
            let mut state = self.universe.state();
            let Some(repository) =
                state.github.job(job).and_then(|job| state.github.repository(job.repository)).cloned()
            else {
                return;
            };
            let installation = state.installation_of(&repository.owner_login);
            let (owner, name, now) = (repository.owner_login, repository.name, state.now);
            state.github.rerun_job(installation, &owner, &name, job, now)
        };
        if let Ok(again) = again {
            self.log_world(|| format!("job {job} is run again as {again}"));
            if self.truth.foreign.contains(&job) {
                self.truth.foreign.insert(again);
            }
        }
    }
}
