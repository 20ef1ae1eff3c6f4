//! `drover init`: the GitHub App, by GitHub's manifest flow. A page on this machine shows what the app will be; a person agrees to
//! it on GitHub; GitHub sends the browser back with a code; the code is the app, with its key, once.

mod page;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::SdkConfig;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use domain::ids::Scope;
use engine::ports::GitHubError;
use maud::Markup;
use platform::github::{API_URL, GitHubApp, HookAttributes, Installed, Made, Manifest, app_secret, convert, web_url};
use platform::inspect::Inspect;
use platform::secrets::Secret;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::page::{first, page, words};
use crate::doctor::app::{EVENT, Uses, missing, needs};
use crate::output::{Failure, Output, printable};
use crate::secrets::{ask, random};
use crate::web::guarded;

/// An owner of an organisation is to be found, who agrees to the installation.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// GitHub's limit for an app is thousands of calls an hour.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The browser is to show the last page before its server goes.
const LAST_PAGE: Duration = Duration::from_secs(5);

/// GitHub's limit for the name of an app.
const LONGEST_NAME: usize = 34;

/// Where the app's parts go.
#[derive(Debug)]
pub struct Places<'a> {
    /// To read secrets with.
    pub aws: &'a SdkConfig,
    /// To write secrets with.
    pub inspect: &'a Inspect,
    /// Where ingest is reached.
    pub webhook_url: String,
    /// The webhook's secret.
    pub webhook_secret: String,
    /// The app's secret.
    pub app_secret: String,
    /// GitHub's API, if it is not github.com's.
    pub api_url: Option<String>,
}

/// What is wanted.
#[derive(Debug)]
pub struct Wanted {
    /// Where runners are to be registered.
    pub owner: Scope,
    /// The owner is the account of whoever is logged in, not an organisation.
    pub personal: bool,
    /// The app's name.
    pub name: Option<String>,
    /// Jobs are run again whose machine EC2 took.
    pub reruns: bool,
    /// Fill secrets that are filled already.
    pub replace: bool,
    /// Start a browser.
    pub browser: bool,
    /// Keep the private key in this file, too.
    pub save_key: Option<PathBuf>,
    /// An app that exists: its id, and its key's text.
    pub existing: Option<(u64, String)>,
}

/// Sets the app up, and waits until it is installed.
///
/// # Errors
/// When a secret is filled already, or somebody does not play their part.
pub async fn init(places: &Places<'_>, wanted: Wanted) -> Result<Output, Failure> {
    // First of all whether both can be written: GitHub tells a new app's key once.
    for id in [&places.app_secret, &places.webhook_secret] {
        if places.inspect.is_filled(id).await? && !wanted.replace {
            let says = format!(
                "{id} is filled: there is an app already -> `drover doctor` looks at it; --replace gives it up"
            );
            return Err(Failure::Usage(says));
        }
    }
    let uses = Uses {
        organizations: matches!(wanted.owner, Scope::Organization(_)),
        repositories: matches!(wanted.owner, Scope::Repository(_)),
        reruns: wanted.reruns,
    };
    let secret = || Secret::new(places.aws, places.app_secret.clone());
    let (github, html_url, id, signs) = match &wanted.existing {
        Some((id, key)) => {
            let asked = ask(secret(), *id, key, places.api_url.as_deref()).await?;
            places.inspect.fill(&places.app_secret, &asked.text).await?;
            let signs = random();
            places.inspect.fill(&places.webhook_secret, &signs).await?;
            (asked.github, asked.about.html_url, *id, Some(signs))
        }
        None => {
            let (made, text, signs) = made(places, &wanted, uses).await?;
            let github = GitHubApp::of_text(secret(), &text, places.api_url.clone())?;
            (github, made.html_url, made.id, signs)
        }
    };
    // Of a new app, too: GitHub's own default is a form. All that matters is stored, so a failure ends nothing.
    let hooked = github.set_hook(Some(&places.webhook_url), signs.as_deref()).await;
    say(&format!(
        "Its key is in {}, the webhook's secret in {}.\nInstall it on {}, for the repositories to serve:\n\n  \
         {html_url}/installations/new\n\nWaiting for that (Ctrl-C is fine: all is stored) ...",
        places.app_secret, places.webhook_secret, wanted.owner
    ));
    let installed = installed(&github, &wanted.owner).await?;
    let mut wrong = wrong_with(&html_url, &wanted.owner, uses, installed.as_ref());
    if let Err(error) = hooked {
        wrong.push(format!("GitHub did not take the webhook's settings: {error} -> drover doctor --fix"));
    }
    let owner = &wanted.owner;
    let text = match wrong.is_empty() {
        true => format!(
            "app {id} is installed on {owner}, with all permissions that it needs\nnext: drover pools apply pools.toml, \
             then drover doctor\n"
        ),
        false => wrong.iter().map(|line| format!("{line}\n")).collect::<String>() + "then: drover doctor\n",
    };
    let json = json!({
        "app_id": id, "html_url": html_url, "owner": owner.to_string(), "installed": installed.is_some(), "wrong": wrong,
    });
    Ok(Output { yes: wrong.is_empty(), text, json })
}

