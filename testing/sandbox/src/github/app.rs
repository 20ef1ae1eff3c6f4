//! The app, its installations, its hook and its manifest.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;
use world::github::{Caller as Charged, DeliveryId, InstallationId, Scope};

use super::api::{Api, List, parsed, respond};
use super::bodies::{app_json, delivery_json, hook_json, installation_json};
use crate::permissions::Caller;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/app", get(app))
        .route("/app/installations", get(installations))
        .route("/app/installations/{id}/access_tokens", post(access_tokens))
        .route("/app/hook/config", get(hook).patch(change_hook))
        .route("/app/hook/deliveries", get(deliveries))
        .route("/app/hook/deliveries/{id}/attempts", post(redeliver))
        .route("/app-manifests/{code}/conversions", post(convert_manifest))
        .route("/orgs/{org}/installation", get(org_installation))
        .route("/repos/{owner}/{repo}/installation", get(repo_installation))
}

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

async fn org_installation(api: Shared<Arc<Api>>, Path(org): Path<String>, headers: HeaderMap) -> Response {
    installation(&api, "GET /orgs/{org}/installation", Scope::organization(&org), &headers).await
}

async fn repo_installation(
    api: Shared<Arc<Api>>,
    Path((owner, repo)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    installation(&api, "GET /repos/{owner}/{repo}/installation", Scope::repository(&owner, &repo), &headers).await
}

async fn installation(api: &Api, operation: &str, scope: Scope, headers: &HeaderMap) -> Response {
    api.as_app(operation, headers, |state, now| {
        let owner = state.github.find_installation(&scope, now)?;
        Ok((StatusCode::OK, installation_json(&state.github, &owner)))
    })
    .await
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

async fn hook(api: Shared<Arc<Api>>, headers: HeaderMap) -> Response {
    api.as_app("GET /app/hook/config", &headers, |state, now| {
        Ok((StatusCode::OK, hook_json(&state.github.get_hook(now)?)))
    })
    .await
}

async fn change_hook(api: Shared<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    #[derive(Deserialize)]
    struct HookChange {
        url: Option<String>,
        secret: Option<String>,
    }
    let wanted = parsed::<HookChange>(&body);
    api.as_app("PATCH /app/hook/config", &headers, |state, now| {
        let wanted = wanted?;
        Ok((StatusCode::OK, hook_json(&state.github.update_hook(wanted.url, wanted.secret, now)?)))
    })
    .await
}

/// Pages by cursor. The header `link` has the URL of the next page.
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
            Ok((StatusCode::OK, page.iter().map(|delivery| delivery_json(&state.github, delivery)).collect()))
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

/// Needs no credentials except the code.
async fn convert_manifest(api: Shared<Arc<Api>>, Path(code): Path<String>, headers: HeaderMap) -> Response {
    let answer = async {
        api.world.act(|state, now| {
            let done = state.github.convert_manifest(&code, now).map(|app| {
                let mut body = app_json(&app);
                let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
                body["html_url"] = json!(format!("http://{host}/apps/{}", app.slug));
                body["client_id"] = json!(format!("Iv1.{:016x}", app.id));
                body["client_secret"] = json!("the model of GitHub has no user logins");
                body["webhook_secret"] = json!(state.github.hook().secret);
                body["pem"] = json!(api.key.get().private);
                (StatusCode::CREATED, body)
            });
            respond(state, Charged::Anonymous, done, now)
        })
    };
    api.calls.answer(&Caller::ControlPlane, "", "GitHub", "POST /app-manifests/{code}/conversions", answer).await
}
