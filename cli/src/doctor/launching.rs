//! Checks of what the pools launch: launch templates, images, subnets, and a dry run of each launch option.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::{LaunchTemplate, Pool, Tuple};
use domain::ids::SubnetId;
use domain::policy::PoolView;
use jiff::SignedDuration;
use jiff::Timestamp;
use platform::aws::ErrorKind;
use platform::inspect::{AWS_VOLUME_KEY, ImageFacts, TemplateFacts};

use super::report::{Group, Level};
use super::subject::{MaybeConfig, Subject};
use super::work::Views;
use crate::launches::{DryRuns, examples};
use crate::output::{age, count};

/// GitHub refuses a runner 30 days after the release of a newer one.
const IMAGE_WARN: SignedDuration = SignedDuration::from_hours(14 * 24);
const IMAGE_FAIL: SignedDuration = SignedDuration::from_hours(25 * 24);

/// EC2 allows an account a burst of five RunInstances calls, then two per second: leave some of them to the scaler.
const MAX_DRY_RUNS: usize = 3;

const CHECKS: &[&str] = &["launch templates", "power-off", "image", "volume key", "addresses", "trial"];

pub(super) fn none() -> Group {
    Group::new("launching", CHECKS)
}

pub(super) async fn launching(subject: &Subject<'_>, config: MaybeConfig<'_>, views: &Views) -> Group {
    let mut group = none();
    let Some(config) = config else { return group };
    let pools: Vec<&Pool> = config.pools.iter().filter(|pool| !pool.draining).collect();
    templates(&mut group, subject, &pools).await;
    addresses(&mut group, subject, &pools, views).await;
    trial(&mut group, subject, &pools).await;
    group
}

async fn templates(group: &mut Group, subject: &Subject<'_>, pools: &[&Pool]) {
    let mut used: BTreeMap<(&str, u64), (&LaunchTemplate, Vec<&str>)> = BTreeMap::new();
    let with_templates = pools.iter().flat_map(|pool| pool.templates().into_iter().map(move |it| (pool, it)));
    for (pool, template) in with_templates {
        let entry = used.entry((template.id.as_str(), template.version));
        entry.or_insert_with(|| (template, Vec::new())).1.push(pool.name.as_str());
    }
    let (mut missing, mut stopping, mut facts) = (Vec::new(), Vec::new(), Vec::new());
    for (template, pools) in used.into_values() {
        let title = format!("{} version {} (pool {})", template.name, template.version, pools.join(", "));
        match subject.inspect.template(template).await {
            Ok(found) => {
                if !found.ends_by_power_off {
                    stopping
                        .push(format!("{title} stops machines that power themselves off instead of terminating them"));
                }
                facts.push(found);
            }
            Err(error) => missing.push(format!("{title}: {error}")),
        }
    }
    let remedy = "make infrastructure creates it; drover pools apply FILE pins its version";
    group.conclude("launch templates", Level::Fail, &missing, format!("{} in use", facts.len()), remedy);
    let remedy = "set InstanceInitiatedShutdownBehavior=terminate in the template, then drover pools apply FILE";
    if !facts.is_empty() {
        group.conclude("power-off", Level::Fail, &stopping, "terminates the machine", remedy);
    }
    images(group, subject, &facts).await;
    volume_key(group, subject, &facts).await;
}

/// With a key of the customer's, EC2 accepts a launch and ends the machine at once, unless the scaler may use the key.
async fn volume_key(group: &mut Group, subject: &Subject<'_>, facts: &[TemplateFacts]) {
    if facts.iter().all(|facts| facts.volume_key.is_some()) {
        return group.pass("volume key", "the launch templates name one");
    }
    match subject.inspect.default_volume_key().await {
        Ok(key) => {
            let problem = (key != AWS_VOLUME_KEY).then(|| {
                format!("the account encrypts volumes with {key}, and a launch template names no key: its machines may end at once")
            });
            let remedy = "set ebs_kms_key_arn in terraform.tfvars, then make infrastructure, make deploy, drover pools apply FILE";
            group.conclude("volume key", Level::Warn, problem.as_slice(), "the one that AWS manages", remedy);
        }
        Err(error) => group.aws_error("volume key", &error),
    }
}

async fn images(group: &mut Group, subject: &Subject<'_>, facts: &[TemplateFacts]) {
    let used: BTreeSet<&str> = facts.iter().filter_map(|facts| facts.image.as_deref()).collect();
    if facts.is_empty() {
        return;
    }
    if used.is_empty() {
        return group.skip("image", "no launch template names one");
    }
    let (mut problems, mut fine, mut worst) = (Vec::new(), Vec::new(), Level::Warn);
    for id in used {
        let (level, line) = match subject.inspect.image(id).await {
            Ok(Some(found)) => image(id, found, subject.now),
            Ok(None) => (Level::Fail, format!("{id} does not exist: nothing can be launched")),
            Err(error) => (Level::Fail, format!("{id}: {error}")),
        };
        match level {
            Level::Pass | Level::Skip => fine.push(line),
            Level::Warn | Level::Fail => problems.push(line),
        }
        worst = worst.max(level);
    }
    // An image rebuilt with the old version pin has the same old runner.
    let remedy = "infra/runner-version --update, make build-image, drover pools apply FILE";
    group.conclude("image", worst, &problems, fine.join("\n"), remedy);
}

