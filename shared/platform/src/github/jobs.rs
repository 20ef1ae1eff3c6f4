//! Reading jobs and runs, and re-running a job.

use std::collections::BTreeMap;

use domain::ids::{JobId, Repository, RunId, Scope};
use domain::wire::JobNotice;
use engine::ports::{Clock, FoundJob, GitHubError, Rerun};
use futures::stream::{self, StreamExt, TryStreamExt};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answer::error;
use super::app::GitHubApp;
use super::client::NO_BODY;
use crate::clock::SystemClock;
use crate::workflow_job::WorkflowJob;

/// GitHub's largest page of runs and jobs.
const PER_PAGE: usize = 100;

const MAX_PAGES: usize = 1000;

/// Runs whose jobs are read at the same time. GitHub asks for few concurrent requests.
const MAX_CONCURRENT_RUNS: usize = 4;

impl GitHubApp {
    pub(super) async fn read_job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError> {
        let read = self.read::<WorkflowJob>(repository, &format!("/repos/{repository}/actions/jobs/{job}")).await?;
        Ok(read.ok().map(Into::into))
    }

    pub(super) async fn find_jobs_under_way(&self, repository: &Repository) -> Result<Vec<FoundJob>, GitHubError> {
        let found: Vec<Vec<FoundJob>> = stream::iter(self.runs_under_way(repository).await?)
            .map(|(run, public)| async move {
                let jobs = match self.list_run_jobs(repository, run).await {
                    // The run was deleted after it was listed.
                    Err(GitHubError::Refused(_)) => Vec::new(),
                    jobs => jobs?,
                };
                let under_way = jobs.into_iter().filter(|job| job.status != "completed");
                Ok::<_, GitHubError>(under_way.map(|job| FoundJob { job, public }).collect())
            })
            .buffer_unordered(MAX_CONCURRENT_RUNS)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The runs of a repository that have not ended, and whether the repository is public.
    async fn runs_under_way(&self, repository: &Repository) -> Result<BTreeMap<RunId, bool>, GitHubError> {
        #[derive(Deserialize)]
        struct Page {
            total_count: usize,
            workflow_runs: Vec<Run>,
        }
        #[derive(Deserialize)]
        struct Run {
            id: u64,
            repository: RunRepository,
        }
        #[derive(Deserialize)]
        struct RunRepository {
            private: bool,
        }
        // A run that starts between the two lists was in the first one or is in both.
        let mut runs = BTreeMap::new();
        for status in ["queued", "in_progress"] {
            let path = format!("/repos/{repository}/actions/runs?status={status}&per_page={PER_PAGE}");
            for page in 1..=MAX_PAGES {
                let listed: Page = self.list(repository, &format!("{path}&page={page}")).await?;
                let is_last = listed.workflow_runs.is_empty() || page * PER_PAGE >= listed.total_count;
                runs.extend(listed.workflow_runs.iter().map(|run| (RunId(run.id), !run.repository.private)));
                if is_last {
                    break;
                }
            }
        }
        Ok(runs)
    }

    pub(super) async fn list_run_jobs(
        &self,
        repository: &Repository,
        run: RunId,
    ) -> Result<Vec<JobNotice>, GitHubError> {
        #[derive(Deserialize)]
        struct Page {
            total_count: usize,
            jobs: Vec<WorkflowJob>,
        }
        let mut jobs = Vec::new();
        for page in 1..=MAX_PAGES {
            let path =
                format!("/repos/{repository}/actions/runs/{run}/jobs?filter=latest&per_page={PER_PAGE}&page={page}");
            let listed: Page = self.list(repository, &path).await?;
            let is_last = listed.jobs.is_empty() || page * PER_PAGE >= listed.total_count;
            jobs.extend(listed.jobs.into_iter().map(JobNotice::from));
            if is_last {
                return Ok(jobs);
            }
        }
        Err(GitHubError::unavailable(format!("run {run} has more than {} jobs", MAX_PAGES * PER_PAGE)))
    }

    async fn list<T: DeserializeOwned>(&self, repository: &Repository, path: &str) -> Result<T, GitHubError> {
        self.read(repository, path).await?.map_err(|not_found| GitHubError::Refused(not_found.0))
    }

    pub(super) async fn rerun_job(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError> {
        let path = format!("/repos/{repository}/actions/jobs/{job}/rerun");
        let answer = self.call(Method::POST, &Scope::Repository(repository.clone()), &path, NO_BODY).await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(Rerun::Begun);
        }
        match error(answer, SystemClock.now()).await {
            // GitHub also answers 403 if the app lacks a permission. Only the message distinguishes the two.
            GitHubError::Denied(answer) if answer.message.contains("already running") => Ok(Rerun::RunUnderWay),
            error => Err(error),
        }
    }
}
