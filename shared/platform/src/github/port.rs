//! The engine's port on the app.

use async_trait::async_trait;
use domain::ids::{JobId, Owner, Repository, RunId, RunnerId, Scope, StackName};
use domain::wire::JobNotice;
use engine::ports::{
    Budget, CheckRunUpdate, DeliveryAttempt, Deregistered, FoundJob, GitHub, GitHubError, ObservedRunner, Registered,
    Registration, Rerun,
};
use jiff::Timestamp;

use super::app::GitHubApp;

#[async_trait]
impl GitHub for GitHubApp {
    async fn register(&self, registration: &Registration) -> Result<Registered, GitHubError> {
        self.register_runner(registration).await
    }

    async fn runners(&self, scope: &Scope, stack: &StackName) -> Result<Vec<ObservedRunner>, GitHubError> {
        self.list_runners(scope, stack).await
    }

    async fn deregister(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError> {
        self.remove_runner(scope, runner).await
    }

    async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError> {
        self.read_job(repository, job).await
    }

    async fn run_jobs(&self, repository: &Repository, run: RunId) -> Result<Vec<JobNotice>, GitHubError> {
        self.list_run_jobs(repository, run).await
    }

    async fn jobs_under_way(&self, repository: &Repository) -> Result<Vec<FoundJob>, GitHubError> {
        self.find_jobs_under_way(repository).await
    }

    async fn deliveries(&self, since: Timestamp) -> Result<Vec<DeliveryAttempt>, GitHubError> {
        self.list_deliveries(since).await
    }

    async fn redeliver(&self, attempt: u64) -> Result<(), GitHubError> {
        GitHubApp::redeliver(self, attempt).await
    }

    async fn write_check_run(&self, update: &CheckRunUpdate) -> Result<u64, GitHubError> {
        self.put_check_run(update).await
    }

    async fn rerun(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError> {
        self.rerun_job(repository, job).await
    }

    fn budget(&self, owner: &Owner) -> Option<Budget> {
        self.budget_of(owner)
    }
}
