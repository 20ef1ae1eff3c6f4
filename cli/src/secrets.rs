//! `drover secrets`: stores and rotates the app's key and the webhook secret. Values come from a file or from standard input,
//! never from an argument, which would be visible in the process list and in the shell's history.

use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

use domain::policy::secret::MIN_READ_INTERVAL;
use engine::ports::GitHubError;
use platform::github::{ApiUrl, GitHubApp, app_secret};
use platform::inspect::Inspect;
use rand::RngCore;
use serde_json::json;

use crate::output::{Failure, Output, cannot_read};

/// A shorter webhook secret could be guessed.
const MIN_LENGTH: usize = 20;

/// How long a process may take until it reads a secret again, and a second for clocks.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(MIN_READ_INTERVAL.as_secs().unsigned_abs() + 1);

/// 32 random bytes in hexadecimal.
pub(crate) fn random() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a file, or standard input.
///
/// # Errors
/// It cannot be read, or standard input is a terminal.
pub fn value(file: Option<&Path>) -> Result<String, Failure> {
    let mut text = String::new();
    match file {
        Some(file) => {
            text = std::fs::read_to_string(file).map_err(|error| cannot_read(file, &error))?;
        }
        None if std::io::stdin().is_terminal() => {
            let message = "a secret typed here would be visible -> name a file, or pipe the secret to standard input";
            return Err(Failure::Usage(message.to_owned()));
        }
        None => {
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|error| Failure::Usage(format!("cannot read standard input: {error}")))?;
        }
    }
    Ok(text)
}

/// Stores the secret that webhooks are signed with. The operator has to enter it on GitHub.
///
/// # Errors
/// The secret is too weak, or Secrets Manager does not store it.
pub async fn put_webhook(inspect: &Inspect, id: &str, text: &str) -> Result<Output, Failure> {
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.len() < MIN_LENGTH || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        let rule = format!("one line of at least {MIN_LENGTH} characters without spaces");
        return Err(Failure::Usage(format!(
            "a webhook secret must be {rule} -> openssl rand -hex 32 | drover secrets put webhook"
        )));
    }
    inspect.fill(id, secret).await?;
    let text = format!(
        "stored in {id}; the previous secret is accepted for 24 hours\nenter it in the app's settings on GitHub, or run \
         `drover secrets rotate webhook`, which generates a secret and sends it to GitHub\n"
    );
    Ok(Output { ok: true, text, json: json!({ "stored": id }) })
}

const DOWNLOADED_KEY: &str = "use the .pem file as downloaded from GitHub";

/// A key that GitHub accepts, before it is stored.
pub(crate) struct AcceptedKey {
    /// The value for Secrets Manager.
    pub(crate) text: String,
    pub(crate) github: GitHubApp,
    pub(crate) about: platform::github::About,
}

/// Checks the format of a key, and tries it against GitHub.
pub(crate) async fn check_key(app: u64, key: &str, api_url: Option<&ApiUrl>) -> Result<AcceptedKey, Failure> {
    let text = app_secret(app, key, api_url).map_err(|why| Failure::Usage(format!("{why} -> {DOWNLOADED_KEY}")))?;
    let github = GitHubApp::of_text(&text, api_url.cloned())?;
    let host = api_url.cloned().unwrap_or_default();
    let about = github.about().await.map_err(|error| match error {
        GitHubError::Denied(why) | GitHubError::Refused(why) => Failure::Usage(format!(
            "{host} does not accept this key for app {app}: {why} -> check that the key belongs to this app and was not deleted, \
             and that the app is on this GitHub: DROVER_GITHUB_API_URL names another one"
        )),
        GitHubError::SecretUnusable(why) => {
            Failure::Usage(format!("the key of app {app} is unusable: {why} -> {DOWNLOADED_KEY}"))
        }
        GitHubError::Limited { .. }
        | GitHubError::NameTaken
        | GitHubError::Unavailable { .. }
        | GitHubError::SecretUnreadable { .. } => error.into(),
    })?;
    Ok(AcceptedKey { text, github, about })
}

/// Stores the app's id and private key, if GitHub accepts them.
///
/// # Errors
/// GitHub does not accept them, or Secrets Manager does not store them.
pub async fn put_app(
    inspect: &Inspect,
    id: &str,
    app: u64,
    key: &str,
    api_url: Option<&ApiUrl>,
) -> Result<Output, Failure> {
    let accepted = check_key(app, key, api_url).await?;
    inspect.fill(id, &accepted.text).await?;
    let text = format!(
        "stored in {id}: the key of {}; GitHub accepts it\nscaler and janitor read it when GitHub refuses the old key: \
         delete that key in the app's settings\n",
        accepted.about.name
    );
    Ok(Output { ok: true, text, json: json!({ "stored": id, "app": accepted.about.slug }) })
}

/// What to do if GitHub did not get the new secret. After a second rotation ingest accepts the two new secrets, and no longer
/// the one that GitHub signed with.
const ROTATE_AGAIN: &str = "GitHub still signs with the previous secret, which ingest accepts for 24 hours: run `drover \
     secrets rotate webhook` again before then. Ingest then refuses deliveries for some seconds, and the janitor has them \
     redelivered";

/// Generates a webhook secret and gives it to ingest, then to GitHub. Ingest accepts the previous secret for a day, so it
/// rejects no delivery.
///
/// # Errors
/// GitHub does not answer, and nothing has changed; or Secrets Manager or GitHub does not store the new secret.
pub async fn rotate_webhook(inspect: &Inspect, id: &str, github: &GitHubApp) -> Result<Output, Failure> {
    // Check first that GitHub answers. If it did not store the new secret, the next rotation would drop the secret that GitHub
    // still signs with.
    let hook = github.hook().await?;
    if !inspect.is_filled(id).await? {
        return Err(Failure::Usage(format!(
            "{id} is empty -> `drover doctor --fix` generates the first secret and gives it to ingest and GitHub"
        )));
    }
    let secret = random();
    inspect.fill(id, &secret).await?;
    // A process of ingest that has just read the secret does not read it again at once. From then on the first delivery with
    // the new secret makes each process read it.
    let seconds = READ_AGAIN_AFTER.as_secs();
    anstream::eprintln!(
        "the new secret is stored; GitHub gets it in {seconds} s. If this is interrupted: {ROTATE_AGAIN}"
    );
    tokio::time::sleep(READ_AGAIN_AFTER).await;
    if let Err(error) = github.set_hook(None, Some(&secret)).await {
        let message = format!("the new secret is stored, but GitHub did not accept it: {error} -> {ROTATE_AGAIN}");
        return Err(Failure::Unreachable(message));
    }
    let text = format!("ingest and GitHub have a new secret ({id}); GitHub signs deliveries to {} with it\n", hook.url);
    Ok(Output { ok: true, text, json: json!({ "rotated": id }) })
}
