//! One potential runner of a pool, from the decision to launch it until nothing of it is left.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, JobId, PoolName, RunnerId, SlotId};
use crate::state::lease::{Lease, Leased};

/// How far a slot has come. The rank only grows; a slot that is over is not an item any more, see [`Ended`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SlotState {
    /// Decided; an instance is to be launched for it.
    Planned,
    /// Has a machine.
    Launched(Machine),
    /// Its machine was left a JIT config.
    Configured {
        /// The machine.
        #[serde(flatten)]
        machine: Machine,
        /// The registration.
        #[serde(flatten)]
        runner: Runner,
    },
    /// GitHub has seen its runner online.
    Online {
        /// The machine.
        #[serde(flatten)]
        machine: Machine,
        /// The registration.
        #[serde(flatten)]
        runner: Runner,
        /// When we first saw it so.
        online_at: Timestamp,
    },
    /// GitHub said its runner has a job.
    Busy {
        /// The machine.
        #[serde(flatten)]
        machine: Machine,
        /// The registration.
        #[serde(flatten)]
        runner: Runner,
        /// The job, which need not be one of this pool's.
        job: JobId,
    },
    /// GitHub said its job is over.
    Done {
        /// The machine, about to power itself off.
        #[serde(flatten)]
        machine: Machine,
        /// The registration, which GitHub removes by itself.
        #[serde(flatten)]
        runner: Runner,
        /// The job it ran.
        job: JobId,
        /// When we heard that it is over.
        done_at: Timestamp,
    },
}

impl SlotState {
    /// `next`, if it is further than `now`: a rank only grows.
    pub fn furthest(now: &SlotState, next: SlotState) -> Option<SlotState> {
        (next.phase() > now.phase()).then_some(next)
    }

    pub fn phase(&self) -> Phase {
        match self {
            SlotState::Planned => Phase::Planned,
            SlotState::Launched(_) => Phase::Launched,
            SlotState::Configured { .. } => Phase::Configured,
            SlotState::Online { .. } => Phase::Online,
            SlotState::Busy { .. } => Phase::Busy,
            SlotState::Done { .. } => Phase::Done,
        }
    }
}

/// The order of a slot's states. A slot only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    Planned,
    Launched,
    Configured,
    Online,
    Busy,
    Done,
}

/// An instance bound to a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// EC2's id.
    pub instance: InstanceId,
    /// When EC2 launched it.
    pub launched_at: Timestamp,
}

/// A registration at GitHub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// GitHub's id.
    pub runner_id: RunnerId,
    /// Its name, see [`crate::ids::RunnerName`].
    pub runner_name: String,
    /// When its JIT config was handed over.
    pub configured_at: Timestamp,
}

/// A decision that a slot is not to be used any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Why.
    pub why: StopReason,
    /// Since when.
    pub at: Timestamp,
    /// An operator wants it ended with the job that it may have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
}

/// Why a slot is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// More supply than demand, longer than the idle grace.
    Surplus,
    /// Not online within the boot grace.
    BootFailure,
    /// Its runner's process ended without a job: GitHub knows it no more.
    RunnerEnded,
    /// Its runner was online once, and has had no connection for the boot grace.
    Disconnected,
    /// Its machine was stopped and will not come back.
    Halted,
    /// Older than its pool allows.
    MaxLife,
    /// EC2 takes its machine back.
    Interrupted,
    /// Warm for so long that a job it were given now would not find enough of its life left.
    Recycled,
    /// The operator said so.
    Operator,
}

impl StopReason {
    /// As the table and the reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            StopReason::Surplus => "surplus",
            StopReason::BootFailure => "boot_failure",
            StopReason::RunnerEnded => "runner_ended",
            StopReason::Disconnected => "disconnected",
            StopReason::Halted => "halted",
            StopReason::MaxLife => "max_life",
            StopReason::Interrupted => "interrupted",
            StopReason::Recycled => "recycled",
            StopReason::Operator => "operator",
        }
    }

    /// Whether a runner with a job is ended, too. Other stops come too late for it.
    pub fn ends_a_job(self) -> bool {
        match self {
            // These say that the machine is of no use any more, or that the job is over.
            StopReason::MaxLife | StopReason::RunnerEnded | StopReason::Halted => true,
            StopReason::Surplus
            | StopReason::BootFailure
            | StopReason::Disconnected
            | StopReason::Interrupted
            | StopReason::Recycled
            | StopReason::Operator => false,
        }
    }
}
impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a slot ended, in the log and in its instance's item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Ran a job to its end.
    JobDone,
    /// Stopped, as decided.
    Stopped(StopReason),
    /// Its machine went away by itself or by EC2's hand before its job was known to be done.
    InstanceLost,
    /// No machine was ever launched for it.
    NeverLaunched,
}

