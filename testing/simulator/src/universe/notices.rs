//! Converts the model's jobs to notices, as ingest and GitHub's port do.

use domain::ids::{DeliveryId, JobId, RunId, RunnerId};
use domain::wire::{Action, JobNotice, MESSAGE_VERSION, Notice, RunnerNotice};
use jiff::Timestamp;
use world::github::{self, JobEvent, Visibility};

/// The message that ingest sends for a delivery.
pub(crate) fn notice(event: &JobEvent, guid: &str, now: Timestamp) -> Notice {
    let job = &event.job;
    let action = match event.action {
        "queued" => Action::Queued,
        "waiting" => Action::Waiting,
        "in_progress" => Action::InProgress,
        _ => Action::Completed,
    };
    Notice {
        v: MESSAGE_VERSION,
        delivery: DeliveryId::from(guid),
        received_at: now,
        action,
        repository: format!("{}/{}", event.repository.owner_login, event.repository.name)
            .parse()
            .expect("a repository"),
        repository_id: Some(event.repository.id.0),
        public: event.repository.visibility == Visibility::Public,
        installation: None,
        job: job_notice(job, &event.head_sha),
    }
}

pub(crate) fn job_notice(job: &github::Job, head_sha: &str) -> JobNotice {
    JobNotice {
        id: JobId(job.id.0),
        run_id: RunId(job.run.0),
        run_attempt: job.attempt as u32,
        name: job.name.clone(),
        workflow: None,
        labels: job.labels.clone(),
        status: job.state.status().to_owned(),
        conclusion: job.state.conclusion().map(|conclusion| conclusion.as_str().to_owned()),
        runner: job.state.runner().map(|runner| RunnerNotice {
            id: RunnerId(runner.id.0),
            name: runner.name.clone(),
            group: None,
        }),
        created_at: job.created_at,
        started_at: job.started_at,
        completed_at: job.completed_at,
        head_sha: head_sha.to_owned(),
        html_url: String::new(),
    }
}
