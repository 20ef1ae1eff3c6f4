//! Which repositories are searched for jobs whose webhook never came.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::ids::{Repository, Scope};
use crate::policy::route::{Routable, route};
use crate::state::{Config, Janitor, SearchedRepository};
use crate::wire::{Action, FoundJob, Notice};

/// A repository without jobs for this long is searched only if a pool names it.
const SEARCHED_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The largest number of remembered repositories. They are stored in one item, and DynamoDB allows 400 KB.
const MAX_REPOSITORIES: usize = 1000;

/// Remembers that a repository had a job for this stack.
pub fn remember(memory: &mut Janitor, repository: Repository, now: Timestamp) {
    let fresh = SearchedRepository { seen_at: now, searched_at: None };
    let remembered = memory.repositories.entry(repository).or_insert(fresh);
    remembered.seen_at = remembered.seen_at.max(now);
}

/// Updates the remembered repositories, and returns those to search now, least recently searched first.
pub fn due(memory: &mut Janitor, config: &Config, now: Timestamp) -> Vec<Repository> {
    let named = named(config);
    for repository in &named {
        let fresh = SearchedRepository { seen_at: now, searched_at: None };
        memory.repositories.entry(repository.clone()).or_insert(fresh);
    }
    forget(memory, &named, now);
    let mut due: Vec<(Option<Timestamp>, &Repository)> = memory
        .repositories
        .iter()
        .filter(|(repository, known)| is_due(config, repository, known, now))
        .map(|(repository, known)| (known.searched_at, repository))
        .collect();
    due.sort();
    due.into_iter().map(|(_, repository)| repository.clone()).collect()
}

/// The repositories that pools name.
fn named(config: &Config) -> BTreeSet<Repository> {
    let mut named = BTreeSet::new();
    for pool in config.pools.iter().filter(|pool| !pool.draining) {
        named.extend(pool.repositories.iter().cloned());
        if let Scope::Repository(repository) = &pool.owner {
            named.insert(repository.clone());
        }
    }
    named
}

fn forget(memory: &mut Janitor, named: &BTreeSet<Repository>, now: Timestamp) {
    memory
        .repositories
        .retain(|repository, it| named.contains(repository) || now.duration_since(it.seen_at) < SEARCHED_FOR);
    while memory.repositories.len() > MAX_REPOSITORIES {
        let oldest = memory.repositories.iter().min_by_key(|(_, known)| known.seen_at);
        let Some(oldest) = oldest.map(|(repository, _)| repository.clone()) else { break };
        memory.repositories.remove(&oldest);
    }
}

/// The shortest `poll_interval` of the pools that cover the repository decides.
fn is_due(config: &Config, repository: &Repository, known: &SearchedRepository, now: Timestamp) -> bool {
    let pools = config.pools.iter().filter(|pool| !pool.draining && pool.owner.covers(repository));
    let Some(every) = pools.map(|pool| pool.timings.poll_interval.duration()).min() else { return false };
    known.searched_at.is_none_or(|at| now.duration_since(at) >= every)
}

/// The found jobs that belong to a pool, as notices.
pub fn notices(config: &Config, repository: &Repository, jobs: Vec<FoundJob>, now: Timestamp) -> Vec<Notice> {
    jobs.into_iter()
        .filter_map(|FoundJob { job, public }| {
            let action = match job.status.as_str() {
                "queued" => Action::Queued,
                "waiting" | "pending" => Action::Waiting,
                "in_progress" => Action::InProgress,
                _ => return None,
            };
            let routable = Routable { repository, public, labels: &job.labels };
            route(&config.pools, &routable).ok()?;
            Some(Notice::asked(repository.clone(), public, action, job, now))
        })
        .collect()
}
