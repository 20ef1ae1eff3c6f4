//! What must hold, judged by what the models know and Drover does not.

use std::collections::BTreeSet;

use domain::ids::JobId;
use domain::policy::decide::RELAUNCH_LIMIT;
use domain::state::{Item, Key, Rank};

use super::*;

/// A pool's `notice_after`, and five minutes more.
const PATIENCE_OF_AUTHORS: SignedDuration = SignedDuration::from_mins(20);

/// The longest `idle_grace` of a simulated pool: what is idle for less is in order.
pub(super) const IDLE_AT_MOST: SignedDuration = SignedDuration::from_secs(180);

/// The pools of a simulated world all have the default `relaunch_window`.
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which: `S1` to `L4`, or `log`.
    pub invariant: String,
    /// What was seen.
    pub what: String,
    /// When.
    pub at: Timestamp,
}

/// How long after the last fault everything was in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Convergence(pub SignedDuration);

/// What was launched, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Machines {
    /// All of ours.
    pub launched: u64,
    /// Ran a job.
    pub used: u64,
    /// Ran none because something happened to it.
    pub spoilt: u64,
    /// Kept warm.
    pub warm: u64,
    /// Jobs that were cancelled, or taken by somebody else's runner, after a machine was due to them.
    pub excused: u64,
    /// Idle for nothing.
    pub extra: u64,
}

/// What the world knows that nobody told Drover.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// Jobs that no pool may serve.
    pub(super) foreign: BTreeSet<github::JobId>,
    pub(super) gated: BTreeSet<github::JobId>,
    pub(super) cancelled: BTreeSet<github::JobId>,
    /// Machines that something happened to.
    pub(super) spoilt: BTreeSet<InstanceId>,
    /// Runners whose machine EC2 took, or whose life was over.
    pub(super) ended_by_ec2: BTreeSet<github::RunnerId>,
    pub(super) booted: BTreeSet<InstanceId>,
    /// Machines that ran a job.
    pub(super) used: BTreeSet<InstanceId>,
    pub(super) foreign_runner: bool,
    pub(super) converged: Option<Convergence>,
    /// When a pool last had as many machines as it may, or nearly.
    pub(super) full_at: BTreeMap<String, Timestamp>,
    /// Jobs that waited longer than twenty minutes by design: their relaunches were used up, or their pool was full.
    pub(super) late: BTreeSet<github::JobId>,
}

