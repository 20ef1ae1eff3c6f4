//! The resources of EC2, and the parameters of its calls.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use crate::model_id;

model_id! {
    /// `i-...`
    InstanceId
}
model_id! {
    /// `vol-...`
    VolumeId
}
model_id! {
    /// `subnet-...`
    SubnetId
}
model_id! {
    /// `lt-...`
    TemplateId
}
model_id! {
    /// `r-...`: the instances of one RunInstances call.
    ReservationId
}

/// Tags of one resource.
pub type Tags = BTreeMap<String, String>;

/// A subnet. It is in exactly one zone, and so decides in which zone a client token counts.
#[derive(Debug, Clone)]
pub struct Subnet {
    pub id: SubnetId,
    pub zone: String,
    pub tags: Tags,
    /// Number of addresses, or `None` if they are unlimited.
    pub addresses: Option<u32>,
}

/// A machine image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `ami-...`
    pub id: String,
    pub created_at: Timestamp,
    /// `x86_64` or `arm64`.
    pub architecture: &'static str,
    pub tags: Tags,
}

/// A named set of launch parameters.
#[derive(Debug, Clone)]
pub struct LaunchTemplate {
    pub id: TemplateId,
    pub name: String,
    /// The version that `$Default` refers to.
    pub default_version: u64,
    /// The versions, starting with 1.
    pub versions: Vec<TemplateData>,
    pub tags: Tags,
    pub created_at: Timestamp,
}

/// One version of a launch template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateData {
    pub image: String,
    /// The type if the call names none.
    pub instance_type: String,
    pub on_power_off: OnPowerOff,
}

/// `InstanceInitiatedShutdownBehavior`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPowerOff {
    /// The machine terminates. Runner machines use this to terminate without a permission.
    Terminate,
    /// EC2's default: the machine stops, and its disk still costs money.
    Stop,
}

/// How an instance is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Market {
    /// EC2 does not reclaim it.
    OnDemand,
    /// EC2 may reclaim it after a warning of two minutes.
    Spot,
}

/// The state of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Pending,
    Running,
    ShuttingDown,
    /// Described for another hour.
    Terminated,
    Stopping,
    Stopped,
}

impl State {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Running => "running",
            State::ShuttingDown => "shutting-down",
            State::Terminated => "terminated",
            State::Stopping => "stopping",
            State::Stopped => "stopped",
        }
    }

    /// Its number in the API.
    pub fn code(self) -> u8 {
        match self {
            State::Pending => 0,
            State::Running => 16,
            State::ShuttingDown => 32,
            State::Terminated => 48,
            State::Stopping => 64,
            State::Stopped => 80,
        }
    }

    /// Whether the machine exists, that is, has not begun to terminate.
    pub fn is_live(self) -> bool {
        match self {
            State::Pending | State::Running | State::Stopping | State::Stopped => true,
            State::ShuttingDown | State::Terminated => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An instance.
#[derive(Debug, Clone)]
pub struct Instance {
    pub id: InstanceId,
    /// The call that launched it.
    pub reservation: ReservationId,
    pub subnet: SubnetId,
    pub zone: String,
    pub instance_type: String,
    pub image: String,
    pub template: TemplateId,
    /// The number of the template's version.
    pub template_version: u64,
    pub market: Market,
    pub tags: Tags,
    /// The root volume.
    pub volume: VolumeId,
    pub volume_tags: Tags,
    pub client_token: Option<String>,
    /// Its index among the instances of its call.
    pub launch_index: usize,
    pub private_ip: String,
    /// EC2's `LaunchTime`: when it was launched, or last started. Whole seconds.
    pub launched_at: Timestamp,
    /// When it was launched, however often it was started since.
    pub created_at: Timestamp,
    /// How often it was started after it had stopped.
    pub starts: u32,
    pub state: State,
    /// When it entered the state.
    pub state_since: Timestamp,
    pub on_power_off: OnPowerOff,
    pub console: String,
    /// When EC2 reclaims it, after the interruption warning.
    pub reclaimed_at: Option<Timestamp>,
    /// Why it ended, if it has begun to end.
    pub end: Option<EndCause>,
    /// The same as DescribeInstances shows it.
    pub state_reason: Option<StateReason>,
    /// From when EC2 describes it.
    pub visible_at: Timestamp,
    /// Whether its programs start once it runs.
    pub can_boot: bool,
}

impl Instance {
    /// Whether it ended because EC2 reclaimed it.
    pub fn is_reclaimed(&self) -> bool {
        self.has_ended_for("Server.SpotInstanceTermination")
    }

    /// Whether EC2 accepted its launch and then had no capacity.
    pub fn lacked_capacity(&self) -> bool {
        self.has_ended_for("Server.InsufficientInstanceCapacity")
    }

    fn has_ended_for(&self, code: &str) -> bool {
        self.state_reason.as_ref().is_some_and(|reason| reason.code == code)
    }
}

/// `StateReason` of DescribeInstances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateReason {
    pub code: String,
    pub message: String,
}

impl StateReason {
    pub(super) fn new(code: &str, message: &str) -> Self {
        Self { code: code.to_owned(), message: format!("{code}: {message}") }
    }
}

/// Why an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndCause {
    /// Somebody called TerminateInstances.
    TerminateCall,
    /// The machine powered itself off.
    PowerOff,
    /// EC2 reclaimed it, its host failed, or EC2 could not start it.
    Ec2,
}

