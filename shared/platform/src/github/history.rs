//! The jobs of the past, read with a user's token: Drover's app may not be installed yet.
//!
//! A method makes one call. The caller counts calls, waits for limits and repeats calls without an answer.

use domain::ids::{Owner, Repository, RunId};
use domain::wire::JobNotice;
use engine::ports::{Clock, GitHubError};
use jiff::Timestamp;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answer::{error, parse};
use super::api_url::ApiUrl;
use super::client::{NO_BODY, PublicRoots, Request, http_client, send};
use super::listed::{Listed, readable};
use crate::clock::SystemClock;
use crate::workflow_job::WorkflowJob;

/// GitHub's largest page.
const PER_PAGE: usize = 100;

/// GitHub's API, called with a user's token.
pub struct History {
    token: SecretString,
    api_url: ApiUrl,
    http: reqwest::Client,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("api_url", &self.api_url).finish_non_exhaustive()
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items that could be read.
    pub items: Vec<T>,
    /// How many items of this page have an unknown form.
    pub unreadable: usize,
    /// How many items all pages have. None if GitHub does not say.
    pub total: Option<usize>,
    /// Whether another page follows.
    pub has_next: bool,
    /// Until when GitHub allows no further call, if this was the last one of the hour.
    pub limited_until: Option<Timestamp>,
}

/// A workflow run as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRun {
    pub id: RunId,
    /// When the first attempt was created.
    pub created_at: Timestamp,
}

impl History {
    /// `api_url` is that of GitHub.com by default.
    ///
    /// # Errors
    /// The certificates of `DROVER_CA_CERTIFICATES` cannot be read.
    pub fn new(token: String, api_url: Option<ApiUrl>) -> Result<Self, GitHubError> {
        let (token, api_url) = (SecretString::from(token), api_url.unwrap_or_default());
        Ok(Self { token, api_url, http: http_client(PublicRoots::System)? })
    }

    /// `GET /orgs/{org}/repos`: the organisation's repositories that the token may see.
    ///
    /// # Errors
    /// GitHub does not answer or refuses the call.
    pub async fn repositories(&self, organization: &Owner, page: usize) -> Result<Page<Repository>, GitHubError> {
        #[derive(Deserialize)]
        struct Listing {
            full_name: Repository,
        }
        let path = format!("/orgs/{organization}/repos?per_page={PER_PAGE}&page={page}");
        let (listed, limited_until) = self.read::<Vec<Listed<Listing>>>(&path).await?;
        let has_next = listed.len() >= PER_PAGE;
        let (items, unreadable) = readable(listed);
        let items = items.into_iter().map(|it| it.full_name).collect();
        Ok(Page { items, unreadable, total: None, has_next, limited_until })
    }

    /// `GET /repos/{owner}/{repo}/actions/runs`: the runs that were created in the period, both ends included, newest first. GitHub
    /// compares whole seconds, and lists at most 1,000 runs.
    ///
    /// # Errors
    /// GitHub does not answer or refuses the call.
    pub async fn runs(
        &self,
        repository: &Repository,
        (from, until): (Timestamp, Timestamp),
        page: usize,
    ) -> Result<Page<ListedRun>, GitHubError> {
        #[derive(Deserialize)]
        struct Listing {
            total_count: usize,
            workflow_runs: Vec<Listed<Run>>,
        }
        #[derive(Deserialize)]
        struct Run {
            id: u64,
            created_at: Timestamp,
        }
        let path =
            format!("/repos/{repository}/actions/runs?created={from:.0}..{until:.0}&per_page={PER_PAGE}&page={page}");
        let (Listing { total_count, workflow_runs }, limited_until) = self.read(&path).await?;
        let has_next = !workflow_runs.is_empty() && page * PER_PAGE < total_count;
        let (items, unreadable) = readable(workflow_runs);
        let items = items.into_iter().map(|Run { id, created_at }| ListedRun { id: RunId(id), created_at }).collect();
        Ok(Page { items, unreadable, total: Some(total_count), has_next, limited_until })
    }

    /// `GET /repos/{owner}/{repo}/actions/runs/{id}/jobs`: the jobs of every attempt of a run.
    ///
    /// # Errors
    /// GitHub does not answer or refuses the call.
    pub async fn jobs(&self, repository: &Repository, run: RunId, page: usize) -> Result<Page<JobNotice>, GitHubError> {
        #[derive(Deserialize)]
        struct Listing {
            total_count: usize,
            jobs: Vec<Listed<WorkflowJob>>,
        }
        let path = format!("/repos/{repository}/actions/runs/{run}/jobs?filter=all&per_page={PER_PAGE}&page={page}");
        let (Listing { total_count, jobs }, limited_until) = self.read(&path).await?;
        let has_next = !jobs.is_empty() && page * PER_PAGE < total_count;
        let (items, unreadable) = readable(jobs);
        let items = items.into_iter().map(JobNotice::from).collect();
        Ok(Page { items, unreadable, total: Some(total_count), has_next, limited_until })
    }

    /// A successful answer, and until when GitHub allows no further call.
    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<(T, Option<Timestamp>), GitHubError> {
        let request = Request { method: Method::GET, path, body: NO_BODY, if_changed_from: None };
        let answer = send(&self.http, &self.api_url, request, &self.token).await?;
        match answer.status() {
            StatusCode::OK => {
                let limited_until = used_up_until(answer.headers());
                Ok((parse(answer).await?, limited_until))
            }
            _ => Err(error(answer, SystemClock.now()).await),
        }
    }
}

/// When the hourly limit is reset, if the answer says that nothing of it remains.
fn used_up_until(headers: &HeaderMap) -> Option<Timestamp> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    number("x-ratelimit-remaining").filter(|remaining| *remaining == 0)?;
    Timestamp::from_second(number("x-ratelimit-reset")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_call_of_an_hour_says_when_the_next_one_is_allowed() {
        let headers = |remaining: &'static str| {
            let pairs = [("x-ratelimit-remaining", remaining), ("x-ratelimit-reset", "1000900")];
            pairs
                .into_iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect::<HeaderMap>()
        };
        assert_eq!(used_up_until(&headers("0")), Timestamp::from_second(1_000_900).ok());
        assert_eq!(used_up_until(&headers("1")), None);
        assert_eq!(used_up_until(&HeaderMap::new()), None);
    }
}