impl Swarm<'_> {
    /// The jobs that are Drover's to serve and wait for a runner, each with its pool.
    fn waiting(&self) -> Vec<(github::JobId, String)> {
        self.universe.github(|github, _| {
            let queued = github.jobs().filter(|job| {
                !self.judge.foreign.contains(&job.id)
                    && matches!(job.state, github::JobState::Queued { .. } | github::JobState::Waiting)
            });
            queued
                .filter_map(|job| {
                    let repository = github.repository(job.repository)?;
                    let pool = self.shape.pool_for((&repository.owner_login, &repository.name), &job.labels)?;
                    Some((job.id, pool.name.to_string()))
                })
                .collect()
        })
    }

    /// Machines and registrations that nothing uses, longer than `patience`.
    fn left_over(&self, patience: SignedDuration) -> Vec<String> {
        let state = self.universe.state();
        let mut left = Vec::new();
        let mut spared = BTreeSet::new();
        for pool in &self.shape.pools {
            let mut warm = pool.warm;
            for machine in state.ec2.alive() {
                if machine.tags.get("drover:pool").map(String::as_str) != Some(pool.name.as_str()) {
                    continue;
                }
                let runner = state.configured.get(&machine.id);
                let busy =
                    runner.and_then(|runner| state.github.runner(*runner)).is_some_and(|runner| runner.job.is_some());
                let since = self.machines.get(&machine.id).map_or(machine.launched_at, |known| known.since);
                if busy || self.now.duration_since(since) < patience {
                    continue;
                }
                // A runner that a job no longer needs may be what a pool keeps warm; one that is not connected may not.
                let serves =
                    runner.is_none_or(|runner| state.github.runner(*runner).is_some_and(|runner| runner.online));
                if serves && warm > 0 {
                    warm -= 1;
                    spared.extend(runner.copied());
                    continue;
                }
                left.push(format!("machine {} of pool {}, {} since {since}", machine.id, pool.name, machine.state));
            }
        }
        let idle = state.github.registrations().filter(|runner| runner.name.starts_with("drover_sim_"));
        for runner in idle {
            let at = self.runs_on.get(&runner.id).and_then(|id| self.machines.get(id));
            let since = at.map_or(runner.created_at, |machine| machine.since);
            if runner.job.is_none() && !spared.contains(&runner.id) && self.now.duration_since(since) >= patience {
                left.push(format!("registration {} ({}), idle since {since}", runner.name, runner.id));
            }
        }
        left
    }

    /// Looks each minute which pools are full, and whether everything is in order after the faults.
    pub(super) fn watch(&mut self) {
        for pool in &self.shape.pools {
            if self.is_full(pool.name.as_str()) {
                self.judge.full_at.insert(pool.name.to_string(), self.now);
            }
        }
        let Some(since) = self.calm_since.filter(|_| self.judge.converged.is_none()) else { return };
        if self.waiting().is_empty() && self.left_over(IDLE_AT_MOST).is_empty() {
            self.judge.converged = Some(Convergence(self.now.duration_since(since)));
        }
    }

    /// S2: nobody launches what another has begun and may still be doing.
    pub(super) fn judge_alone(&mut self, number: u64, call: &str) {
        let other = self.invocations.iter().find(|(other, invocation)| {
            **other != number && invocation.ownership.values().any(|at| at.side == Side::After && at.call == call)
        });
        if let Some((other, _)) = other {
            let other = *other;
            self.violates(format!("S2: invocations {other} and {number} are in {call} at the same time"));
        }
    }

    /// S4: what was acknowledged is known.
    pub(super) fn judge_acknowledged(&mut self, message: &Message) {
        let Message::WorkflowJob(notice) = message else { return };
        let config = self.universe.config();
        let ours = domain::policy::route::route(&config.pools, &domain::policy::route::Routable::of(notice)).is_ok();
        let known = match self.universe.item(&Key::Job(notice.job.id)) {
            Some(Item::Job(job)) => Some(job.rank),
            _ => None,
        };
        let said = Rank::from(notice.action);
        if ours && known.is_none_or(|known| known < said) {
            self.violates(format!("S4: {said:?} of job {} was acknowledged and is not in the table", notice.job.id));
        }
    }

    /// L4: the author of a job that has waited longer than its pool's patience, and five minutes more, can see why.
    fn is_told(&self, job: github::JobId) -> bool {
        self.universe.github(|github, _| {
            let about = job.to_string();
            github.check_runs().any(|run| run.now.external_id.as_deref() == Some(&about))
        })
    }

    /// Since when it has been queued: one that is run again may have been queued after all faults stopped.
    fn waits_for(&self, job: github::JobId) -> SignedDuration {
        let queued = self.universe.github(|github, _| github.job(job)?.history.queued.last().copied());
        queued.map_or(SignedDuration::ZERO, |at| self.now.duration_since(at))
    }

    /// Whether the job's launches of the last hour are used up: then it waits by design (S6), and visibly.
    fn used_up(&self, job: github::JobId, pool: &str) -> bool {
        let view = self.universe.store.view(&pool.parse().expect("a pool of this world"));
        view.waiting.get(&JobId(job.0)).is_some_and(|waiting| {
            let recent = |at: &&Timestamp| self.now.duration_since(**at) < HOUR;
            waiting.launches.iter().filter(recent).count() >= RELAUNCH_LIMIT
        })
    }

    /// Whether the pool has as many machines as it may, or nearly: then what waits is served as they end, one by one.
    fn is_full(&self, pool: &str) -> bool {
        let most =
            self.shape.pools.iter().find(|known| known.name.as_str() == pool).map_or(0, |pool| pool.max as usize);
        self.universe.ec2(|ec2, _| {
            let there = ec2.instances().filter(|machine| machine.state != ec2::State::Terminated);
            there.filter(|machine| machine.tags.get("drover:pool").is_some_and(|tag| tag == pool)).count() * 5
                >= most * 4
        })
    }

    /// Whether it was so within the last five minutes.
    fn was_full(&self, pool: &str) -> bool {
        self.judge.full_at.get(pool).is_some_and(|at| self.now.duration_since(*at) <= SignedDuration::from_mins(5))
    }

    /// Whether a fault left the pool a machine that never came up and was not asked to yet: a warm one is found out only
    /// when it is needed.
    fn has_a_dead_machine(&self, pool: &str) -> bool {
        let state = self.universe.state();
        state.ec2.alive().any(|machine| {
            machine.tags.get("drover:pool").is_some_and(|tag| tag == pool)
                && !self.judge.booted.contains(&machine.id)
                && self.now.duration_since(machine.launched_at) >= STARTS_WITHIN
        })
    }

    /// L1 and L2; and a new job for each pool.
    pub(super) fn in_order(&mut self) {
        self.watch();
        for (job, pool) in self.waiting() {
            if self.used_up(job, &pool) || self.was_full(&pool) {
                self.judge.late.insert(job);
                if self.waits_for(job) >= PATIENCE_OF_AUTHORS && !self.is_told(job) {
                    self.violates(format!(
                        "L4: job {job} of pool {pool} waits for 20 minutes, and nobody told its author"
                    ));
                }
            } else {
                self.violates(format!("L1: job {job} of pool {pool} still waits, 20 minutes after all faults stopped"));
            }
        }
        if let Some(left) = self.left_over(SignedDuration::from_mins(12)).into_iter().next() {
            self.violates(format!("L2: {left} is still there, 20 minutes after all faults stopped"));
        }
        let late: BTreeSet<String> = self.waiting().into_iter().map(|(_, pool)| pool).collect();
        for pool in self.shape.pools.clone() {
            if late.contains(pool.name.as_str()) || self.has_a_dead_machine(pool.name.as_str()) {
                // What waits there would take the new job's machine; or the new job is the first to need a dead one.
                continue;
            }
            let (repository, labels) = match pool.name.as_str() {
                "linux" => ((ORGANIZATION, "widgets"), vec!["linux"]),
                "big" => ((ORGANIZATION, "widgets"), vec!["big"]),
                _ => ((OTHER, "tools"), vec!["arm"]),
            };
            let job = self.universe.github(|github, now| {
                let repository = github.find_repository(repository.0, repository.1).expect("of this world").id;
                let runs_for = Duration::from_secs(20);
                github.queue_job(github::QueueJob { runs_for, ..github::QueueJob::new(repository, &labels) }, now)
            });
            self.world_tells(|| format!("job {job} is queued to see whether pool {} works", pool.name));
            self.probes.push(job);
        }
        self.plan_in(STARTS_WITHIN, Due::Started);
    }

    /// L3.
    pub(super) fn started(&mut self) {
        for probe in self.probes.clone() {
            let started =
                self.universe.github(|github, _| github.job(probe).is_some_and(|job| !job.history.started.is_empty()));
            if !started {
                self.violates(format!("L3: job {probe} has not started within 3 minutes, though nothing goes wrong"));
            }
        }
        self.plan_in(LEAVES_WITHIN, Due::Over);
    }

    /// Every job is over, nothing is left, and the log tells what the table says.
    pub(super) fn over(&mut self) {
        let late = self.waiting();
        let patience = self.calm_since.expect("it is calm") + LATE_AT_MOST;
        if !late.is_empty() && self.now < patience {
            self.plan_in(SignedDuration::from_mins(5), Due::Over);
            return;
        }
        for (job, pool) in late {
            self.violates(format!("L1: job {job} of pool {pool} was never served"));
        }
        if let Some(left) = self.left_over(SignedDuration::from_mins(12)).into_iter().next() {
            self.violates(format!("L2: {left} is still there when everything is over"));
        }
        let killed = self.universe.github(|github, _| {
            let mut killed = github
                .killed()
                .filter(|job| !job.history.started.iter().any(|start| self.judge.ended_by_ec2.contains(&start.runner)));
            killed.next().map(|job| job.id)
        });
        if let Some(job) = killed {
            self.violates(format!("L1: job {job} was killed, and not by EC2"));
        }
        if let Some(difference) = self.universe.store.unfolded().into_iter().next() {
            self.violates(format!("log: {difference}"));
        }
        self.over = true;
    }

    pub(super) fn outcome(mut self) -> Outcome {
        // Invocations borrow the universe; they end before it does.
        self.invocations.clear();
        let machines = self.count_machines();
        let (jobs, waited) = self.universe.github(|github, _| {
            let waited = github
                .jobs()
                .filter(|job| !self.judge.foreign.contains(&job.id) && !self.judge.gated.contains(&job.id))
                .filter_map(|job| Some(job.history.started.first()?.at.duration_since(*job.history.queued.first()?)))
                .collect();
            (github.jobs().count(), waited)
        });
        Outcome {
            seed: self.options.seed,
            digest: self.digest,
            jobs,
            steps: self.steps,
            struck: self.dice.struck,
            reach: self.reach,
            machines,
            waited,
            converged: self.judge.converged,
            late: self.judge.late.len() as u64,
            violation: self.violation,
            story: self.story,
        }
    }

    fn count_machines(&self) -> Machines {
        let state = self.universe.state();
        let mut machines = Machines::default();
        for machine in state.ec2.instances() {
            let Some(pool) = self
                .shape
                .pools
                .iter()
                .find(|pool| machine.tags.get("drover:pool").map(String::as_str) == Some(pool.name.as_str()))
            else {
                continue;
            };
            machines.launched += 1;
            let configured = state.configured.contains_key(&machine.id);
            if self.judge.used.contains(&machine.id) {
                machines.used += 1;
            } else if self.judge.spoilt.contains(&machine.id)
                || (configured && !self.judge.booted.contains(&machine.id))
            {
                machines.spoilt += 1;
            } else if pool.warm > 0 && !configured {
                machines.warm += 1;
            }
        }
        for job in state.github.jobs() {
            let on_ours = job.history.started.iter().any(|start| start.name.starts_with("drover_sim_"));
            let elsewhere = !job.history.started.is_empty() && !on_ours;
            let cancelled = self.judge.cancelled.contains(&job.id) && job.history.started.is_empty();
            if !self.judge.foreign.contains(&job.id) && (elsewhere || cancelled) {
                machines.excused += 1;
            }
        }
        let idle = machines.launched - machines.used - machines.spoilt - machines.warm;
        machines.extra = idle.saturating_sub(machines.excused);
        machines
    }
}
