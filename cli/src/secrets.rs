//! `drover secrets`: what Secrets Manager holds for us. Values come from a file or the standard input, never from an argument,
//! which other users of the machine and the shell's history would see.

use std::io::{IsTerminal, Read};
use std::path::Path;

use engine::ports::GitHubError;
use platform::github::{GitHubApp, app_secret};
use platform::inspect::Inspect;
use platform::secrets::Secret;
use rand::RngCore;
use serde_json::json;

use crate::output::{Failure, Output};

/// Shorter ones can be guessed.
const SHORTEST: usize = 20;

/// A secret that nobody can guess, of letters and digits.
pub(crate) fn random() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text of a file, or of the standard input.
///
/// # Errors
/// When it cannot be read.
pub fn value(file: Option<&Path>) -> Result<String, Failure> {
    let mut text = String::new();
    match file {
        Some(file) => {
            text = std::fs::read_to_string(file)
                .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())))?;
        }
        None if std::io::stdin().is_terminal() => {
            let says = "a secret is not typed where it can be seen: name a file, or send it to the standard input";
            return Err(Failure::Usage(says.to_owned()));
        }
        None => {
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|error| Failure::Usage(format!("cannot read the standard input: {error}")))?;
        }
    }
    Ok(text)
}

/// Stores what webhooks are signed with. GitHub is told by whoever calls.
///
/// # Errors
/// When it is none, or Secrets Manager does not take it.
pub async fn put_webhook(inspect: &Inspect, id: &str, text: &str) -> Result<Output, Failure> {
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.len() < SHORTEST || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        let says = format!("that is no webhook secret: it is one line of {SHORTEST} or more characters without spaces");
        return Err(Failure::Usage(says));
    }
    inspect.fill(id, secret).await?;
    let text = format!(
        "stored in {id}; the one before is accepted for 24 hours\nput it into the app's settings on GitHub, or let \
         `drover secrets rotate webhook` make one and tell GitHub\n"
    );
    Ok(Output { yes: true, text, json: json!({ "stored": id }) })
}

/// The app's secret that is not stored yet, and the app that GitHub says it is.
pub(crate) struct Asked {
    pub(crate) text: String,
    pub(crate) github: GitHubApp,
    pub(crate) about: platform::github::About,
}

/// Checks a key's form, and has GitHub say whose it is.
pub(crate) async fn ask(secret: Secret, app: u64, key: &str, api_url: Option<&str>) -> Result<Asked, Failure> {
    let text = app_secret(app, key, api_url).map_err(|why| Failure::Usage(format!("that is no key: {why}")))?;
    let github = GitHubApp::of_text(secret, &text, api_url.map(ToOwned::to_owned))?;
    let about = github.about().await.map_err(|error| match error {
        GitHubError::Denied(why) | GitHubError::Refused(why) => Failure::Usage(format!(
            "GitHub does not take this key for app {app}: {why} -> is it this app's, and not deleted?"
        )),
        GitHubError::SecretUnusable(why) => Failure::Usage(format!("the key of app {app} is unusable: {why}")),
        GitHubError::Limited { .. }
        | GitHubError::NameTaken
        | GitHubError::Unavailable { .. }
        | GitHubError::SecretUnreadable { .. } => error.into(),
    })?;
    Ok(Asked { text, github, about })
}

/// Stores the app's id and private key, if GitHub takes them.
///
/// # Errors
/// When GitHub does not, or Secrets Manager does not.
pub async fn put_app(
    inspect: &Inspect,
    (id, secret): (&str, Secret),
    app: u64,
    key: &str,
    api_url: Option<&str>,
) -> Result<Output, Failure> {
    let asked = ask(secret, app, key, api_url).await?;
    inspect.fill(id, &asked.text).await?;
    let text = format!(
        "stored in {id}: the key of {}, which GitHub takes\nscaler and janitor read it at their next cold start: \
         docs/changing.md, Rotating secrets\n",
        asked.about.name
    );
    Ok(Output { yes: true, text, json: json!({ "stored": id, "app": asked.about.slug }) })
}

/// A new secret of the webhook, first for ingest, which goes on to accept the one before for a day, then for GitHub: at no
/// moment is a signature refused.
///
/// # Errors
/// When GitHub cannot be asked, in which case nothing has changed; or when one of the two does not take the new one.
pub async fn rotate_webhook(inspect: &Inspect, id: &str, github: &GitHubApp) -> Result<Output, Failure> {
    // First whether GitHub will listen: a second rotation would push the secret that it signs with out of the previous place.
    let hook = github.hook().await?;
    if !inspect.is_filled(id).await? {
        return Err(Failure::Usage(format!("{id} is empty -> `drover doctor --fix` makes a first one for both")));
    }
    let secret = random();
    inspect.fill(id, &secret).await?;
    if let Err(error) = github.set_hook(None, Some(&secret)).await {
        let says = format!(
            "the new secret is stored, and GitHub did not take it: {error} -> it signs with the one before, which is \
             good for 24 hours: within them, once GitHub answers, `drover doctor --fix` gives both another"
        );
        return Err(Failure::Unreachable(says));
    }
    let text = format!("a new secret, in {id} and at GitHub, which signs what it sends to {}\n", hook.url);
    Ok(Output { yes: true, text, json: json!({ "rotated": id }) })
}
