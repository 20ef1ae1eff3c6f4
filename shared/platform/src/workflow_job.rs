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
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    workflow_name: Option<String>,
    /// Null or empty if the job names only a runner group.
    #[serde(default)]
    labels: Option<Vec<String>>,
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
    #[serde(default)]
    started_at: Option<Timestamp>,
    #[serde(default)]
    completed_at: Option<Timestamp>,
    #[serde(default)]
    head_sha: Option<String>,
    #[serde(default)]
    html_url: Option<String>,
}

impl WorkflowJob {
    /// The job, as an event reported it. One without any time was created when the event arrived.
    pub fn notice(self, received_at: Timestamp) -> JobNotice {
        let created_at = self.created_at.or(self.started_at).unwrap_or(received_at);
        self.created(created_at)
    }

    fn created(self, created_at: Timestamp) -> JobNotice {
        // The runner of a job that was cancelled while queued is null, 0 or "".
        let group = self.runner_group_id.filter(|group| *group != 0);
        let runner = match (self.runner_id, self.runner_name) {
            (Some(id), Some(name)) if id != 0 && !name.is_empty() => {
                Some(RunnerNotice { id: RunnerId(id), name, group })
            }
            _ => None,
        };
        JobNotice {
            id: JobId(self.id),
            run_id: RunId(self.run_id),
            run_attempt: self.run_attempt.unwrap_or(1),
            name: self.name.unwrap_or_default(),
            workflow: self.workflow_name,
            labels: self.labels.unwrap_or_default(),
            status: self.status,
            conclusion: self.conclusion,
            created_at,
            started_at: self.started_at,
            completed_at: self.completed_at,
            runner,
            head_sha: self.head_sha.unwrap_or_default(),
            html_url: self.html_url.unwrap_or_default(),
        }
    }
}

impl From<WorkflowJob> for JobNotice {
    /// The job, as GitHub listed it. One without any time counts as old: an unknown age must not make it look new in each
    /// list.
    fn from(job: WorkflowJob) -> Self {
        let created_at = job.created_at.or(job.started_at).unwrap_or(Timestamp::UNIX_EPOCH);
        job.created(created_at)
    }
}
