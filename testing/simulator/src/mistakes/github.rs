//! Mistakes at GitHub's port.

use async_trait::async_trait;
use domain::ids::{JobId, Owner, Repository, RunId, RunnerId, RunnerName, Scope, StackName};
use domain::wire::JobNotice;
use engine::ports::{
    Budget, CheckRunUpdate, DeliveryAttempt, Deregistered, FoundJob, GitHub, GitHubError, ObservedRunner, Registered,
    Registration, Rerun,
};
use jiff::Timestamp;

use crate::mistakes::kinds::Mistake;
use crate::mistakes::ports::MistakenPorts;

#[async_trait]
impl GitHub for MistakenPorts<'_> {
    async fn register(&self, registration: &Registration) -> Result<Registered, GitHubError> {
        if self.mistake == Mistake::FixedName {
            let name = RunnerName { registration: 1, ..registration.name.clone() };
            return self.world.github.register(&Registration { name, ..registration.clone() }).await;
        }
        self.world.github.register(registration).await
    }

    async fn runners(&self, scope: &Scope, stack: &StackName) -> Result<Vec<ObservedRunner>, GitHubError> {
        self.world.github.runners(scope, stack).await
    }

    async fn deregister(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError> {
        if self.mistake == Mistake::TerminateFirst {
            return Ok(Deregistered::Removed);
        }
        match self.world.github.deregister(scope, runner).await {
            Ok(Deregistered::Busy) if self.mistake == Mistake::StaleBusy => Ok(Deregistered::Removed),
            answer => answer,
        }
    }

    async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError> {
        if self.mistake == Mistake::NoPolling {
            return Err(GitHubError::unavailable("not asked"));
        }
        self.world.github.job(repository, job).await
    }

    async fn run_jobs(&self, repository: &Repository, run: RunId) -> Result<Vec<JobNotice>, GitHubError> {
        self.world.github.run_jobs(repository, run).await
    }

    async fn jobs_under_way(&self, repository: &Repository) -> Result<Vec<FoundJob>, GitHubError> {
        self.world.github.jobs_under_way(repository).await
    }

    async fn deliveries(&self, since: Timestamp) -> Result<Vec<DeliveryAttempt>, GitHubError> {
        self.world.github.deliveries(since).await
    }

    async fn redeliver(&self, attempt: u64) -> Result<(), GitHubError> {
        self.world.github.redeliver(attempt).await
    }

    async fn write_check_run(&self, update: &CheckRunUpdate) -> Result<u64, GitHubError> {
        self.world.github.write_check_run(update).await
    }

    async fn rerun(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError> {
        self.world.github.rerun(repository, job).await
    }

    fn budget(&self, owner: &Owner) -> Option<Budget> {
        self.world.github.budget(owner)
    }
}
