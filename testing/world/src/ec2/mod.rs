//! A model of EC2: launches, tags, descriptions, stops, starts and terminations, with EC2's idempotency, eventual consistency
//! and limits.
//!
//! It has what Drover depends on and emulators lack: zonal client tokens, filters on tags and client tokens, paging, throttle
//! buckets, machines that power themselves off, and the faults of [`Faults`].

mod describe;
mod error;
mod faults;
mod launch;
mod life;
mod market;
mod offering;
mod operation;
mod stop;
mod templates;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub use error::{Code, Failure};
pub use faults::{Capacity, Faults, LaunchMatch, Refusal, When};
pub use offering::{Offering, TYPES, TypeInfo, is_offered, spot_price};
pub use operation::Operation;
pub use types::*;

use crate::agenda::Agenda;
use crate::bucket::Bucket;
use crate::{LostReply, Model};

/// Durations and limits of EC2.
#[derive(Debug, Clone)]
pub struct Config {
    /// From the launch to `running`.
    pub pending: Duration,
    /// From `running` until the machine's programs start.
    pub boot: Duration,
    /// From `shutting-down` to `terminated`.
    pub shutting_down: Duration,
    /// From `stopping` to `stopped`.
    pub stopping: Duration,
    /// From the start of a stopped machine to `running`.
    pub start_pending: Duration,
    /// From that `running` until the machine's programs start.
    pub start_boot: Duration,
    /// From the interruption warning until EC2 reclaims the machine.
    pub spot_notice: Duration,
    /// How long a terminated instance is described.
    pub remembered: Duration,
    /// Whether the published request limits are enforced.
    pub throttle: bool,
    /// Id of the account.
    pub account: String,
    /// Name of the region.
    pub region: String,
    /// Its instance types.
    pub offering: Offering,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pending: Duration::from_secs(5),
            boot: Duration::from_secs(15),
            shutting_down: Duration::from_secs(20),
            stopping: Duration::from_secs(20),
            start_pending: Duration::from_secs(3),
            start_boot: Duration::from_secs(9),
            spot_notice: Duration::from_secs(120),
            remembered: Duration::from_secs(3600),
            throttle: true,
            account: "123456789012".to_owned(),
            region: "eu-central-1".to_owned(),
            offering: Offering::default(),
        }
    }
}

/// EC2's published buckets (size, refill per second), per account and region.
#[derive(Debug)]
struct Throttle {
    run_requests: Bucket,
    run_instances: Bucket,
    start_requests: Bucket,
    start_instances: Bucket,
    stop_instances: Bucket,
    terminate: Bucket,
    tags: Bucket,
    other_mutations: Bucket,
    describe: Bucket,
}

impl Throttle {
    fn published() -> Self {
        Self {
            run_requests: Bucket::new(5.0, 2.0),
            run_instances: Bucket::new(1000.0, 2.0),
            start_requests: Bucket::new(5.0, 2.0),
            start_instances: Bucket::new(1000.0, 2.0),
            stop_instances: Bucket::new(1000.0, 20.0),
            terminate: Bucket::new(100.0, 5.0),
            tags: Bucket::new(100.0, 10.0),
            other_mutations: Bucket::new(50.0, 5.0),
            describe: Bucket::new(100.0, 20.0),
        }
    }

    fn of(&mut self, operation: Operation) -> &mut Bucket {
        match operation {
            Operation::RunInstances => &mut self.run_requests,
            Operation::StartInstances => &mut self.start_requests,
            Operation::TerminateInstances => &mut self.terminate,
            Operation::CreateTags | Operation::DeleteTags => &mut self.tags,
            Operation::StopInstances | Operation::CreateLaunchTemplate => &mut self.other_mutations,
            Operation::DescribeInstances
            | Operation::DescribeLaunchTemplates
            | Operation::DescribeLaunchTemplateVersions
            | Operation::DescribeSubnets
            | Operation::DescribeImages
            | Operation::DescribeInstanceTypes
            | Operation::DescribeInstanceTypeOfferings
            | Operation::DescribeSpotPriceHistory
            | Operation::GetConsoleOutput => &mut self.describe,
        }
    }
}

/// What is due later.
#[derive(Debug)]
enum Due {
    Report(Happening),
    Running(Run),
    Booted(Run),
    SpotTake(InstanceId),
    NotStarted(InstanceId),
    LacksCapacity(InstanceId),
    StartFailed(Run),
    Stopped(InstanceId),
    Terminated(InstanceId),
}

/// A run of a machine: from its launch or a start until it ends or stops.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    instance: InstanceId,
    /// [`Instance::starts`] during the run.
    starts: u32,
}

/// The call that used a client token, and its reservation.
#[derive(Debug)]
struct TokenUse {
    request: RunInstances,
    reservation: ReservationId,
}

