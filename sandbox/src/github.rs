//! GitHub's REST API on the model: the operations that Drover uses, in the form of GitHub's own OpenAPI description, which
//! a test holds every answer against.

use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Value, json};
use world::github::{
    Caller as Charged, Failure, GitHub, GroupId, InstallationId, JitRequest, Job, JobId, Owner, OwnerKind, Paging,
    Runner, RunnerId, Scope,
};

use crate::calls::{Caller, Calls, hang_up};
use crate::state::{State, World};

/// The app's key, as GitHub hands it out once.
pub struct AppKey {
    /// PEM, for Drover.
    pub private: String,
    public: DecodingKey,
}

impl AppKey {
    /// A fresh one.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn generate() -> anyhow::Result<Self> {
        let failed = |_| anyhow::anyhow!("cannot make an RSA key");
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(failed)?;
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
        Ok(Self {
            private: format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")),
            public: DecodingKey::from_rsa_der(pair.public_key().as_ref()),
        })
    }
}

impl std::fmt::Debug for AppKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AppKey(<secret>)")
    }
}

/// What the API answers with.
#[derive(Debug)]
pub struct Api {
    /// The model.
    pub world: Arc<World>,
    /// Who called what.
    pub calls: Arc<Calls>,
    /// What JWTs are checked with.
    pub key: AppKey,
}

/// The routes.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/orgs/{org}/installation", get(org_installation))
        .route("/repos/{owner}/{repo}/installation", get(repo_installation))
        .route("/app/installations/{id}/access_tokens", post(access_tokens))
        .route("/orgs/{org}/actions/runners/generate-jitconfig", post(org_jit))
        .route("/repos/{owner}/{repo}/actions/runners/generate-jitconfig", post(repo_jit))
        .route("/orgs/{org}/actions/runners", get(org_runners))
        .route("/repos/{owner}/{repo}/actions/runners", get(repo_runners))
        .route("/orgs/{org}/actions/runners/{id}", get(org_runner).delete(org_delete))
        .route("/repos/{owner}/{repo}/actions/runners/{id}", get(repo_runner).delete(repo_delete))
        .route("/repos/{owner}/{repo}/actions/jobs/{id}", get(job))
        .with_state(api)
}

type Org = Path<String>;
type Repo = Path<(String, String)>;

async fn org_installation(api: Shared<Arc<Api>>, Path(org): Org, headers: HeaderMap) -> Response {
    api.installation("GET /orgs/{org}/installation", Scope::organization(&org), &headers).await
}

async fn repo_installation(api: Shared<Arc<Api>>, Path((owner, repo)): Repo, headers: HeaderMap) -> Response {
    api.installation("GET /repos/{owner}/{repo}/installation", Scope::repository(&owner, &repo), &headers).await
}

async fn access_tokens(api: Shared<Arc<Api>>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    api.as_app("POST /app/installations/{id}/access_tokens", &headers, |state, now| {
        let made = state.github.create_token(InstallationId(id), now)?;
        let permissions = json!({ "actions": "read", "metadata": "read", "organization_self_hosted_runners": "write" });
        let body = json!({
            "token": made.token, "expires_at": made.expires_at, "permissions": permissions, "repository_selection": "all",
        });
        Ok((StatusCode::CREATED, body))
    })
    .await
}

async fn org_jit(api: Shared<Arc<Api>>, Path(org): Org, headers: HeaderMap, body: Bytes) -> Response {
    api.jit("POST /orgs/{org}/actions/runners/generate-jitconfig", Scope::organization(&org), &headers, &body).await
}

async fn repo_jit(api: Shared<Arc<Api>>, Path((owner, repo)): Repo, headers: HeaderMap, body: Bytes) -> Response {
    let operation = "POST /repos/{owner}/{repo}/actions/runners/generate-jitconfig";
    api.jit(operation, Scope::repository(&owner, &repo), &headers, &body).await
}

#[derive(Deserialize)]
struct List {
    page: Option<usize>,
    per_page: Option<usize>,
    name: Option<String>,
}