/// What counts is the older of the image and the runner in it.
fn image(id: &str, found: ImageFacts, now: Timestamp) -> (Level, String) {
    let since = |at: Option<Timestamp>| at.map(|at| now.duration_since(at));
    let (image_age, runner_age) = (since(found.created_at).unwrap_or_default(), since(found.runner_released_at));
    let published = runner_age.map(|time| format!(", published {} ago", age(time))).unwrap_or_default();
    let runner = found.runner.map(|runner| format!(", with runner {runner}{published}")).unwrap_or_default();
    let title = format!("{id}, {} old{runner}", age(image_age));
    let old = image_age.max(runner_age.unwrap_or_default());
    let refusal = "GitHub refuses a runner 30 days after the release of a newer one";
    match (found.available, old) {
        (false, _) => (Level::Fail, format!("{title}, is not available")),
        (true, old) if old >= IMAGE_FAIL => (Level::Fail, format!("{title}: {refusal}")),
        (true, old) if old >= IMAGE_WARN => (Level::Warn, format!("{title}: {refusal}")),
        (true, _) => (Level::Pass, title),
    }
}

async fn addresses(group: &mut Group, subject: &Subject<'_>, pools: &[&Pool], views: &Views) {
    let ids: BTreeSet<&SubnetId> = pools.iter().flat_map(|pool| &pool.subnets).collect();
    let ids: Vec<&SubnetId> = ids.into_iter().collect();
    let found = match subject.inspect.subnets(&ids).await {
        Ok(found) => found,
        Err(error) => return group.aws_error("addresses", &error),
    };
    let free: BTreeMap<&SubnetId, u32> = found.iter().map(|subnet| (&subnet.id, subnet.free)).collect();
    let (mut problems, mut worst) = (Vec::new(), Level::Warn);
    for id in &ids {
        match free.get(id) {
            None => problems.push(format!("{id} does not exist")),
            Some(0) => problems.push(format!("{id} has no free address")),
            Some(_) => {}
        }
    }
    for Pool { name, subnets, max, .. } in pools {
        // Another check reports a pool that cannot be read.
        let running = views.get(name).and_then(|view| view.as_ref().ok()).map_or(0, machines);
        let further = max.saturating_sub(running);
        let all: u32 = subnets.iter().filter_map(|id| free.get(id)).fold(0, |sum, free| sum.saturating_add(*free));
        if all == 0 && further > 0 {
            problems.push(format!("pool {name} cannot launch: none of its subnets has a free address"));
            worst = Level::Fail;
        } else if all < further {
            let addresses = count(all as usize, "free address");
            problems.push(format!(
                "pool {name} may launch {further} more machines (max = {max}), but its subnets have {addresses}"
            ));
        }
    }
    let all: u64 = free.values().map(|free| u64::from(*free)).sum();
    let fine = format!("{all} free in {}", count(free.len(), "subnet"));
    let remedy = "give the pool more subnets (then drover pools apply FILE), or free addresses";
    group.conclude("addresses", worst, &problems, fine, remedy);
}

/// The number of a pool's machines. They have their addresses already.
fn machines(view: &PoolView) -> u32 {
    view.slots.values().filter(|slot| slot.is_live() && slot.machine().is_some()).count() as u32
}

/// Tries launches with EC2's dry run.
async fn trial(group: &mut Group, subject: &Subject<'_>, pools: &[&Pool]) {
    let stack = match &subject.stack {
        Ok(stack) => stack,
        Err(error) => {
            group.conclude("trial", Level::Warn, &[error.to_string()], String::new(), "set the variable");
            return;
        }
    };
    let mut options = launch_options(pools);
    let skipped = options.len().saturating_sub(MAX_DRY_RUNS);
    options.truncate(MAX_DRY_RUNS);
    let (mut problems, mut worst) = (Vec::new(), Level::Warn);
    let mut dry_runs = DryRuns::new(subject.inspect, stack);
    for option in &options {
        match dry_runs.try_launch(option).await {
            Ok(()) => {}
            Err(error) if error.kind == ErrorKind::NotAllowed => {
                problems.push(format!("this role is not allowed to try {option}: {error}"));
            }
            Err(error) if error.is_throttled() => problems.push(format!("{option} was not tried: EC2 throttles calls")),
            Err(error) => {
                problems.push(format!("{option}: {error}"));
                worst = Level::Fail;
            }
        }
    }
    let rest = if skipped > 0 { format!("; {skipped} not tried") } else { String::new() };
    let fine = format!("EC2 accepts {} in a dry run{rest}", count(options.len(), "launch option"));
    group.conclude("trial", worst, &problems, fine, "fix what the message says; a dry run launches nothing");
}

/// Each template, instance type and market once, in the first subnet that has it: the first option of every pool before the
/// second of any.
fn launch_options(pools: &[&Pool]) -> Vec<Tuple> {
    let of_pools: Vec<Vec<Tuple>> = pools.iter().map(|pool| examples(pool)).collect();
    let longest = of_pools.iter().map(Vec::len).max().unwrap_or_default();
    let mut known = BTreeSet::new();
    let in_turn = (0..longest).flat_map(|index| of_pools.iter().filter_map(move |tuples| tuples.get(index)));
    in_turn
        .filter(|it| known.insert((it.template.clone(), it.template_version, it.instance_type.clone(), it.market)))
        .cloned()
        .collect()
}
