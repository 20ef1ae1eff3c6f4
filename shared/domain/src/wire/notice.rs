//! What GitHub said about a workflow job, as it travels from ingest to the scaler: the contract between the two.
//!
//! Compatibility: fields may be added with a default; a field is never renamed, retyped or removed within one `v`. The
//! queue may hold notices of the version before the running one for its retention time.
//!
//! EC2's own events come over the same queue, in EventBridge's form and unaltered by anybody.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{DeliveryId, InstanceId, JobId, PoolName, Repository, RunId, RunnerId};

/// The only version written today.
pub const VERSION: u32 = 1;

/// A message of ours on the queue, told apart by `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// A verified `workflow_job` delivery.
    WorkflowJob(Box<Notice>),
    /// Somebody ran out of time and asks that this pool be looked at again.
    Nudge {
        /// Always [`VERSION`].
        v: u32,
        /// The pool to look at.
        pool: PoolName,
    },
    /// EC2 said something about an instance, which need not be ours: these events carry no tags.
    #[serde(skip)]
    Instance {
        /// Which.
        id: InstanceId,
        /// What.
        change: InstanceChange,
    },
}

/// What EC2 said of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceChange {
    /// It will be taken back in two minutes.
    Interrupted,
    /// It is, or will not be kept from being, no more.
    Ended,
    /// It entered a state that changes nothing for us.
    Other,
}

/// EventBridge's envelope, as far as it concerns us.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "detail-type")]
    detail_type: String,
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
            ("EC2 Spot Instance Interruption Warning", _) => InstanceChange::Interrupted,
            ("EC2 Instance State-change Notification", "shutting-down" | "terminated") => InstanceChange::Ended,
            _ => InstanceChange::Other,
        };
        Message::Instance { id: envelope.detail.instance_id, change }
    }
}

/// One delivery about one workflow job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Always [`VERSION`].
    pub v: u32,
    /// Which delivery; empty when the job was found by asking GitHub instead.
    pub delivery: DeliveryId,
    /// When ingest (or the poll) saw it.
    pub received_at: Timestamp,
    /// What happened.
    pub action: Action,
    /// `owner/name`.
    pub repository: Repository,
    /// Anyone on the internet can open a pull request there.
    pub public: bool,
    /// The installation GitHub named, if it did: many deliveries carry none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installation: Option<u64>,
    /// The job as the delivery describes it.
    pub job: JobNotice,
}

impl Notice {
    /// What GitHub said when it was asked: a fact like any other, without a delivery.
    pub fn asked(repository: Repository, public: bool, action: Action, job: JobNotice, at: Timestamp) -> Self {
        let delivery = DeliveryId::from("");
        Self { v: VERSION, delivery, received_at: at, action, repository, public, installation: None, job }
    }
}

/// The `action` of a `workflow_job` delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Wants a runner, or will after a gate: GitHub also sends `queued` with status `waiting`.
    Queued,
    /// Held back by an environment's protection rules.
    Waiting,
    /// A runner has it.
    InProgress,
    /// Over, in whatever way.
    Completed,
}

/// The part of a delivery's `workflow_job` that Drover uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobNotice {
    /// GitHub's id.
    pub id: JobId,
    /// Its workflow run.
    pub run_id: RunId,
    /// 1 for the first run, then one more each re-run.
    pub run_attempt: u32,
    /// The job's name in the workflow. Written by users: never rendered into a shell.
    pub name: String,
    /// The workflow's name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// `runs-on`, as written.
    pub labels: Vec<String>,
    /// GitHub's word for the state, e.g. `queued`, `waiting`, `in_progress`, `completed`.
    pub status: String,
    /// GitHub's word for the outcome, e.g. `success`, `failure`, `cancelled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conclusion: Option<String>,
    /// The runner that has or had it. None for a job cancelled while queued (GitHub then sends null, 0 or "").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<RunnerNotice>,
    /// When GitHub made the job.
    pub created_at: Timestamp,
    /// When a runner took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// The commit it runs on, 40 hexadecimal digits.
    #[serde(default)]
    pub head_sha: String,
    /// Where a person can look at it.
    #[serde(default)]
    pub html_url: String,
}

/// The runner a delivery names. Anybody with admin rights on a repository can register one with a name of ours, so the
/// name alone proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerNotice {
    /// GitHub's id, unique within the scope it is registered in.
    pub id: RunnerId,
    /// As registered.
    pub name: String,
}

/// Why a queue message cannot be used. All of these are poison: trying again cannot help.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Not JSON of a known kind.
    #[error("not a message of ours: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written by a newer Drover than this one.
    #[error("version {0} is newer than this scaler understands ({VERSION}): deploy the scaler before ingest")]
    TooNew(u32),
}

impl Message {
    /// Reads a message body.
    ///
    /// # Errors
    /// [`MessageError`]; the message belongs in the dead-letter queue.
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

    /// The body to send.
    pub fn to_body(&self) -> String {
        serde_json::to_string(self).expect("a message has no map keys that could fail to serialise")
    }
}
