//! What the models of EC2 and GitHub say about the outcome.

use std::time::Duration;

use anyhow::{bail, ensure};
use domain::state::{Instance, Item, Key, Ownership};
use engine::ports::Store;
use world::ec2;
use world::github::{self, JobId, Operator};

use super::Sandbox;
use crate::names::QUEUE;
use crate::state::State;

impl Sandbox {
    /// What EC2 and GitHub say is left: machines that are not gone, registrations of processes.
    pub fn leftovers(&self) -> (usize, usize) {
        self.world.look(leftovers)
    }

    /// Waits until these jobs were served, each exactly once, nothing is left, and all of it was told and consumed.
    ///
    /// # Errors
    /// When that takes too long, or a job was killed.
    pub async fn reconcile(&self, jobs: &[JobId], patience: Duration) -> anyhow::Result<()> {
        let served = |state: &State| {
            let once = jobs.iter().all(|id| state.github.job(*id).is_some_and(github::Job::served_once));
            let told = state.github.deliveries().all(|delivery| delivery.attempted.is_some());
            (once && told && leftovers(state) == (0, 0) && state.sqs.bodies(QUEUE).is_empty()).then_some(())
        };
        let waited = self.world.until("all jobs served once, nothing left", patience, served).await;
        let killed = self.killed_by_us();
        ensure!(killed.is_empty(), "killed while running: {killed:?}");
        waited
    }

    /// Waits until a job runs, and until Drover has recorded what was told of it. Gives its machine.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn running(&self, job: JobId, patience: Duration) -> anyhow::Result<ec2::InstanceId> {
        let recorded = |state: &State| {
            let runner = state.github.job(job)?.history.started.last()?.runner;
            let told = state.github.deliveries().all(|delivery| delivery.attempted.is_some());
            (told && state.sqs.bodies(QUEUE).is_empty()).then(|| self.host_of(runner)).flatten()
        };
        self.world.until("the job to run", patience, recorded).await
    }

    /// The machine on which a runner is, or was.
    pub fn host_of(&self, runner: github::RunnerId) -> Option<ec2::InstanceId> {
        self.machines.host_of(runner)
    }

    /// Jobs whose machine was ended under them, and not by EC2.
    pub fn killed_by_us(&self) -> Vec<JobId> {
        let taken = |state: &State, job: &github::Job| {
            let host = job.history.started.last().and_then(|start| self.host_of(start.runner));
            host.and_then(|host| state.ec2.instance(&host)?.end) == Some(ec2::EndCause::Ec2)
        };
        self.world.look(|state| state.github.killed().filter(|job| !taken(state, job)).map(|job| job.id).collect())
    }

    /// Sweeps until nothing is left of a machine that is over, and gives what is known of it.
    ///
    /// # Errors
    /// When that takes too many sweeps, or the table cannot be read.
    pub async fn closed(&self, machine: &ec2::InstanceId) -> anyhow::Result<Instance> {
        let (table, key) = (self.table().await, Key::Instance(machine.as_str().into()));
        for _ in 0..100 {
            if let Some(Item::Instance(known)) = table.get(&key).await?
                && matches!(known.ownership, Ownership::Closed { .. })
            {
                return Ok(known);
            }
            self.sweep().await?;
        }
        bail!("{machine} is not closed after a hundred sweeps")
    }
}

fn leftovers(state: &State) -> (usize, usize) {
    let runners = state.github.registrations().filter(|it| it.operator == Operator::Process).count();
    (state.ec2.alive().count(), runners)
}