impl Ended {
    /// Whether something went wrong with its machine or on it: somebody may want to know what it wrote.
    pub fn is_abnormal(self) -> bool {
        match self {
            Ended::JobDone | Ended::NeverLaunched => false,
            Ended::InstanceLost => true,
            Ended::Stopped(why) => match why {
                StopReason::BootFailure
                | StopReason::RunnerEnded
                | StopReason::Disconnected
                | StopReason::Halted
                | StopReason::MaxLife => true,
                StopReason::Surplus | StopReason::Interrupted | StopReason::Recycled | StopReason::Operator => false,
            },
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::JobDone => f.write_str("job_done"),
            Ended::Stopped(why) => why.fmt(f),
            Ended::InstanceLost => f.write_str("instance_lost"),
            Ended::NeverLaunched => f.write_str("never_launched"),
        }
    }
}

/// A slot: the item `POOL#<pool>`, `SLOT#<version>.<index>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its name.
    pub id: SlotId,
    /// Its pool.
    pub pool: PoolName,
    /// How far it has come.
    #[serde(flatten)]
    pub state: SlotState,
    /// Whether it is to get a JIT config: false for the warm ones that wait.
    pub wanted: bool,
    /// When it was decided.
    pub planned_at: Timestamp,
    /// Since when it is wanted; the boot clock of a warm machine starts here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_at: Option<Timestamp>,
    /// Set once, never taken back: hand-over and bind refuse a slot that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// The registration attempt that was begun last; part of the runner's name, durable before the call; 0 for none.
    pub registration: u32,
    /// GitHub said 422 or `busy: true` then. Blocks termination for [`TRUST_BUSY_FOR`], and supply once it has been so for
    /// [`WEBHOOK_GRACE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_seen_at: Option<Timestamp>,
    /// When GitHub first said so, of those times that followed each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_since: Option<Timestamp>,
    /// EC2 said then that the machine is no more. Such a slot is neither live nor supply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    /// GitHub said then that it does not know the runner (any more), or it was never told of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unregistered_at: Option<Timestamp>,
    /// Its machine is gone, and no more is to be learnt of its job than is known.
    #[serde(default)]
    pub lost_sight: bool,
    /// An operator's tag on its machine: nothing is done to it, and it is given no runner.
    #[serde(default)]
    pub held: bool,
    /// Lease of the slot's next effect: its registration or its retirement.
    #[serde(flatten)]
    pub lease: Lease,
    /// How often the item was written.
    pub revision: u64,
}

/// How long a `busy` that no `in_progress` followed is believed before it is read again.
pub const TRUST_BUSY_FOR: SignedDuration = SignedDuration::from_mins(5);

/// A job whose machine is gone is asked about so long after, if GitHub has not said by then that it is over.
pub const ASK_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// GitHub fails the job of a runner that vanished after some ten minutes: what is not known long after will not be.
pub const GIVE_UP_ASKING_AFTER: SignedDuration = SignedDuration::from_mins(30);

/// A runner that is busy most likely has one of the jobs that wait, and `in_progress` is on its way: nine of ten webhooks
/// arrive within three seconds. Only one that stays busy without a word for this long is taken for lost to a job that is
/// not ours, and replaced.
pub const WEBHOOK_GRACE: SignedDuration = SignedDuration::from_secs(30);

impl Leased for Slot {
    fn lease_mut(&mut self) -> &mut Lease {
        &mut self.lease
    }

