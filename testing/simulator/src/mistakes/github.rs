//! Mistakes at GitHub's port.

use async_trait::async_trait;
use domain::ids::{JobId, Owner, Repository, RunId, RunnerId, RunnerName, Scope, StackName};
use domain::state::{Item, Key, Slot, SlotState};
use domain::wire::JobNotice;
use engine::ports::{
    Budget, CheckRunUpdate, DeliveryPage, Deregistered, GitHub, GitHubError, NamedRunners, Registered, Registration,
    RepositoryPage, Rerun, RunJobs, RunReference, RunnerPage, RunsUnderWay,
};

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

    async fn runners(&self, scope: &Scope, stack: &StackName, page: usize) -> Result<RunnerPage, GitHubError> {
        let answer = self.world.github.runners(scope, stack, page).await?;
        if self.mistake == Mistake::AllOrNothing && !answer.unreadable.is_empty() {
            return Err(GitHubError::unavailable("a runner has an unknown form"));
        }
        Ok(answer)
    }

    async fn runners_named(&self, scope: &Scope, name: &str) -> Result<NamedRunners, GitHubError> {
        let listed = self.world.github.runners_named(scope, name).await;
        if self.mistake != Mistake::TrustsNotFound {
            return listed;
        }
        // Without a list, the 404 alone is believed, whatever token it was answered to.
        let token = *self.memory.refused.lock().expect("no thread panics while it holds the lock");
        Ok(NamedRunners { scope: scope.clone(), name: name.to_owned(), token, ids: Vec::new() })
    }

    async fn deregister(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError> {
        if self.mistake == Mistake::TerminateFirst
            || self.mistake == Mistake::TrustsJobEnd && self.is_done(scope, runner).await
        {
            return Ok(Deregistered::Removed);
        }
        match self.world.github.deregister(scope, runner).await {
            Ok(Deregistered::Busy) if self.mistake == Mistake::StaleBusy => Ok(Deregistered::Removed),
            Ok(Deregistered::NotFound(token)) => {
                *self.memory.refused.lock().expect("no thread panics while it holds the lock") = token;
                Ok(Deregistered::NotFound(token))
            }
            answer => answer,
        }
    }

    async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError> {
        if self.mistake == Mistake::NoPolling {
            return Err(GitHubError::unavailable("not asked"));
        }
        self.world.github.job(repository, job).await
    }

    async fn repositories(&self, owner: &Owner, page: usize) -> Result<RepositoryPage, GitHubError> {
        self.world.github.repositories(owner, page).await
    }

    async fn run_jobs(&self, repository: &Repository, run: RunId) -> Result<RunJobs, GitHubError> {
        let answer = self.world.github.run_jobs(repository, run).await?;
        if self.mistake == Mistake::AllOrNothing && answer.unreadable > 0 {
            return Err(GitHubError::unavailable("a job has an unknown form"));
        }
        Ok(answer)
    }

    async fn is_run_over(&self, run: &RunReference) -> Result<bool, GitHubError> {
        self.world.github.is_run_over(run).await
    }

    async fn runs_under_way(&self, repository: &Repository) -> Result<RunsUnderWay, GitHubError> {
        self.world.github.runs_under_way(repository).await
    }

    async fn deliveries(&self, from: Option<&str>) -> Result<DeliveryPage, GitHubError> {
        let answer = self.world.github.deliveries(from).await?;
        if self.mistake == Mistake::AllOrNothing && answer.unreadable > 0 {
            return Err(GitHubError::unavailable("a delivery has an unknown form"));
        }
        Ok(answer)
    }

    async fn redeliver(&self, attempt: u64) -> Result<(), GitHubError> {
        self.world.github.redeliver(attempt).await
    }

    async fn write_check_run(&self, update: &CheckRunUpdate) -> Result<u64, GitHubError> {
        self.world.github.write_check_run(update).await
    }

    async fn rerun(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError> {
        if self.mistake == Mistake::NoRerun {
            return Ok(Rerun::Begun);
        }
        self.world.github.rerun(repository, job).await
    }

    fn budget(&self, owner: &Owner) -> Option<Budget> {
        self.world.github.budget(owner)
    }
}

impl MistakenPorts<'_> {
    /// Whether the table says that the job of the slot with this runner is done.
    async fn is_done(&self, scope: &Scope, runner: RunnerId) -> bool {
        let Ok(Some(Item::Config(config))) = self.world.store.get(&Key::Config).await else { return false };
        for pool in config.pools.iter().filter(|pool| pool.owner == *scope) {
            let items = self.world.store.partition(&pool.name).await.unwrap_or_default();
            let is_done = |item: &Item| match item {
                Item::Slot(Slot { state: SlotState::Done { runner: done, .. }, .. }) => done.runner_id == runner,
                _ => false,
            };
            if items.items.iter().any(is_done) {
                return true;
            }
        }
        false
    }
}
