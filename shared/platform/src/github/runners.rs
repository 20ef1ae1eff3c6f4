//! Registering, listing and removing runners.

use domain::ids::{RunnerId, RunnerName, Scope, StackName};
use domain::policy::listing::RUNNERS_PER_PAGE;
use engine::ports::{
    Clock, Deregistered, GitHubError, NamedRunners, ObservedRunner, Registered, Registration, RunnerPage,
};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::answer::{error, parse};
use super::app::{GitHubApp, Read};
use super::client::NO_BODY;
use super::listed::Listed;
use crate::clock::SystemClock;

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

#[derive(Deserialize)]
struct Page {
    total_count: usize,
    runners: Vec<Listed<Runner>>,
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
        page: usize,
    ) -> Result<RunnerPage, GitHubError> {
        let prefix = RunnerName::prefix(stack);
        let path = format!("{}?per_page={RUNNERS_PER_PAGE}&page={page}", runners_path(scope));
        let read = self.read_cached::<Page>(scope, &path).await?;
        let Read { resource: listed, counted } = read.map_err(|not_found| GitHubError::Refused(not_found.0))?;
        let mut page = RunnerPage { runners: Vec::new(), unreadable: Vec::new(), total: listed.total_count, counted };
        for item in listed.runners {
            match item {
                Listed::Readable(runner) if runner.name.starts_with(&prefix) => page.runners.push(ObservedRunner {
                    id: RunnerId(runner.id),
                    online: runner.status == "online",
                    busy: runner.busy,
                    name: runner.name,
                }),
                Listed::Readable(_) => {}
                // Another stack's, whatever else is wrong with it.
                Listed::Unreadable(item) if item["name"].as_str().is_some_and(|name| !name.starts_with(&prefix)) => {}
                Listed::Unreadable(item) => page.unreadable.push(item["id"].as_u64().map(RunnerId)),
            }
        }
        Ok(page)
    }

    /// Reads the list of one name: usually one short page. A server that ignores `name` returns every runner.
    pub(super) async fn find_runners(&self, scope: &Scope, name: &str) -> Result<NamedRunners, GitHubError> {
        let mut found: Option<NamedRunners> = None;
        for page in 1..=MAX_PAGES {
            let path = format!("{}?name={name}&per_page={RUNNERS_PER_PAGE}&page={page}", runners_path(scope));
            let (answer, token) = self.call_marked(Method::GET, scope, &path, NO_BODY).await?;
            if answer.status() != StatusCode::OK {
                return Err(error(answer, SystemClock.now()).await);
            }
            let listed: Page = parse(answer).await?;
            let is_last = listed.runners.is_empty() || page * RUNNERS_PER_PAGE >= listed.total_count;
            let (scope, name) = (scope.clone(), name.to_owned());
            let named = found.get_or_insert(NamedRunners { scope, name, token, ids: Vec::new() });
            if named.token != token {
                return Err(GitHubError::unavailable("the token was replaced while the list was read"));
            }
            for item in listed.runners {
                let id = match item {
                    Listed::Readable(runner) => Some(runner.id),
                    Listed::Unreadable(item) => item["id"].as_u64(),
                };
                // It could be the runner that the list is asked for.
                let id = id.ok_or_else(|| GitHubError::unavailable("a runner in the list cannot be read"))?;
                named.ids.push(RunnerId(id));
            }
            if is_last {
                break;
            }
        }
        found.ok_or_else(|| {
            GitHubError::unavailable(format!("{scope} has more than {} runners", MAX_PAGES * RUNNERS_PER_PAGE))
        })
    }

    pub(super) async fn remove_runner(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError> {
        let path = format!("{}/{runner}", runners_path(scope));
        let (answer, token) = self.call_marked(Method::DELETE, scope, &path, NO_BODY).await?;
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(Deregistered::Removed),
            StatusCode::NOT_FOUND => Ok(Deregistered::NotFound(token)),
            StatusCode::UNPROCESSABLE_ENTITY => Ok(Deregistered::Busy),
            _ => Err(error(answer, SystemClock.now()).await),
        }
    }
}
