//! Checks of the app's webhook: its URL, recent deliveries, and whether ingest accepts GitHub's signature.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::ports::{Clock, GitHubError};
use jiff::SignedDuration;
use platform::clock::SystemClock;
use platform::github::{Attempt, GitHubApp, Hook};

use super::report::{Group, Level};
use super::subject::{Mode, Subject};
use crate::output::github_remedy;
use crate::secrets::random;

/// How long GitHub keeps deliveries.
const DELIVERIES_KEPT: SignedDuration = SignedDuration::from_hours(3 * 24);

/// How often to ask for the result of a redelivery: half a minute in all.
const POLLS: u32 = 15;

/// Ingest reads its secret again after a refused signature, but at most this often.
const SECRET_READ_AGAIN: Duration = Duration::from_secs(11);

/// Failed deliveries that the report names.
const NAMED: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    Ingest,
    Elsewhere,
    Unknown,
}

pub(super) async fn webhook(group: &mut Group, subject: &Subject<'_>, github: &GitHubApp) {
    let destination = destination(group, subject, github).await;
    let attempts = match github.attempts(subject.now - DELIVERIES_KEPT, 1).await {
        Ok(attempts) => attempts,
        Err(error) => {
            return group.fail("deliveries", error.to_string(), github_remedy(&error));
        }
    };
    let Some(newest) = attempts.first() else {
        let message = "GitHub has sent no delivery within three days";
        group.warn("deliveries", message, "queue a job for one of the pools, then run drover doctor again");
        return signature_without_delivery(group, subject, github).await;
    };
    deliveries(group, &attempts);
    match destination {
        // The signature follows from the webhook.
        Destination::Elsewhere => {}
        Destination::Ingest | Destination::Unknown => signature(group, subject, github, newest).await,
    }
}

/// Where the webhook points. Repairs it if asked to.
async fn destination(group: &mut Group, subject: &Subject<'_>, github: &GitHubApp) -> Destination {
    let hook = match github.hook().await {
        Ok(hook) => hook,
        Err(error) => {
            group.fail("webhook", error.to_string(), github_remedy(&error));
            return Destination::Unknown;
        }
    };
    let Ok(url) = &subject.webhook_url else {
        let message = format!("points to {}; the URL of ingest is not known", hook.url);
        let remedy = "set DROVER_WEBHOOK_URL to the stack's output WebhookUrl, or unset it: drover reads the output";
        group.warn("webhook", message, remedy);
        return Destination::Unknown;
    };
    let problems = problems_of(&hook, url);
    if problems.is_empty() || subject.mode == Mode::ReportOnly {
        let remedy = "drover doctor --fix sets the URL, the content type and certificate checks";
        group.conclude("webhook", Level::Fail, &problems, format!("points to {url}"), remedy);
        return destination_with(&problems);
    }
    let by_hand = "change it in the app's settings";
    match github.set_hook(Some(url), None).await {
        Ok(hook) => {
            let problems = problems_of(&hook, url);
            group.conclude("webhook", Level::Fail, &problems, format!("now points to {url}"), by_hand);
            destination_with(&problems)
        }
        Err(error) => {
            group.fail("webhook", format!("cannot be changed: {error}"), by_hand);
            Destination::Unknown
        }
    }
}

fn destination_with(problems: &[String]) -> Destination {
    if problems.is_empty() { Destination::Ingest } else { Destination::Elsewhere }
}

fn problems_of(hook: &Hook, url: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if hook.url.trim_end_matches('/') != url.trim_end_matches('/') {
        problems.push(format!("points to {}, but ingest is at {url}", hook.url));
    }
    if hook.content_type != "json" {
        problems.push(format!("sends {}, but ingest reads json", hook.content_type));
    }
    if !hook.checks_certificate {
        problems.push("GitHub does not check ingest's certificate: others could read deliveries on the way".to_owned());
    }
    problems
}

/// How the deliveries of the last days went.
fn deliveries(group: &mut Group, attempts: &[Attempt]) {
    let arrived: BTreeSet<&str> =
        attempts.iter().filter(|attempt| attempt.succeeded()).map(|attempt| attempt.guid.as_str()).collect();
    let mut failed: BTreeMap<&str, &Attempt> = BTreeMap::new();
    for attempt in attempts.iter().rev().filter(|attempt| !arrived.contains(attempt.guid.as_str())) {
        failed.insert(&attempt.guid, attempt);
    }
    let line = |attempt: &&Attempt| {
        let Attempt { delivered_at, event, status_code, status, .. } = attempt;
        format!("{delivered_at:.0}: {event} was answered with {status_code} ({status})")
    };
    let mut problems: Vec<String> = failed.values().take(NAMED).map(line).collect();
    problems.extend((failed.len() > NAMED).then(|| format!("and {} more", failed.len() - NAMED)));
    let newest_failed = attempts.first().is_some_and(|newest| !newest.succeeded());
    let (level, remedy) = match newest_failed {
        true => {
            (Level::Fail, "fix webhook, signature and ingest; once a delivery succeeds, the janitor redelivers these")
        }
        false => (Level::Warn, "nothing to do: the janitor has them redelivered up to three times"),
    };
    let fine = format!("the newest {} arrived", attempts.len());
    group.conclude("deliveries", level, &problems, fine, remedy);
}

