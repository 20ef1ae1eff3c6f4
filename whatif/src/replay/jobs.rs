//! What a trace says about each job, and what happens to it in a run.

use std::collections::HashMap;

use domain::config::Pool;
use domain::ids::Repository;
use domain::policy::route::{Routable, Unrouted, route};
use jiff::{SignedDuration, Timestamp};
use world::github::Conclusion;

use crate::collect::median;
use crate::trace::{Job, Trace};

/// A job of the trace, as a run needs it.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) queued_at: Timestamp,
    pub(super) runs_for: SignedDuration,
    pub(super) ends: Conclusion,
    /// It was cancelled before it ran, this long after it was queued.
    pub(super) cancelled_after: Option<SignedDuration>,
    /// The index of the pool, or why no pool accepts it.
    pub(super) pool: Result<usize, Unrouted>,
    pub(super) repository: Option<Repository>,
    /// After the replacements.
    pub(super) labels: Vec<String>,
    /// The indices of jobs that its end queues, each with the time from the end until then.
    pub(super) followers: Vec<(usize, SignedDuration)>,
    pub(super) follows: bool,
}

/// What happened to a job.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    pub(super) queued_at: Option<Timestamp>,
    /// Of its first start.
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
}

/// Plans every job. `labels` are replacements, old and new, in lower case.
pub(super) fn plan(trace: &Trace, pools: &[Pool], labels: &[(String, String)]) -> Vec<Planned> {
    let medians = Medians::of(trace);
    let mut planned: Vec<Planned> = trace.jobs.iter().map(|job| planned(job, pools, labels, &medians)).collect();
    let index_of: HashMap<u64, usize> = trace.jobs.iter().enumerate().map(|(index, job)| (job.id, index)).collect();
    for (index, job) in trace.jobs.iter().enumerate() {
        let Some(before) = job.after.and_then(|after| index_of.get(&after).copied()) else { continue };
        let Some(ended_at) = trace.jobs[before].ended_at else { continue };
        let gap = job.queued_at.duration_since(ended_at).max(SignedDuration::ZERO);
        planned[before].followers.push((index, gap));
        planned[index].follows = true;
    }
    planned
}

fn planned(job: &Job, pools: &[Pool], labels: &[(String, String)], medians: &Medians<'_>) -> Planned {
    let repository: Option<Repository> = job.repository.parse().ok();
    let renamed = |label: &String| {
        let found = labels.iter().find(|(old, _)| old.eq_ignore_ascii_case(label.trim()));
        found.map_or(label, |(_, new)| new).clone()
    };
    let labels: Vec<String> = job.labels.iter().map(renamed).collect();
    let found = repository
        .as_ref()
        .ok_or(Unrouted::Owner)
        .and_then(|repository| route(pools, &Routable { repository, public: false, labels: &labels }));
    let pool = found.map(|found| pools.iter().position(|pool| pool.name == found.name).unwrap_or_default());
    Planned {
        queued_at: job.queued_at,
        runs_for: runs_for(job).unwrap_or_else(|| medians.of_job(job)),
        ends: match job.conclusion.as_deref() {
            Some("cancelled") => Conclusion::Cancelled,
            Some("failure" | "timed_out") => Conclusion::Failure,
            Some(_) | None => Conclusion::Success,
        },
        cancelled_after: match (job.started_at, job.ended_at) {
            (None, Some(ended_at)) => Some(ended_at.duration_since(job.queued_at)),
            (Some(_), _) | (None, None) => None,
        },
        pool,
        repository,
        labels,
        followers: Vec::new(),
        follows: false,
    }
}

fn runs_for(job: &Job) -> Option<SignedDuration> {
    Some(job.ended_at?.duration_since(job.started_at?))
}

/// A job's repository, workflow and name.
type Kind<'a> = (&'a str, Option<&'a str>, Option<&'a str>);

/// The usual run times.
struct Medians<'a> {
    of_kind: HashMap<Kind<'a>, SignedDuration>,
    of_trace: SignedDuration,
}

impl<'a> Medians<'a> {
    fn of(trace: &'a Trace) -> Self {
        let (mut kinds, mut all) = (HashMap::<Kind<'_>, Vec<SignedDuration>>::new(), Vec::new());
        for job in &trace.jobs {
            let Some(time) = runs_for(job) else { continue };
            kinds.entry(kind(job)).or_default().push(time);
            all.push(time);
        }
        let of_kind = kinds.into_iter().filter_map(|(kind, times)| Some((kind, median_duration(times)?))).collect();
        Self { of_kind, of_trace: median_duration(all).unwrap_or(SignedDuration::from_mins(1)) }
    }

    fn of_job(&self, job: &Job) -> SignedDuration {
        self.of_kind.get(&kind(job)).copied().unwrap_or(self.of_trace)
    }
}

fn median_duration(times: Vec<SignedDuration>) -> Option<SignedDuration> {
    median(times).map(SignedDuration::from_secs_f64)
}

fn kind(job: &Job) -> Kind<'_> {
    (&job.repository, job.workflow.as_deref(), job.name.as_deref())
}
