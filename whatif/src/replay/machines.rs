//! The machines of a run: they boot, report, get a registration, run a job and power off.

use domain::ids::InstanceType;
use domain::state::{BootReport, boot_key};
use domain::wire::InstanceChange;
use jiff::SignedDuration;
use rand::Rng;
use simulator::ROLE;
use world::ec2::{self, InstanceId, Market};
use world::github::{Conclusion, JobId, Offer, RunnerId};

use crate::hosted;
use crate::offline::Named;
use crate::replay::machine::{Doing, Life, Machine};
use crate::replay::state::{Due, Run};

/// How long an agent without a job takes to prepare its machine for being stopped.
const PREPARES_WITHIN: SignedDuration = SignedDuration::from_secs(8);

/// From the end of a runner until its machine powers off.
const POWERS_OFF_WITHIN: SignedDuration = SignedDuration::from_secs(1);

/// A machine that would be interrupted later than this is not.
const LONGEST_LIFE_HOURS: f64 = 24.0 * 400.0;

impl Run<'_> {
    /// The pool, type and market of a machine.
    pub(super) fn describe(&self, id: &InstanceId) -> Option<(usize, String, Market)> {
        let (pool, instance_type, market) = self.universe.ec2(|ec2, _| {
            let machine = ec2.instance(id)?;
            Some((machine.tags.get("drover:pool")?.clone(), machine.instance_type.clone(), machine.market))
        })?;
        let index = self.pools.iter().position(|it| it.name.as_str() == pool)?;
        Some((index, instance_type, market))
    }

    pub(super) fn ec2_happened(&mut self, happening: ec2::Happening) {
        match happening {
            ec2::Happening::Booted { instance } => self.booted(instance),
            ec2::Happening::SpotNotice { instance, .. } => {
                if let Some((pool, ..)) = self.describe(&instance)
                    && (self.has_job(&instance) || self.counted.contains(self.now))
                {
                    self.interruptions[pool] += 1;
                }
                self.universe.report_change(&instance, InstanceChange::Interrupted(Some(self.now)));
            }
            ec2::Happening::ShutDown { instance } | ec2::Happening::PowerLost { instance } => self.ended(&instance),
            // See `Universe::report_states`.
            ec2::Happening::Stopped { .. } | ec2::Happening::Terminated { .. } => {}
        }
    }

    fn booted(&mut self, id: InstanceId) {
        let Some((pool, instance_type, market)) = self.describe(&id) else { return };
        let uptime_seconds = 12;
        self.report(&id, BootReport { reported_at: self.now, uptime_seconds, prepared_at: None });
        if self.pools[pool].has_stopped() {
            self.plan_in(PREPARES_WITHIN, Due::Machine(id.clone(), Doing::Prepare(self.now)));
        }
        let rate = self.assumptions.interruptions_per_hour;
        if market == Market::Spot && rate > 0.0 {
            // Exponential: every moment is as dangerous as any other.
            let hours = -(1.0 - self.rng.random::<f64>()).ln() / rate;
            if hours < LONGEST_LIFE_HOURS {
                let after = SignedDuration::from_secs_f64(hours * 3600.0);
                self.plan_in(after, Due::Machine(id.clone(), Doing::Interrupt));
            }
        }
        let machine = Machine { pool, instance_type: InstanceType::from(instance_type), life: Life::Waiting };
        self.machines.insert(id.clone(), machine);
        // It may have been registered while it booted.
        self.machine_does(&id, Doing::Read);
    }

    fn report(&mut self, id: &InstanceId, report: BootReport) {
        let key = boot_key(ROLE, &id.as_str().into());
        self.universe.write_report(id, &key, report.stored()).expect("a machine may write its own report");
    }

    /// A machine was given a registration. One that boots reads it when it is up.
    pub(super) fn handed_over(&mut self, id: InstanceId) {
        if self.machines.get(&id).is_some_and(|machine| matches!(machine.life, Life::Waiting)) {
            self.plan_in(self.assumptions.registration(), Due::Machine(id, Doing::Read));
        }
    }

    pub(super) fn machine_does(&mut self, id: &InstanceId, doing: Doing) {
        if matches!(doing, Doing::Interrupt) {
            return self.universe.ec2(|ec2, now| ec2.interrupt_spot(id, now));
        }
        let Some(machine) = self.machines.get_mut(id) else { return };
        match (doing, &machine.life) {
            (Doing::Prepare(reported_at), Life::Waiting) => {
                let report = BootReport { reported_at, uptime_seconds: 12, prepared_at: Some(self.now) };
                self.report(id, report);
            }
            (Doing::Read, Life::Waiting) => {
                let key = boot_key(ROLE, &id.as_str().into());
                let Some(item) = self.universe.store.take_boot_item(&key) else { return };
                machine.life = Life::Starting;
                let after = self.assumptions.runner();
                self.plan_in(after, Due::Machine(id.clone(), Doing::Connect(item.jit_config)));
            }
            (Doing::Connect(secret), Life::Starting) => {
                match self.universe.github(|github, now| github.connect(&secret, now)) {
                    Ok(runner) => {
                        machine.life = Life::Runner(runner, None);
                        self.runs_on.insert(runner, id.clone());
                    }
                    Err(_) => self.runner_ended(id),
                }
            }
            (Doing::PowerOff, _) => self.universe.ec2(|ec2, now| ec2.power_off(id, now)),
            (Doing::Prepare(_) | Doing::Read | Doing::Connect(_) | Doing::Interrupt, _) => {}
        }
    }

    /// A runner takes the job that it was offered.
    pub(super) fn offered(&mut self, offer: &Offer) {
        let Some(id) = self.runs_on.get(&offer.runner).cloned() else { return };
        if self.universe.github(|github, now| github.acquire(offer.runner, offer.job, now)).is_err() {
            return;
        }
        let Some(machine) = self.machines.get_mut(&id) else { return };
        machine.life = Life::Runner(offer.runner, Some(self.now));
        let pool = machine.pool;
        self.account.begin_job(&id, self.now);
        let named = Named::of(&machine.instance_type);
        let runs_for = SignedDuration::try_from(offer.runs_for).unwrap_or_default();
        self.plan_in(runs_for, Due::Finish(offer.runner, offer.job, offer.ends));
        let Some(index) = self.index_of(offer.job) else { return };
        let minutes = hosted::minutes(runs_for);
        let minute = named.and_then(|it| hosted::PRICES.minute(it.architecture, it.vcpus));
        let sums = &mut self.hosted[pool];
        sums.all_minutes += minutes;
        match minute {
            Some(minute) => {
                sums.minutes += minutes;
                sums.usd += minutes as f64 * minute.usd();
            }
            None => sums.unpriced += 1,
        }
        self.started(index);
    }

    /// The runner of a machine reports the end of its job.
    pub(super) fn finish(&mut self, runner: RunnerId, job: JobId, how: Conclusion) {
        if self.runs_on.contains_key(&runner)
            && self.universe.github(|github, now| github.complete(runner, job, how, now)).is_ok()
            && let Some(index) = self.index_of(job)
        {
            self.job_ended(index);
        }
    }

    /// GitHub has removed the registration of a runner. Its process ends, and the machine powers off.
    pub(super) fn runner_removed(&mut self, runner: RunnerId) {
        if let Some(id) = self.runs_on.remove(&runner) {
            self.runner_ended(&id);
        }
    }

    fn runner_ended(&mut self, id: &InstanceId) {
        let _ = self.end_life(id);
        self.plan_in(POWERS_OFF_WITHIN, Due::Machine(id.clone(), Doing::PowerOff));
    }

    /// No program runs on the machine any more. Returns its runner.
    fn end_life(&mut self, id: &InstanceId) -> Option<RunnerId> {
        let machine = self.machines.get_mut(id)?;
        match std::mem::replace(&mut machine.life, Life::Over) {
            Life::Runner(runner, since) => {
                if let Some(since) = since {
                    self.job_seconds[machine.pool] += self.now.duration_since(since).as_secs_f64();
                }
                Some(runner)
            }
            Life::Waiting | Life::Starting | Life::Over => None,
        }
    }

    /// A machine has lost its power or is shutting down.
    fn ended(&mut self, id: &InstanceId) {
        if let Some(runner) = self.end_life(id) {
            self.runs_on.remove(&runner);
            self.universe.github(|github, now| github.disconnect(runner, now));
        }
        self.machines.remove(id);
    }

    /// Whether any machine runs a job.
    pub(super) fn is_busy(&self) -> bool {
        self.machines.keys().any(|id| self.has_job(id))
    }

    fn has_job(&self, id: &InstanceId) -> bool {
        self.machines.get(id).is_some_and(|machine| matches!(machine.life, Life::Runner(_, Some(_))))
    }

    /// The run ends: jobs that still run are counted until now.
    pub(super) fn end_machines(&mut self) {
        let ids: Vec<InstanceId> = self.machines.keys().cloned().collect();
        for id in ids {
            let _ = self.end_life(&id);
        }
    }
}
