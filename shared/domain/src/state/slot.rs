//! One potential runner of a pool, from the decision to launch it until its machine and its registration are gone.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::{Label, MicroUsd, Tuple};
use crate::ids::{InstanceId, JobId, PoolName, RunnerId, SlotId};
use crate::state::boot_report::BootReport;
use crate::state::claim::{Claim, with_claim};
use crate::state::lease::{Lease, Leased};
use crate::wire::RunnerNotice;

/// The progress of a slot. It never decreases. A slot that has ended is deleted, see [`SlotOutcome`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SlotState {
    /// An instance will be launched for it.
    Planned,
    /// It has a machine.
    Launched(Machine),
    /// Its machine has prepared itself, and EC2 is asked to stop it. From here on no JIT config is handed over to it until it is
    /// started again. Not written before format 5 of the table, like the two that follow.
    Prepared(Machine),
    /// Its machine is stopped, and ready to be started.
    Stopped(Machine),
    /// Its machine is needed, and EC2 is asked to start it.
    Started(Machine),
    /// A JIT config was handed over to its machine.
    Configured {
        #[serde(flatten)]
        machine: Machine,
        #[serde(flatten)]
        runner: Runner,
    },
    /// GitHub has listed its runner as online.
    Online {
        #[serde(flatten)]
        machine: Machine,
        #[serde(flatten)]
        runner: Runner,
        /// When a sweep first found it online.
        online_at: Timestamp,
    },
    /// GitHub reported that its runner has a job.
    Busy {
        #[serde(flatten)]
        machine: Machine,
        #[serde(flatten)]
        runner: Runner,
        /// The first claimed job. It may belong to another pool, or to none.
        job: JobId,
    },
    /// GitHub reported that every claimed job has ended. That permits nothing by itself, because claims can be forged.
    Done {
        /// It powers itself off.
        #[serde(flatten)]
        machine: Machine,
        /// GitHub removes the registration by itself.
        #[serde(flatten)]
        runner: Runner,
        /// The first claimed job.
        job: JobId,
        /// When the end was recorded.
        done_at: Timestamp,
    },
}

impl SlotState {
    /// `next` if it is a later phase than `now`, otherwise None.
    pub fn advanced(now: &SlotState, next: SlotState) -> Option<SlotState> {
        (next.phase() > now.phase()).then_some(next)
    }

    pub fn phase(&self) -> Phase {
        match self {
            SlotState::Planned => Phase::Planned,
            SlotState::Launched(_) => Phase::Launched,
            SlotState::Prepared(_) => Phase::Prepared,
            SlotState::Stopped(_) => Phase::Stopped,
            SlotState::Started(_) => Phase::Started,
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
    Prepared,
    Stopped,
    Started,
    Configured,
    Online,
    Busy,
    Done,
}

/// An instance bound to a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub instance: InstanceId,
    pub launched_at: Timestamp,
    /// When it was decided to stop it, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Timestamp>,
    /// When it was decided to start it again. EC2's own time of a launch moves at each start, and is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

impl Machine {
    /// A machine that was never stopped.
    pub fn launched(instance: InstanceId, launched_at: Timestamp) -> Self {
        Self { instance, launched_at, stopped_at: None, started_at: None }
    }

    /// When its present run began.
    pub fn runs_since(&self) -> Timestamp {
        self.started_at.unwrap_or(self.launched_at)
    }

    /// For how long it has run, if it ended at that time. The time that it was stopped does not count.
    pub fn has_run_for(&self, until: Timestamp) -> SignedDuration {
        match (self.stopped_at, self.started_at) {
            (Some(stopped), None) => stopped.duration_since(self.launched_at),
            (Some(stopped), Some(started)) => stopped.duration_since(self.launched_at) + until.duration_since(started),
            (None, _) => until.duration_since(self.launched_at),
        }
    }
}

/// A registration at GitHub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    pub runner_id: RunnerId,
    /// A [`crate::ids::RunnerName`].
    pub runner_name: String,
    pub configured_at: Timestamp,
    /// Id of the runner group that an organisation's runner was registered in. None if an older version registered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_group: Option<u64>,
}

impl Runner {
    /// Whether GitHub's report names this runner.
    pub fn is_named_by(&self, named: &RunnerNotice) -> bool {
        named.names(self.runner_id, &self.runner_name, self.runner_group)
    }
}

/// A boot report that a sweep recorded while the machine had no runner. Nothing of a job had run on the machine by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    #[serde(flatten)]
    pub report: BootReport,
    /// When the sweep recorded it.
    pub seen_at: Timestamp,
}

