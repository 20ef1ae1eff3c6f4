//! The pages of GitHub that the setup of Drover uses: the form that creates an app from a manifest, and the form that
//! installs the app.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use form_urlencoded::byte_serialize;
use serde::Deserialize;
use world::github::{App, HookConfig};

use super::api::Api;
use crate::ec2_form::escaped;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/organizations/{org}/settings/apps/new", post(organization_form))
        .route("/settings/apps/new", post(own_form))
        .route("/settings/apps/manifest", post(create_app))
        .route("/apps/{slug}/installations/new", get(install_form))
        .route("/apps/{slug}/installations", post(install))
}

/// The fields that GitHub accepts in a manifest. It refuses others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    name: String,
    #[serde(rename = "url")]
    _url: String,
    hook_attributes: HookAttributes,
    redirect_url: String,
    #[serde(rename = "public")]
    _public: bool,
    default_permissions: BTreeMap<String, String>,
    default_events: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HookAttributes {
    url: String,
    active: bool,
}

#[derive(Deserialize)]
struct ManifestForm {
    manifest: String,
}

#[derive(Deserialize)]
struct FormQuery {
    #[serde(default)]
    state: String,
}

fn page(body: &str) -> Html<String> {
    Html(format!("<!doctype html><meta charset=utf-8><title>GitHub (model)</title><body>{body}"))
}

fn invalid(why: &str) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, page(&format!("<h1>Invalid GitHub App configuration</h1><p>{}", escaped(why))))
        .into_response()
}

async fn organization_form(
    api: Shared<Arc<Api>>,
    Path(org): Path<String>,
    query: Query<FormQuery>,
    form: Form<ManifestForm>,
) -> Response {
    match api.world.look(|state| state.github.find_owner(&org).is_some()) {
        true => creation_form(&org, &query, &form),
        false => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn own_form(query: Query<FormQuery>, form: Form<ManifestForm>) -> Response {
    creation_form("your account", &query, &form)
}

fn creation_form(owner: &str, query: &FormQuery, form: &ManifestForm) -> Response {
    match serde_json::from_str::<Manifest>(&form.manifest) {
        Err(error) => invalid(&error.to_string()),
        Ok(manifest) => page(&format!(
            "<h1>Create GitHub App for {}</h1><p>{}<form method=post action=\"/settings/apps/manifest?state={}\">\
             <input type=hidden name=manifest value=\"{}\"><button id=create>Create GitHub App</button></form>",
            escaped(owner),
            escaped(&manifest.name),
            byte_serialize(query.state.as_bytes()).collect::<String>(),
            escaped(&form.manifest)
        ))
        .into_response(),
    }
}

async fn create_app(api: Shared<Arc<Api>>, query: Query<FormQuery>, form: Form<ManifestForm>) -> Response {
    let manifest: Manifest = match serde_json::from_str(&form.manifest) {
        Ok(manifest) => manifest,
        Err(error) => return invalid(&error.to_string()),
    };
    if !manifest.hook_attributes.active {
        return invalid("the model of GitHub supports only active hooks");
    }
    let code = api.world.act(|state, now| {
        let id = state.github.new_app_id();
        let slug = manifest.name.to_lowercase().replace(' ', "-");
        let app = App {
            permissions: manifest.default_permissions,
            events: manifest.default_events.into_iter().collect(),
            ..App::new(id, &slug, &manifest.name, now)
        };
        let secret = Some(format!("made-by-github-for-app-{id}"));
        let hook = HookConfig { url: manifest.hook_attributes.url, secret, ..HookConfig::default() };
        state.github.replace_app(app, hook);
        let code = format!("c0de{id}");
        state.github.add_manifest_code(&code, now);
        code
    });
    let state: String = byte_serialize(query.state.as_bytes()).collect();
    Redirect::to(&format!("{}?code={code}&state={state}", manifest.redirect_url)).into_response()
}

async fn install_form(api: Shared<Arc<Api>>, Path(slug): Path<String>) -> Response {
    api.world.look(|state| {
        if state.github.app().slug != slug {
            return StatusCode::NOT_FOUND.into_response();
        }
        let forms: String = state.github.owners().map(|owner| {
            let login = escaped(&owner.login);
            format!(
                "<form method=post action=\"/apps/{slug}/installations\"><input type=hidden name=owner value=\"{login}\">\
                 <button id=install>Install on {login}</button></form>"
            )
        }).collect();
        page(&format!("<h1>Install {}</h1>{forms}", escaped(&state.github.app().name))).into_response()
    })
}

#[derive(Deserialize)]
struct Account {
    owner: String,
}

async fn install(api: Shared<Arc<Api>>, Path(slug): Path<String>, account: Form<Account>) -> Response {
    api.world.act(|state, now| {
        let owner = state.github.find_owner(&account.owner).map(|owner| owner.id);
        match owner.filter(|_| state.github.app().slug == slug) {
            Some(owner) => {
                state.github.install(owner, now);
                page("<h1>Installed</h1>").into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        }
    })
}
