//! Check runs, which the author of a job sees on the commit.

use domain::ids::Scope;
use engine::ports::{CheckRunUpdate, Clock, GitHubError};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::answer::{error, parse};
use super::app::GitHubApp;
use crate::clock::SystemClock;

/// The check run's name, which its author sees.
const CHECK_RUN: &str = "Drover";

impl GitHubApp {
    /// If the answer to the first call is lost, a later call creates a second check run with the same external id.
    pub(super) async fn put_check_run(&self, update: &CheckRunUpdate) -> Result<u64, GitHubError> {
        #[derive(Serialize)]
        struct Body<'a> {
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
        struct Written {
            id: u64,
        }
        let CheckRunUpdate { repository, head_sha, external_id, check_run, conclusion, title, summary, details_url } =
            update;
        let body = Body {
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
        let answer = self.call(method, &Scope::Repository(repository.clone()), &path, Some(&body)).await?;
        match answer.status() {
            StatusCode::OK | StatusCode::CREATED => Ok(parse::<Written>(answer).await?.id),
            _ => Err(error(answer, SystemClock.now()).await),
        }
    }
}
