//! The configuration that a pool file makes, and what it changes.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::{LaunchTemplate, Pool};
use domain::ids::PoolName;
use domain::policy::removal::{Left, known_for, stays_in_force};
use domain::state::Config;
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use platform::aws::ErrorKind;
use platform::ec2::Ec2;
use serde::Serialize;

use super::differences::{Difference, differences};
use crate::output::{Failure, count, usd};
use crate::pool_file::{PoolEntry, PoolFile, by_name};
use crate::schedule::local;

/// What applying the file does to a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Change {
    Added,
    Changed,
    Unchanged,
    /// No longer in the file, but still with jobs or machines.
    Draining,
    /// No longer in the file, and empty.
    Removed,
}

impl Change {
    fn as_str(self) -> &'static str {
        match self {
            Change::Added => "added",
            Change::Changed => "changed",
            Change::Unchanged => "unchanged",
            Change::Draining => "draining",
            Change::Removed => "removed",
        }
    }
}

/// A pool file, resolved and compared with the pools in force.
#[derive(Debug)]
pub(super) struct Plan {
    /// The pools of the file, and those that still have to finish.
    pub(super) pools: Vec<Pool>,
    /// The pools that the file no longer has, and that are still in force.
    pub(super) ending: BTreeSet<PoolName>,
    pub(super) changes: BTreeMap<PoolName, Change>,
    pub(super) differences: BTreeMap<PoolName, Vec<Difference>>,
    /// What an operator has to agree to: pools that end, and what others lose.
    pub(super) losses: Vec<String>,
}

impl Plan {
    /// Resolves names. The launch template's version and the subnets stay as they are until the next time, so that nothing
    /// changes without an operator.
    pub(super) async fn of(
        file: &PoolFile,
        before: Option<&Config>,
        table: &impl Store,
        ec2: &Ec2,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let entries = by_name(&file.pools);
        let mut plan = Plan {
            pools: Vec::new(),
            ending: BTreeSet::new(),
            changes: BTreeMap::new(),
            differences: BTreeMap::new(),
            losses: Vec::new(),
        };
        for (name, entry) in &entries {
            let old = before.and_then(|config| config.pool(name));
            let removed = before.is_some_and(|config| config.is_removed(name));
            let pool = resolve(entry, ec2).await?;
            plan.add(pool, old, removed, now);
        }
        let dropped = before.into_iter().flat_map(|config| config.pools.iter().map(move |pool| (config, pool)));
        for (config, pool) in dropped.filter(|(_, pool)| !entries.contains_key(&pool.name)) {
            let left = Left::of(&table.partition(&pool.name).await?.items);
            plan.end(pool, known_for(config, &pool.name, now), left);
        }
        Ok(plan)
    }

    /// A pool of the file. A drain and a pause are no settings of the file, so they stay.
    fn add(&mut self, pool: Pool, old: Option<&Pool>, was_removed: bool, now: Timestamp) {
        let pool = match old.filter(|_| !was_removed) {
            Some(old) => Pool { draining: old.draining, paused: old.paused, ..pool },
            None => pool,
        };
        let change = match old.filter(|_| !was_removed) {
            None => Change::Added,
            // What is known of machines is no setting.
            Some(old) if Pool { machines: None, ..old.clone() } == pool => Change::Unchanged,
            Some(_) => Change::Changed,
        };
        if let Some(old) = old {
            let mut falls = |field: &str, before: u32, after: u32| {
                if after < before {
                    self.losses.push(format!("{}: {field} falls from {before} to {after}", pool.name));
                }
            };
            falls("max", old.max, pool.max);
            falls("warm", old.warm, pool.warm);
            falls("stopped", old.stopped, pool.stopped);
            let mut falls_later = |field: &str, (before, after): (u32, u32), kept_at: fn(&Pool, Timestamp) -> u32| {
                // A fall of the pool's own number is shown already.
                let later = falls_by_schedule(old, &pool, kept_at, now).filter(|_| after >= before);
                if let Some((before, after, at)) = later {
                    let name = &pool.name;
                    self.losses.push(format!("{name}: {field} falls from {before} to {after} on {at}, by a schedule"));
                }
            };
            falls_later("warm", (old.warm, pool.warm), Pool::warm_at);
            falls_later("stopped", (old.stopped, pool.stopped), Pool::stopped_at);
            if let Some(cap) = pool.price_per_hour.filter(|cap| old.price_per_hour.is_none_or(|old| *cap < old)) {
                let before = old.price_per_hour.map_or_else(|| "no limit".to_owned(), |old| usd(old.usd()));
                self.losses.push(format!("{}: usd_per_hour falls from {before} to {}", pool.name, usd(cap.usd())));
            }
            for label in old.labels.difference(&pool.labels) {
                let name = &pool.name;
                self.losses.push(format!(
                    "{name} loses the label {label}: jobs of this pool that wait for it will never start"
                ));
            }
            let (before, after) = (&old.timings.max_life, &pool.timings.max_life);
            if after.duration() < before.duration() {
                let name = &pool.name;
                self.losses.push(format!(
                    "{name}: max_life falls from {before} to {after}: machines that are older end at once, with their jobs"
                ));
            }
            if change == Change::Changed {
                self.differences.insert(pool.name.clone(), differences(old, &pool));
            }
        }
        self.changes.insert(pool.name.clone(), change);
        self.pools.push(pool);
    }