/// To whoever waits; the answer itself comes at the end.
fn say(text: &str) {
    eprint!("{}", printable(&format!("{text}\n")));
}

/// None if nobody installs it in time.
async fn installed(github: &GitHubApp, owner: &Scope) -> Result<Option<Installed>, Failure> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match github.installed(owner).await {
            Ok(Some(installed)) => return Ok(Some(installed)),
            Ok(None)
            | Err(
                GitHubError::Unavailable { .. } | GitHubError::SecretUnreadable { .. } | GitHubError::Limited { .. },
            ) => {}
            Err(
                error @ (GitHubError::Denied(_)
                | GitHubError::Refused(_)
                | GitHubError::NameTaken
                | GitHubError::SecretUnusable(_)),
            ) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(None)
}

fn wrong_with(html_url: &str, owner: &Scope, uses: Uses, installed: Option<&Installed>) -> Vec<String> {
    let Some(installed) = installed else {
        return vec![format!("{owner} has not installed it yet: {html_url}/installations/new")];
    };
    let mut wrong = missing(uses, &installed.permissions).0;
    if installed.suspended_at.is_some() {
        wrong.push(format!("{owner} has suspended it: {}", installed.html_url));
    }
    if !installed.events.iter().any(|event| event == EVENT) {
        wrong.push(format!("it is not told of {EVENT}: subscribe to Workflow job in the app's settings"));
    }
    wrong
}

/// What GitHub told once, the text of the app's secret, and what webhooks are to be signed with if GitHub did not choose that.
type Stored = (Made, String, Option<String>);