async fn org_runners(api: Shared<Arc<Api>>, Path(org): Org, query: Query<List>, headers: HeaderMap) -> Response {
    api.runners("GET /orgs/{org}/actions/runners", Scope::organization(&org), &query, &headers).await
}

async fn repo_runners(
    api: Shared<Arc<Api>>,
    Path((owner, repo)): Repo,
    query: Query<List>,
    headers: HeaderMap,
) -> Response {
    api.runners("GET /repos/{owner}/{repo}/actions/runners", Scope::repository(&owner, &repo), &query, &headers).await
}

async fn org_runner(api: Shared<Arc<Api>>, Path((org, id)): Path<(String, u64)>, headers: HeaderMap) -> Response {
    api.runner("GET /orgs/{org}/actions/runners/{id}", Scope::organization(&org), id, &headers).await
}

async fn repo_runner(
    api: Shared<Arc<Api>>,
    Path((owner, repo, id)): Path<(String, String, u64)>,
    headers: HeaderMap,
) -> Response {
    let scope = Scope::repository(&owner, &repo);
    api.runner("GET /repos/{owner}/{repo}/actions/runners/{id}", scope, id, &headers).await
}

async fn org_delete(api: Shared<Arc<Api>>, Path((org, id)): Path<(String, u64)>, headers: HeaderMap) -> Response {
    api.delete("DELETE /orgs/{org}/actions/runners/{id}", Scope::organization(&org), id, &headers).await
}