/// Whether ingest accepts GitHub's signature. GitHub does not reveal the secret it signs with, so GitHub redelivers the newest
/// delivery; a second delivery of the same event changes nothing.
async fn signature(group: &mut Group, subject: &Subject<'_>, github: &GitHubApp, newest: &Attempt) {
    match (is_filled(subject).await, subject.mode) {
        (Some(false), Mode::Repair) => return renew(group, subject, github, Some(newest)).await,
        // The check of the secret reports it.
        (Some(false), Mode::ReportOnly) => return,
        (Some(true) | None, _) => {}
    }
    match redeliver(github, newest, subject).await {
        Ok(Some(again)) if again.succeeded() => group.pass("signature", "ingest accepts GitHub's signature"),
        Ok(Some(again)) if again.status_code == 401 => different_secrets(group, subject, github, newest).await,
        Ok(Some(again)) => {
            let message = format!("the redelivery was answered with {} ({})", again.status_code, again.status);
            group.fail("signature", message, "look at the log group of the function ingest");
        }
        Ok(None) => {
            let message = "GitHub did not redeliver the newest delivery within half a minute";
            group.warn("signature", message, "run drover doctor again later");
        }
        Err(error) => group.fail("signature", error.to_string(), "run drover doctor again later"),
    }
}

async fn different_secrets(group: &mut Group, subject: &Subject<'_>, github: &GitHubApp, newest: &Attempt) {
    match subject.mode {
        Mode::Repair => renew(group, subject, github, Some(newest)).await,
        Mode::ReportOnly => group.fail(
            "signature",
            "ingest rejects GitHub's signature: the two have different secrets",
            "drover doctor --fix generates a secret and gives it to both",
        ),
    }
}

async fn signature_without_delivery(group: &mut Group, subject: &Subject<'_>, github: &GitHubApp) {
    match (is_filled(subject).await, subject.mode) {
        (Some(false), Mode::Repair) => renew(group, subject, github, None).await,
        // The check of the secret reports it.
        (Some(false), Mode::ReportOnly) => {}
        (Some(true) | None, _) => group.skip("signature", "there is no delivery to repeat"),
    }
}

/// Whether the webhook secret has a value; None if that cannot be read.
async fn is_filled(subject: &Subject<'_>) -> Option<bool> {
    let id = subject.webhook_secret.as_ref().ok()?;
    subject.inspect.is_filled(id).await.ok()
}

/// Has GitHub redeliver, and waits for the result; None if there is none within half a minute.
async fn redeliver(
    github: &GitHubApp,
    newest: &Attempt,
    subject: &Subject<'_>,
) -> Result<Option<Attempt>, GitHubError> {
    let since = subject.now - DELIVERIES_KEPT;
    let before: BTreeSet<u64> = github.attempts(since, 1).await?.iter().map(|attempt| attempt.id).collect();
    github.redeliver(newest.id).await?;
    for poll in 1..=POLLS {
        tokio::time::sleep(Duration::from_millis(250).saturating_mul(poll).min(Duration::from_secs(2))).await;
        let attempts = github.attempts(since, 1).await?;
        let is_ours = |attempt: &Attempt| attempt.guid == newest.guid && !before.contains(&attempt.id);
        if let Some(again) = attempts.into_iter().find(is_ours) {
            return Ok(Some(again));
        }
    }
    Ok(None)
}

/// Generates a secret and gives it to ingest, then to GitHub. In between ingest rejects GitHub's signature, as it did before.
async fn renew(group: &mut Group, subject: &Subject<'_>, github: &GitHubApp, newest: Option<&Attempt>) {
    let Ok(id) = &subject.webhook_secret else {
        let message = "DROVER_WEBHOOK_SECRET is not set, so a new secret cannot be stored";
        let remedy = "name the stack with --stack NAME or DROVER_STACK";
        return group.fail("signature", message, remedy);
    };
    let secret = random();
    if let Err(error) = subject.inspect.fill(id, &secret).await {
        return group.aws_error("signature", &error);
    }
    if let Err(error) = github.set_hook(None, Some(&secret)).await {
        let message = format!("GitHub did not accept the new secret: {error}");
        return group.fail("signature", message, "run drover doctor --fix again");
    }
    let Some(newest) = newest else {
        return group.pass("signature", "ingest and GitHub have a new secret");
    };
    // Ingest has just read the old secret and does not read it again at once.
    tokio::time::sleep(SECRET_READ_AGAIN).await;
    match redeliver(github, newest, &Subject { now: SystemClock.now(), ..subject.clone() }).await {
        Ok(Some(again)) if again.succeeded() => {
            group.pass("signature", "ingest and GitHub have a new secret, and ingest accepts it");
        }
        Ok(Some(again)) => {
            let code = again.status_code;
            let message =
                format!("ingest and GitHub have a new secret, but a redelivery was still answered with {code}");
            group.fail("signature", message, "look at the log group of the function ingest");
        }
        Ok(None) => {
            let remedy = "run drover doctor again to see whether ingest accepts it";
            group.warn("signature", "ingest and GitHub have a new secret", remedy);
        }
        Err(error) => group.fail("signature", error.to_string(), "run drover doctor again"),
    }
}
