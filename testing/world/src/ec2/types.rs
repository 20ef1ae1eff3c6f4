//! What EC2 consists of.

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

/// A subnet lies in exactly one zone, which is why the subnet decides what a client token means.
#[derive(Debug, Clone)]
pub struct Subnet {
    /// Its id.
    pub id: SubnetId,
    /// Its availability zone.
    pub zone: String,
    /// Its tags.
    pub tags: Tags,
    /// How many machines find an address in it; None for as many as may come.
    pub addresses: Option<u32>,
}

/// A machine image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `ami-...`
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it says of itself.
    pub tags: Tags,
}

/// A named set of launch parameters.
#[derive(Debug, Clone)]
pub struct LaunchTemplate {
    /// Its id.
    pub id: TemplateId,
    /// Its name.
    pub name: String,
    /// The version meant by `$Default`.
    pub default_version: u64,
    /// Versions, the first of which is 1.
    pub versions: Vec<TemplateData>,
    /// Its tags.
    pub tags: Tags,
    /// When it was made.
    pub created_at: Timestamp,
}

/// One version of a launch template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateData {
    /// The machine image.
    pub image: String,
    /// The type used when the call names none.
    pub instance_type: String,
    /// What powering off from the inside does.
    pub on_power_off: OnPowerOff,
}

/// `InstanceInitiatedShutdownBehavior`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPowerOff {
    /// The machine is gone: how a runner machine ends itself without any permission.
    Terminate,
    /// EC2's default: the machine stops and its disk goes on costing.
    Stop,
}

/// How an instance is paid for, and whether EC2 may take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Market {
    /// Ours until we end it.
    OnDemand,
    /// EC2 takes it back with two minutes' notice.
    Spot,
}

/// The states of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Being made.
    Pending,
    /// Powered on.
    Running,
    /// Being ended.
    ShuttingDown,
    /// Gone; still described for an hour.
    Terminated,
    /// Being powered off.
    Stopping,
    /// Powered off, could be started again.
    Stopped,
}

impl State {
    /// The state in EC2's words.
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

    /// The state in EC2's numbers.
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

    /// Whether the machine exists: everything before shutting down.
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

/// A machine.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// The call that made it.
    pub reservation: ReservationId,
    /// Where it is.
    pub subnet: SubnetId,
    /// The subnet's zone.
    pub zone: String,
    /// Its type.
    pub instance_type: String,
    /// Its image.
    pub image: String,
    /// The launch template it was made from.
    pub template: TemplateId,
    /// That template's version, resolved.
    pub template_version: u64,
    /// How it is paid for.
    pub market: Market,
    /// Its tags.
    pub tags: Tags,
    /// Its root volume.
    pub volume: VolumeId,
    /// The tags of that volume.
    pub volume_tags: Tags,
    /// The token of the call that made it.
    pub client_token: Option<String>,
    /// Its number among the instances of its call.
    pub launch_index: usize,
    /// Its address.
    pub private_ip: String,
    /// When it was made.
    pub launched_at: Timestamp,
    /// Its state.
    pub state: State,
    /// When it reached that state.
    pub state_since: Timestamp,
    /// What powering off does.
    pub on_power_off: OnPowerOff,
    /// What it wrote to its console.
    pub console: String,
    /// When EC2 will take it back, once it said so.
    pub taken_at: Option<Timestamp>,
    /// Why it ended, once it has begun to.
    pub end: Option<EndCause>,
    /// From when on EC2 describes it.
    pub visible_at: Timestamp,
    pub(super) comes_up: bool,
}

/// Who ended an instance. The difference between a machine that did its work and one that was taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndCause {
    /// Somebody called TerminateInstances.
    TerminateCall,
    /// The machine powered itself off.
    PowerOff,
    /// EC2 took it: spot, or a broken host.
    Ec2,
}

/// RunInstances, as far as Drover uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInstances {
    /// Which launch template.
    pub template: TemplateRef,
    /// Which version: a number, `$Default` (also when absent) or `$Latest`.
    pub template_version: Option<String>,
    /// Launch this many or none.
    pub min_count: u32,
    /// Launch up to this many.
    pub max_count: u32,
    /// Where.
    pub subnet: SubnetId,
    /// Overrides the template's type.
    pub instance_type: Option<String>,
    /// How to pay.
    pub market: Market,
    /// Makes the call repeatable, within the zone of the subnet.
    pub client_token: Option<String>,
    /// Tags for each instance.
    pub tags: Tags,
    /// Tags for each volume.
    pub volume_tags: Tags,
}

/// A launch template is named by id or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateRef {
    /// `lt-...`
    Id(TemplateId),
    /// Its name.
    Name(String),
}

/// The instances of one RunInstances call.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// Its id.
    pub id: ReservationId,
    /// Its instances: all in the answer to RunInstances, the matching ones in DescribeInstances.
    pub instances: Vec<Instance>,
}

/// One instance in the answer to TerminateInstances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// Which instance.
    pub id: InstanceId,
    /// Its state before the call.
    pub previous: State,
    /// Its state now.
    pub current: State,
}

/// A page of an answer.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Asks for the next one, if there is one.
    pub next_token: Option<String>,
}

/// A filter of a Describe call: the values are alternatives, `*` and `?` are wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What is looked at.
    pub name: String,
    /// What it may be.
    pub values: Vec<String>,
}

/// What EC2 tells its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The machine is up: its programs start now.
    Booted {
        /// Which one.
        instance: InstanceId,
    },
    /// EC2 announces that it will take the machine in two minutes (instance metadata and EventBridge show it).
    SpotNotice {
        /// Which one.
        instance: InstanceId,
        /// When it will be taken.
        at: Timestamp,
    },
    /// The machine has no power any more: its programs end now.
    PowerLost {
        /// Which one.
        instance: InstanceId,
    },
    /// The instance is gone.
    Terminated {
        /// Which one.
        instance: InstanceId,
        /// By whom.
        why: EndCause,
    },
}

/// An instance entered a state: what EC2 tells EventBridge, whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// Which one.
    pub instance: InstanceId,
    /// Which state.
    pub state: State,
    /// When.
    pub at: Timestamp,
}

/// An instance that ended, for the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which one.
    pub instance: InstanceId,
    /// By whom.
    pub why: EndCause,
    /// When its end began.
    pub at: Timestamp,
}
