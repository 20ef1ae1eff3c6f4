//! Two of the three cures of lost webhooks: failed deliveries are asked for again, and repositories are searched for jobs of
//! which no delivery was ever attempted. (The third is in `check`: a job that was heard of once is asked about.)

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{DeliveryId, Owner, PoolName, Repository, Scope};
use domain::policy::budget::is_scarce;
use domain::policy::route::route;
use domain::state::{Config, Item, Janitor, Key, SearchedRepository, Undelivered};
use domain::wire::{Action, Notice};
use jiff::{SignedDuration, Timestamp};

use crate::context::Context;
use crate::ports::{DeliveryAttempt, FoundJob, GitHubError};
use crate::record::record;

/// GitHub keeps deliveries for three days.
const DELIVERIES_KEPT: SignedDuration = SignedDuration::from_hours(3 * 24);

/// A listing begins so long before the newest delivery that was examined: the list is ordered by an attempt's time, and
/// one may appear in it a little late.
const OVERLAP: SignedDuration = SignedDuration::from_mins(1);

/// After so many redeliveries the search of the repositories must find the job.
const REDELIVERIES: u32 = 3;

/// How long to wait after the first and the second redelivery, as long as nothing shows that our receiver works again: the
/// third one is to come after an outage of an hour.
const REDELIVER_AFTER: [SignedDuration; 2] = [SignedDuration::from_mins(10), SignedDuration::from_mins(60)];

/// Redeliveries in one sweep. A write costs five of GitHub's 900 points a minute, and a receiver that was down for long
/// has to take them all at once.
const REDELIVERIES_PER_SWEEP: usize = 60;

/// Events that are remembered: DynamoDB's 400 KB hold more, and what a receiver missed in an hour may be more still.
const UNDELIVERED: usize = 1000;

/// A repository without jobs for so long is searched only if a pool names it.
const SEARCHED_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Repositories that are remembered: DynamoDB's 400 KB hold a few thousand.
const REPOSITORIES: usize = 1000;

/// Asks GitHub to deliver again what no attempt delivered. Gives how many it asked for.
///
/// Crash windows: what was asked for and not written down is asked for again, and a delivery may come twice anyway.
pub(crate) async fn redeliver(context: &Context<'_>, memory: &mut Janitor) -> usize {
    let now = context.now();
    if memory.app_backoff_until.is_some_and(|until| until > now) {
        return 0;
    }
    let since = memory.examined_to.map_or(now - DELIVERIES_KEPT, |newest| newest - OVERLAP);
    match context.ports.github.deliveries(since).await {
        Ok(attempts) => examine(memory, &attempts, now),
        Err(error) => {
            failed(memory, &error);
            return 0;
        }
    }
    let mut due: Vec<(Timestamp, DeliveryId)> = memory
        .undelivered
        .iter()
        .filter(|(_, event)| is_redelivery_due(event, memory.delivered_at, now))
        .map(|(guid, event)| (event.failed_at, guid.clone()))
        .collect();
    due.sort();
    let mut asked = 0;
    for (_, guid) in due.into_iter().take(REDELIVERIES_PER_SWEEP) {
        if context.short_of_time() {
            break;
        }
        let Some(event) = memory.undelivered.get_mut(&guid) else { continue };
        match context.ports.github.redeliver(event.attempt).await {
            Ok(()) => {
                event.redeliveries += 1;
                event.asked_at = Some(now);
                asked += 1;
                tracing::info!(delivery = %guid, "delivery {guid} failed and is asked for again");
            }
            // Gone, or not to be had: the search finds its job.
            Err(
                GitHubError::Refused(_)
                | GitHubError::Denied(_)
                | GitHubError::NameTaken
                | GitHubError::SecretUnusable(_),
            ) => {
                event.redeliveries = REDELIVERIES;
                event.asked_at = Some(now);
            }
            Err(error) => {
                failed(memory, &error);
                break;
            }
        }
    }
    asked
}

