//! An attacker who may write to a repository that the pools serve, and to another one of the same organisation.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use engine::ports::Clock;
use jiff::SignedDuration;
use platform::clock::SystemClock;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use world::github::{Conclusion, JobEvent, JobId, JobState, Operator, QueueJob, RunnerId, Scope, Steps};

use super::delay::{Comparison, Delay};
use super::pools::{AttackPools, Target};
use crate::names::FOREIGN_REPOSITORY;
use crate::pace::PATIENCE;
use crate::sandbox::Sandbox;
use crate::short_timings::short_timings;
use crate::state::State;

/// Labels that could do harm in a shell, a path, a key or a terminal.
const HOSTILE_LABELS: [&str; 6] = ["$(reboot)", "`id`", "a;b|c", "../../POOL#linux", "\u{1b}[2J", "' OR 1=1 --"];

/// Jobs with each hostile label.
const JOBS_PER_LABEL: usize = 5;

/// Jobs of one repository that are cancelled as soon as Drover knows them.
const CANCELLED: usize = 12;

/// Registrations whose names the attacker uses, too.
const MOST_CLASHES: usize = 8;

/// Jobs of others of which the attacker reports that their runner's job has ended.
const VICTIMS: usize = 2;

/// Jobs of one repository that are queued at once.
const FLOOD: usize = 200;

/// The forged jobs have ids from here on, which the model does not use.
const FORGED_ID: u64 = 9_000_000_000;

/// The label of the attacker's own runners.
const OWN_LABEL: &str = "clash";

/// The attack, which lasts until it is dropped.
pub(super) struct Attack {
    /// Jobs of a repository that the pools do not serve, with the labels of a pool.
    foreign: Vec<JobId>,
    hostile: Vec<JobId>,
    cancelled: Vec<JobId>,
    /// Jobs that ran on the attacker's runners.
    clashes: Arc<Mutex<Vec<JobId>>>,
    /// Jobs of others that run until [`Attack::end`].
    victims: Vec<JobId>,
    flood: Vec<JobId>,
    comparison: Comparison,
    clash: JoinHandle<()>,
    /// Returns the number of forged ends.
    forge: JoinHandle<usize>,
    forged: usize,
}

impl Attack {
    /// Begins before other jobs are pushed, so that the attacker's jobs wait longest and get the first runners. Before that, it
    /// measures how long jobs wait while nobody attacks.
    pub(super) async fn begin(
        sandbox: &Sandbox,
        target: &Target,
        pools: &AttackPools,
        jobs: usize,
    ) -> anyhow::Result<Self> {
        let mut comparison = Comparison::run_undisturbed(sandbox, pools).await?;
        let labels: Vec<&str> = target.labels.iter().map(String::as_str).collect();
        let owner = target.repository.split('/').next().unwrap_or_default().to_owned();
        let elsewhere = format!("{owner}/{FOREIGN_REPOSITORY}");
        let unconditional = |job: QueueJob| QueueJob { steps: Steps::Unconditional, ..job };
        let foreign: Vec<JobId> =
            (0..jobs.div_ceil(4)).map(|_| sandbox.queue(&elsewhere, &labels, unconditional)).collect();
        let clashes = Arc::default();
        let clash = register_names_of_ours(sandbox, owner, Arc::clone(&clashes));
        let queue = |labels: &[&str]| sandbox.queue_job(&target.repository, labels, Duration::from_secs(3600));
        let victims: Vec<JobId> = (0..VICTIMS).map(|_| queue(&labels)).collect();
        let forge = forge_ends(sandbox, foreign[0], victims.clone());
        let mut hostile = Vec::new();
        for label in HOSTILE_LABELS {
            hostile.extend((0..JOBS_PER_LABEL).map(|_| queue(&[labels[0], label])));
        }
        let cancelled: Vec<JobId> = (0..CANCELLED).map(|_| queue(&labels)).collect();
        let sent = |state: &State| {
            let sent: BTreeSet<JobId> =
                state.github.deliveries().filter(|it| it.attempted.is_some()).map(|it| it.event.job.id).collect();
            cancelled.iter().all(|job| sent.contains(job)).then_some(())
        };
        sandbox.world.until("the deliveries of the jobs to cancel", PATIENCE, sent).await?;
        sandbox.world.act(|state, now| cancelled.iter().for_each(|job| state.github.cancel(*job, now)));
        let repository = pools.flooded.repository.to_string();
        let runs_for = Duration::from_millis(200);
        let flood = (0..FLOOD).map(|_| sandbox.queue_job(&repository, &[pools.flooded.label], runs_for)).collect();
        comparison.queue_beside(sandbox);
        Ok(Self { foreign, hostile, cancelled, clashes, victims, flood, comparison, clash, forge, forged: 0 })
    }

