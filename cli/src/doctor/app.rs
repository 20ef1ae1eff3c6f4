//! Checks of the GitHub App: key, permissions, events, installations and runner groups.

use std::collections::BTreeMap;

use domain::config::Pool;
use domain::ids::Scope;
use domain::state::Config;
use platform::github::{About, GitHubApp};

use super::clock::clock;
use super::report::{Group, Level};
use super::subject::{MaybeConfig, Subject};
use super::webhook;
use crate::output::github_remedy;
use crate::permissions::{EVENT, Features, Importance, Permission, missing};
use crate::runner_groups;

const CHECKS: &[&str] =
    &["clock", "key", "permissions", "events", "webhook", "deliveries", "signature", "installed", "runner groups"];

pub(super) fn none() -> Group {
    Group::new("GitHub App", CHECKS)
}

pub(super) async fn app(subject: &Subject<'_>, config: MaybeConfig<'_>) -> Group {
    let mut group = none();
    let Ok(github) = subject.github else { return group };
    let about = match github.about().await {
        Ok(about) => about,
        Err(error) => {
            group.fail("key", error.to_string(), github_remedy(&error));
            return group;
        }
    };
    match github.clock_ahead().await {
        Ok(ahead) => clock(&mut group, "GitHub", ahead),
        Err(error) => group.skip("clock", &error.to_string()),
    }
    group.pass("key", format!("GitHub accepts the key of {} (app {})", about.name, about.id));
    if let Some(config) = config {
        permissions(&mut group, &about, config);
    }
    events(&mut group, &about);
    webhook::webhook(&mut group, subject, github).await;
    if let Some(config) = config {
        installed(&mut group, github, config, &about).await;
        groups(&mut group, github, config).await;
    }
    group
}

/// The permissions that the app requests from an account that installs it.
fn permissions(group: &mut Group, about: &About, config: &Config) {
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
async fn installed(group: &mut Group, github: &GitHubApp, config: &Config, about: &About) {
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
    about: &About,
) -> (Vec<String>, Level) {
    let installed = match github.installed(scope).await {
        Ok(Some(installed)) => installed,
        Ok(None) => {
            let page = format!("{}/installations/new", about.html_url);
            return (vec![format!("{scope} has not installed the app: {page}")], Level::Fail);
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
    let problems = findings.errors.into_iter().chain(findings.warnings);
    let problems: Vec<String> = problems.map(|problem| problem.message).collect();
    let remedy = "change the group in the organisation's settings (Actions, Runner groups), or the pool";
    group.conclude("runner groups", level, &problems, "admit the repositories that their pools serve", remedy);
}