async fn repo_delete(
    api: Shared<Arc<Api>>,
    Path((owner, repo, id)): Path<(String, String, u64)>,
    headers: HeaderMap,
) -> Response {
    let scope = Scope::repository(&owner, &repo);
    api.delete("DELETE /repos/{owner}/{repo}/actions/runners/{id}", scope, id, &headers).await
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

type Answered = Result<(StatusCode, Value), Failure>;

impl Api {
    /// A call in the app's own name, by a JWT.
    async fn as_app(
        &self,
        operation: &str,
        headers: &HeaderMap,
        act: impl FnOnce(&mut State, Timestamp) -> Answered,
    ) -> Response {
        let is_app = self.signed_by_app(headers);
        let answer = async {
            self.world.act(|state, now| {
                let done = if is_app { act(state, now) } else { Err(Failure::Unauthorized) };
                respond(&mut state.github, Charged::App, done, now)
            })
        };
        self.calls.answer(&Caller::ControlPlane, "GitHub", operation, answer).await
    }

    /// A call in an installation's name, by its token.
    async fn as_installation(
        &self,
        operation: &str,
        headers: &HeaderMap,
        act: impl FnOnce(&mut State, InstallationId, Timestamp) -> Answered,
    ) -> Response {
        let token = bearer(headers).to_owned();
        let answer = async {
            self.world.act(|state, now| match state.github.authorize(&token, now) {
                Ok(caller) => {
                    let done = act(state, caller, now);
                    respond(&mut state.github, Charged::Installation(caller), done, now)
                }
                Err(error) => respond(&mut state.github, Charged::Anonymous, Err(error), now),
            })
        };
        self.calls.answer(&Caller::ControlPlane, "GitHub", operation, answer).await
    }

    /// RS256, `exp` at most ten minutes ahead, `iss` the app.
    fn signed_by_app(&self, headers: &HeaderMap) -> bool {
        #[derive(Deserialize)]
        struct Claims {
            iat: i64,
            exp: i64,
            iss: String,
        }
        let mut rules = Validation::new(Algorithm::RS256);
        rules.validate_aud = false;
        let Ok(token) = jsonwebtoken::decode::<Claims>(bearer(headers), &self.key.public, &rules) else { return false };
        let (claims, app) = (token.claims, self.world.look(|state| state.github.app().id));
        claims.iss == app.to_string() && claims.exp - claims.iat <= 660
    }

    async fn installation(&self, operation: &str, scope: Scope, headers: &HeaderMap) -> Response {
        self.as_app(operation, headers, |state, now| {
            let owner = state.github.find_installation(&scope, now)?;
            Ok((StatusCode::OK, installation_json(&state.github, &owner)))
        })
        .await
    }

    async fn jit(&self, operation: &str, scope: Scope, headers: &HeaderMap, body: &[u8]) -> Response {
        #[derive(Deserialize)]
        struct Wanted {
            name: String,
            runner_group_id: u64,
            labels: Vec<String>,
        }
        let wanted: Result<Wanted, _> = serde_json::from_slice(body);
        self.as_installation(operation, headers, |state, caller, now| {
            let wanted = wanted.map_err(|error| Failure::Unprocessable(error.to_string()))?;
            let request =
                JitRequest { name: wanted.name, group: GroupId(wanted.runner_group_id), labels: wanted.labels };
            let made = state.github.generate_jit(caller, &scope, request, now)?;
            let config = STANDARD.encode(json!({ "secret": made.secret }).to_string());
            Ok((StatusCode::CREATED, json!({ "runner": runner_json(&made.runner), "encoded_jit_config": config })))
        })
        .await
    }

    async fn runners(&self, operation: &str, scope: Scope, query: &List, headers: &HeaderMap) -> Response {
        let paging = Paging { page: query.page.unwrap_or(1), per_page: query.per_page.unwrap_or(30) };
        self.as_installation(operation, headers, |state, caller, now| {
            let listed = state.github.list_runners(caller, &scope, query.name.as_deref(), paging, now)?;
            let runners: Vec<Value> = listed.items.iter().map(runner_json).collect();
            Ok((StatusCode::OK, json!({ "total_count": listed.total, "runners": runners })))
        })
        .await
    }

    async fn runner(&self, operation: &str, scope: Scope, id: u64, headers: &HeaderMap) -> Response {
        self.as_installation(operation, headers, |state, caller, now| {
            let found = state.github.get_runner(caller, &scope, RunnerId(id), now)?;
            Ok((StatusCode::OK, runner_json(&found)))
        })
        .await
    }

    async fn delete(&self, operation: &str, scope: Scope, id: u64, headers: &HeaderMap) -> Response {
        self.as_installation(operation, headers, |state, caller, now| {
            state.github.delete_runner(caller, &scope, RunnerId(id), now)?;
            Ok((StatusCode::NO_CONTENT, Value::Null))
        })
        .await
    }
}

fn bearer(headers: &HeaderMap) -> &str {
    let value = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.strip_prefix("Bearer ").unwrap_or_default()
}

fn respond(github: &mut GitHub, caller: Charged, done: Answered, now: Timestamp) -> Response {
    let mut answer = match done {
        Ok((StatusCode::NO_CONTENT, _)) => StatusCode::NO_CONTENT.into_response(),
        Ok((status, body)) => (status, Json(body)).into_response(),
        Err(Failure::NoReply) => return hang_up(),
        Err(failure) => {
            let status = failure.status().and_then(|status| StatusCode::from_u16(status).ok());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let body = json!({
                "message": failure.to_string(), "documentation_url": "https://docs.github.com/rest",
                "status": status.as_str(),
            });
            let mut answer = (status, Json(body)).into_response();
            match failure {
                Failure::SecondaryLimit { until } => {
                    let seconds = until.duration_since(now).as_secs().max(0) + 1;
                    answer.headers_mut().insert("retry-after", HeaderValue::from(seconds));
                }
                Failure::PrimaryLimit { reset } => {
                    answer.headers_mut().insert("x-ratelimit-remaining", HeaderValue::from(0));
                    answer.headers_mut().insert("x-ratelimit-reset", HeaderValue::from(reset.as_second()));
                }
                _ => {}
            }
            answer
        }
    };
    let rate = github.rate(caller, now);
    let shown = [
        ("x-ratelimit-limit", rate.limit as i64),
        ("x-ratelimit-remaining", rate.limit.saturating_sub(rate.used) as i64),
        ("x-ratelimit-reset", rate.reset.as_second()),
    ];
    for (name, value) in shown {
        answer.headers_mut().entry(HeaderName::from_static(name)).or_insert(HeaderValue::from(value));
    }
    answer
}

fn account_json(owner: &Owner) -> Value {
    let login = &owner.login;
    let api = format!("https://api.github.com/users/{login}");
    json!({
        "login": login, "id": owner.id.0, "node_id": format!("node-{}", owner.id),
        "avatar_url": format!("https://avatars.githubusercontent.com/u/{}", owner.id), "gravatar_id": "",
        "url": api, "html_url": format!("https://github.com/{login}"),
        "followers_url": format!("{api}/followers"), "following_url": format!("{api}/following{{/other_user}}"),
        "gists_url": format!("{api}/gists{{/gist_id}}"), "starred_url": format!("{api}/starred{{/owner}}{{/repo}}"),
        "subscriptions_url": format!("{api}/subscriptions"), "organizations_url": format!("{api}/orgs"),
        "repos_url": format!("{api}/repos"), "events_url": format!("{api}/events{{/privacy}}"),
        "received_events_url": format!("{api}/received_events"), "site_admin": false,
        "type": kind(owner),
    })
}

fn kind(owner: &Owner) -> &'static str {
    match owner.kind {
        OwnerKind::Organization => "Organization",
        OwnerKind::User => "User",
    }
}

