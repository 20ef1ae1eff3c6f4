//! Checks of the GitHub App: key, permissions, events, installations and runner groups.

use std::collections::{BTreeMap, BTreeSet};

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
        let readable = installed(&mut group, github, config, &about).await;
        groups(&mut group, github, config, &readable).await;
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

/// Whether each account with pools has installed the app, not suspended it, and granted its permissions. Returns the owners
/// whose runner groups can be read.
async fn installed(group: &mut Group, github: &GitHubApp, config: &Config, about: &About) -> BTreeSet<Scope> {
    let mut by_owner: BTreeMap<&Scope, Vec<Pool>> = BTreeMap::new();
    for pool in &config.pools {
        by_owner.entry(&pool.owner).or_default().push(pool.clone());
    }
    let (mut problems, mut worst, mut readable) = (Vec::new(), Level::Warn, BTreeSet::new());
    for (scope, pools) in &by_owner {
        let found = installation(github, scope, pools, about).await;
        problems.extend(found.problems);
        worst = worst.max(found.level);
        if found.can_read_groups {
            readable.insert((*scope).clone());
        }
    }
    let owners: Vec<String> = by_owner.keys().map(ToString::to_string).collect();
    let remedy = "an administrator of the account does that, on the page named above";
    group.conclude("installed", worst, &problems, format!("on {}", owners.join(", ")), remedy);
    readable
}

/// The app in one account.
struct Installation {
    problems: Vec<String>,
    level: Level,
    can_read_groups: bool,
}

async fn installation(github: &GitHubApp, scope: &Scope, pools: &[Pool], about: &About) -> Installation {
    let fatal = |problem| Installation { problems: vec![problem], level: Level::Fail, can_read_groups: false };
    let installed = match github.installed(scope).await {
        Ok(Some(installed)) => installed,
        Ok(None) => {
            return fatal(format!("{scope} has not installed the app: {}/installations/new", about.html_url));
        }
        Err(error) => return fatal(format!("{scope}: {error}")),
    };
    if let Some(since) = installed.suspended_at {
        return fatal(format!("{scope} has suspended the app since {since:.0}: {}", installed.html_url));
    }
    let features = Features::of(pools);
    let ungranted = missing(features, &installed.permissions);
    let can_read_groups = !ungranted.iter().any(Permission::registers_runners);
    // An account can only grant what the app requests. What the app lacks is reported once.
    let lacking: Vec<&str> = missing(features, &about.permissions).iter().map(|it| it.name).collect();
    let ungranted: Vec<Permission> = ungranted.into_iter().filter(|it| !lacking.contains(&it.name)).collect();
    let problem = |it: &Permission| format!("{scope} has not granted {it}: {}", installed.html_url);
    Installation { problems: ungranted.iter().map(problem).collect(), level: level(&ungranted), can_read_groups }
}

/// Whether each runner group admits the repositories that its pools serve, and no others.
async fn groups(group: &mut Group, github: &GitHubApp, config: &Config, readable: &BTreeSet<Scope>) {
    let pools = config.pools.iter().filter(|pool| !pool.draining && readable.contains(&pool.owner));
    let pools: Vec<_> = pools.map(Into::into).collect();
    // Without the app in the account, there is no result.
    if pools.is_empty() && !config.pools.is_empty() {
        return;
    }
    let findings = runner_groups::check(&pools, Ok(github)).await;
    let level = if findings.errors.is_empty() { Level::Warn } else { Level::Fail };
    let problems = findings.errors.into_iter().chain(findings.warnings);
    let mut problems: Vec<String> = problems.map(|problem| problem.message).collect();
    problems.extend(shared_groups(&config.pools));
    let remedy = "change the group in the organisation's settings (Actions, Runner groups), or the pool";
    group.conclude("runner groups", level, &problems, "admit the repositories that their pools serve", remedy);
}

/// Pools with shapes whose runner group other pools use, too. GitHub gives a job that names the group and no labels to any runner
/// of the group, however large its machine is.
fn shared_groups(pools: &[Pool]) -> impl Iterator<Item = String> {
    let organizations = pools.iter().filter(|pool| !pool.draining && matches!(pool.owner, Scope::Organization(_)));
    let organizations: Vec<&Pool> = organizations.collect();
    let with_shapes: Vec<&Pool> = organizations.iter().copied().filter(|pool| pool.shapes.is_some()).collect();
    with_shapes.into_iter().filter_map(move |pool| {
        let is_other = |it: &&&Pool| it.name != pool.name && it.owner == pool.owner && it.runner_group == pool.runner_group;
        let others: Vec<&str> = organizations.iter().filter(is_other).map(|it| it.name.as_str()).collect();
        (!others.is_empty()).then(|| {
            format!(
                "pool {} has shapes and shares runner_group {} with {}: a job that names only the group (labels: []) can take \
                 any of its machines; give {} a group of its own",
                pool.name,
                pool.runner_group,
                others.join(", "),
                pool.name
            )
        })
    })
}
