//! GitHub's port.

use async_trait::async_trait;
use domain::ids::{DeliveryId, JobId, Owner, Repository, RunId, RunnerId, RunnerName, Scope, StackName};
use domain::wire::JobNotice;
use engine::ports::{
    Budget, CheckRunUpdate, DeliveryAttempt, Deregistered, FoundJob, GitHub, GitHubError, ObservedRunner, Registered,
    Registration, Rerun,
};
use jiff::Timestamp;
use world::github::{self, Answer, CheckOutput, CheckRunChange, CheckRunId, GroupId, JitRequest, Paging};

use crate::call::Call;
use crate::universe::Universe;
use crate::universe::notices::job_notice;
use crate::universe::state::State;

fn model_scope(scope: &Scope) -> github::Scope {
    match scope {
        Scope::Organization(owner) => github::Scope::organization(owner.as_str()),
        Scope::Repository(repository) => github::Scope::repository(repository.owner.as_str(), repository.name()),
    }
}

fn port_error(error: github::Failure, now: Timestamp) -> GitHubError {
    match error {
        github::Failure::Unauthorized | github::Failure::Forbidden(_) => GitHubError::Denied(error.to_string().into()),
        github::Failure::NotFound | github::Failure::Unprocessable(_) => GitHubError::Refused(error.to_string().into()),
        github::Failure::Conflict(_) => GitHubError::NameTaken,
        github::Failure::PrimaryLimit { reset } => {
            GitHubError::Limited { until: reset.max(now), message: error.to_string() }
        }
        github::Failure::SecondaryLimit { until } => GitHubError::Limited { until, message: error.to_string() },
        github::Failure::Broken(_) | github::Failure::NoReply => GitHubError::unavailable(error.to_string()),
    }
}

#[async_trait]
impl GitHub for Universe {
    async fn register(&self, registration: &Registration) -> Result<Registered, GitHubError> {
        let register = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(registration.scope.owner().as_str()));
            let request = JitRequest {
                name: registration.name.to_string(),
                group: GroupId(registration.group),
                labels: registration.labels.iter().map(|label| label.as_str().to_owned()).collect(),
            };
            state
                .github
                .generate_jit(installation, &model_scope(&registration.scope), request, now)
                .map(|made| {
                    state.secrets.insert(made.secret.clone(), made.runner.id);
                    Registered { runner_id: RunnerId(made.runner.id.0), jit_config: made.secret }
                })
                .map_err(|error| port_error(error, now))
        };
        self.steps.around(|| Call::GenerateJitConfig(registration.name.clone()), register).await
    }

    async fn runners(&self, scope: &Scope, stack: &StackName) -> Result<Vec<ObservedRunner>, GitHubError> {
        let list = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(scope.owner().as_str()));
            let prefix = RunnerName::prefix(stack);
            let mut found = Vec::new();
            for page in 1.. {
                let paging = Paging { page, per_page: 100 };
                let listed = state
                    .github
                    .list_runners(installation, &model_scope(scope), None, paging, now)
                    .map_err(|error| port_error(error, now))?;
                if listed.items.is_empty() {
                    break;
                }
                found.extend(listed.items.into_iter().filter(|runner| runner.name.starts_with(&prefix)).map(
                    |runner| ObservedRunner {
                        id: RunnerId(runner.id.0),
                        name: runner.name,
                        online: runner.online,
                        busy: runner.job.is_some(),
                    },
                ));
            }
            Ok(found)
        };
        self.steps.around(|| Call::ListRunners(scope.clone()), list).await
    }

    async fn deregister(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError> {
        let delete = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(scope.owner().as_str()));
            match state.github.delete_runner(installation, &model_scope(scope), github::RunnerId(runner.0), now) {
                Ok(()) => Ok(Deregistered::Removed),
                Err(github::Failure::NotFound) => Ok(Deregistered::AlreadyGone),
                Err(github::Failure::Unprocessable(_)) => Ok(Deregistered::Busy),
                Err(error) => Err(port_error(error, now)),
            }
        };
        self.steps.around(|| Call::DeleteRunner(runner), delete).await
    }

    async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError> {
        let look = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(repository.owner.as_str()));
            let (owner, name) = (repository.owner.as_str(), repository.name());
            match state.github.get_job(installation, owner, name, github::JobId(job.0), now) {
                Ok(job) => Ok(Some(state.notice_of(&job))),
                Err(github::Failure::NotFound) => Ok(None),
                Err(error) => Err(port_error(error, now)),
            }
        };
        self.steps.around(|| Call::GetJob(job), look).await
    }

    async fn run_jobs(&self, repository: &Repository, run: RunId) -> Result<Vec<JobNotice>, GitHubError> {
        let look = || {
            let mut state = self.state();
            let now = state.now;
            let jobs = state.jobs_of(repository, github::RunId(run.0)).map_err(|error| port_error(error, now))?;
            Ok(jobs.iter().map(|job| state.notice_of(job)).collect())
        };
        self.steps.around(|| Call::ListRunJobs(run), look).await
    }

    async fn jobs_under_way(&self, repository: &Repository) -> Result<Vec<FoundJob>, GitHubError> {
        let look = || {
            let mut state = self.state();
            let now = state.now;
            state.under_way(repository).map_err(|error| port_error(error, now))
        };
        self.steps.around(|| Call::ListRuns(repository.clone()), look).await
    }

    async fn deliveries(&self, since: Timestamp) -> Result<Vec<DeliveryAttempt>, GitHubError> {
        let look = || {
            let mut state = self.state();
            let now = state.now;
            let mut attempts = Vec::new();
            let mut cursor = None;
            loop {
                let (page, next) = state
                    .github
                    .list_deliveries(100, cursor.as_deref(), now)
                    .map_err(|error| port_error(error, now))?;
                for delivery in page {
                    let Some(attempted) = delivery.attempted else { continue };
                    if attempted.at < since {
                        return Ok(attempts);
                    }
                    attempts.push(DeliveryAttempt {
                        id: delivery.id.0,
                        guid: DeliveryId::from(delivery.guid.as_str()),
                        delivered_at: attempted.at,
                        redelivery: delivery.redelivery,
                        succeeded: matches!(attempted.answer, Answer::Status(200..300)),
                        about_a_job: true,
                    });
                }
                match next {
                    Some(next) => cursor = Some(next),
                    None => return Ok(attempts),
                }
            }
        };
        self.steps.around(|| Call::ListDeliveries, look).await
    }

    async fn redeliver(&self, attempt: u64) -> Result<(), GitHubError> {
        let again = || {
            let mut state = self.state();
            let now = state.now;
            state.github.redeliver(github::DeliveryId(attempt), now).map_err(|error| port_error(error, now))
        };
        self.steps.around(|| Call::Redeliver(attempt), again).await
    }

    async fn write_check_run(&self, update: &CheckRunUpdate) -> Result<u64, GitHubError> {
        let write = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(update.repository.owner.as_str()));
            let (owner, name) = (update.repository.owner.as_str(), update.repository.name());
            let output = CheckOutput { title: update.title.clone(), summary: update.summary.clone() };
            let change = CheckRunChange {
                name: Some("Drover".to_owned()),
                external_id: Some(update.external_id.clone()),
                status: Some("completed".to_owned()),
                conclusion: Some(update.conclusion.as_str().to_owned()),
                details_url: None,
                output: Some(output),
            };
            let github = &mut state.github;
            let run = match update.check_run {
                Some(id) => github.update_check_run(installation, owner, name, CheckRunId(id), change, now),
                None => github.create_check_run(installation, owner, name, &update.head_sha, change, now),
            };
            run.map(|run| run.id.0).map_err(|error| port_error(error, now))
        };
        self.steps.around(|| Call::CheckRun(update.external_id.clone()), write).await
    }

    async fn rerun(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError> {
        let again = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(repository.owner.as_str()));
            let (owner, name) = (repository.owner.as_str(), repository.name());
            match state.github.rerun_job(installation, owner, name, github::JobId(job.0), now) {
                Ok(_) => Ok(Rerun::Begun),
                Err(github::Failure::Forbidden(why)) if why.contains("already running") => Ok(Rerun::RunUnderWay),
                Err(error) => Err(port_error(error, now)),
            }
        };
        self.steps.around(|| Call::Rerun(job), again).await
    }

    fn budget(&self, owner: &Owner) -> Option<Budget> {
        let mut state = self.state();
        let (now, installation) = (state.now, state.installation_of(owner.as_str()));
        let rate = state.github.rate(github::Caller::Installation(installation), now);
        Some(Budget { remaining: rate.limit.saturating_sub(rate.used), limit: rate.limit })
    }
}

