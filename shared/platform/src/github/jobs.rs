//! Reading jobs and runs, and re-running a job.

use domain::ids::{JobId, Repository, RunId, Scope};
use domain::policy::search::MAX_LISTED_RUNS;
use domain::wire::JobNotice;
use engine::ports::{Clock, GitHubError, Rerun, RunJobs, RunReference, RunsUnderWay};
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answer::error;
use super::app::{GitHubApp, Read};
use super::client::NO_BODY;
use super::listed::{Listed, readable};
use crate::clock::SystemClock;
use crate::workflow_job::WorkflowJob;

/// GitHub's largest page of runs and jobs.
const PER_PAGE: usize = 100;

/// Pages of a list that are read at the same time. One after the other, ten pages take as long as a call may.
const PAGES_AT_ONCE: usize = 5;

impl GitHubApp {
    pub(super) async fn read_job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError> {
        let read = self.read::<WorkflowJob>(repository, &format!("/repos/{repository}/actions/jobs/{job}")).await?;
        Ok(read.ok().map(|read| read.resource.into()))
    }

    /// Looks for the run among the completed runs of its commit. There are few of these, so one page is enough.
    pub(super) async fn read_whether_run_is_over(&self, run: &RunReference) -> Result<bool, GitHubError> {
        #[derive(Deserialize)]
        struct Page {
            workflow_runs: Vec<Run>,
        }
        #[derive(Deserialize)]
        struct Run {
            id: u64,
            #[serde(default)]
            run_attempt: Option<u32>,
        }
        let RunReference { repository, run, attempt, head_sha } = run;
        if head_sha.is_empty() || !head_sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(false);
        }
        let path =
            format!("/repos/{repository}/actions/runs?status=completed&head_sha={head_sha}&per_page={PER_PAGE}&page=1");
        let listed = self.list::<Page>(repository, &path).await?.resource;
        let is_it = |listed: &Run| listed.id == run.0 && listed.run_attempt.is_none_or(|listed| listed >= *attempt);
        Ok(listed.workflow_runs.iter().any(is_it))
    }

    /// The newest queued and running runs of a repository, as many as GitHub lists of each.
    pub(super) async fn list_runs_under_way(&self, repository: &Repository) -> Result<RunsUnderWay, GitHubError> {
        #[derive(Deserialize)]
        struct Page {
            total_count: usize,
            workflow_runs: Vec<Listed<Run>>,
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
        let mut found = RunsUnderWay::default();
        let count = |first: &Page| first.total_count.min(MAX_LISTED_RUNS);
        for status in ["queued", "in_progress"] {
            let path = format!("/repos/{repository}/actions/runs?status={status}&per_page={PER_PAGE}");
            for Read { resource: listed, counted } in self.pages(repository, &path, count).await? {
                let (readable, unreadable) = readable(listed.workflow_runs);
                found.unreadable += unreadable;
                found.counted += counted;
                found.runs.extend(readable.iter().map(|run| (RunId(run.id), !run.repository.private)));
            }
        }
        Ok(found)
    }

    pub(super) async fn list_run_jobs(&self, repository: &Repository, run: RunId) -> Result<RunJobs, GitHubError> {
        #[derive(Deserialize)]
        struct Page {
            total_count: usize,
            jobs: Vec<Listed<WorkflowJob>>,
        }
        let path = format!("/repos/{repository}/actions/runs/{run}/jobs?filter=latest&per_page={PER_PAGE}");
        let mut found = RunJobs::default();
        for Read { resource: listed, counted } in
            self.pages(repository, &path, |first: &Page| first.total_count).await?
        {
            let (readable, unreadable) = readable(listed.jobs);
            found.unreadable += unreadable;
            found.counted += counted;
            found.jobs.extend(readable.into_iter().map(JobNotice::from));
        }
        if found.unreadable > 0 {
            tracing::error!(%repository, %run, "{} jobs of run {run} cannot be read", found.unreadable);
        }
        Ok(found)
    }

    /// Every page of a list. `count` is the number of its items, as the first page reports it.
    async fn pages<T: DeserializeOwned>(
        &self,
        repository: &Repository,
        path: &str,
        count: impl Fn(&T) -> usize,
    ) -> Result<Vec<Read<T>>, GitHubError> {
        let read = |page: usize| async move { self.list::<T>(repository, &format!("{path}&page={page}")).await };
        let mut pages = vec![read(1).await?];
        let last = count(&pages[0].resource).div_ceil(PER_PAGE);
        let others: Vec<_> = stream::iter(2..=last).map(read).buffered(PAGES_AT_ONCE).try_collect().await?;
        pages.extend(others);
        Ok(pages)
    }

    async fn list<T: DeserializeOwned>(&self, repository: &Repository, path: &str) -> Result<Read<T>, GitHubError> {
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
