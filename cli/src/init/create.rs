//! Creates the app by GitHub's manifest flow. A page on this machine posts the app's manifest to GitHub; the user confirms
//! there; GitHub redirects the browser back with a code; the code is exchanged, once, for the app and its key.
//!
//! Every user of this machine can open the page. It therefore asks for a number that is printed in the terminal, before it
//! shows anything that could complete the flow with another app.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Form, Router};
use maud::Markup;
use platform::github::{ApiUrl, GitHubApp, HookAttributes, Made, Manifest, app_secret, convert};
use platform::inspect::Unanswered;
use rand::Rng;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::page::{install, message_page, number_page, page, reloading_page, start};
use super::request::{Account, App, Browser, Request, Target, say};
use crate::output::Failure;
use crate::permissions::{EVENT, needed};
use crate::secrets::random;
use crate::web::guarded;

/// Time for the browser to load the last page before its server stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// A page that has not reloaded itself for this long was closed.
const CLOSED_AFTER: Duration = Duration::from_secs(15);

/// Wrong numbers that may be entered in one run.
const MAX_GUESSES: u32 = 10;

/// GitHub's limit for the name of an app.
const MAX_NAME_LENGTH: usize = 34;

/// Has the user create the app, and stores it. The page stays open until the app is installed.
pub(super) async fn create(target: &Target<'_>, request: &Request) -> Result<(App, LastPage), Failure> {
    let api_url = target.api_url.clone().unwrap_or_default();
    let web_url = api_url.web_url();
    let no_port = |error: std::io::Error| Failure::Usage(format!("cannot listen on a local port: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(no_port)?;
    let address = listener.local_addr().map_err(no_port)?;
    let (callback, called_back) = oneshot::channel();
    let flow = Arc::new(Flow::new(target, request, &web_url, address, callback));
    let routes = Router::new()
        .route("/", get(ask).post(show))
        .route("/made", get(take))
        .route("/installed", get(wait))
        .with_state(flow.clone());
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self' {web_url}; base-uri 'none'; frame-ancestors 'none'"
    );
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(
        axum::serve(listener, guarded(routes, address, &policy))
            .with_graceful_shutdown(async { drop(stopped.await) })
            .into_future(),
    );
    let url = format!("http://{address}/");
    say(&format!(
        "Create the GitHub App in your browser:\n\n  {url}\n\nThe page asks for this number: {}\n",
        flow.number
    ));
    if request.browser == Browser::Open && webbrowser::open(&url).is_err() {
        say("No browser could be started: open this URL yourself, on this machine.");
    }
    let Callback { code, answer } = called_back.await.map_err(|_| Failure::Usage("the page was closed".to_owned()))?;
    let stored = store(target, request, &api_url, &code).await;
    if let Ok(app) = &stored {
        let install_url = format!("{}/installations/new", app.html_url);
        flow.set(Progress::Created { page: install(&request.owner.to_string(), &install_url) });
    }
    // If the browser is gone, nobody waits for this answer.
    let _ = answer.send(stored.as_ref().map(|_| ()).map_err(ToString::to_string));
    let page = LastPage { flow, stop, serving };
    match stored {
        Ok(app) => Ok((app, page)),
        Err(failure) => {
            page.close().await;
            Err(failure)
        }
    }
}

/// The page that stays open in the browser until the app is installed.
pub(super) struct LastPage {
    flow: Arc<Flow>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl LastPage {
    /// Shows how it ended. A page that is still open has loaded this when the server stops.
    pub(super) async fn end(self, title: &'static str, message: &'static str) {
        self.flow.set(Progress::Over { title, message });
        let loaded_at = *self.flow.loaded_at.lock().expect("no thread panics while it holds the lock");
        if loaded_at.is_some_and(|at| at.elapsed() < CLOSED_AFTER) {
            let _ = tokio::time::timeout(CLOSED_AFTER, self.flow.has_shown_end.notified()).await;
        }
        self.close().await;
    }

    async fn close(self) {
        let _ = self.stop.send(());
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.serving).await;
    }
}

/// Exchanges the code for the app, and stores its key and webhook secret at once.
async fn store(target: &Target<'_>, request: &Request, api_url: &ApiUrl, code: &str) -> Result<App, Failure> {
    let made = convert(api_url, code).await?;
    let not_stored = |error: &dyn std::fmt::Display| {
        Failure::Unreachable(format!(
            "app {} was created, but its key could not be stored: {error} -> generate a private key in the app's settings \
             ({}), then drover init {} --app-id {} --key FILE --replace",
            made.id, made.html_url, request.owner, made.id
        ))
    };
    if let Some(file) = &request.save_key {
        save(file, &made.pem).map_err(|error| not_stored(&format!("{}: {error}", file.display())))?;
    }
    let text = app_secret(made.id, &made.pem, target.api_url.as_ref()).map_err(|error| not_stored(&error))?;
    target.inspect.fill(&target.app_secret, &text).await.map_err(|error| not_stored(&error))?;
    let new_webhook_secret = store_webhook_secret(target, &made).await.map_err(|error| not_stored(&error))?;
    say(&format!("\nGitHub created {} (app {}).", made.name, made.id));
    let github = GitHubApp::of_text(&text, target.api_url.clone())?;
    Ok(App { github, id: made.id, html_url: made.html_url, new_webhook_secret })
}

/// Stores the webhook secret that GitHub generated. If it generated none, stores and returns a new one.
async fn store_webhook_secret(target: &Target<'_>, made: &Made) -> Result<Option<String>, Unanswered> {
    let of_github = made.webhook_secret.as_ref().filter(|secret| !secret.is_empty());
    let new = if of_github.is_none() { Some(random()) } else { None };
    for secret in of_github.into_iter().chain(&new) {
        target.inspect.fill(&target.webhook_secret, secret).await?;
    }
    Ok(new)
}

/// Writes a new file that only its owner can read; never replaces a file.
fn save(file: &Path, key: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(key.as_bytes())
}

/// Eight digits in two groups, which a person can type. With [`MAX_GUESSES`] guesses, one in ten million finds it.
fn number() -> String {
    let number = rand::rng().random_range(0..100_000_000_u32);
    format!("{:04} {:04}", number / 10_000, number % 10_000)
}

/// One run of the manifest flow: what the local pages share.
struct Flow {
    start_page: Markup,
    /// What the page asks for. It is printed in the terminal only.
    number: String,
    /// How many wrong numbers may still be entered.
    guesses: AtomicU32,
    /// Sent to GitHub and back, to recognise the redirect that belongs to this run.
    state: String,
    /// None once the code has been received.
    callback: Mutex<Option<oneshot::Sender<Callback>>>,
    progress: Mutex<Progress>,
    /// When the browser last loaded the page that shows the progress.
    loaded_at: Mutex<Option<Instant>>,
    has_shown_end: Notify,
}

/// What the page after the redirect shows.
enum Progress {
    Started,
    /// The app is created and not installed yet.
    Created {
        page: Markup,
    },
    Over {
        title: &'static str,
        message: &'static str,
    },
}

/// GitHub's redirect.
struct Callback {
    code: String,
    /// For the browser: an error message, unless the app is stored.
    answer: oneshot::Sender<Result<(), String>>,
}

impl Flow {
    fn new(
        target: &Target<'_>,
        request: &Request,
        web_url: &str,
        address: SocketAddr,
        callback: oneshot::Sender<Callback>,
    ) -> Self {
        let owner = request.owner.owner();
        let name = request.name.clone().unwrap_or_else(|| format!("drover-{owner}"));
        let permissions = needed(request.features());
        // GitHub gives every app this permission.
        let metadata = ("metadata", "read");
        let all = permissions.iter().map(|it| (it.name, it.access)).chain([metadata]);
        let manifest = Manifest {
            name: name.chars().take(MAX_NAME_LENGTH).collect(),
            url: web_url.to_owned(),
            hook_attributes: HookAttributes { url: target.webhook_url.clone(), active: true },
            redirect_url: format!("http://{address}/made"),
            public: false,
            default_permissions: all.map(|(name, access)| (name.into(), access.into())).collect(),
            default_events: vec![EVENT.to_owned()],
        };
        let state = random();
        let form_url = match request.account {
            Account::Personal => format!("{web_url}/settings/apps/new?state={state}"),
            Account::Organization => format!("{web_url}/organizations/{owner}/settings/apps/new?state={state}"),
        };
        let start_page = start(&manifest, &permissions, &form_url, &json!(manifest).to_string());
        Self {
            start_page,
            number: number(),
            guesses: AtomicU32::new(MAX_GUESSES),
            state,
            callback: Mutex::new(Some(callback)),
            progress: Mutex::new(Progress::Started),
            loaded_at: Mutex::default(),
            has_shown_end: Notify::new(),
        }
    }

    fn set(&self, progress: Progress) {
        *self.progress.lock().expect("no thread panics while it holds the lock") = progress;
    }
}

#[derive(Deserialize)]
struct CallbackQuery {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
}

#[derive(Deserialize)]
struct NumberForm {
    #[serde(default)]
    number: String,
}

async fn ask() -> Html<String> {
    number_page(None)
}

/// Shows the page with the manifest to anyone who knows the number.
async fn show(State(flow): State<Arc<Flow>>, Form(form): Form<NumberForm>) -> Response {
    let has_guesses = flow.guesses.load(Ordering::SeqCst) > 0;
    let entered: String = form.number.chars().filter(char::is_ascii_digit).collect();
    if has_guesses && entered == flow.number.replace(' ', "") {
        return page("A GitHub App for Drover", &flow.start_page).into_response();
    }
    let took = flow.guesses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    let problem = match took {
        Ok(_) => {
            if flow.guesses.load(Ordering::SeqCst) == 0 {
                say(
                    "Too many wrong numbers were entered on the page: it accepts none any more. Unless GitHub has asked you to \
                     confirm the app already, press Ctrl-C and start again.",
                );
            }
            "This is not the number in the terminal."
        }
        Err(_) => "Too many wrong numbers were entered. Run the command in the terminal again.",
    };
    (StatusCode::FORBIDDEN, number_page(Some(problem))).into_response()
}

/// Takes the code. A request without the state does not come from this run's page and could smuggle in the code of a foreign
/// app, so it is refused. Only the first valid request counts.
async fn take(State(flow): State<Arc<Flow>>, Query(query): Query<CallbackQuery>) -> Response {
    if query.state != flow.state || query.code.is_empty() {
        let message = message_page("Unknown request", "Nothing was done. Run the command in the terminal again.");
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    let callback = flow.callback.lock().ok().and_then(|mut callback| callback.take());
    let (answer, answered) = oneshot::channel();
    if callback.is_none_or(|it| it.send(Callback { code: query.code, answer }).is_err()) {
        return message_page("Already done", "See the terminal.").into_response();
    }
    match answered.await {
        Ok(Ok(())) => Redirect::to("/installed").into_response(),
        Ok(Err(why)) => message_page("The app could not be set up", &why).into_response(),
        Err(_) => message_page("The app could not be set up", "See the terminal.").into_response(),
    }
}

/// Shows the link to the installation, until the app is installed.
async fn wait(State(flow): State<Arc<Flow>>) -> Html<String> {
    *flow.loaded_at.lock().expect("no thread panics while it holds the lock") = Some(Instant::now());
    match &*flow.progress.lock().expect("no thread panics while it holds the lock") {
        Progress::Started => message_page("No app yet", "See the terminal."),
        Progress::Created { page } => reloading_page("Install the app", page),
        Progress::Over { title, message } => {
            flow.has_shown_end.notify_one();
            message_page(title, message)
        }
    }
}