    /// Waits until Drover had time to act on the forged ends, and ends the jobs that they were about. Returns these and the
    /// measured jobs: they must be served as any other job.
    pub(super) async fn end(&mut self, sandbox: &Sandbox) -> anyhow::Result<Vec<JobId>> {
        self.forged = timeout(PATIENCE, &mut self.forge).await.context("the jobs to attack do not run")??;
        // A machine whose job is done is retired after this time.
        let grace = short_timings().into_iter().find_map(|(name, time)| (name == "done_grace").then_some(time));
        let grace: SignedDuration = grace.context("there is no done_grace")?.parse()?;
        let acted = SystemClock.now() + grace + grace;
        while SystemClock.now() < acted {
            // A sweep that finds another one running does nothing.
            let _ = sandbox.sweep().await;
        }
        let killed = sandbox.killed_by_us();
        ensure!(killed.is_empty(), "Drover terminated the machines of running jobs: {killed:?}");
        self.victims.iter().for_each(|job| sandbox.finish(*job));
        Ok(self.victims.iter().copied().chain(self.comparison.jobs()).collect())
    }

    pub(super) fn delay(&self, sandbox: &Sandbox, state: &State) -> Option<Delay> {
        self.comparison.delay(sandbox, state)
    }

    /// Every job that the attacker queued for themselves.
    pub(super) fn jobs(&self) -> Vec<JobId> {
        let clashes = self.clashes.lock().expect("nobody panics while holding it").clone();
        [&self.foreign, &self.hostile, &self.cancelled, &self.flood, &clashes].into_iter().flatten().copied().collect()
    }

    /// What happened, and how often.
    pub(super) fn happened(&self, state: &State) -> [(&'static str, usize); 6] {
        let refused = |id: &&JobId| state.github.job(**id).is_some_and(|job| job.history.killed.is_some());
        [
            ("foreign jobs that a machine refused", self.foreign.iter().filter(refused).count()),
            ("jobs with hostile labels", self.hostile.len()),
            ("jobs cancelled in a storm", self.cancelled.len()),
            ("forged ends of running jobs", self.forged),
            ("jobs of a flood by one repository", self.flood.len()),
            ("runners of others with our names", self.clashes.lock().expect("nobody panics while holding it").len()),
        ]
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.clash.abort();
        self.forge.abort();
    }
}

/// Registers runners with the names of Drover's in the attacker's repository and runs a job on each, so that GitHub sends
/// signed webhooks with these names.
fn register_names_of_ours(sandbox: &Sandbox, owner: String, clashes: Arc<Mutex<Vec<JobId>>>) -> JoinHandle<()> {
    let world = sandbox.world.clone();
    tokio::spawn(async move {
        let mut changed = world.changed();
        let mut used: BTreeSet<RunnerId> = BTreeSet::new();
        while used.len() < MOST_CLASHES && changed.changed().await.is_ok() {
            let fresh = |state: &State| {
                let ours = state.github.registrations().filter(|it| it.operator == Operator::Process);
                let mut fresh = ours.filter(|it| !used.contains(&it.id)).map(|it| (it.id, it.name.clone()));
                fresh.next()
            };
            let Some((id, name)) = world.look(fresh) else { continue };
            used.insert(id);
            let job = world.act(|state, now| {
                let scope = Scope::repository(&owner, FOREIGN_REPOSITORY);
                state.github.add_foreign_runner(scope, &name, &[OWN_LABEL], now);
                let repository = state.github.find_repository(&owner, FOREIGN_REPOSITORY)?.id;
                let runs_for = Duration::from_millis(100);
                Some(state.github.queue_job(QueueJob { runs_for, ..QueueJob::new(repository, &[OWN_LABEL]) }, now))
            });
            clashes.lock().expect("nobody panics while holding it").extend(job);
        }
    })
}

/// Forges signed events that a job of the attacker's repository began and ended on a runner with name and id of one of
/// Drover's. GitHub counts ids per scope, so the attacker can make a runner of his own with the same id.
fn forge_ends(sandbox: &Sandbox, own: JobId, mut victims: Vec<JobId>) -> JoinHandle<usize> {
    let (world, webhooks) = (sandbox.world.clone(), sandbox.webhooks.clone());
    tokio::spawn(async move {
        let mut changed = world.changed();
        let mut forged = 0;
        while !victims.is_empty() && changed.changed().await.is_ok() {
            let running = |state: &State| {
                let mut busy = victims.iter().filter_map(|id| match &state.github.job(*id)?.state {
                    JobState::InProgress { runner } => Some((*id, runner.clone())),
                    JobState::Waiting | JobState::Queued { .. } | JobState::Completed { .. } => None,
                });
                let (victim, runner) = busy.next()?;
                let job = state.github.job(own)?;
                let repository = state.github.repository(job.repository)?.clone();
                let owner = state.github.owner(repository.owner)?.clone();
                Some((victim, runner, job.clone(), repository, owner))
            };
            let Some((victim, runner, job, repository, owner)) = world.look(running) else { continue };
            victims.retain(|it| *it != victim);
            forged += 1;
            let began = JobState::InProgress { runner: runner.clone() };
            let ended = JobState::Completed { conclusion: Conclusion::Success, runner: Some(runner) };
            for (action, state) in [("in_progress", began), ("completed", ended)] {
                let at = SystemClock.now();
                let mut job = job.clone();
                (job.id, job.state, job.started_at) = (JobId(FORGED_ID + forged as u64), state, Some(at));
                job.completed_at = (action == "completed").then_some(at);
                let (repository, owner) = (repository.clone(), owner.clone());
                let event = JobEvent { action, at, job, head_sha: "0".repeat(40), repository, owner };
                webhooks.post_forged(&event).await;
            }
        }
        forged
    })
}
