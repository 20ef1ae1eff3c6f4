//! Jobs that no pool accepts: which are kept, when they are routed again, and what their authors read.

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::policy::notify::{CheckRunUpdate, Conclusion, shortened};
use crate::policy::route::{Routable, Unrouted, meant, route, wrong_shape};
use crate::state::{Config, Lease, Rank, UnroutedJob};
use crate::wire::{JobNotice, Message, Notice};

/// Runners of others that the job is meant for take it within this time. Only later its author is notified.
const NOTIFY_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// The beginnings of the labels of GitHub's own runners. Their jobs are not kept, because an organisation may have very
/// many.
const HOSTED: [&str; 3] = ["ubuntu-", "windows-", "macos-"];

/// Whether a message is about a queued job that none of these pools accepts. The pools may have changed since they were read.
pub fn has_unrouted(config: &Config, messages: &[Message]) -> bool {
    messages.iter().any(|message| match message {
        Message::WorkflowJob(notice) => is_queued(notice) && route(&config.pools, &Routable::of(notice)).is_err(),
        Message::Nudge { .. } | Message::Instance { .. } => false,
    })
}

fn is_queued(notice: &Notice) -> bool {
    Rank::from(notice.action) == Rank::Queued
}

/// Whether the account of the job has pools, so that a pool for the job may follow.
fn is_of_our_accounts(config: &Config, notice: &Notice) -> bool {
    config.pools.iter().any(|pool| pool.owner.owner() == &notice.repository.owner)
}

/// Whether the job may be kept as unrouted: then there may be a record of it.
pub fn may_be_kept(config: &Config, notice: &Notice) -> bool {
    is_of_our_accounts(config, notice) && !is_for_hosted_runners(notice)
}

fn is_for_hosted_runners(notice: &Notice) -> bool {
    let [label] = &notice.job.labels[..] else { return false };
    HOSTED.iter().any(|hosted| label.to_lowercase().starts_with(hosted))
}

/// The record of a job that no pool accepts; None if the job is not kept, or the notices say that it no longer waits.
pub fn kept(config: &Config, notices: &[&Notice], now: Timestamp) -> Option<UnroutedJob> {
    let first = notices.first().filter(|_| notices.iter().all(|notice| is_queued(notice)))?;
    may_be_kept(config, first).then(|| UnroutedJob::new((*first).clone(), now))
}

/// What to do with a job that no pool accepted when it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A pool accepts it now: record it.
    Route,
    /// It is older than a day: delete it.
    Expired,
    /// Notify its author.
    Notify(CheckRunUpdate),
    Wait,
}

pub fn next_step(config: &Config, job: &UnroutedJob, now: Timestamp) -> Step {
    let why = match route(&config.pools, &Routable::of(&job.notice)) {
        Ok(_) => return Step::Route,
        Err(_) if job.is_expired(now) => return Step::Expired,
        Err(why) => why,
    };
    // No runner but Drover's has the label of a shape.
    let is_certain = matches!(why, Unrouted::Shape);
    let is_early = !is_certain && now.duration_since(job.notice.received_at) < NOTIFY_AFTER;
    if job.notified || is_early || !why.is_near_miss() || !job.lease.is_free(now) {
        return Step::Wait;
    }
    let reason = reason(&config.pools, &job.notice, why);
    let described = &job.notice.job;
    Step::Notify(CheckRunUpdate {
        repository: job.notice.repository.clone(),
        head_sha: described.head_sha.clone(),
        external_id: described.id.to_string(),
        check_run: None,
        conclusion: Conclusion::Neutral,
        title: shortened(&format!("No pool runs this job: {reason}")),
        // The reason quotes labels, which may contain links: GitHub reads nothing into a code block.
        summary: format!("Drover ignores the job:\n\n```text\n{}\n```\n", reason.replace('`', "'")),
        details_url: described.html_url.clone(),
    })
}

/// Whether another runner took the job, or it has ended. Its webhooks may have arrived in another order, or never.
pub fn no_longer_waits(reported: Option<&JobNotice>) -> bool {
    reported.is_some_and(|job| matches!(job.status.as_str(), "in_progress" | "completed"))
}

/// The record once its author was notified, or cannot be.
#[must_use]
pub fn notified(job: UnroutedJob, now: Timestamp) -> UnroutedJob {
    UnroutedJob { notified: true, lease: Lease::due(now), ..job }
}

/// Why no pool accepts the job, as a fragment that says what to change.
pub fn reason(pools: &[Pool], notice: &Notice, why: Unrouted) -> String {
    let repository = &notice.repository;
    let serving: Vec<&Pool> = pools.iter().filter(|pool| pool.serves(repository)).collect();
    let labels = |pool: &Pool| pool.labels.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match why {
        Unrouted::NoPools => "no pools are configured".to_owned(),
        Unrouted::Unlabelled => "it has no labels, or one that no runner can have".to_owned(),
        Unrouted::Owner => format!("no pool is registered for {repository} or its owner"),
        Unrouted::Repository => format!("the pools of {} do not serve {repository}", repository.owner),
        Unrouted::Labels => "no pool has all of its labels".to_owned(),
        Unrouted::Group => {
            let all: Vec<String> =
                serving.iter().map(|pool| format!("pool {} has the labels {}", pool.name, labels(pool))).collect();
            format!("it names a runner group and no labels: {}", all.join("; "))
        }
        Unrouted::PoolName => match meant(pools, &Routable::of(notice)) {
            Some(pool) => {
                let (name, all) = (&pool.name, labels(pool));
                format!("pool {name} does not have all of its labels; the pool has {all}")
            }
            None => "no pool has all of its labels".to_owned(),
        },
        Unrouted::Shape => match wrong_shape(pools, &Routable::of(notice)) {
            Some((pool, wrong)) => format!("pool {} cannot serve its label: {wrong}", pool.name),
            None => "no pool has all of its labels".to_owned(),
        },
        Unrouted::Draining => "the pool with its labels takes no new jobs".to_owned(),
        Unrouted::Public => {
            format!("{repository} is public, and the pool with its labels serves no public repositories")
        }
    }
}
