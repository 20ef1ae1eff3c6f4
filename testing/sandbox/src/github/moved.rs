//! Repositories that were renamed.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Shared};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use world::github::RepositoryId;

use super::api::Api;
use crate::permissions::Caller;

/// GitHub answers calls under a repository's old name with a redirect to `/repositories/{id}`: 301 for GET, 307 for other
/// methods. It serves the repository under that path.
pub(super) async fn redirect(api: Shared<Arc<Api>>, mut request: Request, next: Next) -> Response {
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
