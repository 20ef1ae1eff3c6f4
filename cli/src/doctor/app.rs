//! The GitHub App: its key, what it may do, where its webhook goes, who installed it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::config::Pool;
use domain::ids::Scope;
use domain::state::Config;
use engine::ports::{Clock, GitHubError};
use jiff::SignedDuration;
use platform::clock::SystemClock;
use platform::github::{About, Attempt, GitHubApp, Hook, Permissions};

use super::stack::clock;
use super::{Group, Level, Pools, Subject};
use crate::runner_groups;
use crate::secrets::random;

/// GitHub keeps deliveries so long.
const DELIVERIES_KEPT: SignedDuration = SignedDuration::from_hours(3 * 24);

/// How often it is asked what became of the delivery that it was to repeat: half a minute in all.
const LOOKS: u32 = 15;

/// Ingest reads its secret again at most so often.
const SECRET_READ_AGAIN: Duration = Duration::from_secs(11);

/// The one event that Drover wants to be told of.
pub(crate) const EVENT: &str = "workflow_job";

/// All about the app.
pub(super) async fn app(subject: &Subject<'_>, config: Pools<'_>) -> Group {
    let mut group = Group::new("GitHub App");
    let github = match &subject.github {
        Ok(github) => *github,
        Err(error) => {
            for name in ["key", "clock", "permissions", "events", "webhook", "signature", "installed", "runner groups"]
            {
                group.skip(name, &error.to_string());
            }
            return group;
        }
    };
    match github.clock_ahead().await {
        Ok(ahead) => clock(&mut group, "GitHub", ahead),
        Err(error) => group.skip("clock", &error.to_string()),
    }
    let about = match github.about().await {
        Ok(about) => {
            group.pass("key", format!("GitHub knows us as {} (app {})", about.name, about.id));
            asked(&mut group, &about, config);
            Some(about)
        }
        Err(error) => {
            group.fail("key", error.to_string(), about_key(&error));
            group.skip("permissions", "GitHub does not know us");
            group.skip("events", "GitHub does not know us");
            None
        }
    };
    let goes_here = webhook(&mut group, subject, github).await;
    deliveries(&mut group, subject, github, goes_here).await;
    match config {
        Some(config) => {
            installed(&mut group, github, config, about.as_ref()).await;
            groups(&mut group, github, config).await;
        }
        None => {
            group.skip("installed", "no pools are known");
            group.skip("runner groups", "no pools are known");
        }
    }
    group
}

fn about_key(error: &GitHubError) -> &'static str {
    match error {
        GitHubError::SecretUnusable(_) => "drover secrets put app --app-id ID KEY-FILE",
        GitHubError::Denied(_) | GitHubError::Refused(_) | GitHubError::NameTaken => {
            "is it this app's key, and not one that was deleted? A clock that is wrong has the same effect"
        }
        GitHubError::Limited { .. } => "wait: GitHub wants to be left alone",
        GitHubError::Unavailable { .. } | GitHubError::SecretUnreadable { .. } => {
            "is the secret filled and readable, and GitHub's address right (DROVER_GITHUB_API_URL)? https://www.githubstatus.com"
        }
    }
}

/// What Drover does on GitHub.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Uses {
    /// Runners of organisations.
    pub(crate) organizations: bool,
    /// Runners of single repositories.
    pub(crate) repositories: bool,
    /// Jobs are run again whose machine EC2 took.
    pub(crate) reruns: bool,
}

impl Uses {
    fn of(pools: &[Pool]) -> Self {
        Self {
            organizations: pools.iter().any(|pool| matches!(pool.owner, Scope::Organization(_))),
            repositories: pools.iter().any(|pool| matches!(pool.owner, Scope::Repository(_))),
            reruns: pools.iter().any(|pool| pool.rerun_on_interruption),
        }
    }
}

/// What the app needs for that, the one list of it: permission, level, for what, and whether jobs are lost without it.
pub(crate) fn needs(uses: Uses) -> Vec<(&'static str, &'static str, &'static str, Level)> {
    let mut needs = Vec::new();
    if uses.organizations {
        needs.push(("organization_self_hosted_runners", "write", "to register runners", Level::Fail));
    }
    if uses.repositories {
        needs.push(("administration", "write", "to register a repository's runners", Level::Fail));
    }
    match uses.reruns {
        true => needs.push(("actions", "write", "to run jobs again (rerun_on_interruption)", Level::Fail)),
        false => needs.push(("actions", "read", "to ask what became of a job", Level::Fail)),
    }
    needs.push(("checks", "write", "to tell a job's author why it waits", Level::Warn));
    needs
}

