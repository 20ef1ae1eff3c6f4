//! What goes wrong outside Drover: storms of faults, and incidents.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::config::{MarketChoice, Pool};
use domain::state::{Item, Key};
use domain::wire::Message;
use jiff::SignedDuration;
use world::ec2::{self, InstanceId};
use world::github::{self, RunId};

use crate::swarm::agenda::Due;
use crate::swarm::arrival::{ORGANIZATION, OTHER};
use crate::swarm::faults::Fault;
use crate::swarm::ground_truth::{RemovedPool, Rotation};
use crate::swarm::seed::Swarm;
use crate::universe::{INVOCATION, SUBNETS};

/// By how much the clocks of functions are wrong at most.
const MAX_CLOCK_ERROR: SignedDuration = SignedDuration::from_mins(2);

/// About as many runs as the share of searches pays for within 20 minutes.
const SEARCHED_IN_TIME: usize = 300;

impl Swarm<'_> {
    /// A storm begins or ends: turns the faults that last on or off.
    pub(super) fn weather(&mut self) {
        let on = self.calm_since.is_none() && self.shape.stormy_at(self.now.duration_since(self.began));
        self.dice.on = on;
        let clocks =
            if self.dice.lasts(Fault::FunctionClock) { self.dice.intensity(Fault::FunctionClock) } else { 0.0 };
        self.universe.set_clock_error(MAX_CLOCK_ERROR.mul_f64(clocks));
        let mut state = self.universe.state();
        let (mut ec2, mut github) = (ec2::Faults::default(), github::Faults::default());
        if self.dice.lasts(Fault::Invisible) {
            ec2.invisible_for = Duration::from_secs_f64(120.0 * self.dice.intensity(Fault::Invisible));
        }
        if self.dice.lasts(Fault::BootFailure) {
            ec2.boot_failures = self.dice.intensity(Fault::BootFailure);
        }
        if self.dice.lasts(Fault::StartedInVain) {
            ec2.failed_starts = self.dice.intensity(Fault::StartedInVain);
        }
        if self.dice.lasts(Fault::EndsAtOnce) {
            let share = self.dice.intensity(Fault::EndsAtOnce) / 2.0;
            (ec2.ends_at_once, ec2.accepted_in_vain) = (share, vec![(ec2::LaunchMatch::default(), share)]);
        }
        if self.dice.lasts(Fault::Stops) {
            ec2.stops = self.dice.intensity(Fault::Stops);
        }
        if self.dice.lasts(Fault::StaleList) {
            github.busy_lag = Duration::from_secs_f64(120.0 * self.dice.intensity(Fault::StaleList));
        }
        if self.dice.lasts(Fault::IdleRemoved) {
            github.idle_limit = Some(Duration::from_secs_f64(360.0 - 240.0 * self.dice.intensity(Fault::IdleRemoved)));
        }
        let hangs_for =
            if self.dice.lasts(Fault::GithubHangs) { 60 + self.dice.pick(Fault::GithubHangs, 180) } else { 0 };
        self.github_hangs_until = self.now + SignedDuration::from_secs(hangs_for as i64);
        // What is malformed is repaired when the storm ends, except the job that no pool serves.
        github.malformed_jobs.clone_from(&self.truth.malformed_for_ever);
        state.ec2.faults = ec2;
        state.github.faults = github;
        state.unreadable.clear();
        drop(state);
        if on && self.dice.intensity(Fault::ForeignRunner) > 0.0 && !self.truth.foreign_runner {
            self.truth.foreign_runner = self.dice.lasts(Fault::ForeignRunner);
            let scope = github::Scope::repository(ORGANIZATION, "gadgets");
            self.universe
                .github(|github, now| github.add_foreign_runner(scope, "somebody-elses", &["linux", "x64"], now));
            self.log_world(|| "a runner that is not Drover's serves gadgets, too".to_owned());
        }
        self.log_world(|| if on { "a storm begins" } else { "faults pause" }.to_owned());
    }

    pub(super) fn calm(&mut self) {
        self.calm_since = Some(self.now);
        self.weather();
        self.finish_rotation();
        for owner in std::mem::take(&mut self.uninstalled) {
            self.universe.state().install(owner);
        }
        self.redeploy();
        self.new_table();
        self.note_the_lost();
        self.undrain();
        if self.removed.as_ref().is_some_and(|removed| removed.comes_back) {
            self.restore_pool();
        }
        let waiting: Vec<_> = self.universe.github(|github, _| {
            github.jobs().filter(|job| job.state == github::JobState::Waiting).map(|job| job.id).collect()
        });
        for job in waiting {
            self.universe.github(|github, now| github.approve(job, now));
        }
        // The operator looks at the dead letters and sends them again.
        let dead: Vec<String> = self.sqs.bodies("dead").into_iter().map(str::to_owned).collect();
        self.sqs.purge_queue("dead");
        for body in dead {
            let message = Message::parse(&body).expect("Drover's message");
            self.send(&message, SignedDuration::ZERO);
        }
        self.cancel_unserved();
        self.note_long_searches();
        self.log_world(|| "all faults stop".to_owned());
    }

    /// If a pool was removed for ever, cancels the jobs that no pool has taken. GitHub would give them the machines of those that the
    /// pool still serves.
    fn cancel_unserved(&mut self) {
        if self.removed.is_none() {
            return;
        }
        let served: BTreeSet<github::JobId> = self.waiting().into_iter().map(|(job, _)| job).collect();
        let unserved: Vec<github::JobId> = self.universe.github(|github, _| {
            let queued = github.jobs().filter(|job| job.state.conclusion().is_none() && job.history.started.is_empty());
            let own = queued.map(|job| job.id).filter(|job| !self.truth.foreign.contains(job));
            own.filter(|job| !served.contains(job)).collect()
        });
        for job in unserved {
            self.truth.cancelled.insert(job);
            self.universe.github(|github, now| github.cancel(job, now));
        }
    }

    /// If the table was lost, notes the accounts with very many runs under way.
    fn note_long_searches(&mut self) {
        if self.table_lost_at.is_none() {
            return;
        }
        let runs = self.universe.github(|github, _| {
            let mut runs: BTreeMap<String, BTreeSet<RunId>> = BTreeMap::new();
            for job in github.jobs().filter(|job| job.state.conclusion().is_none()) {
                if let Some(repository) = github.repository(job.repository) {
                    runs.entry(repository.owner_login.clone()).or_default().insert(job.run);
                }
            }
            runs
        });
        let many = runs.into_iter().filter(|(_, runs)| runs.len() > SEARCHED_IN_TIME).map(|(owner, _)| owner);
        self.truth.searched_for_long = many.collect();
    }

    /// Lets users, EC2 and operators do something that Drover does not expect.
    pub(super) fn incidents(&mut self) {
        self.plan_in(SignedDuration::from_secs(20), Due::Incidents);
        if self.dice.strikes(Fault::Cancelled) {
            let jobs: Vec<_> = self.universe.github(|github, _| {
                github.jobs().filter(|job| job.state.conclusion().is_none()).map(|job| job.id).collect()
            });
            if !jobs.is_empty() {
                let job = jobs[self.dice.pick(Fault::Cancelled, jobs.len())];
                self.log_world(|| format!("job {job} is cancelled"));
                self.truth.cancelled.insert(job);
                self.universe.github(|github, now| github.cancel(job, now));
            }
        }
        if self.dice.strikes(Fault::Uninstalled) {
            let owner = [ORGANIZATION, OTHER][self.dice.pick(Fault::Uninstalled, 2)];
            if !self.uninstalled.contains(&owner) {
                self.uninstalled.push(owner);
                self.log_world(|| format!("{owner} uninstalls the app"));
                self.universe.github(|github, _| {
                    let id = github.find_owner(owner).expect("an account of this world").id;
                    github.uninstall(id);
                });
                let away = SignedDuration::from_secs(60 + self.dice.pick(Fault::Uninstalled, 300) as i64);
                self.plan_in(away, Due::Install(owner));
            }
        }
        if self.dice.strikes(Fault::RotatedKeys) && self.rotation.is_none() {
            self.rotate_key();
        }
        for (fault, spot) in [(Fault::SpotTaken, true), (Fault::HostFails, false)] {
            if self.dice.strikes(fault) {
                let alive: Vec<InstanceId> = self.universe.ec2(|ec2, _| {
                    let candidates = ec2.alive().filter(|machine| !spot || machine.market == ec2::Market::Spot);
                    candidates.map(|machine| machine.id.clone()).collect()
                });
                // Half of the time a machine with a job, if there is one.
                let busy: Vec<InstanceId> = alive.iter().filter(|machine| self.has_job(machine)).cloned().collect();
                let alive = if busy.is_empty() || self.dice.pick(fault, 2) == 0 { alive } else { busy };
                if !alive.is_empty() {
                    let machine = alive[self.dice.pick(fault, alive.len())].clone();
                    self.log_world(|| {
                        format!("{} {machine}", if spot { "EC2 reclaims" } else { "a host fails, and with it" })
                    });
                    self.truth.spoilt.insert(machine.clone());
                    self.universe.ec2(|ec2, now| {
                        if spot { ec2.interrupt_spot(&machine, now) } else { ec2.fail_host(&machine, now) }
                    });
                }
            }
        }
        if self.dice.strikes(Fault::RepositoryRemoved) {
            self.remove_repository();
        }
        if self.dice.strikes(Fault::ForgedRunner) {
            self.forge_runner();
        }
        if self.dice.strikes(Fault::Held) {
            self.hold_machine();
        }
        if self.dice.strikes(Fault::Malformed) {
            self.malform();
        }
        if self.dice.strikes(Fault::Drained) {
            let pool = &self.shape.pools[self.dice.pick(Fault::Drained, self.shape.pools.len())];
            self.universe.drain_only(Some(pool.name.as_str()));
            // A pool that was drained before takes jobs again.
            self.undrained_at = self.invoked;
            self.log_world(|| format!("an operator drains pool {}", pool.name));
            let after = SignedDuration::from_secs(30 + self.dice.pick(Fault::Drained, 300) as i64);
            self.plan_in(after, Due::Undrain);
        }
        if self.dice.strikes(Fault::PoolEdited) {
            self.edit_pool();
        }
        if self.dice.strikes(Fault::PoolRemoved) && self.removed.is_none() {
            self.remove_pool();
        }
        if self.dice.strikes(Fault::ForeignMachine) {
            self.foreign_machine();
        }
        if self.dice.strikes(Fault::OldVersion) {
            self.roll_back();
        }
        if self.dice.strikes(Fault::TableLost) && (self.rollback.is_none() || self.removed.is_none()) {
            self.lose_table();
        }
    }

    fn remove_repository(&mut self) {
        let all = [(OTHER, "tools"), (ORGANIZATION, "widgets"), (ORGANIZATION, "gadgets")];
        let (owner, name) = all[self.dice.pick(Fault::RepositoryRemoved, all.len())];
        self.log_world(|| format!("{owner}/{name} is removed from the app's installation"));
        let id = self.universe.github(|github, _| {
            let id = github.find_repository(owner, name).expect("a repository of this world").id;
            github.exclude_repository(id);
            id
        });
        let away = SignedDuration::from_secs(60 + self.dice.pick(Fault::RepositoryRemoved, 240) as i64);
        self.plan_in(away, Due::Include(id));
    }

    /// The admin of a repository that no pool serves registers a runner with the name and id of one of Drover's, and runs a
    /// job on it. Half of the time that runner has a job, if there is one.
    fn forge_runner(&mut self) {
        let fault = Fault::ForgedRunner;
        let (all, busy): (Vec<_>, Vec<_>) = self.universe.github(|github, _| {
            let own = |runner: &&github::Runner| {
                runner.name.starts_with("drover_sim_") && runner.scope == github::Scope::organization(ORGANIZATION)
            };
            let busy = github.registrations().filter(own).filter(|runner| runner.job.is_some()).map(|runner| runner.id);
            (github.registrations().filter(own).map(|runner| runner.id).collect(), busy.collect())
        });
        let victims = if busy.is_empty() || self.dice.pick(fault, 2) == 0 { all } else { busy };
        if victims.is_empty() {
            return;
        }
        let victim = victims[self.dice.pick(fault, victims.len())];
        let label = format!("forged-{victim}-{}", self.now.as_second());
        let runs_for = Duration::from_secs(1 + self.dice.pick(fault, 400) as u64);
        self.log_world(|| format!("somebody registers a runner that poses as runner {victim}, and runs a job on it"));
        self.universe.forge_runner(victim, "elsewhere", &label);
        let job = self.universe.github(|github, now| {
            let repository = github.find_repository(ORGANIZATION, "elsewhere").expect("of this world").id;
            github.queue_job(github::QueueJob { runs_for, ..github::QueueJob::new(repository, &[&label]) }, now)
        });
        self.truth.foreign.insert(job);
    }

    fn hold_machine(&mut self) {
        let alive: Vec<InstanceId> =
            self.universe.ec2(|ec2, _| ec2.alive().map(|machine| machine.id.clone()).collect());
        if alive.is_empty() {
            return;
        }
        let machine = alive[self.dice.pick(Fault::Held, alive.len())].clone();
        self.log_world(|| format!("an operator holds {machine}"));
        self.universe.hold(&machine);
        self.truth.spoilt.insert(machine.clone());
        let holds = SignedDuration::from_secs(60 + self.dice.pick(Fault::Held, 600) as i64);
        self.plan_in(holds, Due::Release(machine));
    }

    /// An item of the table or of one of GitHub's lists gets an unknown form. One job that no pool serves keeps it for ever.
    fn malform(&mut self) {
        if self.truth.malformed_for_ever.is_empty() {
            let job = self.universe.github(|github, now| {
                let repository = github.find_repository(ORGANIZATION, "widgets").expect("of this world").id;
                github.queue_job(github::QueueJob::new(repository, &["nobodys"]), now)
            });
            self.truth.foreign.insert(job);
            self.truth.malformed_for_ever.insert(job);
            self.universe.github(|github, _| github.faults.malformed_jobs.insert(job));
            self.log_world(|| format!("job {job} has an unknown form for ever"));
        }
        let choice = self.dice.pick(Fault::Malformed, 4);
        let at = self.dice.pick(Fault::Malformed, 1 << 16);
        let pick = |among: usize| at % among.max(1);
        match choice {
            0 => {
                let own = self.own_runners();
                let runner = self.universe.github(|github, _| {
                    let form = if at.is_multiple_of(2) { github::Malformed::State } else { github::Malformed::All };
                    let runner = own.get(pick(own.len())).copied()?;
                    github.faults.malformed_runners.insert(runner, form);
                    Some((runner, form))
                });
                self.log_world(|| format!("runner {runner:?} has an unknown form"));
            }
            1 => {
                let job = self.universe.github(|github, _| {
                    let under_way = github.jobs().filter(|job| job.state.conclusion().is_none());
                    let under_way: Vec<_> = under_way.map(|job| job.id).collect();
                    let job = under_way.get(pick(under_way.len())).copied()?;
                    github.faults.malformed_jobs.insert(job);
                    Some(job)
                });
                self.log_world(|| format!("job {job:?} has an unknown form"));
            }
            2 => {
                let delivery = self.universe.github(|github, _| {
                    let delivery = github.deliveries().map(|delivery| delivery.id).last()?;
                    github.faults.malformed_deliveries.insert(delivery);
                    Some(delivery)
                });
                self.log_world(|| format!("delivery {delivery:?} has an unknown form"));
            }
            _ => {
                let of_pools: Vec<Key> =
                    self.universe.store.items().iter().map(Item::key).filter(|key| key.pool().is_some()).collect();
                if let Some(key) = of_pools.get(pick(of_pools.len())) {
                    self.log_world(|| format!("the item {key} has an unknown form"));
                    self.universe.state().unreadable.insert(key.clone());
                }
            }
        }
    }

    /// The runners of the stack that are registered.
    pub(super) fn own_runners(&self) -> Vec<github::RunnerId> {
        self.universe.github(|github, _| {
            let own = github.registrations().filter(|runner| runner.name.starts_with("drover_sim_"));
            own.map(|runner| runner.id).collect()
        })
    }

    /// An operator generates a key. Either the secret has it first, or the old key is deleted first.
    fn rotate_key(&mut self) {
        let new = self.universe.github(|github, _| github.add_key());
        self.log_world(|| format!("an operator replaces the app's key by key {new}"));
        if self.dice.pick(Fault::RotatedKeys, 2) == 0 {
            self.universe.store_key(new);
            self.rotation = Some(Rotation::Delete(new));
        } else {
            self.universe.delete_other_keys(new);
            self.rotation = Some(Rotation::Store(new));
        }
        let after = SignedDuration::from_secs(self.dice.pick(Fault::RotatedKeys, 90) as i64);
        self.plan_in(after, Due::Rotated);
    }

    pub(super) fn finish_rotation(&mut self) {
        match self.rotation.take() {
            Some(Rotation::Delete(new)) => self.universe.delete_other_keys(new),
            Some(Rotation::Store(new)) => self.universe.store_key(new),
            None => return,
        }
        self.log_world(|| "the app's key is replaced".to_owned());
    }

    /// The table is lost. Machines without a job are no longer needed.
    fn lose_table(&mut self) {
        let Some(config) = self.universe.configuration() else { return };
        self.log_world(|| "the table is lost".to_owned());
        self.lost_pools = config.pools;
        // The operator has a file with all of them.
        if let Some(RemovedPool { pool, .. }) = self.removed.take() {
            self.lost_pools.retain(|other| other.name != pool.name);
            self.lost_pools.push(Pool { draining: false, ..pool });
        }
        self.universe.state().limits.clear();
        self.tables += 1;
        self.lost_at = self.invoked;
        self.table_lost_at = Some(self.now);
        self.universe.store.empty();
        let alive: Vec<InstanceId> =
            self.universe.ec2(|ec2, _| ec2.alive().map(|machine| machine.id.clone()).collect());
        self.truth.spoilt.extend(alive);
        // By then no invocation that read the lost table is running.
        self.plan_in(INVOCATION + SignedDuration::from_secs(5), Due::NewTable);
    }

    pub(super) fn new_table(&mut self) {
        if self.universe.configuration().is_some() {
            return;
        }
        self.log_world(|| "an operator applies the pools to a new table".to_owned());
        self.universe.apply(self.lost_pools.clone(), &format!("e{}", self.tables));
        self.plan_in(SignedDuration::ZERO, Due::Receive);
    }

    /// An operator changes where a pool launches.
    fn edit_pool(&mut self) {
        let Some(config) = self.universe.configuration() else { return };
        let plain: Vec<&Pool> = config.pools.iter().filter(|pool| pool.shapes.is_none()).collect();
        let which = self.dice.pick(Fault::PoolEdited, plain.len());
        let Some(pool) = plain.get(which) else { return };
        let mut edited = Pool::clone(pool);
        match self.dice.pick(Fault::PoolEdited, 3) {
            // One that keeps machines stopped must be able to launch on demand.
            0 => {
                edited.market = match edited.market {
                    MarketChoice::OnDemand => MarketChoice::SpotThenOnDemand,
                    MarketChoice::SpotThenOnDemand => MarketChoice::OnDemand,
                    MarketChoice::Spot => MarketChoice::Spot,
                };
            }
            1 if edited.subnets.len() > 1 => edited.subnets.truncate(1),
            1 => edited.subnets = SUBNETS.map(Into::into).into(),
            _ => edited.instance_types.reverse(),
        }
        self.log_world(|| format!("an operator changes where pool {} launches", edited.name));
        self.universe.change_pools(|pools| {
            pools.iter_mut().filter(|pool| pool.name == edited.name).for_each(|pool| pool.clone_from(&edited));
        });
    }

    /// An operator applies a pool file without one of the pools.
    fn remove_pool(&mut self) {
        let Some(config) = self.universe.configuration() else { return };
        let fault = Fault::PoolRemoved;
        let pool = config.pools[self.dice.pick(fault, config.pools.len())].clone();
        self.log_world(|| format!("an operator applies a file without pool {}", pool.name));
        self.universe.apply_without(&pool.name);
        self.undrained_at = self.invoked;
        let comes_back = self.dice.pick(fault, 3) > 0;
        self.removed = Some(RemovedPool { pool, comes_back });
        let again = SignedDuration::from_secs(60 + self.dice.pick(fault, 240) as i64);
        self.plan_in(again, Due::ApplyAgain);
        if comes_back {
            let restored = SignedDuration::from_secs(30 + self.dice.pick(fault, 600) as i64);
            self.plan_in(restored, Due::PoolRestored);
        }
    }

    pub(super) fn apply_again(&mut self) {
        let Some(name) = self.removed.as_ref().map(|removed| removed.pool.name.clone()) else { return };
        let stays = self.universe.apply_without(&name);
        self.log_world(|| match stays {
            true => format!("the file is applied again, and pool {name} still drains"),
            false => format!("the file is applied again, and pool {name} is gone"),
        });
        if stays {
            self.plan_in(SignedDuration::from_secs(150), Due::ApplyAgain);
        }
    }

    pub(super) fn restore_pool(&mut self) {
        if self.rollback.is_some() {
            // The pool may need a format that the old version does not support. Then the file is refused.
            return self.plan_in(SignedDuration::from_secs(30), Due::PoolRestored);
        }
        let Some(RemovedPool { pool, .. }) = self.removed.take() else { return };
        self.log_world(|| format!("an operator applies a file with pool {} again", pool.name));
        self.universe.apply_with(&pool);
        self.undrained_at = self.invoked;
    }

    pub(super) fn undrain(&mut self) {
        self.universe.drain_only(None);
        self.undrained_at = self.invoked;
        self.log_world(|| "an operator lets all pools take jobs".to_owned());
    }

    /// Somebody launches a machine of another stack, or one with this stack's tag and no batch.
    fn foreign_machine(&mut self) {
        let stack = ["other", "simulator", "sim"][self.dice.pick(Fault::ForeignMachine, 3)];
        let Some(template) = self.launch_template() else { return };
        let request = ec2::RunInstances {
            template: ec2::TemplateRef::Id(template),
            template_version: None,
            min_count: 1,
            max_count: 1,
            subnet: "subnet-a".into(),
            instance_type: None,
            market: ec2::Market::OnDemand,
            client_token: None,
            tags: [("drover:stack".to_owned(), stack.to_owned())].into(),
            volume_tags: ec2::Tags::new(),
        };
        let launched = self.universe.ec2(|ec2, now| ec2.run_instances(request, now));
        if let Ok(launched) = launched {
            self.foreign_machines.extend(launched.instances.into_iter().map(|instance| instance.id));
            self.log_world(|| format!("somebody else launches a machine of stack {stack}"));
        }
    }

    fn launch_template(&self) -> Option<ec2::TemplateId> {
        let config = self.universe.configuration()?;
        Some(config.pools.first()?.launch_template.id.as_str().into())
    }
}
