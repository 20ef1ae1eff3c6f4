//! Workflow runs, jobs and check runs.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, patch, post};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use world::github::{Attempts, CheckOutput, CheckRunChange, CheckRunId, Failure, JobId, Reader, RunId, RunSearch};

use super::api::{Api, List, parsed};
use super::bodies::{check_run_json, job_json, repository_json, run_json};

type Repo = Path<(String, String)>;
type InRepo = Path<(String, String, u64)>;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/repos/{owner}/{repo}/actions/jobs/{id}", get(job))
        .route("/repos/{owner}/{repo}/actions/jobs/{id}/rerun", post(rerun))
        .route("/installation/repositories", get(repositories))
        .route("/orgs/{org}/repos", get(organization_repositories))
        .route("/repos/{owner}/{repo}/actions/runs", get(runs))
        .route("/repos/{owner}/{repo}/actions/runs/{id}/jobs", get(run_jobs))
        .route("/repos/{owner}/{repo}/check-runs", post(create_check_run))
        .route("/repos/{owner}/{repo}/check-runs/{id}", patch(update_check_run))
}

async fn repositories(api: Shared<Arc<Api>>, query: Query<List>, headers: HeaderMap) -> Response {
    api.as_installation("GET /installation/repositories", &headers, |state, caller, now| {
        let listed = state.github.list_installation_repositories(caller, query.paging(), now)?;
        let repositories: Vec<Value> = listed.items.iter().map(|it| repository_json(&state.github, it)).collect();
        let body = json!({
            "total_count": listed.total, "repository_selection": "all", "repositories": repositories,
        });
        Ok((StatusCode::OK, body))
    })
    .await
}

async fn organization_repositories(
    api: Shared<Arc<Api>>,
    Path(org): Path<String>,
    query: Query<List>,
    headers: HeaderMap,
) -> Response {
    api.as_reader("GET /orgs/{org}/repos", &headers, |state, reader, now| {
        let Reader::User(token) = reader else {
            return Err(Failure::Forbidden("Resource not accessible by integration".to_owned()));
        };
        let listed = state.github.list_organization_repositories(token, &org, query.paging(), now)?;
        let repositories: Vec<Value> = listed.items.iter().map(|it| repository_json(&state.github, it)).collect();
        Ok((StatusCode::OK, json!(repositories)))
    })
    .await
}

async fn runs(api: Shared<Arc<Api>>, Path((owner, repo)): Repo, query: Query<List>, headers: HeaderMap) -> Response {
    api.as_reader("GET /repos/{owner}/{repo}/actions/runs", &headers, |state, reader, now| {
        let created = query.created.as_deref().map(created).transpose()?;
        let search = RunSearch { status: query.status.as_deref(), created };
        let listed = state.github.search_runs(reader, &owner, &repo, search, query.paging(), now)?;
        let runs: Vec<Value> = listed.items.iter().map(|run| run_json(&state.github, run)).collect();
        Ok((StatusCode::OK, json!({ "total_count": listed.total, "workflow_runs": runs })))
    })
    .await
}

/// `FROM..UNTIL`, the form of GitHub's searches that Drover uses.
fn created(text: &str) -> Result<(Timestamp, Timestamp), Failure> {
    let span = text.split_once("..").and_then(|(from, until)| Some((from.parse().ok()?, until.parse().ok()?)));
    span.ok_or_else(|| Failure::Unprocessable("created is not FROM..UNTIL".to_owned()))
}

async fn run_jobs(
    api: Shared<Arc<Api>>,
    Path((owner, repo, id)): InRepo,
    query: Query<List>,
    headers: HeaderMap,
) -> Response {
    let attempts = if query.filter.as_deref() == Some("all") { Attempts::All } else { Attempts::Latest };
    api.as_reader("GET /repos/{owner}/{repo}/actions/runs/{id}/jobs", &headers, |state, reader, now| {
        let listed = state.github.list_run_jobs(reader, &owner, &repo, RunId(id), attempts, query.paging(), now)?;
        let jobs: Vec<Value> = listed.items.iter().map(|job| job_json(&state.github, job, &owner, &repo)).collect();
        Ok((StatusCode::OK, json!({ "total_count": listed.total, "jobs": jobs })))
    })
    .await
}

async fn job(
    api: Shared<Arc<Api>>,
    Path((owner, repo, id)): Path<(String, String, u64)>,
    headers: HeaderMap,
) -> Response {
    api.as_installation("GET /repos/{owner}/{repo}/actions/jobs/{id}", &headers, |state, caller, now| {
        let found = state.github.get_job(caller, &owner, &repo, JobId(id), now)?;
        Ok((StatusCode::OK, job_json(&state.github, &found, &owner, &repo)))
    })
    .await
}

async fn rerun(api: Shared<Arc<Api>>, Path((owner, repo, id)): InRepo, headers: HeaderMap) -> Response {
    api.as_installation("POST /repos/{owner}/{repo}/actions/jobs/{id}/rerun", &headers, |state, caller, now| {
        state.github.rerun_job(caller, &owner, &repo, JobId(id), now)?;
        Ok((StatusCode::CREATED, json!({})))
    })
    .await
}

#[derive(Deserialize)]
struct CheckRunBody {
    head_sha: Option<String>,
    name: Option<String>,
    external_id: Option<String>,
    status: Option<String>,
    conclusion: Option<String>,
    details_url: Option<String>,
    output: Option<OutputBody>,
}

#[derive(Deserialize)]
struct OutputBody {
    title: String,
    summary: String,
}

impl CheckRunBody {
    fn change(self) -> CheckRunChange {
        CheckRunChange {
            name: self.name,
            external_id: self.external_id,
            status: self.status,
            conclusion: self.conclusion,
            details_url: self.details_url,
            output: self.output.map(|output| CheckOutput { title: output.title, summary: output.summary }),
        }
    }
}

async fn create_check_run(
    api: Shared<Arc<Api>>,
    Path((owner, repo)): Repo,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let wanted = parsed::<CheckRunBody>(&body);
    api.as_installation("POST /repos/{owner}/{repo}/check-runs", &headers, |state, caller, now| {
        let mut wanted = wanted?;
        let head_sha = wanted.head_sha.take().unwrap_or_default();
        let made = state.github.create_check_run(caller, &owner, &repo, &head_sha, wanted.change(), now)?;
        Ok((StatusCode::CREATED, check_run_json(&made, state.github.app(), &owner, &repo)))
    })
    .await
}

async fn update_check_run(
    api: Shared<Arc<Api>>,
    Path((owner, repo, id)): InRepo,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let wanted = parsed::<CheckRunBody>(&body);
    api.as_installation("PATCH /repos/{owner}/{repo}/check-runs/{id}", &headers, |state, caller, now| {
        let change = wanted?.change();
        let made = state.github.update_check_run(caller, &owner, &repo, CheckRunId(id), change, now)?;
        Ok((StatusCode::OK, check_run_json(&made, state.github.app(), &owner, &repo)))
    })
    .await
}
