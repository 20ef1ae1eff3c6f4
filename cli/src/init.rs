//! `drover init`: creates the GitHub App or sets up an existing one, and waits until it is installed.

mod create;
mod page;
mod request;

use std::time::Duration;

use domain::ids::Scope;
use engine::ports::GitHubError;
use platform::github::{GitHubApp, Installed};
use serde_json::json;
use tokio::time::Instant;

pub use self::request::{Account, Browser, ExistingApp, Request, Target};
use self::request::{App, say};
use crate::output::{Failure, Output};
use crate::permissions::{EVENT, missing};
use crate::secrets::{check_key, random};

/// Time for an owner of the organisation to agree to the installation.
const INSTALLATION_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Calls in a row that may fail before init gives up. Everything is stored by then.
const MAX_FAILURES: u32 = 30;

/// Failed calls in a row after which one is reported.
const FAILURES_PER_LINE: u32 = 5;

/// GitHub allows an app thousands of calls an hour.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Sets up the app, and waits until it is installed.
///
/// # Errors
/// A secret already has a value, or GitHub or AWS refuses a call.
pub async fn init(target: &Target<'_>, request: &Request) -> Result<Output, Failure> {
    check_secrets(target, request.existing).await?;
    // Before the browser opens: GitHub shows the key only once.
    if let Some(file) = request.save_key.as_ref().filter(|file| file.exists()) {
        let name = file.display();
        return Err(Failure::Usage(format!("{name} exists, and init replaces no file -> --save-key NEW-FILE")));
    }
    let (app, page) = match &request.use_app {
        Some((id, key)) => (use_app(target, *id, key).await?, None),
        None => create::create(target, request).await.map(|(app, page)| (app, Some(page)))?,
    };
    // For a new app as well: GitHub's default content type is a form. Everything that matters is stored already, so a failure
    // is reported at the end.
    let hook = app.github.set_hook(Some(&target.webhook_url), app.new_webhook_secret.as_deref()).await;
    let App { github, id, html_url, .. } = app;
    let owner = &request.owner;
    say(&format!(
        "The app's key is stored in {}, the webhook secret in {}.\nInstall the app on {owner}, for the repositories to \
         serve:\n\n  {html_url}/installations/new\n\nWaiting for the installation (Ctrl-C is safe: everything is stored) ...",
        target.app_secret, target.webhook_secret
    ));
    let installed = wait_for_installation(&github, owner).await;
    if let Some(page) = page {
        let (title, message) = match &installed {
            Ok(Some(_)) => ("Done", "The app is installed. Return to the terminal."),
            Ok(None) | Err(_) => ("Not finished", "The terminal says why."),
        };
        page.end(title, message).await;
    }
    let installed = installed?;
    let mut problems = problems_of(&html_url, request, installed.as_ref());
    if let Err(error) = hook {
        problems.push(format!("GitHub did not accept the webhook's settings: {error} -> drover doctor --fix"));
    }
    let text = match problems.is_empty() {
        true => format!(
            "app {id} is installed on {owner} with all permissions that it needs\nnext: drover pools apply pools.toml, then \
             drover doctor\n"
        ),
        false => problems.iter().map(|line| format!("{line}\n")).collect::<String>() + "next: drover doctor\n",
    };
    let json = json!({
        "app_id": id, "html_url": html_url, "owner": owner.to_string(), "installed": installed.is_some(),
        "wrong": problems,
    });
    Ok(Output { ok: problems.is_empty(), text, json })
}

/// Checks first of all that both secrets can be written: GitHub shows the key of a new app only once.
async fn check_secrets(target: &Target<'_>, existing: ExistingApp) -> Result<(), Failure> {
    for id in [&target.app_secret, &target.webhook_secret] {
        if target.inspect.is_filled(id).await? && existing == ExistingApp::Refuse {
            return Err(Failure::Usage(format!(
                "{id} has a value, so an app is set up already -> `drover doctor` checks it; --replace replaces it"
            )));
        }
    }
    Ok(())
}

/// Stores the key of an existing app and a new webhook secret.
async fn use_app(target: &Target<'_>, id: u64, key: &str) -> Result<App, Failure> {
    let accepted = check_key(id, key, target.api_url.as_ref()).await?;
    target.inspect.fill(&target.app_secret, &accepted.text).await?;
    let webhook_secret = random();
    target.inspect.fill(&target.webhook_secret, &webhook_secret).await?;
    Ok(App { github: accepted.github, id, html_url: accepted.about.html_url, new_webhook_secret: Some(webhook_secret) })
}

/// None if the app was not installed in time.
async fn wait_for_installation(github: &GitHubApp, owner: &Scope) -> Result<Option<Installed>, Failure> {
    let until = Instant::now() + INSTALLATION_TIMEOUT;
    let mut failures = 0;
    while Instant::now() < until {
        match github.installed(owner).await {
            Ok(Some(installed)) => return Ok(Some(installed)),
            Ok(None) => failures = 0,
            Err(
                error @ (GitHubError::Unavailable { .. }
                | GitHubError::SecretUnreadable { .. }
                | GitHubError::Limited { .. }),
            ) => {
                failures += 1;
                if failures == MAX_FAILURES {
                    return Err(error.into());
                }
                if failures % FAILURES_PER_LINE == 0 {
                    say(&format!("GitHub has not said for {failures} calls whether the app is installed: {error}"));
                }
            }
            Err(
                error @ (GitHubError::Denied(_)
                | GitHubError::Refused(_)
                | GitHubError::NameTaken
                | GitHubError::SecretUnusable(_)),
            ) => return Err(error.into()),
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(None)
}

fn problems_of(html_url: &str, request: &Request, installed: Option<&Installed>) -> Vec<String> {
    let owner = &request.owner;
    let Some(installed) = installed else {
        return vec![format!("{owner} has not installed the app yet: {html_url}/installations/new")];
    };
    let missing = missing(request.features(), &installed.permissions);
    let mut problems: Vec<String> =
        missing.iter().map(|permission| format!("{owner} has not granted {permission}")).collect();
    if installed.suspended_at.is_some() {
        problems.push(format!("{owner} has suspended the app: {}", installed.html_url));
    }
    if !installed.events.iter().any(|event| event == EVENT) {
        problems.push(format!("the app is not subscribed to {EVENT}: subscribe to Workflow job in the app's settings"));
    }
    problems
}