/// What of that is not there, and the worst of it.
pub(crate) fn missing(uses: Uses, granted: &Permissions) -> (Vec<String>, Level) {
    let has = |permission: &str, level: &str| granted.get(permission).is_some_and(|it| it == "write" || it == level);
    let lacking: Vec<_> = needs(uses).into_iter().filter(|(permission, level, ..)| !has(permission, level)).collect();
    let worst = if lacking.iter().any(|(.., level)| *level == Level::Fail) { Level::Fail } else { Level::Warn };
    (
        lacking.iter().map(|(permission, level, why, _)| format!("{permission}: {level} is missing, {why}")).collect(),
        worst,
    )
}

/// What the app asks whoever installs it for.
fn asked(group: &mut Group, about: &About, config: Pools<'_>) {
    let settings =
        format!("change it in the app's settings ({}), and accept it where the app is installed", about.html_url);
    match config {
        Some(config) => {
            let (lacking, level) = missing(Uses::of(&config.pools), &about.permissions);
            group.judge("permissions", level, &lacking, "all that the pools need", &settings);
        }
        None => group.skip("permissions", "no pools are known"),
    }
    if !about.events.iter().any(|event| event == EVENT) {
        let says = format!("not subscribed to {EVENT}: Drover is told of no job");
        return group.fail(
            "events",
            says,
            format!("subscribe to Workflow job in the app's settings ({})", about.html_url),
        );
    }
    let others: Vec<String> = about.events.iter().filter(|event| *event != EVENT).cloned().collect();
    let wrong =
        (!others.is_empty()).then(|| format!("also subscribed to {}: each is a call for nothing", others.join(", ")));
    group.judge("events", Level::Warn, wrong.as_slice(), "workflow_job", "unsubscribe in the app's settings");
}

/// Whether the webhook goes to us; set right, if that is wanted. None if it is not known.
async fn webhook(group: &mut Group, subject: &Subject<'_>, github: &GitHubApp) -> Option<bool> {
    let hook = match github.hook().await {
        Ok(hook) => hook,
        Err(error) => {
            group.fail("webhook", error.to_string(), "see to the app's key first");
            return None;
        }
    };
    let Ok(url) = &subject.webhook_url else {
        group.warn(
            "webhook",
            format!("goes to {}; whether that is us is not known", hook.url),
            "DROVER_WEBHOOK_URL is the stack's output WebhookUrl: eval \"$(make --silent environment)\"",
        );
        return None;
    };
    let wrong = wrong_with(&hook, url);
    let remedy = "drover doctor --fix sends it here, as JSON, with the certificate checked";
    if wrong.is_empty() || !subject.fix {
        group.judge("webhook", Level::Fail, &wrong, format!("goes to {url}"), remedy);
        return Some(wrong.is_empty());
    }
    match github.set_hook(Some(url), None).await {
        Ok(hook) => {
            let wrong = wrong_with(&hook, url);
            group.judge(
                "webhook",
                Level::Fail,
                &wrong,
                format!("now goes to {url}"),
                "change it in the app's settings",
            );
            Some(wrong.is_empty())
        }
        Err(error) => {
            group.fail("webhook", format!("cannot be set: {error}"), "change it in the app's settings");
            None
        }
    }
}

fn wrong_with(hook: &Hook, url: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if hook.url.trim_end_matches('/') != url.trim_end_matches('/') {
        wrong.push(format!("goes to {}, and ingest is at {url}", hook.url));
    }
    if hook.content_type != "json" {
        wrong.push(format!("is sent as {}, and ingest reads json", hook.content_type));
    }
    if !hook.checks_certificate {
        wrong.push("GitHub does not check the certificate there: anybody on the way may read it".to_owned());
    }
    wrong
}

