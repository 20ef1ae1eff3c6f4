//! GitHub's REST API on the model: the operations that Drover uses, in the form of GitHub's own OpenAPI description, which
//! a test holds every answer against.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engine::ports::Clock;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use platform::clock::SystemClock;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use world::github::{
    App, Attempts, Caller as Charged, CheckOutput, CheckRun, CheckRunChange, CheckRunId, DEFAULT_GROUP, Delivery,
    DeliveryId, Failure, GitHub, Group, GroupId, HookConfig, InstallationId, JitRequest, Job, JobId, Owner, OwnerId,
    OwnerKind, Paging, Repository, RepositoryId, Run, RunId, Runner, RunnerId, Scope, Visibility,
};

use crate::calls::{Calls, hang_up};
use crate::permissions::Caller;
use crate::state::{State, World};

/// GitHub's longest life of a JWT.
const LONGEST_JWT: i64 = 600;

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

/// The routes. A repository that was renamed is found by its old name, on a detour that its caller has to follow.
pub fn router(api: Arc<Api>) -> Router {
    let routes = Router::new()
        .route("/app", get(app))
        .route("/app/installations", get(installations))
        .route("/app/installations/{id}/access_tokens", post(access_tokens))
        .route("/app/hook/config", get(hook).patch(change_hook))
        .route("/app/hook/deliveries", get(deliveries))
        .route("/app/hook/deliveries/{id}/attempts", post(redeliver))
        .route("/app-manifests/{code}/conversions", post(convert_manifest))
        .route("/orgs/{org}/installation", get(org_installation))
        .route("/repos/{owner}/{repo}/installation", get(repo_installation))
        .route("/orgs/{org}/actions/runners/generate-jitconfig", post(org_jit))
        .route("/repos/{owner}/{repo}/actions/runners/generate-jitconfig", post(repo_jit))
        .route("/orgs/{org}/actions/runners", get(org_runners))
        .route("/repos/{owner}/{repo}/actions/runners", get(repo_runners))
        .route("/orgs/{org}/actions/runners/{id}", get(org_runner).delete(org_delete))
        .route("/repos/{owner}/{repo}/actions/runners/{id}", get(repo_runner).delete(repo_delete))
        .route("/orgs/{org}/actions/runner-groups", get(runner_groups))
        .route("/repos/{owner}/{repo}/actions/jobs/{id}", get(job))
        .route("/repos/{owner}/{repo}/actions/jobs/{id}/rerun", post(rerun))
        .route("/repos/{owner}/{repo}/actions/runs", get(runs))
        .route("/repos/{owner}/{repo}/actions/runs/{id}/jobs", get(run_jobs))
        .route("/repos/{owner}/{repo}/check-runs", post(create_check_run))
        .route("/repos/{owner}/{repo}/check-runs/{id}", patch(update_check_run))
        .merge(crate::github_pages::routes())
        .with_state(api.clone());
    // Around the routes, because it changes the path that they see.
    Router::new().fallback_service(routes).layer(from_fn_with_state(api, renamed))
}

/// GitHub answers calls under a repository's old name with the address of its number, 301 for reading and 307 for the rest,
/// and serves it there.
async fn renamed(api: Shared<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let parts: Vec<&str> = path.trim_start_matches('/').splitn(4, '/').collect();
    match parts[..] {
        ["repos", owner, name, rest] => {
            let moved = api.world.look(|state| match state.github.find_repository(owner, name) {
                Some(_) => None,
                None => state.github.moved(owner, name),
            });
            let Some(id) = moved else { return next.run(request).await };
            let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
            let location = format!("http://{host}/repositories/{id}/{rest}{query}");
            let (status, message) = match *request.method() {
                Method::GET => (StatusCode::MOVED_PERMANENTLY, "Moved Permanently"),
                _ => (StatusCode::TEMPORARY_REDIRECT, "Temporary Redirect"),
            };
            let body =
                json!({ "message": message, "url": location, "documentation_url": "https://docs.github.com/rest" });
            let answer = async { (status, [("location", location)], Json(body)).into_response() };
            api.calls.answer(&Caller::ControlPlane, "", "GitHub", "a repository's old name", answer).await
        }
        ["repositories", id, ..] => {
            let rest = parts[2..].join("/");
            let found = id.parse().ok().and_then(|id| {
                api.world.look(|state| {
                    let repository = state.github.repository(RepositoryId(id))?;
                    Some(format!("/repos/{}/{}/{rest}{query}", repository.owner_login, repository.name))
                })
            });
            match found.and_then(|path| path.parse::<Uri>().ok()) {
                Some(uri) => *request.uri_mut() = uri,
                None => return StatusCode::NOT_FOUND.into_response(),
            }
            next.run(request).await
        }
        _ => next.run(request).await,
    }
}

