//! What cures lost webhooks, what an author is told, and what an operator wants to know of a runner group.

use std::collections::BTreeMap;

use domain::ids::{DeliveryId, JobId, Owner, Repository, RunId, Scope};
use domain::wire::JobNotice;
use engine::ports::{CheckRunUpdate, Clock, DeliveryAttempt, FoundJob, GitHubError, Rerun};
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Attempt, GitHubApp, NO_BODY, PAGES, PER_PAGE, failed, lost};
use crate::clock::SystemClock;
use crate::workflow_job::WorkflowJob;

/// Attempts that are looked through in one go, a hundred a page. More within a janitor's minute is an outage of hours; the
/// newest are seen then, and the jobs of the others are found by asking for jobs.
const DELIVERY_PAGES: usize = 100;

/// Runs whose jobs are asked for at a time: GitHub wants few requests at once.
const RUNS_AT_A_TIME: usize = 4;

/// The check run's name, which its author sees.
const CHECK_RUN: &str = "Drover";

/// A runner group, as far as it is a fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerGroup {
    /// GitHub's id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Only repositories that were selected may use it.
    pub selected: bool,
    /// Public repositories may use it.
    pub allows_public: bool,
}

impl GitHubApp {
    /// Every attempt since then to deliver the app's webhook, newest first, as the app.
    ///
    /// # Errors
    /// When GitHub does not say.
    pub async fn deliveries(&self, since: Timestamp) -> Result<Vec<DeliveryAttempt>, GitHubError> {
        let seen = self.attempts(since, DELIVERY_PAGES).await?;
        if seen.len() >= DELIVERY_PAGES * PER_PAGE {
            tracing::warn!("more than {} deliveries since {since}: older ones are not looked at", seen.len());
        }
        Ok(seen
            .into_iter()
            .map(|attempt| DeliveryAttempt {
                id: attempt.id,
                guid: DeliveryId::from(attempt.guid.as_str()),
                delivered_at: attempt.delivered_at,
                redelivery: attempt.redelivery,
                succeeded: attempt.succeeded(),
                about_a_job: attempt.event == "workflow_job",
            })
            .collect())
    }

    /// The same, as GitHub tells it: of so many pages, a hundred each.
    ///
    /// # Errors
    /// When GitHub does not say.
    pub async fn attempts(&self, since: Timestamp, pages: usize) -> Result<Vec<Attempt>, GitHubError> {
        let mut seen: Vec<Attempt> = Vec::new();
        let mut path = format!("/app/hook/deliveries?per_page={PER_PAGE}");
        for _ in 0..pages {
            let answer = self.call_as_app(Method::GET, &path, NO_BODY).await?;
            if answer.status() != StatusCode::OK {
                return Err(failed(answer, SystemClock.now()).await);
            }
            let next = next_cursor(answer.headers());
            let page: Vec<Attempt> = answer.json().await.map_err(lost)?;
            let reached = page.last().is_none_or(|last| last.delivered_at < since);
            seen.extend(page.into_iter().filter(|attempt| attempt.delivered_at >= since));
            match next {
                Some(cursor) if !reached => path = format!("/app/hook/deliveries?per_page={PER_PAGE}&cursor={cursor}"),
                _ => break,
            }
        }
        Ok(seen)
    }

    /// Asks for one more attempt, by the id of an earlier one, as the app.
    ///
    /// # Errors
    /// When GitHub does not confirm it; it may have happened.
    pub async fn redeliver(&self, id: u64) -> Result<(), GitHubError> {
        let answer = self.call_as_app(Method::POST, &format!("/app/hook/deliveries/{id}/attempts"), NO_BODY).await?;
        match answer.status() {
            StatusCode::ACCEPTED => Ok(()),
            _ => Err(failed(answer, SystemClock.now()).await),
        }
    }

