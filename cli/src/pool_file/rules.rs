//! Rules for the values of one pool, and for pools that match the same jobs.

use std::collections::BTreeSet;

use domain::config::{Architecture, Label, MarketChoice};
use domain::ids::{Repository, Scope};
use jiff::SignedDuration;

use super::check::Check;
use super::entry::PoolEntry;
use super::fields::Written;
use super::finding::{Finding, Severity, Source};
use super::instance_types::{Misnamed, misnamed};
use super::schedules::{ONLY_SPOT, schedules, too_many};
use super::shapes::{caps, shapes};

/// GitHub deletes an ephemeral runner that was not connected for a day.
const LONGEST_IDLE: SignedDuration = SignedDuration::from_hours(24);

/// GitHub ends a job on a self-hosted runner after five days.
const LONGEST_JOB: SignedDuration = SignedDuration::from_hours(5 * 24);

/// GitHub cancels a job that has been queued for a day.
const LONGEST_QUEUED: SignedDuration = SignedDuration::from_hours(24);

/// No machine boots, registers a runner and runs a job in less.
const SHORTEST_LIFE: SignedDuration = SignedDuration::from_mins(2);

/// The shortest time that still separates two readings, two attempts or two launches.
const SHORTEST_PAUSE: SignedDuration = SignedDuration::from_secs(1);

/// Longer than any difference between the clocks of functions.
const LONGEST_MARGIN: SignedDuration = SignedDuration::from_mins(15);

/// What is wrong with one pool.
pub(super) fn check(pool: &PoolEntry, written: &Written, source: &Source) -> Vec<(Severity, Finding)> {
    let mut check = Check { source, written, findings: Vec::new() };
    values(&mut check, pool);
    instance_types(&mut check, pool);
    caps(&mut check, pool);
    schedules(&mut check, &pool.schedules, (pool.max, pool.market));
    times(&mut check, pool);
    check.findings
}

fn values(check: &mut Check<'_>, pool: &PoolEntry) {
    match &pool.shapes {
        Some(policy) => shapes(check, pool, policy),
        None => {
            let none = "labels: at least one is required; GitHub adds none itself";
            check.require(&["labels", "shapes"], !pool.labels.is_empty(), none);
            let none = "instance_types: at least one is required";
            check.require(&["instance_types", "shapes"], !pool.instance_types.is_empty(), none);
            let none = "launch_template: must be a name or an id";
            check.require(&["launch_template", "shapes"], !pool.launch_template.is_empty(), none);
            let only = "launch_templates: only a pool with [pool.shapes] has several; write launch_template";
            check.require(&["launch_templates"], pool.launch_templates.is_empty(), only);
        }
    }
    check.require(
        &["launch_template_version"],
        pool.launch_template_version != Some(0),
        "launch_template_version: versions start at 1",
    );
    check.require(&["max"], pool.max > 0, "max: must be at least 1");
    check.require(
        &["warm", "max"],
        pool.warm <= pool.max,
        format!("warm: {} is more than max, {}", pool.warm, pool.max),
    );
    let excess = too_many(pool.warm, pool.stopped, pool.max).filter(|_| pool.warm <= pool.max);
    check.require(&["stopped", "warm", "max"], excess.is_none(), excess.unwrap_or_default());
    let can_stop = pool.stopped == 0 || pool.market != MarketChoice::Spot;
    check.require(&["stopped", "market"], can_stop, ONLY_SPOT);
    for (index, repository) in pool.repositories.iter().enumerate() {
        let is_checked = !["owner", "repositories"].iter().any(|field| check.written.invalid.contains(*field));
        if is_checked && !pool.owner.covers(repository) {
            let span = check.written.element("repositories", index).clone();
            let message = format!("repositories: {repository} does not belong to {}", pool.owner);
            check.at(Severity::Error, &span, message);
        }
    }
    check.unique("labels", &pool.labels);
    check.unique("repositories", &pool.repositories);
    check.unique("subnets", &pool.subnets);
    check.unique("instance_types", &pool.instance_types);
}

fn instance_types(check: &mut Check<'_>, pool: &PoolEntry) {
    const FIELD: &str = "instance_types";
    let Some(first) = pool.instance_types.first().filter(|_| !check.written.invalid.contains(FIELD)) else { return };
    let architecture = Architecture::of(first);
    for (index, instance_type) in pool.instance_types.iter().enumerate() {
        let span = check.written.element(FIELD, index).clone();
        match misnamed(instance_type) {
            Some(Misnamed::Wrong(message)) => check.at(Severity::Error, &span, format!("{FIELD}: {message}")),
            Some(Misnamed::UnknownFamily(message)) => check.at(Severity::Warning, &span, format!("{FIELD}: {message}")),
            None => {}
        }
        let other = Architecture::of(instance_type);
        if other != architecture {
            let message = format!(
                "{FIELD}: {instance_type} is {other} and {first} is {architecture}: a launch template has one image, and an \
                 image one architecture"
            );
            check.at(Severity::Error, &span, message);
        }
    }
    for (index, label) in pool.labels.iter().enumerate() {
        let named = Architecture::named(label.as_str()).filter(|named| *named != architecture);
        if named.is_some() && !check.written.invalid.contains("labels") {
            let span = check.written.element("labels", index).clone();
            let message = format!("labels: {label} promises another architecture than that of {first}, {architecture}");
            check.at(Severity::Warning, &span, message);
        }
    }
}

