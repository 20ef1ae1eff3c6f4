//! What only the account and GitHub know about the pools of a file: whether the app is installed, what the runner groups admit,
//! the architecture of images, and whether EC2 would accept a launch.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::{Architecture, LaunchTemplate, Pool, Tuple};
use domain::ids::{PoolName, Scope};
use domain::policy::listing::Reading;
use domain::policy::removal::has_traces;
use engine::ports::{Compute, GitHub, GitHubError};
use jiff::Timestamp;
use platform::aws::ErrorKind;
use platform::github::GitHubApp;
use platform::inspect::{Inspect, Unanswered};

use super::installation::Installation;
use crate::launches::{DryRuns, examples};
use crate::pool_file::PoolFile;
use crate::runner_groups;

/// More launch options are not tried.
const MAX_DRY_RUNS: usize = 20;

/// Checks that each owner has installed the app. If GitHub does not answer, that is a warning: a pool file can be applied while
/// GitHub is unavailable.
pub(super) async fn check_installed(file: &mut PoolFile, github: &Result<&GitHubApp, String>) {
    let Ok(github) = github else { return };
    let mut owners: BTreeMap<Scope, PoolName> = BTreeMap::new();
    for pool in &file.pools {
        owners.entry(pool.owner.clone()).or_insert_with(|| pool.name.clone());
    }
    for (owner, pool) in owners {
        match github.installed(&owner).await {
            Ok(Some(installed)) => {
                if let Some(since) = installed.suspended_at {
                    let page = installed.html_url;
                    file.warn(&pool, "owner", format!("owner: {owner} has suspended the app since {since:.0}: {page}"));
                }
            }
            Ok(None) => {
                let page = match github.about().await {
                    Ok(about) => format!(" -> {}/installations/new", about.html_url),
                    Err(_) => String::new(),
                };
                let message = format!("owner: {owner} has not installed the app: GitHub would send no webhook{page}");
                file.refuse(&pool, "owner", message);
            }
            Err(error) => {
                file.warn(
                    &pool,
                    "owner",
                    format!("owner: whether {owner} has installed the app was not checked: {error}"),
                );
            }
        }
    }
}

/// Whether something of a pool that is to be dropped may be left in EC2 or at GitHub. If GitHub refuses the list, because the app is
/// not installed any more, a sweep could not remove anything there either.
pub(super) async fn may_have_traces<S>(pool: &Pool, installation: &Installation<'_, S>, now: Timestamp) -> bool {
    let Ok(github) = installation.github else { return true };
    let Ok(machines) = installation.ec2.census().await else { return true };
    let mut reading = Reading::new(None, now);
    while let Some(page) = reading.next_page() {
        match github.runners(&pool.owner, installation.stack, page).await {
            Ok(page) => reading.add(page),
            Err(GitHubError::Denied(_) | GitHubError::Refused(_)) => break,
            Err(_) => return true,
        }
    }
    let list = reading.list();
    has_traces(&pool.name, &machines, &list.runners)
}

pub(super) async fn check_runner_groups(file: &mut PoolFile, github: Result<&GitHubApp, String>) {
    let pools: Vec<_> = file.pools.iter().map(Into::into).collect();
    let found = runner_groups::check(&pools, github).await;
    found.errors.iter().for_each(|it| file.refuse(&it.pool, "runner_group", &it.message));
    found.warnings.iter().for_each(|it| file.warn(&it.pool, "runner_group", &it.message));
}

/// Compares instance types with the architecture of the image in the launch template. An image that cannot be read is no error:
/// the trial shows whether EC2 can use it.
pub(super) async fn check_architectures(file: &mut PoolFile, pools: &[Pool], inspect: &Inspect) {
    let mut images = Images::new();
    for pool in pools {
        for (declared, template) in pool.shapes.iter().flat_map(|shapes| &shapes.launch_templates) {
            let Some((id, architecture)) = known_image(&mut images, template, inspect).await else { continue };
            if architecture != *declared {
                let message = format!(
                    "launch_templates: that of {declared}, {}, has image {id}, which is {architecture}",
                    template.name
                );
                file.refuse(&pool.name, "launch_templates", message);
            }
        }
        let template = &pool.launch_template;
        let Some((id, architecture)) = known_image(&mut images, template, inspect).await else { continue };
        let differs = pool.instance_types.iter().find(|it| Architecture::of(it) != architecture);
        if let Some(instance_type) = differs {
            let message = format!(
                "instance_types: {instance_type} is {}, but image {id} of {} is {architecture}",
                Architecture::of(instance_type),
                template.name
            );
            file.refuse(&pool.name, "instance_types", message);
        }
    }
}

