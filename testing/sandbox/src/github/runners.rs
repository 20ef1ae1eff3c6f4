//! Runner registrations and runner groups.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use world::github::{GroupId, JitRequest, RunnerId, Scope};

use super::api::{Api, List, parsed};
use super::bodies::{group_json, listed_runner_json, runner_json};

type Org = Path<String>;
type Repo = Path<(String, String)>;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/orgs/{org}/actions/runners/generate-jitconfig", post(org_jit))
        .route("/repos/{owner}/{repo}/actions/runners/generate-jitconfig", post(repo_jit))
        .route("/orgs/{org}/actions/runners", get(org_runners))
        .route("/repos/{owner}/{repo}/actions/runners", get(repo_runners))
        .route("/orgs/{org}/actions/runners/{id}", get(org_runner).delete(org_delete))
        .route("/repos/{owner}/{repo}/actions/runners/{id}", get(repo_runner).delete(repo_delete))
        .route("/orgs/{org}/actions/runner-groups", get(runner_groups))
}

async fn runner_groups(api: Shared<Arc<Api>>, Path(org): Org, query: Query<List>, headers: HeaderMap) -> Response {
    api.as_installation("GET /orgs/{org}/actions/runner-groups", &headers, |state, caller, now| {
        let visible_to = query.visible_to_repository.as_deref();
        let listed = state.github.list_groups(caller, &org, visible_to, query.paging(), now)?;
        let groups: Vec<Value> = listed.items.iter().map(|group| group_json(group, &org)).collect();
        Ok((StatusCode::OK, json!({ "total_count": listed.total, "runner_groups": groups })))
    })
    .await
}

async fn org_jit(api: Shared<Arc<Api>>, Path(org): Org, headers: HeaderMap, body: Bytes) -> Response {
    jit(&api, "POST /orgs/{org}/actions/runners/generate-jitconfig", Scope::organization(&org), &headers, &body).await
}

async fn repo_jit(api: Shared<Arc<Api>>, Path((owner, repo)): Repo, headers: HeaderMap, body: Bytes) -> Response {
    let operation = "POST /repos/{owner}/{repo}/actions/runners/generate-jitconfig";
    jit(&api, operation, Scope::repository(&owner, &repo), &headers, &body).await
}

async fn jit(api: &Api, operation: &str, scope: Scope, headers: &HeaderMap, body: &[u8]) -> Response {
    #[derive(Deserialize)]
    struct Body {
        name: String,
        runner_group_id: u64,
        labels: Vec<String>,
    }
    let wanted = parsed::<Body>(body);
    tokio::time::sleep(api.registration).await;
    api.as_installation(operation, headers, |state, caller, now| {
        let wanted = wanted?;
        let request = JitRequest { name: wanted.name, group: GroupId(wanted.runner_group_id), labels: wanted.labels };
        let made = state.github.generate_jit(caller, &scope, request, now)?;
        let config = STANDARD.encode(json!({ "secret": made.secret }).to_string());
        Ok((StatusCode::CREATED, json!({ "runner": runner_json(&made.runner), "encoded_jit_config": config })))
    })
    .await
}

async fn org_runners(api: Shared<Arc<Api>>, Path(org): Org, query: Query<List>, headers: HeaderMap) -> Response {
    runners(&api, "GET /orgs/{org}/actions/runners", Scope::organization(&org), &query, &headers).await
}

async fn repo_runners(
    api: Shared<Arc<Api>>,
    Path((owner, repo)): Repo,
    query: Query<List>,
    headers: HeaderMap,
) -> Response {
    runners(&api, "GET /repos/{owner}/{repo}/actions/runners", Scope::repository(&owner, &repo), &query, &headers).await
}

async fn runners(api: &Api, operation: &str, scope: Scope, query: &List, headers: &HeaderMap) -> Response {
    let paging = query.paging();
    api.as_installation(operation, headers, |state, caller, now| {
        let listed = state.github.list_runners(caller, &scope, query.name.as_deref(), paging, now)?;
        let runners: Vec<Value> = listed.items.iter().map(|runner| listed_runner_json(&state.github, runner)).collect();
        Ok((StatusCode::OK, json!({ "total_count": listed.total, "runners": runners })))
    })
    .await
}

async fn org_runner(api: Shared<Arc<Api>>, Path((org, id)): Path<(String, u64)>, headers: HeaderMap) -> Response {
    runner(&api, "GET /orgs/{org}/actions/runners/{id}", Scope::organization(&org), id, &headers).await
}

async fn repo_runner(
    api: Shared<Arc<Api>>,
    Path((owner, repo, id)): Path<(String, String, u64)>,
    headers: HeaderMap,
) -> Response {
    let scope = Scope::repository(&owner, &repo);
    runner(&api, "GET /repos/{owner}/{repo}/actions/runners/{id}", scope, id, &headers).await
}

async fn runner(api: &Api, operation: &str, scope: Scope, id: u64, headers: &HeaderMap) -> Response {
    api.as_installation(operation, headers, |state, caller, now| {
        let found = state.github.get_runner(caller, &scope, RunnerId(id), now)?;
        Ok((StatusCode::OK, runner_json(&found)))
    })
    .await
}

async fn org_delete(api: Shared<Arc<Api>>, Path((org, id)): Path<(String, u64)>, headers: HeaderMap) -> Response {
    delete(&api, "DELETE /orgs/{org}/actions/runners/{id}", Scope::organization(&org), id, &headers).await
}

async fn repo_delete(
    api: Shared<Arc<Api>>,
    Path((owner, repo, id)): Path<(String, String, u64)>,
    headers: HeaderMap,
) -> Response {
    let scope = Scope::repository(&owner, &repo);
    delete(&api, "DELETE /repos/{owner}/{repo}/actions/runners/{id}", scope, id, &headers).await
}

async fn delete(api: &Api, operation: &str, scope: Scope, id: u64, headers: &HeaderMap) -> Response {
    api.as_installation(operation, headers, |state, caller, now| {
        state.github.delete_runner(caller, &scope, RunnerId(id), now)?;
        Ok((StatusCode::NO_CONTENT, Value::Null))
    })
    .await
}
