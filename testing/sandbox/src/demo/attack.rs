//! An attacker who may write to a repository that the pools serve, and to another one of the same organisation.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use world::github::{JobId, Operator, QueueJob, RunnerId, Scope, Steps};

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
    task: JoinHandle<()>,
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
        let task = register_names_of_ours(sandbox, owner, Arc::clone(&clashes));
        let queue = |labels: &[&str]| sandbox.queue_job(&target.repository, labels, Duration::from_secs(3600));
        let mut hostile = Vec::new();
        for label in HOSTILE_LABELS {
            hostile.extend((0..JOBS_PER_LABEL).map(|_| queue(&[labels[0], label])));
        }
        let cancelled: Vec<JobId> = (0..CANCELLED).map(|_| queue(&labels)).collect();
        let attack = Self { foreign, hostile, cancelled, clashes, task };
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
    pub(super) fn happened(&self, state: &State) -> [(&'static str, usize); 4] {
        let refused = |id: &&JobId| state.github.job(**id).is_some_and(|job| job.history.killed.is_some());
        [
            ("foreign jobs that a machine refused", self.foreign.iter().filter(refused).count()),
            ("jobs with hostile labels", self.hostile.len()),
            ("jobs cancelled in a storm", self.cancelled.len()),
            ("runners of others with our names", self.clashes.lock().expect("nobody panics while holding it").len()),
        ]
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.task.abort();
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