type Images = BTreeMap<(String, u64), Option<(String, Architecture)>>;

/// The template's image, read once.
async fn known_image(
    images: &mut Images,
    template: &LaunchTemplate,
    inspect: &Inspect,
) -> Option<(String, Architecture)> {
    let key = (template.id.to_string(), template.version);
    match images.get(&key) {
        Some(image) => image.clone(),
        None => images.entry(key).or_insert(image_of(template, inspect).await).clone(),
    }
}

async fn image_of(template: &LaunchTemplate, inspect: &Inspect) -> Option<(String, Architecture)> {
    let id = inspect.template(template).await.ok()?.image?;
    let architecture = match inspect.image(&id).await.ok()??.architecture.as_deref()? {
        "x86_64" => Architecture::X64,
        "arm64" => Architecture::Arm64,
        _ => return None,
    };
    Some((id, architecture))
}

/// Tries the launch options that the pools in force do not have, by dry runs in the caller's name. A pool of which EC2 accepts
/// none is an error.
pub(super) async fn try_launches<S>(
    file: &mut PoolFile,
    pools: &[Pool],
    before: &[Pool],
    installation: &Installation<'_, S>,
) {
    let Installation { inspect, stack, .. } = installation;
    let old: BTreeSet<Tuple> = before.iter().flat_map(examples).collect();
    let mut tried: BTreeMap<Tuple, Trial> = BTreeMap::new();
    let mut dry_runs = DryRuns::new(inspect, stack);
    for pool in pools {
        let new: Vec<Tuple> = examples(pool).into_iter().filter(|tuple| !old.contains(tuple)).collect();
        for tuple in &new {
            if tried.contains_key(tuple) || dry_runs.calls() == MAX_DRY_RUNS {
                continue;
            }
            tried.insert(tuple.clone(), trial(dry_runs.try_launch(tuple).await));
        }
        report(file, pool, &new, &tried);
    }
}

/// EC2's answer to a dry run.
enum Trial {
    Accepted,
    Refused(String),
    /// The caller must not try it, or EC2 throttles.
    Unknown(String),
}

fn trial(answer: Result<(), Unanswered>) -> Trial {
    match answer {
        Ok(()) => Trial::Accepted,
        Err(error) if error.kind == ErrorKind::NotAllowed => {
            Trial::Unknown(format!("this role is not allowed to try it: {error}"))
        }
        Err(error) if error.is_throttled() || error.kind == ErrorKind::Unavailable && error.code.is_none() => {
            Trial::Unknown(error.to_string())
        }
        Err(error) => Trial::Refused(error.to_string()),
    }
}

fn report(file: &mut PoolFile, pool: &Pool, new: &[Tuple], tried: &BTreeMap<Tuple, Trial>) {
    let field = if pool.shapes.is_some() { "launch_templates" } else { "instance_types" };
    let (mut refused, mut unknown) = (Vec::new(), Vec::new());
    for tuple in new {
        match tried.get(tuple) {
            Some(Trial::Refused(why)) => refused.push(format!("EC2 refuses {tuple}: {why}")),
            Some(Trial::Unknown(why)) => unknown.push(format!("{tuple} was not tried: {why}")),
            Some(Trial::Accepted) | None => {}
        }
    }
    if !refused.is_empty() && refused.len() == new.len() {
        let more = match refused.len() {
            1 => String::new(),
            all => format!(" (and {} more)", all - 1),
        };
        return file.refuse(&pool.name, field, format!("{}{more}", refused[0]));
    }
    refused.iter().for_each(|message| file.warn(&pool.name, field, message));
    // One is enough: the reason is the same for all.
    if let Some(message) = unknown.first() {
        file.warn(&pool.name, field, message);
    }
}
