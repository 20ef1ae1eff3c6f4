//! GitHub's port.

use std::fmt::Write;

use async_trait::async_trait;
use domain::ids::{DeliveryId, JobId, Owner, Repository, RunId, RunnerId, RunnerName, Scope, StackName};
use domain::policy::search::MAX_LISTED_RUNS;
use domain::wire::JobNotice;
use engine::ports::{
    Budget, CheckRunUpdate, DeliveryAttempt, DeliveryPage, Deregistered, GitHub, GitHubAnswer, GitHubError,
    NamedRunners, ObservedRunner, Registered, Registration, RepositoryPage, Rerun, RunJobs, RunReference, RunnerPage,
    RunsUnderWay, TokenMark,
};
use jiff::Timestamp;
use world::github::{self, Answer, CheckOutput, CheckRunChange, CheckRunId, GroupId, JitRequest, Malformed, Paging};

use crate::call::Call;
use crate::digest::Digest;
use crate::universe::notices::job_notice;
use crate::universe::state::State;
use crate::universe::{INVOCATION, Universe};

/// GitHub's largest page of runs.
const RUNS_PER_PAGE: usize = 100;

/// How long Drover uses a token: GitHub's hour, less the margin.
const TOKEN_SECONDS: i64 = 55 * 60;

fn model_scope(scope: &Scope) -> github::Scope {
    match scope {
        Scope::Organization(owner) => github::Scope::organization(owner.as_str()),
        Scope::Repository(repository) => github::Scope::repository(repository.owner.as_str(), repository.name()),
    }
}

/// A runner as GitHub lists it.
fn observed(runner: github::Runner) -> ObservedRunner {
    ObservedRunner { id: RunnerId(runner.id.0), name: runner.name, online: runner.online, busy: runner.job.is_some() }
}

impl State {
    /// All runners, as an operator's call lists them.
    pub(super) fn listed_runners(&self) -> Vec<ObservedRunner> {
        self.github.registrations().cloned().map(observed).collect()
    }
}

fn port_error(error: github::Failure, now: Timestamp) -> GitHubError {
    match error {
        github::Failure::Unauthorized | github::Failure::Forbidden(_) => GitHubError::Denied(error.to_string().into()),
        github::Failure::NotFound => refused(404, &error),
        github::Failure::Unprocessable(_) => refused(422, &error),
        github::Failure::Conflict(_) => GitHubError::NameTaken,
        github::Failure::PrimaryLimit { reset } => {
            GitHubError::Limited { until: reset.max(now), message: error.to_string() }
        }
        github::Failure::SecondaryLimit { until } => GitHubError::Limited { until, message: error.to_string() },
        github::Failure::Broken(_) | github::Failure::NoReply => GitHubError::unavailable(error.to_string()),
    }
}

