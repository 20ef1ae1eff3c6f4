//! How many questions about waiting jobs, and how many check runs, a pool may cost per minute. A flood of jobs must not use
//! up what GitHub allows its account per minute and per hour: other pools need the same account.
//!
//! A question that another invocation has begun counts. A check run does not, so concurrent invocations may write more.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::ids::JobId;
use crate::policy::PoolView;
use crate::policy::budget::{Budget, Optional, is_scarce};
use crate::policy::check::RECHECK_EVERY;
use crate::policy::notify::{Notification, due_notification, optional};
use crate::state::WaitingJob;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// Regular questions per minute: 1,800 per hour, of the 5,000 calls that GitHub allows at least.
const QUESTIONS_PER_MINUTE: usize = 30;

/// Questions per minute about jobs that a webhook made doubtful, such as one whose gate may have opened.
const URGENT_PER_MINUTE: usize = 120;

/// Check runs per minute. Each costs five of GitHub's 900 points per minute.
const CHECK_RUNS_PER_MINUTE: usize = 60;

/// No function runs for longer.
const LONGEST_INVOCATION: SignedDuration = SignedDuration::from_mins(1);

/// Check runs per minute that are closed because their job no longer waits.
const CLOSED_PER_MINUTE: usize = 30;

/// What may be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    pub jobs: BTreeSet<JobId>,
    /// Whether more is due, and must wait until a minute has fewer.
    pub is_more_due: bool,
}

impl Allowed {
    /// The first `count` of `jobs`.
    fn first(mut jobs: Vec<(Timestamp, JobId)>, count: usize) -> Self {
        jobs.sort_unstable();
        Self { is_more_due: jobs.len() > count, jobs: jobs.into_iter().take(count).map(|(_, job)| job).collect() }
    }
}

/// The waiting jobs that GitHub may be asked about now: of those that are due, the ones that have been due for longest.
/// While little is left of the account's budget, only jobs that nothing but GitHub's answer can open.
pub fn questions(pool: &Pool, view: &PoolView, budget: Option<Budget>, now: Timestamp) -> Allowed {
    let behind = view.behind(now);
    let every = pool.timings.job_check.duration();
    let due_at = |job: &WaitingJob| match behind.contains(&job.id) {
        true => job.check_at.max(job.checked_at + RECHECK_EVERY),
        false => job.check_at,
    };
    // A webhook puts the next question before the regular one.
    let is_urgent = |job: &WaitingJob| job.check_at < job.checked_at + every;
    let is_scarce = is_scarce(budget, Optional::Question, now);
    let may_ask = |job: &&WaitingJob| !(job.is_being_asked_about(now) || job.open && is_scarce);
    let free = view.waiting.values().filter(may_ask);
    let due: Vec<&WaitingJob> = free.filter(|job| due_at(job) <= now).collect();
    let (urgent, regular): (Vec<&WaitingJob>, Vec<&WaitingJob>) = due.into_iter().partition(|job| is_urgent(job));
    let was_just_asked = |job: &WaitingJob| was_asked(job, every) && now.duration_since(job.checked_at) < MINUTE;
    let asked = view.waiting.values().filter(|job| job.is_being_asked_about(now) || was_just_asked(job)).count();
    let first = |jobs: Vec<&WaitingJob>, most: usize| {
        Allowed::first(jobs.into_iter().map(|job| (due_at(job), job.id)).collect(), most.saturating_sub(asked))
    };
    let (urgent, mut regular) = (first(urgent, URGENT_PER_MINUTE), first(regular, QUESTIONS_PER_MINUTE));
    regular.jobs.extend(urgent.jobs);
    // Regular questions wait for the janitor's minute.
    Allowed { is_more_due: urgent.is_more_due, ..regular }
}

/// Whether the last that is known about the job is GitHub's answer, and not its first webhook.
pub(super) fn was_asked(job: &WaitingJob, every: SignedDuration) -> bool {
    let after = job.check_at.duration_since(job.checked_at);
    after == every || after == RECHECK_EVERY
}

/// The jobs whose check run may be written now, of those that are due the ones that have waited longest. None while little is
/// left of the account's budget.
pub fn notifications(pool: &Pool, view: &PoolView, budget: Option<Budget>, now: Timestamp) -> Allowed {
    let over: Vec<JobId> = view.check_runs.keys().copied().filter(|job| !view.waiting.contains_key(job)).collect();
    let must_wait = |it: Notification| is_scarce(budget, optional(it), now);
    let is_due = |job: &JobId| due_notification(pool, view, *job, now).is_some_and(|it| !must_wait(it));
    let due = view.waiting.values().filter(|job| is_due(&job.id)).map(|job| (job.waits_since(), job.id));
    // The lease of a check run begins anew when it is written. One that GitHub refused is due much later.
    let longest_lease = LONGEST_INVOCATION + pool.timings.lease_margin.duration();
    let is_recent = |at: Timestamp| at > now - MINUTE && at < now + longest_lease;
    let written = view.check_runs.values().filter(|check| is_recent(check.lease.next_at)).count();
    let mut allowed = Allowed::first(due.collect(), CHECK_RUNS_PER_MINUTE.saturating_sub(written));
    allowed.jobs.extend(in_this_minute(&over, now).filter(is_due));
    allowed
}

/// About [`CLOSED_PER_MINUTE`] of the jobs, others each minute. A closed check run leaves no record, so none can be counted.
fn in_this_minute(jobs: &[JobId], now: Timestamp) -> impl Iterator<Item = JobId> {
    let turns = jobs.len().div_ceil(CLOSED_PER_MINUTE).next_power_of_two() as u64;
    let turn = (now.as_second() / 60).unsigned_abs() % turns;
    // GitHub's numbers are consecutive, or nearly.
    jobs.iter().copied().filter(move |job| job.0 % turns == turn)
}