type Org = Path<String>;
type Repo = Path<(String, String)>;
type InRepo = Path<(String, String, u64)>;

async fn app(api: Shared<Arc<Api>>, headers: HeaderMap) -> Response {
    api.as_app("GET /app", &headers, |state, now| {
        let (app, installed) = state.github.get_app(now)?;
        let mut body = app_json(&app);
        body["installations_count"] = json!(installed);
        Ok((StatusCode::OK, body))
    })
    .await
}

async fn installations(api: Shared<Arc<Api>>, query: Query<List>, headers: HeaderMap) -> Response {
    api.as_app("GET /app/installations", &headers, |state, now| {
        let listed = state.github.list_installations(query.paging(), now)?;
        Ok((StatusCode::OK, listed.items.iter().map(|owner| installation_json(&state.github, owner)).collect()))
    })
    .await
}

async fn hook(api: Shared<Arc<Api>>, headers: HeaderMap) -> Response {
    api.as_app("GET /app/hook/config", &headers, |state, now| {
        Ok((StatusCode::OK, hook_json(&state.github.get_hook(now)?)))
    })
    .await
}

async fn change_hook(api: Shared<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    #[derive(Deserialize)]
    struct Wanted {
        url: Option<String>,
        secret: Option<String>,
    }
    let wanted = parsed::<Wanted>(&body);
    api.as_app("PATCH /app/hook/config", &headers, |state, now| {
        let wanted = wanted?;
        Ok((StatusCode::OK, hook_json(&state.github.update_hook(wanted.url, wanted.secret, now)?)))
    })
    .await
}

/// Pages by cursor: where the next one is stands in the header `link`.
async fn deliveries(api: Shared<Arc<Api>>, query: Query<List>, headers: HeaderMap) -> Response {
    let mut link = None;
    let mut answer = api
        .as_app("GET /app/hook/deliveries", &headers, |state, now| {
            let per_page = query.per_page.unwrap_or(30);
            let (page, next) = state.github.list_deliveries(per_page, query.cursor.as_deref(), now)?;
            let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
            link = next.map(|cursor| {
                format!("<http://{host}/app/hook/deliveries?per_page={per_page}&cursor={cursor}>; rel=\"next\"")
            });
            Ok((StatusCode::OK, page.iter().map(delivery_json).collect()))
        })
        .await;
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        answer.headers_mut().insert("link", link);
    }
    answer
}

async fn redeliver(api: Shared<Arc<Api>>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    api.as_app("POST /app/hook/deliveries/{id}/attempts", &headers, |state, now| {
        state.github.redeliver(DeliveryId(id), now)?;
        Ok((StatusCode::ACCEPTED, json!({})))
    })
    .await
}

