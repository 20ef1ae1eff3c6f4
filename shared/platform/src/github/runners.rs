//! Registering, listing and removing runners.

use domain::ids::{RunnerId, RunnerName, Scope, StackName};
use engine::ports::{Clock, Deregistered, GitHubError, ObservedRunner, Registered, Registration};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::answer::{error, parse};
use super::app::GitHubApp;
use super::client::NO_BODY;
use crate::clock::SystemClock;

/// GitHub's largest page of runners.
const PER_PAGE: usize = 100;

/// A runner group holds at most 10,000 runners, and an organisation can have several groups.
const MAX_PAGES: usize = 1000;

#[derive(Deserialize)]
struct Runner {
    id: u64,
    name: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    busy: bool,
}

/// `/orgs/{org}/actions/runners` or `/repos/{owner}/{repo}/actions/runners`.
fn runners_path(scope: &Scope) -> String {
    match scope {
        Scope::Organization(owner) => format!("/orgs/{owner}/actions/runners"),
        Scope::Repository(repository) => format!("/repos/{repository}/actions/runners"),
    }
}

impl GitHubApp {
    pub(super) async fn register_runner(&self, registration: &Registration) -> Result<Registered, GitHubError> {
        #[derive(Serialize)]
        struct Body<'a> {
            name: String,
            runner_group_id: u64,
            labels: Vec<&'a str>,
        }
        #[derive(Deserialize)]
        struct Created {
            runner: Runner,
            encoded_jit_config: String,
        }
        let scope = &registration.scope;
        let body = Body {
            name: registration.name.to_string(),
            runner_group_id: registration.group,
            labels: registration.labels.iter().map(|label| label.as_str()).collect(),
        };
        let path = format!("{}/generate-jitconfig", runners_path(scope));
        let answer = self.call(Method::POST, scope, &path, Some(&body)).await?;
        match answer.status() {
            StatusCode::CREATED => {
                let created: Created = parse(answer).await?;
                Ok(Registered { runner_id: RunnerId(created.runner.id), jit_config: created.encoded_jit_config })
            }
            StatusCode::CONFLICT => Err(GitHubError::NameTaken),
            _ => Err(error(answer, SystemClock.now()).await),
        }
    }

    pub(super) async fn list_runners(
        &self,
        scope: &Scope,
        stack: &StackName,
    ) -> Result<Vec<ObservedRunner>, GitHubError> {
        #[derive(Deserialize)]
        struct Page {
            total_count: usize,
            runners: Vec<Runner>,
        }
        let prefix = RunnerName::prefix(stack);
        let mut observed = Vec::new();
        for page in 1..=MAX_PAGES {
            let path = format!("{}?per_page={PER_PAGE}&page={page}", runners_path(scope));
            let answer = self.call(Method::GET, scope, &path, NO_BODY).await?;
            if answer.status() != StatusCode::OK {
                return Err(error(answer, SystemClock.now()).await);
            }
            let listed: Page = parse(answer).await?;
            let is_last = listed.runners.is_empty() || page * PER_PAGE >= listed.total_count;
            let of_stack = listed.runners.into_iter().filter(|runner| runner.name.starts_with(&prefix));
            observed.extend(of_stack.map(|runner| ObservedRunner {
                id: RunnerId(runner.id),
                online: runner.status == "online",
                busy: runner.busy,
                name: runner.name,
            }));
            if is_last {
                return Ok(observed);
            }
        }
        Err(GitHubError::unavailable(format!("{scope} has more than {} runners", MAX_PAGES * PER_PAGE)))
    }

    pub(super) async fn remove_runner(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError> {
        let path = format!("{}/{runner}", runners_path(scope));
        let answer = self.call(Method::DELETE, scope, &path, NO_BODY).await?;
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(Deregistered::Removed),
            StatusCode::NOT_FOUND => Ok(Deregistered::AlreadyGone),
            StatusCode::UNPROCESSABLE_ENTITY => Ok(Deregistered::Busy),
            _ => Err(error(answer, SystemClock.now()).await),
        }
    }
}
