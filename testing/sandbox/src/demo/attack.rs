//! An attacker who may write to a repository that the pools serve, and to another one of the same organisation.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::ports::Clock;
use platform::clock::SystemClock;
use tokio::task::JoinHandle;
use world::github::{Conclusion, JobEvent, JobId, JobState, Operator, QueueJob, RunnerId, Scope, Steps};

use super::pools::Target;
use crate::names::FOREIGN_REPOSITORY;
use crate::pace::PATIENCE;
use crate::sandbox::Sandbox;
use crate::state::State;

/// Labels that could do harm in a shell, a path, a key or a terminal.
const HOSTILE_LABELS: [&str; 6] = ["$(reboot)", "`id`", "a;b|c", "../../POOL#linux", "\u{1b}[2J", "' OR 1=1 --"];

/// Jobs with each hostile label.
const JOBS_PER_LABEL: usize = 5;

/// Jobs of one repository that are cancelled as soon as Drover knows them.
const CANCELLED: usize = 12;

/// Registrations whose names the attacker uses, too.
const MOST_CLASHES: usize = 8;

/// Runners whose jobs the attacker reports as ended.
const MOST_FORGED: usize = 4;

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
    /// Forged ends of jobs of others.
    forged: Arc<Mutex<usize>>,
    tasks: [JoinHandle<()>; 2],
}

impl Attack {
    /// Begins before other jobs are pushed, so that the attacker's jobs wait longest and get the first runners.
    pub(super) async fn begin(sandbox: &Sandbox, target: &Target, jobs: usize) -> anyhow::Result<Self> {
        let labels: Vec<&str> = target.labels.iter().map(String::as_str).collect();
        let owner = target.repository.split('/').next().unwrap_or_default().to_owned();
        let elsewhere = format!("{owner}/{FOREIGN_REPOSITORY}");
        let unconditional = |job: QueueJob| QueueJob { steps: Steps::Unconditional, ..job };
        let foreign: Vec<JobId> =
            (0..jobs.div_ceil(4)).map(|_| sandbox.queue(&elsewhere, &labels, unconditional)).collect();
        let clashes = Arc::default();
        let forged = Arc::default();
        let tasks = [
            register_names_of_ours(sandbox, owner, Arc::clone(&clashes)),
            forge_ends(sandbox, foreign[0], Arc::clone(&forged)),
        ];
        let queue = |labels: &[&str]| sandbox.queue_job(&target.repository, labels, Duration::from_secs(3600));
        let mut hostile = Vec::new();
        for label in HOSTILE_LABELS {
            hostile.extend((0..JOBS_PER_LABEL).map(|_| queue(&[labels[0], label])));
        }
        let cancelled: Vec<JobId> = (0..CANCELLED).map(|_| queue(&labels)).collect();
        let attack = Self { foreign, hostile, cancelled, clashes, forged, tasks };
        let sent = |state: &State| {
            let sent: BTreeSet<JobId> =
                state.github.deliveries().filter(|it| it.attempted.is_some()).map(|it| it.event.job.id).collect();
            attack.cancelled.iter().all(|job| sent.contains(job)).then_some(())
        };
        sandbox.world.until("the deliveries of the jobs to cancel", PATIENCE, sent).await?;
        sandbox.world.act(|state, now| attack.cancelled.iter().for_each(|job| state.github.cancel(*job, now)));
        Ok(attack)
    }

    /// Every job of the attacker.
    pub(super) fn jobs(&self) -> Vec<JobId> {
        let clashes = self.clashes.lock().expect("nobody panics while holding it").clone();
        [&self.foreign, &self.hostile, &self.cancelled, &clashes].into_iter().flatten().copied().collect()
    }

    /// What happened, and how often.
    pub(super) fn happened(&self, state: &State) -> [(&'static str, usize); 5] {
        let refused = |id: &&JobId| state.github.job(**id).is_some_and(|job| job.history.killed.is_some());
        [
            ("foreign jobs that a machine refused", self.foreign.iter().filter(refused).count()),
            ("jobs with hostile labels", self.hostile.len()),
            ("jobs cancelled in a storm", self.cancelled.len()),
            ("forged ends of running jobs", *self.forged.lock().expect("nobody panics while holding it")),
            ("runners of others with our names", self.clashes.lock().expect("nobody panics while holding it").len()),
        ]
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
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
fn forge_ends(sandbox: &Sandbox, own: JobId, forged: Arc<Mutex<usize>>) -> JoinHandle<()> {
    let (world, webhooks) = (sandbox.world.clone(), sandbox.webhooks.clone());
    tokio::spawn(async move {
        let mut changed = world.changed();
        let mut done: BTreeSet<RunnerId> = BTreeSet::new();
        while done.len() < MOST_FORGED && changed.changed().await.is_ok() {
            let running = |state: &State| {
                let busy = state.github.jobs().filter_map(|job| match &job.state {
                    JobState::InProgress { runner } if job.id != own && !done.contains(&runner.id) => {
                        Some(runner.clone())
                    }
                    JobState::InProgress { .. }
                    | JobState::Waiting
                    | JobState::Queued { .. }
                    | JobState::Completed { .. } => None,
                });
                let mut of_ours =
                    busy.filter(|on| state.github.runner(on.id).is_some_and(|it| it.operator == Operator::Process));
                let runner = of_ours.next()?;
                let job = state.github.job(own)?;
                let repository = state.github.repository(job.repository)?.clone();
                let owner = state.github.owner(repository.owner)?.clone();
                Some((runner, job.clone(), repository, owner))
            };
            let Some((runner, job, repository, owner)) = world.look(running) else { continue };
            done.insert(runner.id);
            let began = JobState::InProgress { runner: runner.clone() };
            let ended = JobState::Completed { conclusion: Conclusion::Success, runner: Some(runner) };
            for (action, state) in [("in_progress", began), ("completed", ended)] {
                let at = SystemClock.now();
                let mut job = job.clone();
                (job.id, job.state, job.started_at) = (JobId(FORGED_ID + done.len() as u64), state, Some(at));
                job.completed_at = (action == "completed").then_some(at);
                let (repository, owner) = (repository.clone(), owner.clone());
                let event = JobEvent { action, at, job, head_sha: "0".repeat(40), repository, owner };
                webhooks.post_forged(&event).await;
            }
            *forged.lock().expect("nobody panics while holding it") += 1;
        }
    })
}
