//! A runner whose slot was closed before the end of its job was recorded.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, RunnerId, RunnerName};
use crate::state::job::KEEP_DONE;
use crate::state::slot::Slot;
use crate::wire::RunnerNotice;

/// A runner whose slot was closed before the end of its job was recorded: the item `RUNNER#<runner name>`, `STATE`. It shows
/// on which instance a job ran whose webhooks come late. Written for pools that re-run interrupted jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedRunner {
    pub name: RunnerName,
    pub runner_id: RunnerId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_group: Option<u64>,
    pub instance: InstanceId,
    /// When Drover learned that the instance has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    /// DynamoDB's TTL, in epoch seconds.
    pub expires_at: i64,
    pub revision: u64,
}

impl ClosedRunner {
    /// None if the slot had no runner, or if the end of its job is recorded.
    ///
    /// A runner has one job. Others that claim it are those of somebody who poses as it, or copies in a later attempt; the only
    /// one that has claimed it so far may be such a job, too. This matters if EC2 reclaimed the machine: then the runner's own
    /// job is run again.
    pub fn of(slot: &Slot, was_interrupted: bool, now: Timestamp) -> Option<Self> {
        let (machine, runner) = (slot.machine()?, slot.runner()?);
        let may_be_reported = was_interrupted || slot.claimed_jobs().len() != 1 || slot.has_open_claim();
        let name = runner.runner_name.parse().ok().filter(|_| may_be_reported)?;
        Some(Self {
            name,
            runner_id: runner.runner_id,
            runner_group: runner.runner_group,
            instance: machine.instance.clone(),
            gone_at: slot.gone_at,
            expires_at: (now + KEEP_DONE).as_second(),
            revision: 0,
        })
    }

    /// Whether GitHub's report names this runner.
    pub fn is_named_by(&self, named: &RunnerNotice) -> bool {
        named.names(self.runner_id, &self.name.to_string(), self.runner_group)
    }
}