/// The decision to end a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    pub why: StopReason,
    /// When the first such decision was made.
    pub at: Timestamp,
    /// An operator ends the slot even if its runner has a job.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
}

/// Why a slot is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Supply exceeded demand for longer than `idle_grace`.
    Surplus,
    /// Its runner was not online within `boot_grace`.
    BootFailure,
    /// GitHub does not list its runner any more: the runner's process has ended.
    RunnerEnded,
    /// Its runner was online, and has had no connection for `boot_grace`.
    Disconnected,
    /// Its machine is stopped.
    Halted,
    /// It is past the pool's `max_life`.
    MaxLife,
    /// EC2 reclaims its machine.
    Interrupted,
    /// It is a warm machine that has used up half of its `max_life`.
    Recycled,
    /// An operator stopped it.
    Operator,
    /// Its job is done, and its machine has not powered itself off. Not written before format 2 of the table.
    JobDone,
    /// Its machine should be stopped and ready, and is not: EC2 refused to stop or to start it, or somebody started it. Not
    /// written before format 5 of the table.
    NotReady,
}

impl StopReason {
    /// The text in the table and in reports.
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
            StopReason::JobDone => "job_done",
            StopReason::NotReady => "not_ready",
        }
    }

    /// The reason for a machine that outlives its job. Versions for format 1 cannot read [`StopReason::JobDone`].
    pub fn after_job(format: u32) -> Self {
        if format >= 2 { StopReason::JobDone } else { StopReason::RunnerEnded }
    }

    /// Whether the slot is retired even if a job was reported for its runner. GitHub may still refuse the deregistration.
    pub fn ends_a_job(self) -> bool {
        match self {
            // The machine cannot finish the job, or the job has ended.
            StopReason::MaxLife | StopReason::RunnerEnded | StopReason::Halted | StopReason::JobDone => true,
            StopReason::Surplus
            | StopReason::BootFailure
            | StopReason::Disconnected
            | StopReason::Interrupted
            | StopReason::Recycled
            | StopReason::Operator
            | StopReason::NotReady => false,
        }
    }
}
impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a slot ended: the text in its instance's item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotOutcome {
    /// It ran a job to its end.
    JobDone,
    Stopped(StopReason),
    /// Its machine ended without a stop, before the end of a job was recorded.
    InstanceLost,
    NeverLaunched,
}

impl SlotOutcome {
    /// Whether something went wrong on the machine, so that its console output is worth keeping.
    pub fn is_abnormal(self) -> bool {
        match self {
            SlotOutcome::JobDone | SlotOutcome::NeverLaunched => false,
            SlotOutcome::InstanceLost => true,
            SlotOutcome::Stopped(why) => match why {
                StopReason::BootFailure
                | StopReason::RunnerEnded
                | StopReason::Disconnected
                | StopReason::Halted
                | StopReason::MaxLife => true,
                StopReason::Surplus
                | StopReason::Interrupted
                | StopReason::Recycled
                | StopReason::Operator
                | StopReason::JobDone
                | StopReason::NotReady => false,
            },
        }
    }
}

impl fmt::Display for SlotOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlotOutcome::JobDone => f.write_str("job_done"),
            SlotOutcome::Stopped(why) => why.fmt(f),
            SlotOutcome::InstanceLost => f.write_str("instance_lost"),
            SlotOutcome::NeverLaunched => f.write_str("never_launched"),
        }
    }
}