/// A region of EC2.
#[derive(Debug)]
pub struct Ec2 {
    config: Config,
    /// Injected faults.
    pub faults: Faults,
    rng: SmallRng,
    subnets: BTreeMap<SubnetId, Subnet>,
    templates: BTreeMap<TemplateId, LaunchTemplate>,
    images: BTreeMap<String, Image>,
    /// In the order of their launches, which is also the order of answers and pages.
    instances: Vec<Instance>,
    by_id: BTreeMap<InstanceId, usize>,
    /// By zone and token, because EC2's client tokens are zonal.
    tokens: BTreeMap<(String, String), TokenUse>,
    agenda: Agenda<Due>,
    throttle: Throttle,
    calls: BTreeMap<Operation, u64>,
    launches: u64,
    struck: BTreeMap<Code, u64>,
    start_refusals: BTreeMap<Code, u64>,
    ended: Vec<Ended>,
    entered: Vec<Entered>,
    /// How many of them [`Ec2::changes`] has returned.
    reported: usize,
}

impl Ec2 {
    /// An empty region. The seed determines all ids and random decisions.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            faults: Faults::default(),
            rng: SmallRng::seed_from_u64(seed),
            subnets: BTreeMap::new(),
            templates: BTreeMap::new(),
            images: BTreeMap::new(),
            instances: Vec::new(),
            by_id: BTreeMap::new(),
            tokens: BTreeMap::new(),
            agenda: Agenda::new(),
            throttle: Throttle::published(),
            calls: BTreeMap::new(),
            launches: 0,
            struck: BTreeMap::new(),
            start_refusals: BTreeMap::new(),
            ended: Vec::new(),
            entered: Vec::new(),
            reported: 0,
        }
    }

    /// The durations and limits.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The instance, if it was ever launched, even if DescribeInstances does not show it.
    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.by_id.get(id).map(|at| &self.instances[*at])
    }

    /// Every instance that was ever launched, in the order of the launches.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter()
    }

    /// The machines that exist now.
    pub fn alive(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|instance| instance.state.is_live())
    }

    /// The number of machines that were ever launched.
    pub fn launches(&self) -> u64 {
        self.launches
    }

    /// The number of launches refused by [`Faults::refusals`], by code.
    pub fn struck(&self) -> &BTreeMap<Code, u64> {
        &self.struck
    }

    /// The number of starts refused by [`Faults::start_refusals`] or [`Faults::capacity`], by code.
    pub fn start_refusals(&self) -> &BTreeMap<Code, u64> {
        &self.start_refusals
    }

    /// Every instance that ended.
    pub fn ended(&self) -> &[Ended] {
        &self.ended
    }

    /// Every state change of every instance, in order.
    pub fn entered(&self) -> &[Entered] {
        &self.entered
    }

    /// The state changes since the last call: what EC2 sends to EventBridge.
    pub fn changes(&mut self) -> Vec<Entered> {
        let new = self.entered[self.reported..].to_vec();
        self.reported = self.entered.len();
        new
    }

    /// Forgets instances that have ended and are described no more, with their tokens, and all state changes, so that a run
    /// of weeks does not grow. Returns the state changes.
    pub fn forget(&mut self, now: Timestamp) -> Vec<Entered> {
        let remembered = self.config.remembered;
        let is_over = |it: &Instance| it.state == State::Terminated && it.state_since + remembered <= now;
        if self.instances.iter().filter(|it| is_over(it)).count() * 2 > self.instances.len() {
            self.instances.retain(|it| !is_over(it));
            self.by_id = self.instances.iter().enumerate().map(|(at, it)| (it.id.clone(), at)).collect();
            let reservations: std::collections::BTreeSet<&ReservationId> =
                self.instances.iter().map(|it| &it.reservation).collect();
            self.tokens.retain(|_, used| reservations.contains(&used.reservation));
        }
        self.ended.clear();
        self.reported = 0;
        std::mem::take(&mut self.entered)
    }

    /// The number of calls of each operation, including refused calls.
    pub fn calls(&self) -> &BTreeMap<Operation, u64> {
        &self.calls
    }

    /// Counts the call and charges its bucket.
    fn admit(&mut self, operation: Operation, now: Timestamp) -> Result<(), Failure> {
        *self.calls.entry(operation).or_default() += 1;
        if self.config.throttle && !self.throttle.of(operation).take(1.0, now) {
            return Err(Failure::new(Code::RequestLimitExceeded, "Request limit exceeded."));
        }
        match self.faults.error(operation) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Counts and charges a call, and performs it unless a fault says that it does not arrive. The answer may be lost.
    fn call<T>(
        &mut self,
        operation: Operation,
        now: Timestamp,
        perform: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.admit(operation, now)?;
        match self.faults.lost_reply(operation) {
            None => perform(self),
            Some(LostReply::NotApplied) => Err(Failure::NoReply),
            Some(LostReply::Applied) => {
                let _ = perform(self);
                Err(Failure::NoReply)
            }
        }
    }

    /// A new id in EC2's form: the prefix and seventeen hexadecimal digits.
    fn fresh_id(&mut self, prefix: &str) -> String {
        let digits: u128 = self.rng.random();
        format!("{prefix}-0{:016x}", digits as u64)
    }
}

impl Model for Ec2 {
    type Happening = Happening;

    fn next_due(&self) -> Option<Timestamp> {
        self.agenda.next()
    }

    fn advance(&mut self, now: Timestamp) -> Vec<Happening> {
        let mut happenings = Vec::new();
        while let Some((at, due)) = self.agenda.pop(now) {
            happenings.extend(self.happen(due, at));
        }
        happenings
    }
}