/// Needs no credentials: the code is one.
async fn convert_manifest(api: Shared<Arc<Api>>, Path(code): Path<String>, headers: HeaderMap) -> Response {
    let answer = async {
        api.world.act(|state, now| {
            let done = state.github.convert_manifest(&code, now).map(|app| {
                let mut body = app_json(&app);
                let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
                body["html_url"] = json!(format!("http://{host}/apps/{}", app.slug));
                body["client_id"] = json!(format!("Iv1.{:016x}", app.id));
                body["client_secret"] = json!("the model of GitHub has no users to log in");
                body["webhook_secret"] = json!(state.github.hook().secret);
                body["pem"] = json!(api.key.private);
                (StatusCode::CREATED, body)
            });
            respond(state, Charged::Anonymous, done, now)
        })
    };
    api.calls.answer(&Caller::ControlPlane, "", "GitHub", "POST /app-manifests/{code}/conversions", answer).await
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

async fn runs(api: Shared<Arc<Api>>, Path((owner, repo)): Repo, query: Query<List>, headers: HeaderMap) -> Response {
    api.as_installation("GET /repos/{owner}/{repo}/actions/runs", &headers, |state, caller, now| {
        let status = query.status.as_deref();
        let listed = state.github.list_runs(caller, &owner, &repo, status, query.paging(), now)?;
        let runs: Vec<Value> = listed.items.iter().map(|run| run_json(&state.github, run)).collect();
        Ok((StatusCode::OK, json!({ "total_count": listed.total, "workflow_runs": runs })))
    })
    .await
}

async fn run_jobs(
    api: Shared<Arc<Api>>,
    Path((owner, repo, id)): InRepo,
    query: Query<List>,
    headers: HeaderMap,
) -> Response {
    let attempts = if query.filter.as_deref() == Some("all") { Attempts::All } else { Attempts::Latest };
    api.as_installation("GET /repos/{owner}/{repo}/actions/runs/{id}/jobs", &headers, |state, caller, now| {
        let listed = state.github.list_run_jobs(caller, &owner, &repo, RunId(id), attempts, query.paging(), now)?;
        let jobs: Vec<Value> = listed.items.iter().map(|job| job_json(&state.github, job, &owner, &repo)).collect();
        Ok((StatusCode::OK, json!({ "total_count": listed.total, "jobs": jobs })))
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
struct WantedCheckRun {
    head_sha: Option<String>,
    name: Option<String>,
    external_id: Option<String>,
    status: Option<String>,
    conclusion: Option<String>,
    details_url: Option<String>,
    output: Option<WantedOutput>,
}

#[derive(Deserialize)]
struct WantedOutput {
    title: String,
    summary: String,
}

impl WantedCheckRun {
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
    let wanted = parsed::<WantedCheckRun>(&body);
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
    let wanted = parsed::<WantedCheckRun>(&body);
    api.as_installation("PATCH /repos/{owner}/{repo}/check-runs/{id}", &headers, |state, caller, now| {
        let change = wanted?.change();
        let made = state.github.update_check_run(caller, &owner, &repo, CheckRunId(id), change, now)?;
        Ok((StatusCode::OK, check_run_json(&made, state.github.app(), &owner, &repo)))
    })
    .await
}

fn parsed<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::Unprocessable(error.to_string()))
}

async fn org_installation(api: Shared<Arc<Api>>, Path(org): Org, headers: HeaderMap) -> Response {
    api.installation("GET /orgs/{org}/installation", Scope::organization(&org), &headers).await
}

async fn repo_installation(api: Shared<Arc<Api>>, Path((owner, repo)): Repo, headers: HeaderMap) -> Response {
    api.installation("GET /repos/{owner}/{repo}/installation", Scope::repository(&owner, &repo), &headers).await
}

async fn access_tokens(api: Shared<Arc<Api>>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    api.as_app("POST /app/installations/{id}/access_tokens", &headers, |state, now| {
        let made = state.github.create_token(InstallationId(id), now)?;
        let owner = state.github.owners().find(|owner| owner.installation == Some(InstallationId(id)));
        let granted = owner.map(|owner| owner.granted.clone());
        let body = json!({
            "token": made.token, "expires_at": made.expires_at + state.github_ahead, "permissions": granted,
            "repository_selection": "all",
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
    status: Option<String>,
    filter: Option<String>,
    cursor: Option<String>,
    visible_to_repository: Option<String>,
}

impl List {
    fn paging(&self) -> Paging {
        Paging { page: self.page.unwrap_or(1), per_page: self.per_page.unwrap_or(30) }
    }
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
                respond(state, Charged::App, done, now)
            })
        };
        self.calls.answer(&Caller::ControlPlane, "", "GitHub", operation, answer).await
    }

    /// A call in an installation's name, by its token. Whoever has the answer already is told so, for free.
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
                    let charged = Charged::Installation(caller);
                    let done = act(state, caller, now);
                    let tag = match &done {
                        Ok((StatusCode::OK, body)) if operation.starts_with("GET ") => Some(entity_tag(body)),
                        _ => None,
                    };
                    let known = headers.get("if-none-match").and_then(|known| known.to_str().ok());
                    let unchanged = tag.is_some() && known == tag.as_deref();
                    let mut answer = match unchanged {
                        true => {
                            state.github.not_modified(charged, now);
                            respond(state, charged, Ok((StatusCode::NOT_MODIFIED, Value::Null)), now)
                        }
                        false => respond(state, charged, done, now),
                    };
                    if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
                        answer.headers_mut().insert("etag", tag);
                    }
                    answer
                }
                Err(error) => respond(state, Charged::Anonymous, Err(error), now),
            })
        };
        self.calls.answer(&Caller::ControlPlane, "", "GitHub", operation, answer).await
    }

    /// RS256; by GitHub's own clock `iat` is not in the future and `exp` at most ten minutes in it; `iss` the app.
    fn signed_by_app(&self, headers: &HeaderMap) -> bool {
        #[derive(Deserialize)]
        struct Claims {
            iat: i64,
            exp: i64,
            iss: String,
        }
        let mut rules = Validation::new(Algorithm::RS256);
        rules.validate_aud = false;
        rules.validate_exp = false;
        let Ok(token) = jsonwebtoken::decode::<Claims>(bearer(headers), &self.key.public, &rules) else { return false };
        let (app, ahead) = self.world.look(|state| (state.github.app().id, state.github_ahead));
        let (claims, now) = (token.claims, (SystemClock.now() + ahead).as_second());
        claims.iss == app.to_string() && claims.iat <= now && (now + 1..=now + LONGEST_JWT).contains(&claims.exp)
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
        let paging = query.paging();
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

/// A weak one, as GitHub's are: the same body has the same.
fn entity_tag(body: &Value) -> String {
    format!("W/\"{}\"", hex::encode(Sha256::digest(body.to_string())))
}

fn respond(state: &mut State, caller: Charged, done: Answered, now: Timestamp) -> Response {
    let (github, ahead) = (&mut state.github, state.github_ahead);
    let mut answer = match done {
        Ok((status @ (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED), _)) => status.into_response(),
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
                    answer.headers_mut().insert("x-ratelimit-reset", HeaderValue::from((reset + ahead).as_second()));
                }
                _ => {}
            }
            answer
        }
    };
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&(now + ahead));
    if let Some(date) = date.ok().and_then(|date| HeaderValue::from_str(&date).ok()) {
        answer.headers_mut().insert("date", date);
    }
    let rate = github.rate(caller, now);
    let shown = [
        ("x-ratelimit-limit", rate.limit as i64),
        ("x-ratelimit-remaining", rate.limit.saturating_sub(rate.used) as i64),
        ("x-ratelimit-reset", (rate.reset + ahead).as_second()),
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
        "permissions": owner.granted, "events": github.app().events, "created_at": owner.since, "updated_at": owner.since,
        "single_file_name": null, "suspended_by": owner.suspended_at.map(|_| account_json(owner)),
        "suspended_at": owner.suspended_at,
    })
}

