//! The jobs that the demo pushed.

use world::github::{Job, JobId};

use crate::state::State;

/// A job with a label that the pool cannot serve.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) job: JobId,
    pub(crate) labels: String,
    /// What the author must read.
    pub(crate) remedy: &'static str,
}

/// The pushed jobs, by the faults that were injected.
#[derive(Debug, Default)]
pub(crate) struct Pushed {
    pub(crate) ours: Vec<JobId>,
    pub(crate) cancelled: Vec<JobId>,
    pub(crate) rivals: Vec<JobId>,
    /// Jobs whose machine EC2 reclaims.
    pub(crate) victims: Vec<JobId>,
    /// Number of jobs without webhooks.
    pub(crate) unsent: usize,
    pub(crate) uninstalled: usize,
    /// Jobs with labels that the pool with shapes cannot serve.
    pub(crate) wrong: Vec<Wrong>,
}

/// The last attempt of a pushed job: the last job of its run.
pub(crate) fn latest(state: &State, job: JobId) -> Option<&Job> {
    let run = state.github.run(state.github.job(job)?.run)?;
    state.github.job(*run.jobs.last()?)
}

/// Whether a job has ended. A job that EC2 killed has not: it is re-run.
pub(crate) fn is_over(job: &Job) -> bool {
    job.completed_at.is_some() && job.history.killed.is_none()
}