/// Whether deliveries arrive, and whether their signature is good: told by having the newest repeated, as GitHub keeps
/// secret what it signs with. A delivery that comes twice changes nothing.
async fn deliveries(group: &mut Group, subject: &Subject<'_>, github: &GitHubApp, goes_here: Option<bool>) {
    let since = subject.now - DELIVERIES_KEPT;
    let attempts = match github.attempts(since, 1).await {
        Ok(attempts) => attempts,
        Err(error) => {
            group.fail("deliveries", error.to_string(), "see to the app's key first");
            return group.skip("signature", "no deliveries are known");
        }
    };
    let Some(newest) = attempts.first() else {
        let says = "GitHub has delivered nothing within three days";
        group.warn("deliveries", says, "queue a job for one of the pools, and look again");
        return signature_without_delivery(group, subject, github).await;
    };
    arrived(group, &attempts);
    if goes_here == Some(false) {
        return group.skip("signature", "the webhook goes elsewhere");
    }
    let filled = is_filled(subject).await;
    let outcome = match filled {
        Some(false) => Ok(None),
        Some(true) | None => repeated(github, newest, subject).await,
    };
    match outcome {
        Ok(Some(again)) if again.succeeded() => group.pass("signature", "GitHub signs with the secret that ingest has"),
        Ok(Some(again)) if again.status_code != 401 => {
            let says = format!("the newest delivery, repeated, came back as {} ({})", again.status_code, again.status);
            group.fail("signature", says, "look at the log group of the function ingest");
        }
        // Refused, or known to be: there is nothing to compare with.
        Ok(_) if filled != Some(false) && !matches!(outcome, Ok(Some(_))) => {
            let says = "GitHub has not repeated the newest delivery within half a minute";
            group.warn("signature", says, "look again later");
        }
        Ok(_) if subject.fix => renew(group, subject, github, Some(newest)).await,
        Ok(_) => group.fail(
            "signature",
            "ingest refuses GitHub's signature: the two have different secrets",
            "drover doctor --fix makes a new secret and gives it to both",
        ),
        Err(error) => group.fail("signature", error.to_string(), "look again later"),
    }
}

async fn signature_without_delivery(group: &mut Group, subject: &Subject<'_>, github: &GitHubApp) {
    match is_filled(subject).await {
        Some(false) if subject.fix => renew(group, subject, github, None).await,
        Some(false) => group.fail(
            "signature",
            "there is no secret to check it with",
            "drover doctor --fix makes one and gives it to both",
        ),
        Some(true) | None => group.skip("signature", "there is no delivery to repeat"),
    }
}

/// None if it cannot be told.
async fn is_filled(subject: &Subject<'_>) -> Option<bool> {
    let id = subject.webhook_secret.as_ref().ok()?;
    subject.inspect.is_filled(id).await.ok()
}

/// How the deliveries of the last days went.
fn arrived(group: &mut Group, attempts: &[Attempt]) {
    let good: BTreeSet<&str> =
        attempts.iter().filter(|attempt| attempt.succeeded()).map(|attempt| attempt.guid.as_str()).collect();
    let mut lost: BTreeMap<&str, &Attempt> = BTreeMap::new();
    for attempt in attempts.iter().rev().filter(|attempt| !good.contains(attempt.guid.as_str())) {
        lost.insert(&attempt.guid, attempt);
    }
    let line = |attempt: &&Attempt| {
        format!(
            "{:.0}: {} came back as {} ({})",
            attempt.delivered_at, attempt.event, attempt.status_code, attempt.status
        )
    };
    let mut wrong: Vec<String> = lost.values().take(3).map(line).collect();
    wrong.extend((lost.len() > 3).then(|| format!("and {} more", lost.len() - 3)));
    let newest_failed = attempts.first().is_some_and(|newest| !newest.succeeded());
    let level = if newest_failed { Level::Fail } else { Level::Warn };
    let remedy = match newest_failed {
        true => "see to webhook, signature and ingest; the janitor has them delivered again once one succeeds",
        false => "nothing: the janitor has them delivered again, three times",
    };
    let fine = format!("the newest {} arrived", attempts.len());
    group.judge("deliveries", level, &wrong, fine, remedy);
}

/// Has a delivery repeated, and waits for what becomes of it; None if that is not known within half a minute.
async fn repeated(github: &GitHubApp, newest: &Attempt, subject: &Subject<'_>) -> Result<Option<Attempt>, GitHubError> {
    let since = subject.now - DELIVERIES_KEPT;
    let known: BTreeSet<u64> = github.attempts(since, 1).await?.iter().map(|attempt| attempt.id).collect();
    github.redeliver(newest.id).await?;
    for look in 0..LOOKS {
        tokio::time::sleep(Duration::from_millis(250).saturating_mul(look + 1).min(Duration::from_secs(2))).await;
        let attempts = github.attempts(since, 1).await?;
        let ours = |attempt: &Attempt| attempt.guid == newest.guid && !known.contains(&attempt.id);
        if let Some(again) = attempts.into_iter().find(ours) {
            return Ok(Some(again));
        }
    }
    Ok(None)
}