fn installation_json(github: &GitHub, owner: &Owner) -> Value {
    let id = owner.installation.map_or(0, |installation| installation.0);
    json!({
        "id": id, "account": account_json(owner), "repository_selection": "all",
        "access_tokens_url": format!("https://api.github.com/app/installations/{id}/access_tokens"),
        "repositories_url": "https://api.github.com/installation/repositories",
        "html_url": format!("https://github.com/organizations/{}/settings/installations/{id}", owner.login),
        "app_id": github.app().id, "app_slug": github.app().slug,
        "target_id": owner.id.0, "target_type": kind(owner),
        "permissions": { "actions": "read", "metadata": "read", "organization_self_hosted_runners": "write" },
        "events": ["workflow_job"], "created_at": owner.since, "updated_at": owner.since, "single_file_name": null,
        "suspended_by": null, "suspended_at": null,
    })
}

fn runner_json(runner: &Runner) -> Value {
    let labels: Vec<Value> = runner
        .labels
        .iter()
        .enumerate()
        .map(|(id, name)| json!({ "id": id, "name": name, "type": "custom" }))
        .collect();
    json!({
        "id": runner.id.0, "runner_group_id": runner.group.0, "name": runner.name, "os": "unknown",
        "status": if runner.online { "online" } else { "offline" }, "busy": runner.job.is_some(),
        "ephemeral": runner.ephemeral, "labels": labels,
    })
}

fn job_json(github: &GitHub, job: &Job, owner: &str, repo: &str) -> Value {
    let base = format!("https://api.github.com/repos/{owner}/{repo}/actions");
    let runner = job.state.runner();
    let head_sha = github.run(job.run).map(|run| run.head_sha.clone()).unwrap_or_default();
    json!({
        "id": job.id.0, "run_id": job.run.0, "run_url": format!("{base}/runs/{}", job.run), "run_attempt": job.attempt,
        "node_id": format!("node-{}", job.id), "head_sha": head_sha, "url": format!("{base}/jobs/{}", job.id),
        "html_url": format!("https://github.com/{owner}/{repo}/actions/runs/{}/job/{}", job.run, job.id),
        "status": job.state.status(), "conclusion": job.state.conclusion().map(|how| how.as_str()),
        "created_at": job.created_at, "started_at": job.started_at.unwrap_or(job.created_at),
        "completed_at": job.completed_at, "name": job.name, "steps": [],
        "check_run_url": format!("https://api.github.com/repos/{owner}/{repo}/check-runs/{}", job.id),
        "labels": job.labels, "runner_id": runner.map(|it| it.id.0), "runner_name": runner.map(|it| &it.name),
        "runner_group_id": runner.map(|it| it.group.0), "runner_group_name": runner.map(|it| &it.group_name),
        "workflow_name": "CI", "head_branch": "main",
    })
}