impl State {
    fn notice_of(&self, job: &github::Job) -> JobNotice {
        job_notice(job, self.github.run(job.run).map(|run| run.head_sha.as_str()).unwrap_or_default())
    }

    fn jobs_of(&mut self, repository: &Repository, run: github::RunId) -> Result<Vec<github::Job>, github::Failure> {
        let (owner, name) = (repository.owner.as_str(), repository.name());
        let mut jobs = Vec::new();
        for page in 1.. {
            let paging = Paging { page, per_page: 100 };
            let (now, installation) = (self.now, self.installation_of(owner));
            let listed =
                self.github.list_run_jobs(installation, owner, name, run, github::Attempts::Latest, paging, now)?;
            if listed.items.is_empty() {
                break;
            }
            jobs.extend(listed.items);
        }
        Ok(jobs)
    }

    fn under_way(&mut self, repository: &Repository) -> Result<Vec<FoundJob>, github::Failure> {
        let (owner, name) = (repository.owner.as_str(), repository.name());
        let (now, installation) = (self.now, self.installation_of(owner));
        let public = self
            .github
            .find_repository(owner, name)
            .is_some_and(|repository| repository.visibility == github::Visibility::Public);
        let mut found = Vec::new();
        for status in ["queued", "in_progress"] {
            let mut runs = Vec::new();
            for page in 1.. {
                let paging = Paging { page, per_page: 100 };
                let listed = self.github.list_runs(installation, owner, name, Some(status), paging, now)?;
                if listed.items.is_empty() {
                    break;
                }
                runs.extend(listed.items);
            }
            for run in runs {
                for job in self.jobs_of(repository, run.id)? {
                    if job.state.conclusion().is_none() {
                        found.push(FoundJob { job: self.notice_of(&job), public });
                    }
                }
            }
        }
        Ok(found)
    }
}