fn refused(code: u16, error: &github::Failure) -> GitHubError {
    GitHubError::Refused(GitHubAnswer { code: Some(code), message: error.to_string() })
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
        self.call_for(registration.scope.owner(), || Call::GenerateJitConfig(registration.name.clone()), register).await
    }

    async fn runners(&self, scope: &Scope, stack: &StackName, page: usize) -> Result<RunnerPage, GitHubError> {
        let list = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(scope.owner().as_str()));
            let prefix = RunnerName::prefix(stack);
            let paging = Paging { page, per_page: 100 };
            let listed = state
                .github
                .list_runners(installation, &model_scope(scope), None, paging, now)
                .map_err(|error| port_error(error, now))?;
            let counted = state.counted(scope.owner(), format!("{scope} {page}"), &listed.items);
            let mut page = RunnerPage { runners: Vec::new(), unreadable: Vec::new(), total: listed.total, counted };
            let missing = state.on_no_page.take();
            let own = listed.items.into_iter().filter(|runner| runner.name.starts_with(&prefix));
            for runner in own.filter(|runner| missing != Some(runner.id)) {
                match state.github.faults.malformed_runners.get(&runner.id) {
                    Some(Malformed::State) => page.unreadable.push(Some(RunnerId(runner.id.0))),
                    Some(Malformed::All) => page.unreadable.push(None),
                    None => page.runners.push(observed(runner)),
                }
            }
            Ok(page)
        };
        self.call_for(scope.owner(), || Call::ListRunners(scope.clone()), list).await
    }

    async fn runners_named(&self, scope: &Scope, name: &str) -> Result<NamedRunners, GitHubError> {
        let list = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(scope.owner().as_str()));
            let paging = Paging { page: 1, per_page: 100 };
            let listed = state
                .github
                .list_runners(installation, &model_scope(scope), Some(name), paging, now)
                .map_err(|error| port_error(error, now))?;
            let ids = listed.items.into_iter().map(|runner| RunnerId(runner.id.0)).collect();
            Ok(NamedRunners { scope: scope.clone(), name: name.to_owned(), token: TokenMark(installation.0), ids })
        };
        self.call_for(scope.owner(), || Call::FindRunners(name.to_owned()), list).await
    }

    async fn deregister(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError> {
        let delete = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(scope.owner().as_str()));
            match state.github.delete_runner(installation, &model_scope(scope), github::RunnerId(runner.0), now) {
                Ok(()) => Ok(Deregistered::Removed),
                Err(github::Failure::NotFound) => Ok(Deregistered::NotFound(TokenMark(installation.0))),
                Err(github::Failure::Unprocessable(_)) => Ok(Deregistered::Busy),
                Err(error) => Err(port_error(error, now)),
            }
        };
        self.call_for(scope.owner(), || Call::DeleteRunner(runner), delete).await
    }

    async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError> {
        let look = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(repository.owner.as_str()));
            let (owner, name) = (repository.owner.as_str(), repository.name());
            match state.github.get_job(installation, owner, name, github::JobId(job.0), now) {
                Ok(job) if state.github.faults.malformed_jobs.contains(&job.id) => {
                    Err(GitHubError::unavailable("the answer has an unknown form"))
                }
                Ok(job) => Ok(Some(state.notice_of(&job))),
                Err(github::Failure::NotFound) => Ok(None),
                Err(error) => Err(port_error(error, now)),
            }
        };
        self.call_for(&repository.owner, || Call::GetJob(job), look).await
    }

    async fn repositories(&self, owner: &Owner, page: usize) -> Result<RepositoryPage, GitHubError> {
        let look = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(owner.as_str()));
            let paging = Paging { page, per_page: 100 };
            let listed = state.github.list_installation_repositories(installation, paging, now);
            let listed = listed.map_err(|error| port_error(error, now))?;
            let counted = state.counted(owner, format!("repositories {page}"), &listed.items);
            let name = |it: &github::Repository| format!("{}/{}", it.owner_login, it.name).parse().ok();
            let repositories = listed.items.iter().filter_map(name).collect();
            Ok(RepositoryPage { repositories, unreadable: 0, total: listed.total, counted })
        };
        self.call_for(owner, || Call::ListRepositories(owner.clone()), look).await
    }

    async fn run_jobs(&self, repository: &Repository, run: RunId) -> Result<RunJobs, GitHubError> {
        let look = || {
            let mut state = self.state();
            let now = state.now;
            let jobs = state.jobs_of(repository, github::RunId(run.0)).map_err(|error| port_error(error, now))?;
            let counted = state.counted(&repository.owner, format!("{repository} {run}"), &jobs);
            let malformed = &state.github.faults.malformed_jobs;
            let readable: Vec<_> = jobs.iter().filter(|job| !malformed.contains(&job.id)).collect();
            let unreadable = jobs.len() - readable.len();
            let jobs = readable.into_iter().map(|job| state.notice_of(job)).collect();
            Ok(RunJobs { jobs, unreadable, counted })
        };
        self.call_for(&repository.owner, || Call::ListRunJobs(run), look).await
    }

    async fn is_run_over(&self, run: &RunReference) -> Result<bool, GitHubError> {
        let look = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(run.repository.owner.as_str()));
            let (owner, name) = (run.repository.owner.as_str(), run.repository.name());
            let paging = Paging { page: 1, per_page: 100 };
            let listed = state
                .github
                .list_runs(installation, owner, name, Some("completed"), paging, now)
                .map_err(|error| port_error(error, now))?;
            let is_it = |listed: &github::Run| listed.id.0 == run.run.0 && listed.attempt >= u64::from(run.attempt);
            Ok(listed.items.iter().any(is_it))
        };
        self.call_for(&run.repository.owner, || Call::ListCompletedRuns(run.run), look).await
    }

    async fn runs_under_way(&self, repository: &Repository) -> Result<RunsUnderWay, GitHubError> {
        let look = || {
            let mut state = self.state();
            let now = state.now;
            state.under_way(repository).map_err(|error| port_error(error, now))
        };
        self.call_for(&repository.owner, || Call::ListRuns(repository.clone()), look).await
    }

    async fn deliveries(&self, from: Option<&str>) -> Result<DeliveryPage, GitHubError> {
        let look = || {
            let mut state = self.state();
            let now = state.now;
            let listed = state.github.list_deliveries(100, from, now);
            let (listed, next) = listed.map_err(|error| port_error(error, now))?;
            let mut page = DeliveryPage { next, ..DeliveryPage::default() };
            for delivery in listed {
                let Some(attempted) = delivery.attempted else { continue };
                if state.github.faults.malformed_deliveries.contains(&delivery.id) {
                    page.unreadable += 1;
                    continue;
                }
                page.attempts.push(DeliveryAttempt {
                    id: delivery.id.0,
                    guid: DeliveryId::from(delivery.guid.as_str()),
                    delivered_at: attempted.at,
                    redelivery: delivery.redelivery,
                    succeeded: matches!(attempted.answer, Answer::Status(200..300)),
                    about_a_job: true,
                });
            }
            Ok(page)
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
        self.call_for(&update.repository.owner, || Call::CheckRun(update.external_id.clone()), write).await
    }

    async fn rerun(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError> {
        let again = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(repository.owner.as_str()));
            let (owner, name) = (repository.owner.as_str(), repository.name());
            match state.github.rerun_job(installation, owner, name, github::JobId(job.0), now) {
                Ok(_) => {
                    let wrong = state.check_rerun(github::JobId(job.0));
                    drop(state);
                    wrong.into_iter().for_each(|wrong| self.store.violate(wrong));
                    Ok(Rerun::Begun)
                }
                Err(github::Failure::Forbidden(why)) if why.contains("already running") => Ok(Rerun::RunUnderWay),
                Err(error) => Err(port_error(error, now)),
            }
        };
        self.call_for(&repository.owner, || Call::Rerun(job), again).await
    }

    fn budget(&self, owner: &Owner) -> Option<Budget> {
        let mut state = self.state();
        let (now, installation) = (state.now, state.installation_of(owner.as_str()));
        let rate = state.github.rate(github::Caller::Installation(installation), now);
        Some(Budget { remaining: rate.limit.saturating_sub(rate.used), limit: rate.limit, reset: rate.reset })
    }
}