fn app_json(app: &App) -> Value {
    let maker = Owner {
        id: OwnerId(1),
        login: "drover-makers".to_owned(),
        kind: OwnerKind::Organization,
        installation: None,
        suspended_at: None,
        since: app.created_at,
        groups: Vec::new(),
        granted: BTreeMap::new(),
    };
    json!({
        "id": app.id, "slug": app.slug, "node_id": format!("node-{}", app.id), "owner": account_json(&maker),
        "name": app.name, "description": null, "external_url": "https://example.invalid/",
        "html_url": format!("https://github.com/apps/{}", app.slug), "created_at": app.created_at,
        "updated_at": app.created_at, "permissions": app.permissions, "events": app.events,
    })
}

fn hook_json(hook: &HookConfig) -> Value {
    json!({
        "url": hook.url, "content_type": hook.content_type, "insecure_ssl": "0",
        "secret": hook.secret.as_ref().map_or("", |_| "********"),
    })
}

fn delivery_json(delivery: &Delivery) -> Value {
    let attempted = delivery.attempted.as_ref();
    let (status, status_code) = attempted.map_or(("pending", 0), |attempted| attempted.answer.shown());
    json!({
        "id": delivery.id.0, "guid": delivery.guid, "delivered_at": attempted.map(|attempted| attempted.at),
        "redelivery": delivery.redelivery, "duration": attempted.map(|attempted| attempted.took.as_secs_f64()),
        "status": status, "status_code": status_code, "event": "workflow_job", "action": delivery.event.action,
        "installation_id": delivery.event.owner.installation.map(|installation| installation.0),
        "repository_id": delivery.event.repository.id.0,
    })
}