/// Has a person make the app on GitHub, and stores it.
async fn made(places: &Places<'_>, wanted: &Wanted, uses: Uses) -> Result<Stored, Failure> {
    let api_url = places.api_url.as_deref().unwrap_or(API_URL);
    let web_url = web_url(api_url);
    let no_port = |error: std::io::Error| Failure::Usage(format!("no port to listen on: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(no_port)?;
    let address = listener.local_addr().map_err(no_port)?;
    let owner = wanted.owner.owner();
    let name = wanted.name.clone().unwrap_or_else(|| format!("drover-{owner}"));
    let name = name.chars().take(LONGEST_NAME).collect();
    let mut permissions: Vec<_> = needs(uses).into_iter().map(|(name, level, why, _)| (name, level, why)).collect();
    permissions.push(("metadata", "read", "which GitHub gives every app"));
    let manifest = Manifest {
        name,
        url: web_url.clone(),
        hook_attributes: HookAttributes { url: places.webhook_url.clone(), active: true },
        redirect_url: format!("http://{address}/made"),
        public: false,
        default_permissions: permissions.iter().map(|(name, level, _)| ((*name).into(), (*level).into())).collect(),
        default_events: vec![EVENT.to_owned()],
    };
    let state = random();
    let form = match wanted.personal {
        true => format!("{web_url}/settings/apps/new?state={state}"),
        false => format!("{web_url}/organizations/{owner}/settings/apps/new?state={state}"),
    };
    let (code, coded) = oneshot::channel();
    let desk = Arc::new(Desk {
        page: first(&manifest, &permissions, &form, &json!(manifest).to_string()),
        state,
        code: Mutex::new(Some(code)),
    });
    let routes = Router::new().route("/", get(show)).route("/made", get(take)).with_state(desk);
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; form-action {web_url}; base-uri 'none'; frame-ancestors 'none'"
    );
    let (end, ended) = oneshot::channel::<()>();
    let serving = tokio::spawn(
        axum::serve(listener, guarded(routes, address, &policy))
            .with_graceful_shutdown(async { drop(ended.await) })
            .into_future(),
    );
    let url = format!("http://{address}/");
    say(&format!("Make the GitHub App in your browser:\n\n  {url}\n"));
    if wanted.browser && webbrowser::open(&url).is_err() {
        say("No browser could be started here: open that address yourself, on this machine.");
    }
    let (code, reply) = coded.await.map_err(|_| Failure::Usage("the page was closed".to_owned()))?;
    let stored = store(places, wanted, api_url, &code).await;
    let told = match &stored {
        Ok((made, ..)) => Ok(format!("{}/installations/new", made.html_url)),
        Err(failure) => Err(failure.to_string()),
    };
    // A browser that went away is told nothing.
    let _ = reply.send(told);
    let _ = end.send(());
    let _ = tokio::time::timeout(LAST_PAGE, serving).await;
    stored
}

/// Turns the code into the app and stores it at once.
async fn store(places: &Places<'_>, wanted: &Wanted, api_url: &str, code: &str) -> Result<Stored, Failure> {
    let made = convert(api_url, code).await?;
    let lost = |error: &dyn std::fmt::Display| {
        Failure::Unreachable(format!(
            "app {} was made, and its key could not be kept: {error} -> make a private key in its settings ({}), then \
             drover init {} --app-id {} --key FILE --replace",
            made.id, made.html_url, wanted.owner, made.id
        ))
    };
    if let Some(file) = &wanted.save_key {
        save(file, &made.pem).map_err(|error| lost(&format!("{}: {error}", file.display())))?;
    }
    let text = app_secret(made.id, &made.pem, places.api_url.as_deref()).map_err(|error| lost(&error))?;
    places.inspect.fill(&places.app_secret, &text).await.map_err(|error| lost(&error))?;
    let chosen = made.webhook_secret.clone().filter(|secret| !secret.is_empty());
    let ours = if chosen.is_none() { Some(random()) } else { None };
    for signs in chosen.iter().chain(&ours) {
        places.inspect.fill(&places.webhook_secret, signs).await.map_err(|error| lost(&error))?;
    }
    say(&format!("\nGitHub made {} (app {}).", made.name, made.id));
    Ok((made, text, ours))
}

/// Only for its owner, and over nothing that is there.
fn save(file: &Path, key: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(key.as_bytes())
}

/// Where the browser starts, and comes back to.
struct Desk {
    page: Markup,
    state: String,
    code: Mutex<Option<oneshot::Sender<Came>>>,
}

/// The code, and where the browser is told how it went on: to where, or what went wrong.
type Came = (String, oneshot::Sender<Result<String, String>>);

#[derive(Deserialize)]
struct Back {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
}

async fn show(State(desk): State<Arc<Desk>>) -> Html<String> {
    page("A GitHub App for Drover", &desk.page)
}

/// Whoever does not know the state was not sent by our page: somebody else's app would be slipped in. The first who does is
/// listened to, nobody after that.
async fn take(State(desk): State<Arc<Desk>>, Query(back): Query<Back>) -> Response {
    if back.state != desk.state || back.code.is_empty() {
        let says = words("This did not start here", "Nothing was done. Begin again with drover init.");
        return (axum::http::StatusCode::FORBIDDEN, says).into_response();
    }
    let sender = desk.code.lock().ok().and_then(|mut code| code.take());
    let (reply, told) = oneshot::channel();
    if sender.is_none_or(|sender| sender.send((back.code, reply)).is_err()) {
        return words("This was done already", "See the terminal.").into_response();
    }
    match told.await {
        Ok(Ok(link)) => Redirect::to(&link).into_response(),
        Ok(Err(why)) => words("Not done", &why).into_response(),
        Err(_) => words("Not done", "See the terminal.").into_response(),
    }
}