    /// The jobs of a repository that are not over. Both queued and running runs are searched: a run of which one job runs is
    /// `in_progress`, however many of its jobs are still queued.
    ///
    /// # Errors
    /// When GitHub does not say, or only in part.
    pub async fn jobs_under_way(&self, repository: &Repository) -> Result<Vec<FoundJob>, GitHubError> {
        #[derive(Deserialize)]
        struct Page {
            total_count: usize,
            workflow_runs: Vec<Run>,
        }
        #[derive(Deserialize)]
        struct Run {
            id: u64,
            repository: Home,
        }
        #[derive(Deserialize)]
        struct Home {
            private: bool,
        }
        // A run may pass from one list to the other between the two questions, and is then in both, or was in both.
        let mut runs: BTreeMap<RunId, bool> = BTreeMap::new();
        for status in ["queued", "in_progress"] {
            let path = format!("/repos/{repository}/actions/runs?status={status}&per_page={PER_PAGE}");
            for page in 1..=PAGES {
                let listed: Page = self.list(repository, &format!("{path}&page={page}")).await?;
                let last = listed.workflow_runs.is_empty() || page * PER_PAGE >= listed.total_count;
                runs.extend(listed.workflow_runs.iter().map(|run| (RunId(run.id), !run.repository.private)));
                if last {
                    break;
                }
            }
        }
        let found: Vec<Vec<FoundJob>> = stream::iter(runs)
            .map(|(run, public)| async move {
                let jobs = match self.run_jobs(repository, run).await {
                    // Somebody deleted it meanwhile.
                    Err(GitHubError::Refused(_)) => Vec::new(),
                    jobs => jobs?,
                };
                let under_way = jobs.into_iter().filter(|job| job.status != "completed");
                Ok::<_, GitHubError>(under_way.map(|job| FoundJob { job, public }).collect())
            })
            .buffer_unordered(RUNS_AT_A_TIME)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The jobs of a run's latest attempt.
    ///
    /// # Errors
    /// When GitHub does not say.
    pub async fn run_jobs(&self, repository: &Repository, run: RunId) -> Result<Vec<JobNotice>, GitHubError> {
        #[derive(Deserialize)]
        struct Page {
            total_count: usize,
            jobs: Vec<WorkflowJob>,
        }
        let mut jobs = Vec::new();
        for page in 1..=PAGES {
            let path =
                format!("/repos/{repository}/actions/runs/{run}/jobs?filter=latest&per_page={PER_PAGE}&page={page}");
            let listed: Page = self.list(repository, &path).await?;
            let last = listed.jobs.is_empty() || page * PER_PAGE >= listed.total_count;
            jobs.extend(listed.jobs.into_iter().map(JobNotice::from));
            if last {
                return Ok(jobs);
            }
        }
        Err(GitHubError::unavailable(format!("run {run} has more jobs than fit {PAGES} pages")))
    }

    async fn list<T: DeserializeOwned>(&self, repository: &Repository, path: &str) -> Result<T, GitHubError> {
        self.read(repository, path).await?.map_err(|missing| GitHubError::Refused(missing.0))
    }

    /// Makes the check run, or changes the one that was made before. Answers with its id.
    ///
    /// # Errors
    /// When GitHub does not confirm it. A lost answer to the first call makes a second check run of the same external id.
    pub async fn write_check_run(&self, update: &CheckRunUpdate) -> Result<u64, GitHubError> {
        #[derive(Serialize)]
        struct Wanted<'a> {
            name: &'a str,
            head_sha: &'a str,
            external_id: &'a str,
            status: &'a str,
            conclusion: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details_url: &'a str,
            output: Output<'a>,
        }
        #[derive(Serialize)]
        struct Output<'a> {
            title: &'a str,
            summary: &'a str,
        }
        #[derive(Deserialize)]
        struct Made {
            id: u64,
        }
        let CheckRunUpdate { repository, head_sha, external_id, check_run, conclusion, title, summary, details_url } =
            update;
        let wanted = Wanted {
            name: CHECK_RUN,
            head_sha,
            external_id,
            status: "completed",
            conclusion: conclusion.as_str(),
            details_url,
            output: Output { title, summary },
        };
        let base = format!("/repos/{repository}/check-runs");
        let (method, path) = match check_run {
            Some(id) => (Method::PATCH, format!("{base}/{id}")),
            None => (Method::POST, base),
        };
        let answer = self.call(method, &Scope::Repository(repository.clone()), &path, Some(&wanted)).await?;
        match answer.status() {
            StatusCode::OK | StatusCode::CREATED => Ok(answer.json::<Made>().await.map_err(lost)?.id),
            _ => Err(failed(answer, SystemClock.now()).await),
        }
    }

    /// Runs a job again, as a new job of a new attempt of its run.
    ///
    /// # Errors
    /// When GitHub does not confirm it; it may have happened.
    pub async fn rerun(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError> {
        let path = format!("/repos/{repository}/actions/jobs/{job}/rerun");
        let answer = self.call(Method::POST, &Scope::Repository(repository.clone()), &path, NO_BODY).await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(Rerun::Begun);
        }
        match failed(answer, SystemClock.now()).await {
            // A 403 like that for a permission which the app lacks: only GitHub's words tell them apart.
            GitHubError::Denied(why) if why.message.contains("already running") => Ok(Rerun::RunUnderWay),
            error => Err(error),
        }
    }

    /// The runner groups of an organisation, those of its enterprise among them; only those which that repository of it may
    /// use, if one is named.
    ///
    /// # Errors
    /// When GitHub does not say: GitHub shows them only to apps that may administer self-hosted runners.
    pub async fn runner_groups(
        &self,
        owner: &Owner,
        visible_to: Option<&Repository>,
    ) -> Result<Vec<RunnerGroup>, GitHubError> {
        #[derive(Deserialize)]
        struct Page {
            total_count: usize,
            runner_groups: Vec<Group>,
        }
        #[derive(Deserialize)]
        struct Group {
            id: u64,
            name: String,
            visibility: String,
            allows_public_repositories: bool,
        }
        let only = visible_to.map(|it| format!("&visible_to_repository={}", it.name())).unwrap_or_default();
        let mut groups = Vec::new();
        for page in 1..=PAGES {
            let path = format!("/orgs/{owner}/actions/runner-groups?per_page={PER_PAGE}&page={page}{only}");
            let answer = self.call(Method::GET, &Scope::Organization(owner.clone()), &path, NO_BODY).await?;
            if answer.status() != StatusCode::OK {
                return Err(failed(answer, SystemClock.now()).await);
            }
            let listed: Page = answer.json().await.map_err(lost)?;
            let last = listed.runner_groups.is_empty() || page * PER_PAGE >= listed.total_count;
            groups.extend(listed.runner_groups.into_iter().map(|group| RunnerGroup {
                id: group.id,
                name: group.name,
                selected: group.visibility == "selected",
                allows_public: group.allows_public_repositories,
            }));
            if last {
                break;
            }
        }
        Ok(groups)
    }
}