fn group_json(group: &Group, org: &str) -> Value {
    let base = format!("https://api.github.com/orgs/{org}/actions/runner-groups/{}", group.id);
    let mut body = json!({
        "id": group.id.0, "name": group.name, "default": group.id == DEFAULT_GROUP,
        "visibility": if group.repositories.is_some() { "selected" } else { "all" },
        "runners_url": format!("{base}/runners"), "hosted_runners_url": format!("{base}/hosted-runners"),
        "inherited": false, "allows_public_repositories": group.allows_public, "restricted_to_workflows": false,
        "selected_workflows": [], "workflow_restrictions_read_only": false,
    });
    if group.repositories.is_some() {
        body["selected_repositories_url"] = json!(format!("{base}/repositories"));
    }
    body
}

fn repository_json(github: &GitHub, repository: &Repository) -> Value {
    let (owner, name) = (&repository.owner_login, &repository.name);
    let base = format!("https://api.github.com/repos/{owner}/{name}");
    let mut body = json!({
        "id": repository.id.0, "node_id": format!("node-{}", repository.id), "name": name,
        "full_name": format!("{owner}/{name}"), "private": repository.visibility == Visibility::Private,
        "owner": github.owner(repository.owner).map(account_json), "description": null, "fork": false, "url": base,
        "html_url": format!("https://github.com/{owner}/{name}"), "created_at": repository.created_at,
    });
    for what in [
        "archive",
        "assignees",
        "blobs",
        "branches",
        "collaborators",
        "comments",
        "commits",
        "compare",
        "contents",
        "contributors",
        "deployments",
        "downloads",
        "events",
        "forks",
        "git_commits",
        "git_refs",
        "git_tags",
        "hooks",
        "issue_comment",
        "issue_events",
        "issues",
        "keys",
        "labels",
        "languages",
        "merges",
        "milestones",
        "notifications",
        "pulls",
        "releases",
        "stargazers",
        "statuses",
        "subscribers",
        "subscription",
        "tags",
        "teams",
        "trees",
    ] {
        body[format!("{what}_url")] = json!(format!("{base}/{what}"));
    }
    body
}

fn run_json(github: &GitHub, run: &Run) -> Value {
    let repository = github.repository(run.repository).map(|repository| repository_json(github, repository));
    let name = repository.as_ref().and_then(|it| it["full_name"].as_str()).unwrap_or_default().to_owned();
    let (status, conclusion) = github.run_status(run);
    let base = format!("https://api.github.com/repos/{name}/actions");
    let own = format!("{base}/runs/{}", run.id);
    json!({
        "id": run.id.0, "name": "CI", "node_id": format!("node-{}", run.id), "head_branch": "main",
        "head_sha": run.head_sha, "path": ".github/workflows/ci.yml", "display_title": "CI", "run_number": run.number,
        "run_attempt": run.attempt, "event": "push", "status": status,
        "conclusion": conclusion.map(|conclusion| conclusion.as_str()), "workflow_id": 1, "url": own,
        "html_url": format!("https://github.com/{name}/actions/runs/{}", run.id), "pull_requests": [],
        "created_at": run.created_at, "updated_at": run.created_at, "run_started_at": run.created_at,
        "jobs_url": format!("{own}/jobs"), "logs_url": format!("{own}/logs"),
        "check_suite_url": format!("https://api.github.com/repos/{name}/check-suites/{}", run.id),
        "artifacts_url": format!("{own}/artifacts"), "cancel_url": format!("{own}/cancel"),
        "rerun_url": format!("{own}/rerun"), "workflow_url": format!("{base}/workflows/1"), "head_commit": null,
        "repository": repository, "head_repository": repository,
    })
}

fn check_run_json(run: &CheckRun, app: &App, owner: &str, repo: &str) -> Value {
    let url = format!("https://api.github.com/repos/{owner}/{repo}/check-runs/{}", run.id);
    let said = &run.now;
    json!({
        "id": run.id.0, "node_id": format!("node-{}", run.id), "head_sha": run.head_sha, "name": said.name,
        "external_id": said.external_id, "url": url, "details_url": said.details_url,
        "html_url": format!("https://github.com/{owner}/{repo}/runs/{}", run.id),
        "status": said.status.as_deref().unwrap_or("queued"), "conclusion": said.conclusion,
        "started_at": run.created_at, "completed_at": said.conclusion.as_ref().map(|_| run.created_at),
        "output": {
            "title": said.output.as_ref().map(|output| &output.title),
            "summary": said.output.as_ref().map(|output| &output.summary),
            "text": null, "annotations_count": 0, "annotations_url": format!("{url}/annotations"),
        },
        "check_suite": { "id": 1 }, "app": app_json(app), "pull_requests": [],
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