    /// A pool that the file no longer has, and for how long the functions have known that.
    fn end(&mut self, pool: &Pool, known_for: Option<SignedDuration>, left: Left) {
        let name = &pool.name;
        let (change, loss) = match left {
            Left::Something => {
                (Change::Draining, format!("{name} drains: it finishes its jobs, takes no new ones, and ends"))
            }
            Left::Nothing => (Change::Removed, format!("{name} is removed: it has neither jobs nor machines")),
        };
        if stays_in_force(known_for, left) {
            self.keep(pool);
        }
        // An empty pool that was removed before is gone as far as an operator is concerned.
        if left == Left::Something || known_for.is_none() {
            self.changes.insert(name.clone(), change);
        }
        if known_for.is_none() {
            self.losses.push(loss);
        }
    }

    /// Keeps a pool that the file no longer has in force. It drains.
    pub(super) fn keep(&mut self, pool: &Pool) {
        self.pools.push(Pool { draining: true, ..pool.clone() });
        self.ending.insert(pool.name.clone());
    }

    /// The pools that the file has.
    pub(super) fn of_file(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter(|pool| !self.ending.contains(&pool.name))
    }

    /// What changes: a line for each pool, and one for each value that differs.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (name, change) in &self.changes {
            let note = self.of_file().find(|pool| pool.name == *name).map(note).unwrap_or_default();
            text += &format!("{name}: {}{note}\n", change.as_str());
            text.extend(self.differences.get(name).into_iter().flatten().map(Difference::lines));
        }
        for pool in self.of_file() {
            let subnets = count(pool.subnets.len(), "subnet");
            for template in pool.templates() {
                let LaunchTemplate { name, version, id, .. } = template;
                text += &format!("{}: {name} version {version} ({id}), {subnets}\n", pool.name);
            }
        }
        text
    }
}

/// What stays as an operator has set it, whatever the file says.
fn note(pool: &Pool) -> String {
    let name = &pool.name;
    match (pool.draining, pool.paused) {
        (true, _) => format!(", still draining -> drover drain {name} --undo"),
        (false, true) => format!(", still paused -> drover resume {name}"),
        (false, false) => String::new(),
    }
}

async fn resolve(entry: &PoolEntry, ec2: &Ec2) -> Result<Pool, Failure> {
    let mut pool = entry.unresolved();
    if let Some(shapes) = &mut pool.shapes {
        for template in shapes.launch_templates.values_mut() {
            let found = named_template(entry, &template.name, None, ec2).await?;
            *template = LaunchTemplate { root: ec2.root_volume(&found).await?, ..found };
        }
    }
    let launch_template = match pool.shapes.as_ref().and_then(|shapes| shapes.launch_templates.values().next()) {
        // An older function, which does not know shapes, must not find a pool without a launch template.
        Some(template) => template.clone(),
        None => named_template(entry, &entry.launch_template, entry.launch_template_version, ec2).await?,
    };
    let subnets = match entry.subnets.is_empty() {
        false => entry.subnets.clone(),
        true => ec2.tagged_subnets().await?,
    };
    if subnets.is_empty() {
        return Err(Failure::Usage(format!(
            "pool {:?}: the file lists no subnets, and none has the stack's tag drover:stack -> list subnets in the pool, or \
             run make infrastructure, which tags them",
            entry.name.as_str()
        )));
    }
    Ok(Pool { launch_template, subnets, ..pool })
}

async fn named_template(
    entry: &PoolEntry,
    name: &str,
    version: Option<u64>,
    ec2: &Ec2,
) -> Result<LaunchTemplate, Failure> {
    ec2.resolve_template(name, version).await.map_err(|error| match ErrorKind::of(&error) {
        ErrorKind::NotFound => Failure::Usage(format!(
            "pool {:?}: launch template {name:?}: {error} -> correct the name, or AWS_REGION; make infrastructure creates the \
             launch templates of runner_classes",
            entry.name.as_str()
        )),
        ErrorKind::Credentials | ErrorKind::NotAllowed | ErrorKind::Unavailable | ErrorKind::Unreadable => error.into(),
    })
}

/// When schedules make a pool keep fewer machines ready than before, within a week, with both numbers.
fn falls_by_schedule(
    old: &Pool,
    new: &Pool,
    kept_at: fn(&Pool, Timestamp) -> u32,
    now: Timestamp,
) -> Option<(u32, u32, String)> {
    let schedules = || old.schedules.iter().chain(&new.schedules);
    let yesterday = now - SignedDuration::from_hours(24);
    let periods = schedules().flat_map(|schedule| schedule.periods(yesterday, 9));
    let mut edges: Vec<Timestamp> = periods.flat_map(|it| [it.from, it.to]).filter(|at| *at > now).collect();
    edges.sort();
    let at = std::iter::once(now).chain(edges).find(|at| kept_at(new, *at) < kept_at(old, *at))?;
    let zone = &schedules().next()?.time_zone;
    Some((kept_at(old, at), kept_at(new, at), local(at, zone)))
}