fn times(check: &mut Check<'_>, pool: &PoolEntry) {
    let times = &pool.timings;
    check.require(
        &["backoff_min", "backoff_max"],
        times.backoff_min <= times.backoff_max,
        "backoff_min: must not be longer than backoff_max",
    );
    for (name, time, why) in [
        ("confirm_gap", times.confirm_gap, "a single reading could end a machine"),
        ("relaunch_window", times.relaunch_window, "nothing would limit the launches for one job"),
        ("backoff_min", times.backoff_min, "what fails would be repeated without a pause"),
    ] {
        let message = format!("{name}: {time} is shorter than {SHORTEST_PAUSE:#}: {why}");
        check.require(&[name], time.duration() >= SHORTEST_PAUSE, message);
    }
    check.require(
        &["lease_margin"],
        times.lease_margin.duration() <= LONGEST_MARGIN,
        format!(
            "lease_margin: what a crashed function had begun would wait for {}; at most {LONGEST_MARGIN:#} are allowed",
            times.lease_margin
        ),
    );
    check.require(
        &["launch_deadline", "boot_grace"],
        times.launch_deadline >= times.boot_grace,
        format!(
            "launch_deadline: {} is shorter than boot_grace, {}: a job would be reported as failed while its machine boots",
            times.launch_deadline, times.boot_grace
        ),
    );
    check.require(
        &["max_life"],
        times.max_life.duration() >= SHORTEST_LIFE,
        format!("max_life: no machine boots and runs a job within {}", times.max_life),
    );
    check.require(
        &["max_life", "boot_grace"],
        times.max_life > times.boot_grace || times.max_life.duration() < SHORTEST_LIFE,
        format!(
            "max_life: {} is not longer than boot_grace, {}: a machine could end before its runner is online",
            times.max_life, times.boot_grace
        ),
    );
    check.advise(
        &["max_life"],
        times.max_life.duration() <= LONGEST_JOB,
        format!("max_life: {} is longer than a job can run: GitHub ends it after 5 days", times.max_life),
    );
    check.require(
        &["idle_grace"],
        times.idle_grace.duration() <= LONGEST_IDLE,
        format!("idle_grace: {} is longer than GitHub keeps an idle runner, at most a day", times.idle_grace),
    );
    check.advise(
        &["launch_deadline"],
        times.launch_deadline.duration() <= LONGEST_QUEUED,
        format!("launch_deadline: GitHub cancels a job that is queued for a day, before {}", times.launch_deadline),
    );
}

/// What is wrong with two pools next to each other. It is reported at the second one's labels.
pub(super) fn compare(a: &PoolEntry, b: &PoolEntry) -> Option<(Severity, String)> {
    let labels = |pool: &PoolEntry| -> BTreeSet<Label> { pool.labels.iter().cloned().collect() };
    let common: Vec<String> = labels(a).intersection(&labels(b)).map(ToString::to_string).collect();
    if a.name == b.name || common.is_empty() || !overlap(&a.owner, &b.owner) {
        return None;
    }
    let both = format!("pools {:?} and {:?}", a.name.as_str(), b.name.as_str());
    let set = common.join(", ");
    if shared_repositories(a, b) && a.priority == b.priority {
        let message = format!(
            "{both}: a job with the labels [{set}] matches both: give them different priorities (the lower number goes first) \
             or remove a label"
        );
        Some((Severity::Error, message))
    } else if shared_repositories(a, b) || a.runner_group == b.runner_group {
        let message = format!(
            "{both}: GitHub may give a job with the labels [{set}] to a runner of either pool. Drover then launches another \
             machine; separate runner groups prevent it"
        );
        Some((Severity::Warning, message))
    } else {
        None
    }
}

/// Whether runners registered with the one and runners registered with the other could serve the same repository.
fn overlap(a: &Scope, b: &Scope) -> bool {
    match (a, b) {
        (Scope::Repository(a), Scope::Repository(b)) => a == b,
        _ => a.owner() == b.owner(),
    }
}

/// Whether both pools serve the same repository.
fn shared_repositories(a: &PoolEntry, b: &PoolEntry) -> bool {
    let serves = |pool: &PoolEntry, repository: &Repository| {
        pool.owner.covers(repository) && (pool.repositories.is_empty() || pool.repositories.contains(repository))
    };
    let listed = |pool: &PoolEntry| -> Option<Vec<Repository>> {
        match &pool.owner {
            Scope::Repository(only) => Some(vec![only.clone()]),
            Scope::Organization(_) if pool.repositories.is_empty() => None,
            Scope::Organization(_) => Some(pool.repositories.clone()),
        }
    };
    match (listed(a), listed(b)) {
        (None, None) => true,
        (Some(listed), _) => listed.iter().any(|repository| serves(b, repository)),
        (None, Some(listed)) => listed.iter().any(|repository| serves(a, repository)),
    }
}