/// A slot: the item `POOL#<pool>`, `SLOT#<version>.<index>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    pub id: SlotId,
    pub pool: PoolName,
    #[serde(flatten)]
    pub state: SlotState,
    /// The class of the jobs that it is for. None in a pool without shapes, and for its jobs without a shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Label>,
    /// What its machine costs per hour, its volume included, as known when its launch was decided. None if it is not known, and
    /// in a pool that needs no prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_per_hour: Option<MicroUsd>,
    /// What its machine is launched as. Only of a warm machine in a pool with shapes, where it may be given to a class that it
    /// suits, or in a pool that keeps machines stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_as: Option<Box<Tuple>>,
    /// Whether its machine receives a JIT config as soon as possible. False for a warm machine.
    pub wanted: bool,
    pub planned_at: Timestamp,
    /// When `wanted` became true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_at: Option<Timestamp>,
    /// Set once and never removed. Neither an instance nor a JIT config is given to a slot that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// The number of the last registration attempt, stored before the call and part of the runner's name; 0 if there was
    /// none.
    pub registration: u32,
    /// The jobs that were reported for its runner, the first one first. Empty if an older version recorded the job.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
    /// When GitHub last reported the runner as busy (422 or `busy: true`). Prevents termination for [`TRUST_BUSY_FOR`]. A
    /// slot that has been busy for [`WEBHOOK_GRACE`] is not supply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_seen_at: Option<Timestamp>,
    /// When the present run of such reports began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_since: Option<Timestamp>,
    /// When Drover learned that the machine has ended. Such a slot is not live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    /// When Drover learned that GitHub has no registration for the slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unregistered_at: Option<Timestamp>,
    /// The machine has ended, and GitHub is not asked about the job any more.
    #[serde(default, rename = "lost_sight")]
    pub job_check_ended: bool,
    /// What its machine reported about its boot before it had a runner. None if no sweep has read such a report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// Its launch is not charged to a waiting job any more: its machine runs another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub charge_returned: bool,
    /// The machine has the tag `drover:hold`: it is not terminated and receives no JIT config.
    #[serde(default)]
    pub held: bool,
    /// The lease of the slot's next effect, its registration or its retirement.
    #[serde(flatten)]
    pub lease: Lease,
    pub revision: u64,
}

/// How long a report that a runner is busy is trusted, unless `in_progress` follows.
pub const TRUST_BUSY_FOR: SignedDuration = SignedDuration::from_mins(5);

/// How often GitHub is asked about the job of a machine that has ended, until GitHub has noticed that the runner is gone. The
/// first time is at once: usually the job has ended, and only its webhook is late or lost.
pub const CHECK_LOST_JOB_EVERY: SignedDuration = SignedDuration::from_mins(2);

/// GitHub fails the job of a runner that disappeared after about ten minutes. After this time it is not asked any more.
pub const GIVE_UP_LOST_JOB_AFTER: SignedDuration = SignedDuration::from_mins(30);

/// How long the `in_progress` or `completed` of a waiting job may take to arrive. A runner that has been busy for this long
/// without a webhook has a job that belongs to no pool, and is replaced. Nine of ten webhooks arrive within three seconds.
pub const WEBHOOK_GRACE: SignedDuration = SignedDuration::from_secs(30);

/// How long EC2 usually takes at most to stop a machine. After that a job may have the machine, whatever EC2 shows.
const STOPS_WITHIN: SignedDuration = SignedDuration::from_mins(2);

impl Leased for Slot {
    fn lease_mut(&mut self) -> &mut Lease {
        &mut self.lease
    }

