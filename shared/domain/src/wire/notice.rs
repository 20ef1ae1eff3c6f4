//! The messages on the queue between ingest and the scaler.
//!
//! Compatibility: fields may be added with a default. Within one `v`, a field is never renamed, retyped or removed. For
//! its retention time, the queue may hold messages of the previous version.
//!
//! EventBridge puts EC2's events on the same queue, in its own format.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{DeliveryId, InstanceId, JobId, PoolName, Repository, RunId, RunnerId};

/// The version of the messages that this code writes.
pub const VERSION: u32 = 1;

/// A message on the queue. `kind` distinguishes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// A verified `workflow_job` delivery.
    WorkflowJob(Box<Notice>),
    /// An effect of the pool is due: reconcile the pool.
    Nudge {
        /// Always [`VERSION`].
        v: u32,
        pool: PoolName,
    },
    /// EC2 reports a change of an instance. The event carries no tags, so the instance may belong to another application.
    #[serde(skip)]
    Instance { id: InstanceId, change: InstanceChange },
}

/// A change of an instance, as far as it matters to Drover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceChange {
    /// EC2 reclaims the spot instance in two minutes. When EC2 announced it, if the event states it.
    Interrupted(Option<Timestamp>),
    /// It is shutting down or terminated.
    Ended,
    /// It is stopped, and keeps its data.
    Stopped,
    /// Any other change.
    Other,
}

/// The part of an EventBridge event that Drover uses.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "detail-type")]
    detail_type: String,
    /// When the event happened.
    #[serde(default)]
    time: Option<String>,
    detail: Detail,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(rename = "instance-id")]
    instance_id: InstanceId,
    #[serde(default)]
    state: String,
}

impl From<Envelope> for Message {
    fn from(envelope: Envelope) -> Self {
        let change = match (envelope.detail_type.as_str(), envelope.detail.state.as_str()) {
            ("EC2 Spot Instance Interruption Warning", _) => {
                InstanceChange::Interrupted(envelope.time.and_then(|time| time.parse().ok()))
            }
            ("EC2 Instance State-change Notification", "shutting-down" | "terminated") => InstanceChange::Ended,
            ("EC2 Instance State-change Notification", "stopped") => InstanceChange::Stopped,
            _ => InstanceChange::Other,
        };
        Message::Instance { id: envelope.detail.instance_id, change }
    }
}

/// A report by GitHub about one workflow job: a webhook delivery, or GitHub's answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Always [`VERSION`].
    pub v: u32,
    /// Empty for GitHub's answer to a request.
    pub delivery: DeliveryId,
    /// When ingest received it, or when GitHub was asked.
    pub received_at: Timestamp,
    pub action: Action,
    pub repository: Repository,
    /// GitHub's number of the repository. None in messages of older versions and in GitHub's answers to requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_id: Option<u64>,
    /// Whether the repository is public: then anyone on the internet can open a pull request.
    pub public: bool,
    /// The id of the app's installation. Many deliveries do not carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installation: Option<u64>,
    pub job: JobNotice,
}

impl Notice {
    /// GitHub's answer to a request about a job.
    pub fn asked(repository: Repository, public: bool, action: Action, job: JobNotice, at: Timestamp) -> Self {
        let delivery = DeliveryId::from("");
        Self {
            v: VERSION,
            delivery,
            received_at: at,
            action,
            repository,
            repository_id: None,
            public,
            installation: None,
            job,
        }
    }

    /// Whether GitHub sent it, and not as an answer to a request.
    pub fn is_webhook(&self) -> bool {
        !self.delivery.as_str().is_empty()
    }
}

/// The `action` of a `workflow_job` delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Needs a runner, now or once a gate has opened: GitHub also sends `queued` with status `waiting`.
    Queued,
    /// Held back by an environment's protection rules.
    Waiting,
    InProgress,
    /// Ended, with any conclusion.
    Completed,
}

/// The part of a delivery's `workflow_job` that Drover uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobNotice {
    pub id: JobId,
    pub run_id: RunId,
    /// From 1; each re-run is one more.
    pub run_attempt: u32,
    /// The job's name in the workflow. Written by users: never rendered into a shell.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// `runs-on`, as written.
    pub labels: Vec<String>,
    /// `queued`, `waiting`, `pending`, `requested`, `in_progress` or `completed`.
    pub status: String,
    /// For example `success`, `failure` or `cancelled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conclusion: Option<String>,
    /// The runner that GitHub gave the job to. None for a job that was cancelled while queued (GitHub then sends null, 0 or
    /// "").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<RunnerNotice>,
    pub created_at: Timestamp,
    /// When a runner started it. For a queued job, GitHub sends the time of its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// The commit that it runs on, 40 hexadecimal digits.
    #[serde(default)]
    pub head_sha: String,
    /// The job's page on GitHub.
    #[serde(default)]
    pub html_url: String,
}

/// The runner that a delivery names. Anyone with admin rights on a repository can register a runner with a name like
/// Drover's, so the name alone proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerNotice {
    /// Unique within the scope in which it is registered.
    pub id: RunnerId,
    pub name: String,
    /// Id of its runner group, if the report states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u64>,
}

impl RunnerNotice {
    /// Whether this is the runner with that id, name and group. Ids are counted per scope, so a runner of another scope can
    /// have the same name and id; its group distinguishes it if the report states one.
    pub fn names(&self, id: RunnerId, name: &str, group: Option<u64>) -> bool {
        let is_other_group = group.zip(self.group).is_some_and(|(own, other)| own != other);
        self.id == id && self.name == name && !is_other_group
    }
}

/// Why a queue message cannot be used. Retrying does not help.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    #[error("not a Drover message: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("version {0} is newer than this scaler supports ({VERSION}): deploy the scaler before ingest")]
    TooNew(u32),
}

impl Message {
    /// Reads a message body.
    ///
    /// # Errors
    /// The message belongs in the dead-letter queue.
    pub fn parse(body: &str) -> Result<Self, MessageError> {
        let json: serde_json::Value = serde_json::from_str(body)?;
        let message = if json.get("detail-type").is_some() {
            serde_json::from_value::<Envelope>(json)?.into()
        } else {
            serde_json::from_value::<Message>(json)?
        };
        let v = match &message {
            Message::WorkflowJob(notice) => notice.v,
            Message::Nudge { v, .. } => *v,
            Message::Instance { .. } => VERSION,
        };
        if v > VERSION {
            return Err(MessageError::TooNew(v));
        }
        Ok(message)
    }

    /// The group of the message on the queue. A queue with groups is fair: while one group has many messages, those of
    /// other groups do not wait for them.
    pub fn group(&self) -> String {
        match self {
            Message::WorkflowJob(notice) => match notice.repository_id {
                Some(id) => id.to_string(),
                None => "repository-without-number".to_owned(),
            },
            Message::Nudge { pool, .. } => format!("pool:{pool}"),
            Message::Instance { .. } => "instances".to_owned(),
        }
    }

    pub fn to_body(&self) -> String {
        serde_json::to_string(self).expect("a message has no map keys that could fail to serialise")
    }
}
