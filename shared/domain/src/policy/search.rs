//! Which repositories are searched for jobs whose webhook never came.
//!
//! Repositories that had jobs for this stack, and those that pools name, are searched every `poll_interval`. Every other
//! repository that a pool may serve is searched in rounds: GitHub's list of the installation's repositories is read page by
//! page, and each repository is searched as soon as the account's share of the budget pays for it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::ids::{Owner, Repository, Scope};
use crate::policy::budget::price;
use crate::policy::route::{Routable, route};
use crate::state::{Config, Janitor, MAX_QUEUED, SearchRound, SearchedRepository};
use crate::wire::{Action, FoundJob, Notice};

/// A repository without jobs for this long is searched only if a pool names it.
const SEARCHED_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The largest number of remembered repositories. They are stored in one item, and DynamoDB allows 400 KB.
const MAX_REPOSITORIES: usize = 800;

/// GitHub lists at most this many runs of one status, the newest. A search reads all of them: a job whose webhook never came
/// waits behind every newer run.
pub const MAX_LISTED_RUNS: usize = 1000;

/// GitHub's largest page of repositories.
pub const REPOSITORIES_PER_PAGE: usize = 100;

/// Remembers that a repository had a job for this stack.
pub fn remember(memory: &mut Janitor, repository: Repository, now: Timestamp) {
    let fresh = SearchedRepository { seen_at: now, searched_at: None, failed_at: None, searched_to: None };
    let remembered = memory.repositories.entry(repository).or_insert(fresh);
    remembered.seen_at = remembered.seen_at.max(now);
}

/// Updates the remembered repositories, and returns those to search now, least recently searched first. Those whose last search
/// failed come last: a few that GitHub does not know would otherwise keep all others of the account from their turn.
pub fn due(memory: &mut Janitor, config: &Config, now: Timestamp) -> Vec<Repository> {
    let named = named(config);
    for repository in &named {
        let fresh = SearchedRepository { seen_at: now, searched_at: None, failed_at: None, searched_to: None };
        memory.repositories.entry(repository.clone()).or_insert(fresh);
    }
    forget(memory, &named, now);
    let known = memory.repositories.iter();
    let mut due: Vec<_> = known.filter(|(repository, known)| is_due(config, repository, known, now)).collect();
    due.sort_by_key(|(repository, known)| (known.failed_at, known.searched_at, *repository));
    due.into_iter().map(|(repository, _)| repository.clone()).collect()
}

/// A search of a repository without jobs: its queued and its running runs.
pub const CALLS_PER_SEARCH: u32 = 2;

/// How many minutes a round of this many repositories takes if each search counts and no list of runners costs more than a
/// few calls, with GitHub's smallest hourly limit.
pub fn round_minutes(repositories: usize) -> i64 {
    let search = price(None) * i32::try_from(CALLS_PER_SEARCH).unwrap_or(i32::MAX);
    (search * i32::try_from(repositories).unwrap_or(i32::MAX)).as_mins()
}

/// The accounts of which a pool may serve every repository.
pub fn open_accounts(config: &Config) -> BTreeSet<Owner> {
    let pools = config.pools.iter().filter(|pool| !pool.draining && pool.repositories.is_empty());
    pools
        .filter_map(|pool| match &pool.owner {
            Scope::Organization(owner) => Some(owner.clone()),
            Scope::Repository(_) => None,
        })
        .collect()
}

/// Where the search of the account's repositories goes on; None if the last round was completed not long ago.
pub fn round(memory: &Janitor, config: &Config, owner: &Owner, now: Timestamp) -> Option<SearchRound> {
    match memory.rounds.get(owner) {
        Some(round) if round.page > 0 => Some(*round),
        Some(round) if now.duration_since(round.began_at) < interval(config, owner)? => None,
        Some(_) | None => Some(SearchRound { began_at: now, page: 1, searched: 0 }),
    }
}

/// The round after `searched` repositories of a page that has `listed`, of `total` in all.
pub fn advance(round: SearchRound, searched: usize, listed: usize, total: usize) -> SearchRound {
    if searched < listed {
        return SearchRound { searched, ..round };
    }
    let is_last = round.page * REPOSITORIES_PER_PAGE >= total || listed == 0;
    SearchRound { page: if is_last { 0 } else { round.page + 1 }, searched: 0, ..round }
}

/// The shortest `poll_interval` of the account's pools.
fn interval(config: &Config, owner: &Owner) -> Option<SignedDuration> {
    let pools = config.pools.iter().filter(|pool| !pool.draining && pool.owner.owner() == owner);
    pools.map(|pool| pool.timings.poll_interval.duration()).min()
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

/// Whether a pool names the repository. One that no pool names and GitHub does not know was deleted or transferred: it is
/// forgotten. If GitHub knows it again, the account's next round finds it.
pub fn is_named(config: &Config, repository: &Repository) -> bool {
    named(config).contains(repository)
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

/// For how long a job is left to its webhook after GitHub created it, if the pool's `poll_interval` is not short. Nine of ten webhooks
/// arrive within three seconds. In a burst they wait on the queue, and a search would find all of the burst's jobs.
const LEFT_TO_WEBHOOKS_FOR: SignedDuration = SignedDuration::from_mins(1);

/// The found jobs that belong to a pool, as notices. Jobs that were created a moment ago are left out: their webhooks are on their way.
pub fn notices(config: &Config, repository: &Repository, jobs: Vec<FoundJob>, now: Timestamp) -> Vec<Notice> {
    jobs.into_iter()
        .filter_map(|FoundJob { job, public }| {
            let action = match job.status.as_str() {
                "queued" => Action::Queued,
                "waiting" | "pending" => Action::Waiting,
                "in_progress" => Action::InProgress,
                _ => return None,
            };
            let age = now.duration_since(job.created_at);
            if age >= MAX_QUEUED {
                return None;
            }
            let routable = Routable { repository, public, labels: &job.labels };
            let pool = route(&config.pools, &routable).ok()?;
            if age < LEFT_TO_WEBHOOKS_FOR.min(pool.timings.poll_interval.duration() / 10) {
                return None;
            }
            Some(Notice::asked(repository.clone(), public, action, job, now))
        })
        .collect()
}
