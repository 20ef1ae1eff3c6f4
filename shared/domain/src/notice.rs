//! What GitHub said about a workflow job, as it travels from ingest to the scaler: the contract between the two.
//!
//! Compatibility: fields may be added with a default; a field is never renamed, retyped or removed within one `v`. The
//! queue may hold notices of the version before the running one for its retention time.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{DeliveryId, JobId, PoolName, Repository, RunId, RunnerId};

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
    #[error(
        "version {0} is newer than this scaler understands ({VERSION}): deploy the scaler before ingest"
    )]
    TooNew(u32),
}

impl Message {
    /// Reads a message body.
    ///
    /// # Errors
    /// [`MessageError`]; the message belongs in the dead-letter queue.
    pub fn parse(body: &str) -> Result<Self, MessageError> {
        let message: Message = serde_json::from_str(body)?;
        let v = match &message {
            Message::WorkflowJob(notice) => notice.v,
            Message::Nudge { v, .. } => *v,
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