fn is_redelivery_due(event: &Undelivered, delivered_at: Option<Timestamp>, now: Timestamp) -> bool {
    let Some(asked_at) = event.asked_at else { return event.redeliveries < REDELIVERIES };
    let wait = REDELIVER_AFTER.get(event.redeliveries as usize - 1);
    let works_again = delivered_at.is_some_and(|at| at > asked_at + OVERLAP);
    wait.is_some_and(|wait| works_again || now.duration_since(asked_at) >= *wait)
}

/// Groups the attempts by their event: one that succeeded makes up for all that failed.
fn examine(memory: &mut Janitor, attempts: &[DeliveryAttempt], now: Timestamp) {
    let mut events: BTreeMap<&DeliveryId, Vec<&DeliveryAttempt>> = BTreeMap::new();
    for attempt in attempts.iter().filter(|attempt| attempt.about_a_job) {
        events.entry(&attempt.guid).or_default().push(attempt);
    }
    for (guid, attempts) in events {
        if attempts.iter().any(|attempt| attempt.succeeded) {
            memory.undelivered.remove(guid);
        } else if let Some(first) = attempts.iter().find(|attempt| !attempt.redelivery) {
            let failed_at = first.delivered_at;
            let fresh = Undelivered { attempt: first.id, failed_at, redeliveries: 0, asked_at: None };
            memory.undelivered.entry(guid.clone()).or_insert(fresh);
        }
    }
    let succeeded = attempts.iter().filter(|attempt| attempt.succeeded).map(|attempt| attempt.delivered_at).max();
    memory.delivered_at = memory.delivered_at.max(succeeded);
    let newest = attempts.iter().map(|attempt| attempt.delivered_at).max();
    memory.examined_to = memory.examined_to.max(newest).or(Some(now));
    bound(memory, now);
}

/// Forgets what will not be listed again, and what is too much: that is listed again when there is room.
fn bound(memory: &mut Janitor, now: Timestamp) {
    let listed_from = memory.examined_to.map_or(now, |newest| newest - OVERLAP);
    memory.undelivered.retain(|_, event| {
        event.failed_at >= now - DELIVERIES_KEPT
            && (event.redeliveries < REDELIVERIES || event.failed_at >= listed_from)
    });
    while memory.undelivered.len() > UNDELIVERED {
        let newest = memory.undelivered.iter().max_by_key(|(_, event)| event.failed_at);
        let Some((guid, failed_at)) = newest.map(|(guid, event)| (guid.clone(), event.failed_at)) else { break };
        memory.undelivered.remove(&guid);
        memory.examined_to = memory.examined_to.min(Some(failed_at));
    }
}

fn failed(memory: &mut Janitor, error: &GitHubError) {
    tracing::warn!("failed deliveries cannot be asked for: {error}");
    if let GitHubError::Limited { until, .. } = error {
        memory.app_backoff_until = Some(*until);
    }
}

/// What a search brought.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The pools that there is more to do for.
    pub(crate) touched: BTreeSet<PoolName>,
    /// Jobs that no webhook had told of.
    pub(crate) recovered: usize,
    /// Repositories that could not be searched.
    pub(crate) failed: usize,
}