/// A new secret, first for ingest, then for GitHub: in between GitHub's signature is refused, as it was before.
async fn renew(group: &mut Group, subject: &Subject<'_>, github: &GitHubApp, newest: Option<&Attempt>) {
    let by_hand = "do it by hand: docs/install.md, step 4";
    let Ok(id) = &subject.webhook_secret else {
        return group.fail("signature", "DROVER_WEBHOOK_SECRET is not set: there is nowhere to put a new one", by_hand);
    };
    let secret = random();
    if let Err(error) = subject.inspect.fill(id, &secret).await {
        return group.unanswered("signature", &error);
    }
    if let Err(error) = github.set_hook(None, Some(&secret)).await {
        return group.fail(
            "signature",
            format!("GitHub did not take the new secret: {error}"),
            "drover doctor --fix again",
        );
    }
    let Some(newest) = newest else {
        return group.pass("signature", "a new secret, given to both");
    };
    // Ingest has just read the old one, and does not read it again at once.
    tokio::time::sleep(SECRET_READ_AGAIN).await;
    match repeated(github, newest, &Subject { now: SystemClock.now(), ..subject.clone() }).await {
        Ok(Some(again)) if again.succeeded() => {
            group.pass("signature", "a new secret, given to both: ingest accepts it")
        }
        Ok(Some(again)) => {
            let says =
                format!("a new secret was given to both, and a delivery still came back as {}", again.status_code);
            group.fail("signature", says, "look at the log group of the function ingest");
        }
        Ok(None) => {
            group.warn("signature", "a new secret was given to both", "drover doctor again tells whether it works")
        }
        Err(error) => group.fail("signature", error.to_string(), "drover doctor again"),
    }
}

/// Whether each account that has pools installed the app, lets it work, and granted what it asks for.
async fn installed(group: &mut Group, github: &GitHubApp, config: &Config, about: Option<&About>) {
    let mut by_owner: BTreeMap<&Scope, Vec<Pool>> = BTreeMap::new();
    for pool in &config.pools {
        by_owner.entry(&pool.owner).or_default().push(pool.clone());
    }
    let (mut wrong, mut level) = (Vec::new(), Level::Warn);
    for (scope, pools) in &by_owner {
        let installed = match github.installed(scope).await {
            Ok(Some(installed)) => installed,
            Ok(None) => {
                let page = about.map(|about| format!(": {}/installations/new", about.html_url)).unwrap_or_default();
                wrong.push(format!("{scope} has not installed the app{page}"));
                level = Level::Fail;
                continue;
            }
            Err(error) => {
                wrong.push(format!("{scope}: {error}"));
                level = Level::Fail;
                continue;
            }
        };
        if let Some(since) = installed.suspended_at {
            wrong.push(format!("{scope} has suspended the app since {since:.0}: {}", installed.html_url));
            level = Level::Fail;
        }
        let (lacking, worst) = missing(Uses::of(pools), &installed.permissions);
        if !lacking.is_empty() && worst == Level::Fail {
            level = Level::Fail;
        }
        wrong.extend(lacking.iter().map(|line| format!("{scope} has not granted {line}: {}", installed.html_url)));
    }
    let owners: Vec<String> = by_owner.keys().map(ToString::to_string).collect();
    let remedy = "an administrator of the account does that, on the page named";
    group.judge("installed", level, &wrong, format!("on {}", owners.join(", ")), remedy);
}

/// Whether the runner groups are the fences that the pools want.
async fn groups(group: &mut Group, github: &GitHubApp, config: &Config) {
    let pools: Vec<_> = config.pools.iter().filter(|pool| !pool.draining).map(Into::into).collect();
    let fence = runner_groups::check(&pools, Ok(github)).await;
    let level = if fence.errors.is_empty() { Level::Warn } else { Level::Fail };
    let wrong = [fence.errors, fence.warnings].concat();
    let remedy = "change the group in the organisation's settings (Actions, Runner groups), or the pool";
    group.judge("runner groups", level, &wrong, "admit whom their pools serve", remedy);
}
