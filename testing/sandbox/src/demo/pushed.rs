//! The jobs that the demo pushed.

use world::github::{Job, JobId};

use crate::state::State;

/// A job with a label that the pool cannot serve.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) job: JobId,
    pub(super) labels: String,
    /// What the author must read.
    pub(super) remedy: &'static str,
}

/// The pushed jobs, by the faults that were injected.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    pub(super) ours: Vec<JobId>,
    pub(super) cancelled: Vec<JobId>,
    pub(super) rivals: Vec<JobId>,
    /// Jobs whose machine EC2 reclaims.
    pub(super) victims: Vec<JobId>,
    /// Number of jobs without webhooks.
    pub(super) unsent: usize,
    pub(super) uninstalled: usize,
    /// Jobs with labels that the pool with shapes cannot serve.
    pub(super) wrong: Vec<Wrong>,
}

/// The last attempt of a pushed job: the last job of its run.
pub(super) fn latest(state: &State, job: JobId) -> Option<&Job> {
    let run = state.github.run(state.github.job(job)?.run)?;
    state.github.job(*run.jobs.last()?)
}

/// Whether a job has ended. A job that EC2 killed has not: it is re-run.
pub(super) fn is_over(job: &Job) -> bool {
    job.completed_at.is_some() && job.history.killed.is_none()
}