/// Searches the repositories that are due for jobs that no webhook told of. What it finds is a fact like any other.
pub(crate) async fn search(context: &Context<'_>, config: &Config, memory: &mut Janitor) -> Found {
    let mut found = Found::default();
    let now = context.now();
    for repository in named(config) {
        memory.repositories.entry(repository).or_insert(SearchedRepository { seen_at: now, searched_at: None });
    }
    forget(config, memory, now);
    let mut quiet: BTreeMap<Owner, bool> = BTreeMap::new();
    let mut due: Vec<(Option<Timestamp>, Repository)> = memory
        .repositories
        .iter()
        .filter(|(repository, seen)| is_due(config, repository, seen, now))
        .map(|(repository, seen)| (seen.searched_at, repository.clone()))
        .collect();
    due.sort();
    for (_, repository) in due {
        if context.short_of_time() {
            break;
        }
        let owner = repository.owner.clone();
        if !quiet.contains_key(&owner) {
            quiet.insert(owner.clone(), wants_quiet(context, &owner).await);
        }
        if quiet.get(&owner) == Some(&true) {
            continue;
        }
        match context.ports.github.jobs_under_way(&repository).await {
            Ok(jobs) => {
                tell_of(context, config, &repository, jobs, &mut found).await;
                if let Some(seen) = memory.repositories.get_mut(&repository) {
                    seen.searched_at = Some(now);
                }
            }
            Err(error) => {
                tracing::warn!(%repository, "{repository} cannot be searched for jobs: {error}");
                // The account as a whole may be out of reach, which its list of runners showed already.
                let all_of_it = matches!(
                    error,
                    GitHubError::Limited { .. } | GitHubError::Denied(_) | GitHubError::SecretUnusable(_)
                );
                found.failed += usize::from(!all_of_it);
                quiet.insert(owner, all_of_it);
            }
        }
    }
    found
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

fn forget(config: &Config, memory: &mut Janitor, now: Timestamp) {
    let named = named(config);
    memory
        .repositories
        .retain(|repository, seen| named.contains(repository) || now.duration_since(seen.seen_at) < SEARCHED_FOR);
    while memory.repositories.len() > REPOSITORIES {
        let oldest = memory.repositories.iter().min_by_key(|(_, seen)| seen.seen_at);
        let Some(oldest) = oldest.map(|(repository, _)| repository.clone()) else { break };
        memory.repositories.remove(&oldest);
    }
}

/// As often as the most impatient pool that covers it asks for.
fn is_due(config: &Config, repository: &Repository, seen: &SearchedRepository, now: Timestamp) -> bool {
    let pools = config.pools.iter().filter(|pool| !pool.draining && pool.owner.covers(repository));
    let Some(every) = pools.map(|pool| pool.timings.poll_interval.duration()).min() else { return false };
    seen.searched_at.is_none_or(|at| now.duration_since(at) >= every)
}

async fn wants_quiet(context: &Context<'_>, owner: &Owner) -> bool {
    if is_scarce(context.ports.github.budget(owner)) {
        return true;
    }
    match context.ports.store.get(&Key::Limit(owner.clone())).await {
        Ok(Some(Item::Limit(limit))) => limit.backoff_until > context.now(),
        Ok(_) => false,
        Err(_) => true,
    }
}

/// Records what was found.
async fn tell_of(
    context: &Context<'_>,
    config: &Config,
    repository: &Repository,
    jobs: Vec<FoundJob>,
    found: &mut Found,
) {
    let now = context.now();
    let notices: Vec<Notice> = jobs
        .into_iter()
        .filter_map(|FoundJob { job, public }| {
            let action = match job.status.as_str() {
                "queued" => Action::Queued,
                "waiting" | "pending" => Action::Waiting,
                "in_progress" => Action::InProgress,
                _ => return None,
            };
            let notice = Notice::asked(repository.clone(), public, action, job, now);
            // Of others' jobs, which are most of them in a large organisation, there is nothing to record.
            route(&config.pools, repository, public, &notice.job.labels).is_ok().then_some(notice)
        })
        .collect();
    let recorded = record(context, config, &notices).await;
    for (place, error) in &recorded.failed {
        let job = notices[*place].job.id;
        tracing::warn!(job.id = %job, "job {job} was found and could not be recorded: {error}");
    }
    for job in &recorded.new {
        tracing::warn!(job.id = %job, "job {job} was found by searching {repository}: its webhook never came");
    }
    found.recovered += recorded.new.len();
    found.touched.extend(recorded.touched);
}

/// Remembers where jobs came from: a webhook that never comes is looked for there.
pub(crate) fn remember(memory: &mut Janitor, repository: Repository, now: Timestamp) {
    let seen = memory.repositories.entry(repository).or_insert(SearchedRepository { seen_at: now, searched_at: None });
    seen.seen_at = seen.seen_at.max(now);
}