/// Where the next page begins, from the header `link`: only the cursor is believed, not the address around it.
fn next_cursor(headers: &HeaderMap) -> Option<String> {
    let links = headers.get("link")?.to_str().ok()?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let address = next.trim().strip_prefix('<')?.split_once('>')?.0;
    let url: Url = address.parse().ok()?;
    let cursor = url.query_pairs().find(|(name, _)| name == "cursor")?.1.into_owned();
    let is_plain = cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
    is_plain.then_some(cursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_told_by_its_cursor() {
        let cursor =
            |link: &str| next_cursor(&HeaderMap::from_iter([("link".parse().unwrap(), link.parse().unwrap())]));
        let next = "<https://api.github.com/app/hook/deliveries?per_page=100&cursor=v1_12077215967>; rel=\"next\"";
        assert_eq!(cursor(next).as_deref(), Some("v1_12077215967"));
        let both = format!("<https://api.github.com/x?cursor=a>; rel=\"prev\", {next}");
        assert_eq!(cursor(&both).as_deref(), Some("v1_12077215967"));
        assert_eq!(cursor("<https://api.github.com/x?cursor=a>; rel=\"prev\""), None);
        assert_eq!(cursor("<https://api.github.com/x?cursor=a%26per_page%3D1>; rel=\"next\""), None);
        assert_eq!(next_cursor(&HeaderMap::new()), None);
    }
}
