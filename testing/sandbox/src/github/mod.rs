//! GitHub's REST API on the model: the operations that Drover uses, in the form of GitHub's OpenAPI description. A test
//! validates every answer against it.

mod api;
mod app;
mod bodies;
mod jobs;
mod moved;
mod pages;
mod runners;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;

pub use api::{AcceptedKey, Api, AppKey};

/// The routes. Calls under a renamed repository's old name are redirected, and the caller has to follow.
pub fn router(api: Arc<Api>) -> Router {
    let routes = Router::new()
        .merge(app::routes())
        .merge(runners::routes())
        .merge(jobs::routes())
        .merge(pages::routes())
        .with_state(api.clone());
    // Around the routes, because it changes the path that they match.
    Router::new().fallback_service(routes).layer(from_fn_with_state(api, moved::redirect))
}
