//! Checks of the GitHub App: key, permissions, events, installations and runner groups.

use std::collections::BTreeMap;

use domain::config::Pool;
use domain::ids::Scope;
use domain::state::Config;
use engine::ports::GitHubError;
use platform::github::{About, GitHubApp};

use super::clock::clock;
use super::report::{Group, Level};
use super::subject::{MaybeConfig, Subject};
use super::webhook;
use crate::permissions::{EVENT, Features, Importance, Permission, missing};
use crate::runner_groups;

pub(super) async fn app(subject: &Subject<'_>, config: MaybeConfig<'_>) -> Group {
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
    let about = key(&mut group, github, config).await;
    webhook::webhook(&mut group, subject, github).await;
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

/// The app as GitHub describes it, if GitHub accepts the key.
async fn key(group: &mut Group, github: &GitHubApp, config: MaybeConfig<'_>) -> Option<About> {
    match github.about().await {
        Ok(about) => {
            group.pass("key", format!("GitHub accepts the key of {} (app {})", about.name, about.id));
            permissions(group, &about, config);
            events(group, &about);
            Some(about)
        }
        Err(error) => {
            group.fail("key", error.to_string(), key_remedy(&error));
            group.skip("permissions", "GitHub does not accept the key");
            group.skip("events", "GitHub does not accept the key");
            None
        }
    }
}

fn key_remedy(error: &GitHubError) -> &'static str {
    match error {
        GitHubError::SecretUnusable(_) => "drover secrets put app --app-id ID KEY-FILE",
        GitHubError::Denied(_) | GitHubError::Refused(_) | GitHubError::NameTaken => {
            "check that the key belongs to this app and was not deleted on GitHub, and that this machine's clock is right"
        }
        GitHubError::Limited { .. } => "wait until GitHub's rate limit allows calls again",
        GitHubError::Unavailable { .. } | GitHubError::SecretUnreadable { .. } => {
            "check that the secret has a value and is readable, that DROVER_GITHUB_API_URL is right, and \
             https://www.githubstatus.com"
        }
    }
}

/// The permissions that the app requests from an account that installs it.
fn permissions(group: &mut Group, about: &About, config: MaybeConfig<'_>) {
    let Some(config) = config else { return group.skip("permissions", "no pools are known") };
    let missing = missing(Features::of(&config.pools), &about.permissions);
    let problems: Vec<String> = missing.iter().map(|permission| format!("lacks {permission}")).collect();
    let remedy = format!(
        "add it in the app's settings ({}), then accept the change in each account that installed the app",
        about.html_url
    );
    group.conclude("permissions", level(&missing), &problems, "all that the pools need", &remedy);
}

fn level(missing: &[Permission]) -> Level {
    match missing.iter().any(|permission| permission.importance == Importance::Required) {
        true => Level::Fail,
        false => Level::Warn,
    }
}

fn events(group: &mut Group, about: &About) {
    if !about.events.iter().any(|event| event == EVENT) {
        let message = format!("not subscribed to {EVENT}: no job reaches Drover");
        let remedy = format!("subscribe to Workflow job in the app's settings ({})", about.html_url);
        return group.fail("events", message, remedy);
    }
    let others: Vec<String> = about.events.iter().filter(|event| *event != EVENT).cloned().collect();
    let problem = (!others.is_empty())
        .then(|| format!("also subscribed to {}: ingest ignores these deliveries", others.join(", ")));
    group.conclude("events", Level::Warn, problem.as_slice(), EVENT, "unsubscribe in the app's settings");
}

/// Whether each account with pools has installed the app, not suspended it, and granted its permissions.
async fn installed(group: &mut Group, github: &GitHubApp, config: &Config, about: Option<&About>) {
    let mut by_owner: BTreeMap<&Scope, Vec<Pool>> = BTreeMap::new();
    for pool in &config.pools {
        by_owner.entry(&pool.owner).or_default().push(pool.clone());
    }
    let (mut problems, mut worst) = (Vec::new(), Level::Warn);
    for (scope, pools) in &by_owner {
        let (found, level) = installation_problems(github, scope, pools, about).await;
        problems.extend(found);
        worst = worst.max(level);
    }
    let owners: Vec<String> = by_owner.keys().map(ToString::to_string).collect();
    let remedy = "an administrator of the account does that, on the page named above";
    group.conclude("installed", worst, &problems, format!("on {}", owners.join(", ")), remedy);
}

async fn installation_problems(
    github: &GitHubApp,
    scope: &Scope,
    pools: &[Pool],
    about: Option<&About>,
) -> (Vec<String>, Level) {
    let installed = match github.installed(scope).await {
        Ok(Some(installed)) => installed,
        Ok(None) => {
            let page = about.map(|about| format!(": {}/installations/new", about.html_url)).unwrap_or_default();
            return (vec![format!("{scope} has not installed the app{page}")], Level::Fail);
        }
        Err(error) => return (vec![format!("{scope}: {error}")], Level::Fail),
    };
    let missing = missing(Features::of(pools), &installed.permissions);
    let mut worst = level(&missing);
    let mut problems = Vec::new();
    if let Some(since) = installed.suspended_at {
        problems.push(format!("{scope} has suspended the app since {since:.0}: {}", installed.html_url));
        worst = Level::Fail;
    }
    problems.extend(
        missing.iter().map(|permission| format!("{scope} has not granted {permission}: {}", installed.html_url)),
    );
    (problems, worst)
}

/// Whether each runner group admits the repositories that its pools serve, and no others.
async fn groups(group: &mut Group, github: &GitHubApp, config: &Config) {
    let pools: Vec<_> = config.pools.iter().filter(|pool| !pool.draining).map(Into::into).collect();
    let findings = runner_groups::check(&pools, Ok(github)).await;
    let level = if findings.errors.is_empty() { Level::Warn } else { Level::Fail };
    let problems = [findings.errors, findings.warnings].concat();
    let remedy = "change the group in the organisation's settings (Actions, Runner groups), or the pool";
    group.conclude("runner groups", level, &problems, "admit the repositories that their pools serve", remedy);
}