    fn revision_mut(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

impl Slot {
    pub fn machine(&self) -> Option<&Machine> {
        match &self.state {
            SlotState::Planned => None,
            SlotState::Launched(machine)
            | SlotState::Prepared(machine)
            | SlotState::Stopped(machine)
            | SlotState::Started(machine)
            | SlotState::Configured { machine, .. }
            | SlotState::Online { machine, .. }
            | SlotState::Busy { machine, .. }
            | SlotState::Done { machine, .. } => Some(machine),
        }
    }

    /// The runner whose JIT config was handed over.
    pub fn runner(&self) -> Option<&Runner> {
        match &self.state {
            SlotState::Planned
            | SlotState::Launched(_)
            | SlotState::Prepared(_)
            | SlotState::Stopped(_)
            | SlotState::Started(_) => None,
            SlotState::Configured { runner, .. }
            | SlotState::Online { runner, .. }
            | SlotState::Busy { runner, .. }
            | SlotState::Done { runner, .. } => Some(runner),
        }
    }

    /// The first job that was claimed for its runner.
    pub fn job(&self) -> Option<JobId> {
        match &self.state {
            SlotState::Busy { job, .. } | SlotState::Done { job, .. } => Some(*job),
            SlotState::Planned
            | SlotState::Launched(_)
            | SlotState::Prepared(_)
            | SlotState::Stopped(_)
            | SlotState::Started(_)
            | SlotState::Configured { .. }
            | SlotState::Online { .. } => None,
        }
    }

    /// Every claimed job.
    pub fn claimed_jobs(&self) -> Vec<Claim> {
        match self.job() {
            Some(job) if self.claims.is_empty() => {
                vec![Claim { job, repository: None, ended: self.phase() == Phase::Done }]
            }
            Some(_) | None => self.claims.clone(),
        }
    }

    /// Whether a claimed job has not ended yet.
    pub fn has_open_claim(&self) -> bool {
        self.claimed_jobs().iter().any(|claim| !claim.ended)
    }

    /// The claimed jobs and one more, as far as there is room.
    pub fn claims_with(&self, new: Claim) -> Vec<Claim> {
        with_claim(self.claimed_jobs(), new)
    }

    pub fn phase(&self) -> Phase {
        self.state.phase()
    }

    /// Whether it counts towards the pool's `max`: it has a machine, or may receive one.
    pub fn is_live(&self) -> bool {
        self.gone_at.is_none()
    }

    /// Whether GitHub reported its runner as busy, recently enough to be trusted.
    pub fn is_observed_busy(&self, now: Timestamp) -> bool {
        self.busy_seen_at.is_some_and(|at| now.duration_since(at) < TRUST_BUSY_FOR)
    }

    /// Whether its runner has had a job.
    pub fn has_run_a_job(&self) -> bool {
        self.phase() >= Phase::Busy || self.busy_seen_at.is_some()
    }

    /// Whether its machine works: its runner has been online or busy.
    pub fn works(&self) -> bool {
        self.phase() >= Phase::Online || self.busy_seen_at.is_some()
    }

    /// Whether its runner has a job that belongs to no pool: a webhook about a job of a pool would have arrived by now.
    fn runs_foreign_job(&self, now: Timestamp) -> bool {
        self.is_observed_busy(now) && self.busy_since.is_none_or(|since| now.duration_since(since) >= WEBHOOK_GRACE)
    }

    /// Whether it can run a queued job, or runs one whose webhook has not arrived.
    pub fn is_supply(&self, now: Timestamp) -> bool {
        let is_usable = self.is_live() && !self.runs_foreign_job(now);
        let has_or_gets_runner = !self.held || self.runner().is_some();
        let is_open = self.stop.is_none() && self.phase() < Phase::Busy && !self.is_set_aside();
        (is_usable || self.awaits_report(now)) && has_or_gets_runner && is_open
    }

    /// Whether its machine is stopped, or is being stopped, until a job needs it. Such a slot counts towards `max`, and is not
    /// supply.
    pub fn is_set_aside(&self) -> bool {
        matches!(self.phase(), Phase::Prepared | Phase::Stopped)
    }

    /// Whether its machine can be started for a job: it is stopped, or EC2 takes too long to stop it. No invocation may be about
    /// to stop it: a late call would end a job.
    pub fn is_ready(&self, now: Timestamp) -> bool {
        let is_prepared_for_long =
            |machine: &Machine| machine.stopped_at.is_none_or(|decided| now.duration_since(decided) >= STOPS_WITHIN);
        let is_aside = match &self.state {
            SlotState::Stopped(_) => true,
            SlotState::Prepared(machine) => is_prepared_for_long(machine),
            SlotState::Planned
            | SlotState::Launched(_)
            | SlotState::Started(_)
            | SlotState::Configured { .. }
            | SlotState::Online { .. }
            | SlotState::Busy { .. }
            | SlotState::Done { .. } => false,
        };
        let no_call_is_under_way = self.lease.tries == 0 || self.lease.is_free(now);
        is_aside && self.stop.is_none() && self.is_live() && !self.held && no_call_is_under_way
    }

    /// Whether its machine ended without a stop less than [`WEBHOOK_GRACE`] ago. Most likely its runner has finished one of
    /// the waiting jobs, and the webhook has not arrived: a replacement launched now would find no job.
    pub fn awaits_report(&self, now: Timestamp) -> bool {
        self.awaits_report_until().is_some_and(|at| now < at)
    }

    /// When a machine that ended without a stop, and without a report about a job, counts as one that ran no job. None for
    /// every other slot.
    pub fn awaits_report_until(&self) -> Option<Timestamp> {
        let may_have_run = self.stop.is_none() && matches!(self.phase(), Phase::Configured | Phase::Online);
        self.gone_at.filter(|_| may_have_run).map(|at| at + WEBHOOK_GRACE)
    }

    /// The slot after GitHub reported its runner as busy.
    #[must_use]
    pub fn observed_busy(self, now: Timestamp) -> Self {
        let before = self.busy_since.filter(|_| self.is_observed_busy(now));
        Self { busy_seen_at: Some(now), busy_since: before.or(Some(now)), ..self }
    }

    /// The slot after its machine has ended.
    #[must_use]
    pub fn gone(self, now: Timestamp) -> Self {
        Self { gone_at: Some(now), lease: Lease::due(now), ..self }
    }

    /// When its runner came online. None once a job was reported for it.
    pub fn online_at(&self) -> Option<Timestamp> {
        match &self.state {
            SlotState::Online { online_at, .. } => Some(*online_at),
            SlotState::Planned
            | SlotState::Launched(_)
            | SlotState::Prepared(_)
            | SlotState::Stopped(_)
            | SlotState::Started(_)
            | SlotState::Configured { .. }
            | SlotState::Busy { .. }
            | SlotState::Done { .. } => None,
        }
    }

    /// When its present state began, but not before it was planned.
    pub fn idle_since(&self) -> Timestamp {
        let entered = match &self.state {
            SlotState::Planned | SlotState::Busy { .. } => self.planned_at,
            SlotState::Launched(machine) | SlotState::Prepared(machine) | SlotState::Started(machine) => {
                machine.runs_since()
            }
            SlotState::Stopped(machine) => machine.stopped_at.unwrap_or(machine.launched_at),
            SlotState::Configured { runner, .. } => runner.configured_at,
            SlotState::Online { online_at, .. } => *online_at,
            SlotState::Done { done_at, .. } => *done_at,
        };
        entered.max(self.planned_at)
    }

    /// Neither EC2 nor GitHub holds anything for the slot: it can be deleted.
    pub fn is_over(&self) -> bool {
        match &self.state {
            SlotState::Planned => self.stop.is_some() && self.gone_at.is_some(),
            SlotState::Launched(_) | SlotState::Prepared(_) | SlotState::Stopped(_) | SlotState::Started(_) => {
                self.gone_at.is_some() && (self.registration == 0 || self.unregistered_at.is_some())
            }
            SlotState::Busy { .. } => self.job_check_ended && self.gone_at.is_some() && self.unregistered_at.is_some(),
            // An earlier claim may have been forged: wait for the end of every other one, as of a busy slot's job.
            SlotState::Done { .. } => {
                let is_done = self.job_check_ended || !self.has_open_claim();
                is_done && self.gone_at.is_some() && self.unregistered_at.is_some()
            }
            SlotState::Configured { .. } | SlotState::Online { .. } => {
                self.gone_at.is_some() && self.unregistered_at.is_some()
            }
        }
    }

    /// How it ended; valid once [`Slot::is_over`].
    pub fn outcome(&self) -> SlotOutcome {
        match (&self.state, &self.stop) {
            (SlotState::Done { .. }, _) => SlotOutcome::JobDone,
            (_, Some(stop)) => SlotOutcome::Stopped(stop.why),
            (SlotState::Planned, None) => SlotOutcome::NeverLaunched,
            (_, None) => SlotOutcome::InstanceLost,
        }
    }
}

impl Slot {
    /// The slot with a decision to stop it. The newest reason replaces an older one. The invocation that decides performs the
    /// retirement, and holds it until `lease`.
    #[must_use]
    pub fn stopped(mut self, why: StopReason, now: Timestamp, lease: Timestamp) -> Self {
        let (at, forced) = self.stop.map_or((now, false), |before| (before.at, before.forced));
        self.stop = Some(Stop { why, at, forced });
        self.lease = Lease::due(lease);
        self
    }

    /// The slot with an operator's decision to end it even if its runner has a job.
    #[must_use]
    pub fn forced(self, now: Timestamp) -> Self {
        let mut slot = self.stopped(StopReason::Operator, now, now);
        slot.stop = slot.stop.map(|stop| Stop { forced: true, ..stop });
        slot
    }

    /// The slot of a warm or a stopped machine that a job needs now. Its registration begins if it has a machine, after the start
    /// of one that is stopped.
    #[must_use]
    pub fn wanted(self, now: Timestamp, lease: Timestamp) -> Self {
        let state = match self.state {
            SlotState::Prepared(machine) | SlotState::Stopped(machine) => {
                SlotState::Started(Machine { started_at: Some(now), ..machine })
            }
            state => state,
        };
        Self { state, wanted: true, wanted_at: Some(now), ..self }.begin_registration_if_wanted(lease)
    }

    /// The slot of a machine that has prepared itself, with the decision to stop the machine. None in another phase.
    pub fn set_aside(self, now: Timestamp, lease: Timestamp) -> Option<Self> {
        let SlotState::Launched(machine) = self.state else { return None };
        let state = SlotState::Prepared(Machine { stopped_at: Some(now), ..machine });
        // The attempt begins at once.
        Some(Self { state, lease: Lease::due(now).claimed(lease), ..self })
    }

    /// The slot after EC2 has accepted the call that stops its machine. No other call is under way until `again`, when EC2 is asked
    /// again unless it shows the machine as stopped.
    #[must_use]
    pub fn stop_accepted(self, again: Timestamp) -> Self {
        Self { lease: Lease::due(again), ..self }
    }

    /// The slot after EC2 has shown that its machine is stopped. None unless that was decided. An invocation that
    /// may still repeat the call keeps its lease, see [`Slot::stop_accepted`].
    pub fn ready(self) -> Option<Self> {
        let SlotState::Prepared(machine) = self.state else { return None };
        Some(Self { state: SlotState::Stopped(machine), ..self })
    }

    /// The slot with one more registration attempt, held until `lease`, if its machine waits for a JIT config.
    #[must_use]
    pub fn begin_registration_if_wanted(mut self, lease: Timestamp) -> Self {
        if matches!(self.state, SlotState::Launched(_) | SlotState::Started(_)) && self.wanted {
            self.registration += 1;
            self.lease.next_at = lease;
        }
        self
    }
}
