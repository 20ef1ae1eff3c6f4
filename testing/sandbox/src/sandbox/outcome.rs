//! What the models of EC2 and GitHub say about the outcome.

use std::time::Duration;

use anyhow::{Context, ensure};
use domain::ids::PoolName;
use domain::state::{Instance, Item, Key, Ownership, SlotState};
use engine::ports::{Clock, Store};
use platform::clock::SystemClock;
use tokio::time::timeout;
use world::ec2;
use world::github::{self, JobId, Operator};

use super::Sandbox;
use crate::names::{FOREIGN_REPOSITORY, QUEUE};
use crate::pace::PATIENCE;
use crate::state::State;

impl Sandbox {
    /// The number of live machines and of registrations.
    pub fn leftovers(&self) -> (usize, usize) {
        self.world.look(leftovers)
    }

    /// Waits until each job was served exactly once, no machine or registration is left, and all deliveries are consumed.
    ///
    /// # Errors
    /// If that takes too long, or Drover killed a job.
    pub async fn reconcile(&self, jobs: &[JobId], patience: Duration) -> anyhow::Result<()> {
        let served = |state: &State| {
            let once = jobs.iter().all(|id| state.github.job(*id).is_some_and(github::Job::served_once));
            let delivered = state.github.deliveries().all(|delivery| delivery.attempted.is_some());
            (once && delivered && leftovers(state) == (0, 0) && state.sqs.bodies(QUEUE).is_empty()).then_some(())
        };
        let waited = self.world.until("every job served once, no machine or registration left", patience, served).await;
        let killed = self.killed_by_us();
        ensure!(killed.is_empty(), "Drover terminated the machines of running jobs: {killed:?}");
        waited
    }

    /// Waits until each job runs and Drover has recorded it, ends the jobs, and waits until nothing is left.
    ///
    /// A job that ends before `in_progress` is recorded is served by a second machine: until then Drover assumes that the first
    /// one had none. So tests that count machines queue jobs with a long run time.
    ///
    /// # Errors
    /// See [`Sandbox::running`] and [`Sandbox::reconcile`].
    pub async fn serve(&self, jobs: &[JobId]) -> anyhow::Result<()> {
        for job in jobs {
            self.running(*job, PATIENCE).await?;
        }
        for job in jobs {
            self.finish(*job);
        }
        self.reconcile(jobs, PATIENCE).await
    }

    /// Waits until a job runs and its deliveries are consumed. Returns its machine.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn running(&self, job: JobId, patience: Duration) -> anyhow::Result<ec2::InstanceId> {
        let recorded = |state: &State| {
            let runner = state.github.job(job)?.history.started.last()?.runner;
            let delivered = state.github.deliveries().all(|delivery| delivery.attempted.is_some());
            (delivered && state.sqs.bodies(QUEUE).is_empty()).then(|| self.host_of(runner)).flatten()
        };
        self.world.until("a running job with all deliveries consumed", patience, recorded).await
    }

    /// The machine from which a runner connected.
    pub fn host_of(&self, runner: github::RunnerId) -> Option<ec2::InstanceId> {
        self.machines.host_of(runner)
    }

    /// Jobs that lost their machine while they ran, unless EC2 reclaimed it or the machine must not run them.
    pub fn killed_by_us(&self) -> Vec<JobId> {
        // Pools of the sandbox serve neither.
        let foreign = |state: &State, job: &github::Job| {
            let repository = state.github.repository(job.repository);
            repository.is_some_and(|it| it.name == FOREIGN_REPOSITORY || it.visibility == github::Visibility::Public)
        };
        let reclaimed = |state: &State, job: &github::Job| {
            let host = job.history.started.last().and_then(|start| self.host_of(start.runner));
            host.and_then(|host| state.ec2.instance(&host)?.end) == Some(ec2::EndCause::Ec2)
        };
        self.world.look(|state| {
            let killed = state.github.killed().filter(|job| !reclaimed(state, job) && !foreign(state, job));
            killed.map(|job| job.id).collect()
        })
    }

    /// Sweeps until an attempt returns something.
    ///
    /// # Errors
    /// If that takes too long, or the attempt or a sweep fails.
    pub async fn sweep_until<T>(
        &self,
        what: &str,
        mut attempt: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let sweeping = async {
            loop {
                if let Some(it) = attempt().await? {
                    return Ok(it);
                }
                self.sweep().await?;
            }
        };
        timeout(PATIENCE, sweeping)
            .await
            .with_context(|| format!("timed out after {PATIENCE:?}, sweeping for: {what}"))?
    }

    /// Sweeps until the table says that a machine of the pool is stopped and ready for a job.
    ///
    /// # Errors
    /// If that takes too long, or the table cannot be read.
    pub async fn ready(&self, pool: &PoolName) -> anyhow::Result<ec2::InstanceId> {
        let table = self.table().await;
        let ready = async || {
            let machine = |item: &Item| match item {
                Item::Slot(slot) => match &slot.state {
                    SlotState::Stopped(machine) if slot.is_ready(SystemClock.now()) => {
                        Some(machine.instance.as_str().into())
                    }
                    _ => None,
                },
                _ => None,
            };
            Ok(table.partition(pool).await?.items.iter().find_map(machine))
        };
        self.sweep_until("a stopped machine that is ready", ready).await
    }

    /// Sweeps until the table says that a machine is closed, and returns its item.
    ///
    /// # Errors
    /// If that takes too long, or the table cannot be read.
    pub async fn closed(&self, machine: &ec2::InstanceId) -> anyhow::Result<Instance> {
        let (table, key) = (self.table().await, Key::Instance(machine.as_str().into()));
        let closed = async || match table.get(&key).await? {
            Some(Item::Instance(it)) if matches!(it.ownership, Ownership::Closed { .. }) => Ok(Some(it)),
            _ => Ok(None),
        };
        self.sweep_until(&format!("{machine} closed"), closed).await
    }
}

fn leftovers(state: &State) -> (usize, usize) {
    let runners = state.github.registrations().filter(|it| it.operator == Operator::Process).count();
    (state.ec2.alive().count(), runners)
}