    fn revision_mut(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

impl Slot {
    /// Its machine, if it has one.
    pub fn machine(&self) -> Option<&Machine> {
        match &self.state {
            SlotState::Planned => None,
            SlotState::Launched(machine)
            | SlotState::Configured { machine, .. }
            | SlotState::Online { machine, .. }
            | SlotState::Busy { machine, .. }
            | SlotState::Done { machine, .. } => Some(machine),
        }
    }

    /// Its registration, if its machine was left one.
    pub fn runner(&self) -> Option<&Runner> {
        match &self.state {
            SlotState::Planned | SlotState::Launched(_) => None,
            SlotState::Configured { runner, .. }
            | SlotState::Online { runner, .. }
            | SlotState::Busy { runner, .. }
            | SlotState::Done { runner, .. } => Some(runner),
        }
    }

    /// The job it has or had.
    pub fn job(&self) -> Option<JobId> {
        match &self.state {
            SlotState::Busy { job, .. } | SlotState::Done { job, .. } => Some(*job),
            SlotState::Planned | SlotState::Launched(_) | SlotState::Configured { .. } | SlotState::Online { .. } => {
                None
            }
        }
    }

    pub fn phase(&self) -> Phase {
        self.state.phase()
    }

    /// Whether it counts against the pool's `max`: it has a machine, or may get one.
    pub fn is_live(&self) -> bool {
        self.gone_at.is_none()
    }

    /// Whether GitHub may have given it a job that we have not heard of yet.
    pub fn is_seen_busy(&self, now: Timestamp) -> bool {
        self.busy_seen_at.is_some_and(|at| now.duration_since(at) < TRUST_BUSY_FOR)
    }

    /// Whether it has been busy for so long that a job we were told of would have been told by now.
    fn is_lost_to_another(&self, now: Timestamp) -> bool {
        self.is_seen_busy(now) && self.busy_since.is_none_or(|since| now.duration_since(since) >= WEBHOOK_GRACE)
    }

    /// Whether a queued job can count on it, or has it already without our knowing.
    pub fn is_supply(&self, now: Timestamp) -> bool {
        let there = self.is_live() && !self.is_lost_to_another(now);
        let will_run = !self.held || self.runner().is_some();
        (there || self.is_fate_unknown(now)) && will_run && self.stop.is_none() && self.phase() < Phase::Busy
    }

    /// Its machine went away by itself a moment ago. Most likely its runner had one of the jobs that wait and finished it,
    /// and the word of that is on its way: a replacement at once would be one for nobody.
    pub fn is_fate_unknown(&self, now: Timestamp) -> bool {
        self.fate_known_at().is_some_and(|at| now < at)
    }

    /// When a machine that went away without a word about a job is taken for one that had none; None for any other.
    pub fn fate_known_at(&self) -> Option<Timestamp> {
        let may_have_run = self.stop.is_none() && matches!(self.phase(), Phase::Configured | Phase::Online);
        self.gone_at.filter(|_| may_have_run).map(|at| at + WEBHOOK_GRACE)
    }

    /// The slot after GitHub said that its runner is busy.
    #[must_use]
    pub fn seen_busy(self, now: Timestamp) -> Self {
        let before = self.busy_since.filter(|_| self.is_seen_busy(now));
        Self { busy_seen_at: Some(now), busy_since: before.or(Some(now)), ..self }
    }

    /// The slot after EC2 said that its machine is no more.
    #[must_use]
    pub fn gone(self, now: Timestamp) -> Self {
        Self { gone_at: Some(now), lease: Lease::due(now + ASK_AFTER), ..self }
    }

    /// Since when its runner is online, as far as we know, without a job.
    pub fn online_at(&self) -> Option<Timestamp> {
        match &self.state {
            SlotState::Online { online_at, .. } => Some(*online_at),
            SlotState::Planned
            | SlotState::Launched(_)
            | SlotState::Configured { .. }
            | SlotState::Busy { .. }
            | SlotState::Done { .. } => None,
        }
    }

    /// Since when it has been waiting in its present state.
    pub fn idle_since(&self) -> Timestamp {
        let entered = match &self.state {
            SlotState::Planned | SlotState::Busy { .. } => self.planned_at,
            SlotState::Launched(machine) => machine.launched_at,
            SlotState::Configured { runner, .. } => runner.configured_at,
            SlotState::Online { online_at, .. } => *online_at,
            SlotState::Done { done_at, .. } => *done_at,
        };
        entered.max(self.planned_at)
    }

    /// What EC2 and GitHub still have of it is nothing: the item can go.
    pub fn is_over(&self) -> bool {
        match &self.state {
            SlotState::Planned => self.stop.is_some() && self.gone_at.is_some(),
            SlotState::Launched(_) => {
                self.gone_at.is_some() && (self.registration == 0 || self.unregistered_at.is_some())
            }
            SlotState::Busy { .. } => self.lost_sight && self.gone_at.is_some() && self.unregistered_at.is_some(),
            SlotState::Configured { .. } | SlotState::Online { .. } | SlotState::Done { .. } => {
                self.gone_at.is_some() && self.unregistered_at.is_some()
            }
        }
    }

    /// How it ended, once [`Slot::is_over`].
    pub fn ended(&self) -> Ended {
        match (&self.state, &self.stop) {
            (SlotState::Done { .. }, _) => Ended::JobDone,
            (_, Some(stop)) => Ended::Stopped(stop.why),
            (SlotState::Planned, None) => Ended::NeverLaunched,
            (_, None) => Ended::InstanceLost,
        }
    }
}

impl Slot {
    /// The slot with a decision to stop it, which the newest reason explains; the retirement belongs to whoever decides until
    /// `lease`.
    #[must_use]
    pub fn stopped(mut self, why: StopReason, now: Timestamp, lease: Timestamp) -> Self {
        let (at, forced) = self.stop.map_or((now, false), |before| (before.at, before.forced));
        self.stop = Some(Stop { why, at, forced });
        self.lease = Lease::due(lease);
        self
    }

    /// The slot with an operator's decision to end it whatever it does.
    #[must_use]
    pub fn forced(self, now: Timestamp) -> Self {
        let mut slot = self.stopped(StopReason::Operator, now, now);
        slot.stop = slot.stop.map(|stop| Stop { forced: true, ..stop });
        slot
    }

    /// The slot with one more registration begun, if a JIT config is what it needs next.
    #[must_use]
    pub fn owing_registration(mut self, lease: Timestamp) -> Self {
        if matches!(self.state, SlotState::Launched(_)) && self.wanted {
            self.registration += 1;
            self.lease.next_at = lease;
        }
        self
    }
}