/// The parameters of RunInstances that the model has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInstances {
    pub template: TemplateRef,
    /// A number, `$Default` or `$Latest`; `$Default` if absent.
    pub template_version: Option<String>,
    /// If fewer instances are possible, the call fails.
    pub min_count: u32,
    /// The maximum number of instances.
    pub max_count: u32,
    pub subnet: SubnetId,
    /// Overrides the type of the template.
    pub instance_type: Option<String>,
    pub market: Market,
    /// Makes the call idempotent within the subnet's zone.
    pub client_token: Option<String>,
    /// Tags of each instance.
    pub tags: Tags,
    /// Tags of each volume.
    pub volume_tags: Tags,
}

/// A reference to a launch template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateRef {
    /// `lt-...`
    Id(TemplateId),
    Name(String),
}

/// The instances of one RunInstances call.
#[derive(Debug, Clone)]
pub struct Reservation {
    pub id: ReservationId,
    /// In the answer to RunInstances all instances, in that to DescribeInstances those that match.
    pub instances: Vec<Instance>,
}

/// One instance in the answer to StopInstances, StartInstances or TerminateInstances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    pub id: InstanceId,
    /// The state before the call.
    pub previous: State,
    /// The state after the call.
    pub current: State,
}

/// A page of an answer.
#[derive(Debug, Clone)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Requests the next page, if there is one.
    pub next_token: Option<String>,
}

/// A filter of a Describe call: the values are alternatives, `*` and `?` are wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// For example `tag:drover:stack`.
    pub name: String,
    pub values: Vec<String>,
}

/// Something that happened and that the driver has to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The machine has booted after its launch or a start. Its programs start now.
    Booted { instance: InstanceId },
    /// EC2 will reclaim the machine. Instance metadata and EventBridge show the warning.
    SpotNotice {
        instance: InstanceId,
        /// When EC2 reclaims it.
        at: Timestamp,
    },
    /// The operating system shuts down because of StopInstances, and asks the machine's programs to end.
    /// [`Happening::PowerLost`] follows. A power-off by such a program changes nothing.
    ShutDown { instance: InstanceId },
    /// The machine has no power. Its programs end now.
    PowerLost { instance: InstanceId },
    /// The instance has stopped. StartInstances starts it again.
    Stopped { instance: InstanceId },
    /// The instance has terminated.
    Terminated { instance: InstanceId, why: EndCause },
}

/// A state change, which EC2 also sends to EventBridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    pub instance: InstanceId,
    pub state: State,
    pub at: Timestamp,
}

/// An instance that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub instance: InstanceId,
    pub why: EndCause,
    /// When it began to end.
    pub at: Timestamp,
}