impl Universe {
    /// A call for an account. F1: it respects the limit that is in the table for the account, by the clock of its function.
    async fn call_for<T: std::fmt::Debug>(
        &self,
        owner: &Owner,
        call: impl FnOnce() -> Call,
        make: impl FnOnce() -> T,
    ) -> T {
        let (now, early_by, limit) = {
            let state = self.state();
            (state.now, state.clocks_differ_by / 2, state.limits.get(owner).copied())
        };
        // An invocation may have read the limit just before, and its calls may be slow. It lasts a minute at most.
        if let Some((written_at, until)) = limit
            && now + early_by < until
            && now.duration_since(written_at) > INVOCATION
        {
            self.store
                .violate(format!("F1: GitHub is called for {owner} at {now}, though it forbids that until {until}"));
        }
        self.steps.around(call, make).await
    }
}

impl State {
    /// L5: Drover re-runs a job once, and only if it ended without success.
    fn check_rerun(&mut self, id: github::JobId) -> Option<String> {
        let job = self.github.job(id)?;
        if job.state.conclusion() == Some(github::Conclusion::Success) {
            return Some(format!("L5: job {id} is re-run, which has succeeded"));
        }
        let is_new = self.re_run.insert((job.run, job.name.clone()));
        (!is_new).then(|| format!("L5: job {id} is re-run a second time"))
    }

    fn notice_of(&self, job: &github::Job) -> JobNotice {
        let sha = self.github.run(job.run).map(|run| run.head_sha.as_str()).unwrap_or_default();
        self.with_forged_id(job_notice(job, sha))
    }

    fn jobs_of(&mut self, repository: &Repository, run: github::RunId) -> Result<Vec<github::Job>, github::Failure> {
        let (owner, name) = (repository.owner.as_str(), repository.name());
        let mut jobs = Vec::new();
        for page in 1.. {
            let paging = Paging { page, per_page: 100 };
            let (now, installation) = (self.now, self.installation_of(owner));
            let listed =
                self.github.list_run_jobs(installation, owner, name, run, github::Attempts::Latest, paging, now)?;
            let is_last = listed.items.is_empty() || page * paging.per_page >= listed.total;
            jobs.extend(listed.items);
            if is_last {
                break;
            }
        }
        Ok(jobs)
    }

    fn under_way(&mut self, repository: &Repository) -> Result<RunsUnderWay, github::Failure> {
        let (owner, name) = (repository.owner.as_str(), repository.name());
        let (now, installation) = (self.now, self.installation_of(owner));
        let public = self
            .github
            .find_repository(owner, name)
            .is_some_and(|repository| repository.visibility == github::Visibility::Public);
        let mut found = RunsUnderWay::default();
        for status in ["queued", "in_progress"] {
            for page in 1..=MAX_LISTED_RUNS / RUNS_PER_PAGE {
                let paging = Paging { page, per_page: RUNS_PER_PAGE };
                let listed = self.github.list_runs(installation, owner, name, Some(status), paging, now)?;
                let path = format!("{repository} {status} {page}");
                found.counted += self.counted(&repository.owner, path, &listed.items);
                found.runs.extend(listed.items.iter().map(|run| (RunId(run.id.0), public)));
                if page * RUNS_PER_PAGE >= listed.total {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// How often the answer counted towards the hourly limit: 0 if Drover has it already, with a tag of its present token.
    fn counted(&mut self, owner: &Owner, path: String, answer: &impl std::fmt::Debug) -> u32 {
        let mut digest = Digest::default();
        let token = self.now.as_second() / TOKEN_SECONDS;
        write!(digest, "{token} {answer:?}").expect("writing to a digest does not fail");
        let before = self.tags.insert((owner.clone(), path), digest.value());
        if before != Some(digest.value()) {
            return 1;
        }
        let installation = self.installation_of(owner.as_str());
        self.github.not_modified(github::Caller::Installation(installation), self.now);
        0
    }
}
