//! Facts about the world that Drover does not know.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::Pool;
use jiff::{SignedDuration, Timestamp};
use world::ec2::InstanceId;
use world::github::{JobId, RunnerId};

use crate::swarm::outcome::{Convergence, Costs};

#[derive(Debug, Default)]
pub(super) struct GroundTruth {
    /// Jobs that no pool may serve.
    pub(super) foreign: BTreeSet<JobId>,
    /// Jobs that GitHub shows in an unknown form, for ever. No pool may serve them.
    pub(super) malformed_for_ever: BTreeSet<JobId>,
    pub(super) gated: BTreeSet<JobId>,
    pub(super) cancelled: BTreeSet<JobId>,
    /// Machines that a fault struck.
    pub(super) spoilt: BTreeSet<InstanceId>,
    /// Runners whose machine EC2 reclaimed, or which was past `max_life`.
    pub(super) ended_by_ec2: BTreeSet<RunnerId>,
    /// How many readings of a list lacked a runner that was registered.
    pub(super) on_no_page: BTreeMap<RunnerId, u32>,
    /// Runners whose machine EC2 reclaimed.
    pub(super) reclaimed: BTreeSet<RunnerId>,
    pub(super) booted: BTreeSet<InstanceId>,
    /// The machines whose agent has reported, as it should, and when.
    pub(super) reported: BTreeMap<InstanceId, Timestamp>,
    /// For each image, when a machine reported that had no runner for some minutes afterwards, while no fault struck.
    pub(super) reporting: BTreeMap<String, Timestamp>,
    /// For each image, when a machine ended that had never booted.
    pub(super) dead_ended: BTreeMap<String, Timestamp>,
    /// Machines that ran a job.
    pub(super) used: BTreeSet<InstanceId>,
    /// A runner that is not Drover's serves one of the repositories.
    pub(super) foreign_runner: bool,
    pub(super) converged: Option<Convergence>,
    /// When a pool last had all machines that it keeps warm, or was excused.
    pub(super) warm_at: BTreeMap<String, Timestamp>,
    /// When a pool last had as many machines as its maximum, or nearly.
    pub(super) full_at: BTreeMap<String, Timestamp>,
    /// Accounts in which the jobs of a lost table had to be found in more runs than the share of searches pays for within the time.
    pub(super) searched_for_long: BTreeSet<String>,
    /// Jobs that waited longer than 20 minutes by design: their launches were used up, their pool was full, they or those before
    /// them had to be found in too many runs, or GitHub's hourly limit was used up.
    pub(super) late: BTreeSet<JobId>,
    /// Pools whose account had used up GitHub's hourly limit for registering and removing runners 20 minutes after the last fault.
    pub(super) without_github: BTreeSet<String>,
    /// What the machines of pools with shapes cost.
    pub(super) costs: Costs,
    /// How much longer than others the machines of a lost table may stay.
    pub(super) more_for_the_lost: SignedDuration,
}

/// A pool that the pool file does not have at present.
#[derive(Debug)]
pub(super) struct RemovedPool {
    pub(super) pool: Pool,
    /// Whether the file has it again, at the latest when all faults have stopped.
    pub(super) comes_back: bool,
}

/// What an operator has still to do after generating a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rotation {
    /// Delete the other keys.
    Delete(u32),
    /// Store this key.
    Store(u32),
}
