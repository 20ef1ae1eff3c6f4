//! GitHub's JSON of a workflow job. It is the same in the webhook's `workflow_job` and in the answer to
//! `GET /repos/{owner}/{repo}/actions/jobs/{id}`.

use domain::ids::{JobId, RunId, RunnerId};
use domain::wire::{JobNotice, RunnerNotice};
use jiff::Timestamp;
use serde::Deserialize;

/// The fields of a job that Drover uses.
#[derive(Debug, Deserialize)]
pub struct WorkflowJob {
    id: u64,
    run_id: u64,
    #[serde(default)]
    run_attempt: Option<u32>,
    name: String,
    #[serde(default)]
    workflow_name: Option<String>,
    labels: Vec<String>,
    status: String,
    #[serde(default)]
    conclusion: Option<String>,
    #[serde(default)]
    runner_id: Option<u64>,
    #[serde(default)]
    runner_name: Option<String>,
    /// Null or 0 for a runner without a group.
    #[serde(default)]
    runner_group_id: Option<u64>,
    /// Missing in deliveries of old GitHub Enterprise Server versions, which have only `started_at`.
    #[serde(default)]
    created_at: Option<Timestamp>,
    started_at: Timestamp,
    #[serde(default)]
    completed_at: Option<Timestamp>,
    #[serde(default)]
    head_sha: String,
    #[serde(default)]
    html_url: Option<String>,
}

impl From<WorkflowJob> for JobNotice {
    fn from(job: WorkflowJob) -> Self {
        // The runner of a job that was cancelled while queued is null, 0 or "".
        let group = job.runner_group_id.filter(|group| *group != 0);
        let runner = match (job.runner_id, job.runner_name) {
            (Some(id), Some(name)) if id != 0 && !name.is_empty() => {
                Some(RunnerNotice { id: RunnerId(id), name, group })
            }
            _ => None,
        };
        JobNotice {
            id: JobId(job.id),
            run_id: RunId(job.run_id),
            run_attempt: job.run_attempt.unwrap_or(1),
            name: job.name,
            workflow: job.workflow_name,
            labels: job.labels,
            status: job.status,
            conclusion: job.conclusion,
            created_at: job.created_at.unwrap_or(job.started_at),
            started_at: Some(job.started_at),
            completed_at: job.completed_at,
            runner,
            head_sha: job.head_sha,
            html_url: job.html_url.unwrap_or_default(),
        }
    }
}
