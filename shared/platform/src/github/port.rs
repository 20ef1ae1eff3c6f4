//! The engine's port on the app.

use std::time::Duration;

use async_trait::async_trait;
use domain::ids::{JobId, Owner, Repository, RunId, RunnerId, Scope, StackName};
use domain::wire::JobNotice;
use engine::ports::{
    Budget, CheckRunUpdate, DeliveryPage, Deregistered, GitHub, GitHubError, NamedRunners, Registered, Registration,
    RepositoryPage, Rerun, RunJobs, RunReference, RunnerPage, RunsUnderWay,
};

use super::app::GitHubApp;

/// The longest call, with everything that it needs: the app's secret, a token, the answer's body. It is shorter than what
/// an invocation keeps in reserve, [`engine::context::RESERVE`].
const LONGEST_CALL: Duration = Duration::from_secs(7);

/// Makes a call, unless it takes too long. Then it may have had its effect.
async fn bounded<T>(call: impl Future<Output = Result<T, GitHubError>>) -> Result<T, GitHubError> {
    let in_time = tokio::time::timeout(LONGEST_CALL, call).await;
    in_time.unwrap_or_else(|_| Err(GitHubError::unavailable(format!("no answer within {} s", LONGEST_CALL.as_secs()))))
}

#[async_trait]
impl GitHub for GitHubApp {
    async fn register(&self, registration: &Registration) -> Result<Registered, GitHubError> {
        bounded(self.register_runner(registration)).await
    }

    async fn runners(&self, scope: &Scope, stack: &StackName, page: usize) -> Result<RunnerPage, GitHubError> {
        bounded(self.list_runners(scope, stack, page)).await
    }

    async fn runners_named(&self, scope: &Scope, name: &str) -> Result<NamedRunners, GitHubError> {
        bounded(self.find_runners(scope, name)).await
    }

    async fn deregister(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError> {
        bounded(self.remove_runner(scope, runner)).await
    }

    async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError> {
        bounded(self.read_job(repository, job)).await
    }

    async fn repositories(&self, owner: &Owner, page: usize) -> Result<RepositoryPage, GitHubError> {
        bounded(self.list_repositories(owner, page)).await
    }

    async fn run_jobs(&self, repository: &Repository, run: RunId) -> Result<RunJobs, GitHubError> {
        bounded(self.list_run_jobs(repository, run)).await
    }

    async fn is_run_over(&self, run: &RunReference) -> Result<bool, GitHubError> {
        bounded(self.read_whether_run_is_over(run)).await
    }

    async fn runs_under_way(&self, repository: &Repository) -> Result<RunsUnderWay, GitHubError> {
        bounded(self.list_runs_under_way(repository)).await
    }

    async fn deliveries(&self, from: Option<&str>) -> Result<DeliveryPage, GitHubError> {
        bounded(self.list_deliveries(from)).await
    }

    async fn redeliver(&self, attempt: u64) -> Result<(), GitHubError> {
        bounded(GitHubApp::redeliver(self, attempt)).await
    }

    async fn write_check_run(&self, update: &CheckRunUpdate) -> Result<u64, GitHubError> {
        bounded(self.put_check_run(update)).await
    }

    async fn rerun(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError> {
        bounded(self.rerun_job(repository, job)).await
    }

    fn note_installation(&self, owner: &Owner, installation: u64) {
        self.remember_installation(owner, installation);
    }

    fn budget(&self, owner: &Owner) -> Option<Budget> {
        self.budget_of(owner)
    }
}
