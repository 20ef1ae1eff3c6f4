//! The kinds of faults and how often they strike.
//!
//! The table has a version and is printed with every run, because a change of it changes what "no violation" means.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::mistakes::Mistake;

/// Increased with every change of the table below or of what a fault does.
pub const VERSION: u32 = 13;

macro_rules! faults {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $most:literal;)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault { $($(#[$doc])* $kind,)* }

        impl Fault {
            /// Every kind, in the order of the enum.
            pub const ALL: &'static [Fault] = &[$(Fault::$kind),*];

            /// The name in reports and on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$kind => $name,)* }
            }

            /// The greatest chance that it strikes on one occasion.
            pub fn greatest_chance(self) -> f64 {
                match self { $(Fault::$kind => $most,)* }
            }
        }
    };
}

faults! {
    /// A webhook is up to ten minutes late, and overtaken by others.
    WebhookLate = "webhook-late", 0.30;
    /// A webhook is sent twice.
    WebhookTwice = "webhook-twice", 0.30;
    /// Ingest does not answer: GitHub marks the delivery as failed and does not repeat it.
    WebhookFailed = "webhook-failed", 0.15;
    /// GitHub never attempts the delivery.
    WebhookNeverSent = "webhook-never-sent", 0.10;
    /// GitHub's clock is wrong by up to two minutes.
    GithubClock = "github-clock", 1.0;
    /// GitHub answers 5xx and does nothing.
    GithubBroken = "github-5xx", 0.15;
    /// GitHub does what it was asked, and the answer is lost.
    GithubLostAfter = "github-reply-lost", 0.10;
    /// The request never reaches GitHub.
    GithubLostBefore = "github-request-lost", 0.10;
    /// A rate limit of one to four minutes.
    GithubLimit = "github-limit", 0.05;
    /// GitHub says that a runner of that name exists.
    NameTaken = "github-name-taken", 0.10;
    /// GitHub's lists show busy runners as idle for up to two minutes.
    StaleList = "github-stale-list", 1.0;
    /// A runner is on no page of a long list, because others were removed between the readings of two pages.
    ListShifts = "github-list-shifts", 0.30;
    /// GitHub removes idle runners after two to six minutes.
    IdleRemoved = "github-idle-removed", 1.0;
    /// A runner does not pick up its job: the job is queued again after a minute.
    NotPickedUp = "job-not-picked-up", 0.15;
    /// A job waits for an approval first.
    Gated = "job-gated", 0.15;
    /// A finished job is run again.
    Rerun = "job-rerun", 0.10;
    /// A job is cancelled.
    Cancelled = "job-cancelled", 0.15;
    /// A job that no pool may serve, with labels of Drover's runners.
    ForeignJob = "job-foreign", 0.10;
    /// A runner that is not Drover's, with the same labels, takes jobs of one repository.
    ForeignRunner = "runner-foreign", 1.0;
    /// An account uninstalls the app, and installs it again a few minutes later.
    Uninstalled = "app-uninstalled", 0.08;
    /// An operator replaces the app's private key: stores the new one and deletes the old one, in either order.
    RotatedKeys = "rotated-keys", 0.10;
    /// Secrets Manager does not answer.
    SecretUnreadable = "secret-unreadable", 0.20;
    /// EC2 has no capacity for a launch.
    Capacity = "ec2-capacity", 0.40;
    /// The account's quota is used up.
    Quota = "ec2-quota", 0.10;
    /// EC2 throttles a launch.
    Throttled = "ec2-throttled", 0.30;
    /// EC2 refuses a launch because of its configuration or permissions.
    Misconfigured = "ec2-configuration", 0.60;
    /// EC2 answers a launch with an error that Drover does not know.
    Ec2Broken = "ec2-internal-error", 0.15;
    /// EC2 launches, and the answer is lost.
    LaunchLostAfter = "ec2-launch-reply-lost", 0.20;
    /// The launch never reaches EC2.
    LaunchLostBefore = "ec2-launch-request-lost", 0.20;
    /// A launch reaches EC2 after its invocation has ended.
    LaunchLate = "ec2-launch-late", 0.80;
    /// EC2 launches fewer machines than requested.
    Partial = "ec2-partial-launch", 0.40;
    /// EC2 does not list new machines for up to two minutes.
    Invisible = "ec2-invisible", 1.0;
    /// EC2 does not answer a question.
    DescribeFails = "ec2-describe-fails", 0.15;
    /// EC2 terminates the machine, and the answer is lost.
    TerminateLostAfter = "ec2-terminate-reply-lost", 0.20;
    /// EC2 does not terminate the machine.
    TerminateFails = "ec2-terminate-fails", 0.20;
    /// A machine runs, but its programs never start.
    BootFailure = "machine-boot-failure", 0.15;
    /// A machine does not power off when its work is done.
    HungPowerOff = "machine-hangs", 0.20;
    /// A machine stops instead of terminating.
    Stops = "machine-stops", 0.10;
    /// The agent takes its JIT config and loses it.
    LostBootRead = "agent-lost-read", 0.10;
    /// A runner process ends without a job, and its machine powers off.
    RunnerExits = "runner-exits", 0.10;
    /// A runner process ends without a job, and its machine keeps running.
    RunnerVanishes = "runner-vanishes", 0.05;
    /// EC2 reclaims a spot machine, with notice.
    SpotTaken = "spot-taken", 0.80;
    /// A host fails: its machine ends without notice.
    HostFails = "host-fails", 0.30;
    /// EC2's own events are lost.
    EventLost = "ec2-event-lost", 0.50;
    /// Somebody else launches a machine with Drover's tag key.
    ForeignMachine = "machine-foreign", 0.10;
    /// Lists of GitHub and items of the table have an unknown form, one of them for ever.
    Malformed = "malformed-items", 0.50;
    /// A message is received twice.
    MessageTwice = "sqs-twice", 0.25;
    /// A message is up to five minutes late.
    MessageLate = "sqs-late", 0.25;
    /// The queue does not accept a message.
    NudgeFails = "sqs-send-fails", 0.30;
    /// A function ends at a call.
    Crash = "lambda-crash", 0.02;
    /// Calls are slow: functions run into their time limit.
    Slow = "lambda-slow", 0.10;
    /// The janitor is not started.
    JanitorMissed = "janitor-missed", 0.40;
    /// The janitor is started twice.
    JanitorTwice = "janitor-twice", 0.30;
    /// Two transactions conflict.
    TableConflict = "table-conflict", 0.06;
    /// The table throttles a call.
    TableThrottled = "table-throttled", 0.06;
    /// The table writes, and the answer is lost.
    TableLostAfter = "table-reply-lost", 0.06;
    /// The main table is lost; an operator creates a new one and applies the pools.
    TableLost = "table-lost", 0.12;
    /// EC2 refuses a launch with a code that Drover does not list.
    UnknownCode = "ec2-unknown-code", 0.40;
    /// EC2 does not accept the credentials of the call.
    Credentials = "ec2-credentials", 0.15;
    /// EC2 says that the client token of a launch was used before.
    TokenUsed = "ec2-token-used", 0.10;
    /// EC2 accepts a launch and ends the machine before it runs, half of the time for lack of capacity.
    EndsAtOnce = "ec2-ends-machine", 0.40;
    /// GitHub refuses a runner as it connects, and its machine powers off.
    RunnerRefused = "runner-refused", 0.40;
    /// A job that GitHub calls queued for ever, hours to months old.
    Immortal = "job-immortal", 0.05;
    /// The admin of another repository runs a job on a runner with the name and id of one of Drover's.
    ForgedRunner = "runner-forged", 0.30;
    /// An operator protects a machine by its tag, for some minutes.
    Held = "machine-held", 0.20;
    /// A repository is removed from the app's installation, for some minutes.
    RepositoryRemoved = "app-repository-removed", 0.10;
    /// An operator drains a pool, and undoes it some minutes later.
    Drained = "pool-drained", 0.05;
    /// An operator changes the market or the subnets of a pool, or the order of its instance types.
    PoolEdited = "pool-edited", 0.05;
    /// An operator removes a pool from the pool file. The file is applied again, later perhaps with the pool.
    PoolRemoved = "pool-removed", 0.05;
    /// The report of a machine that has booted is lost.
    ReportLost = "report-lost", 0.15;
    /// The report of a machine that has booted has an unknown form.
    ReportMalformed = "report-malformed", 0.20;
    /// The clock of a machine is wrong by minutes or hours.
    ReportClock = "report-clock", 0.20;
    /// A job with root rewrites the report of its machine, and tries that of another one.
    ReportForged = "report-forged", 0.30;
    /// A machine cannot prepare itself for being stopped.
    PreparationFails = "preparation-fails", 0.30;
    /// EC2 refuses to stop a machine, or stops it and the answer is lost.
    StopFails = "ec2-stop-fails", 0.40;
    /// EC2 refuses to start a machine, or starts it and the answer is lost.
    StartFails = "ec2-start-fails", 0.40;
    /// EC2 accepts the start of a machine and cannot run it.
    StartedInVain = "ec2-started-in-vain", 0.30;
    /// GitHub accepts connections and answers no call for one to four minutes.
    GithubHangs = "github-hangs", 1.0;
    /// The clocks of functions are wrong by up to two minutes, each by another time.
    FunctionClock = "function-clock", 1.0;
    /// Functions, or some environments of one, are of an old version for one to five minutes.
    OldVersion = "function-old-version", 0.10;
}

/// Kinds of faults without which a mistake shows in no world, if they are rare.
fn needed_by(mistake: Mistake) -> &'static [Fault] {
    match mistake {
        Mistake::OneReading => &[Fault::ListShifts, Fault::TableLost],
        Mistake::DroppedAtOnce => &[Fault::PoolRemoved],
        _ => &[],
    }
}

/// The random numbers of one seed. Each kind of fault has its own intensity and its own stream, so that turning one kind
/// off does not change the others.
#[derive(Debug)]
pub(crate) struct Dice {
    kinds: Vec<(f64, SmallRng)>,
    /// How often each kind struck.
    pub(crate) struck: Vec<u64>,
    /// Whether a storm is under way.
    pub(crate) on: bool,
}

impl Dice {
    /// Turns each kind on with probability one half, with an intensity between a twentieth and all of its greatest chance. Those
    /// that the mistake needs are on with that chance.
    pub(crate) fn new(seed: u64, without: &[Fault], mistake: Option<Mistake>) -> Self {
        let always = mistake.map_or(&[][..], needed_by);
        let kinds = Fault::ALL
            .iter()
            .map(|fault| {
                let mut rng = SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ *fault as u64);
                let on = rng.random::<bool>();
                let part = rng.random_range(0.05..=1.0);
                let (on, part) = if always.contains(fault) { (true, 1.0) } else { (on, part) };
                (if on && !without.contains(fault) { fault.greatest_chance() * part } else { 0.0 }, rng)
            })
            .collect();
        Self { kinds, struck: vec![0; Fault::ALL.len()], on: false }
    }

    /// The chance that it strikes; 0 for a kind that is off.
    pub(crate) fn intensity(&self, fault: Fault) -> f64 {
        self.kinds[fault as usize].0
    }

    /// Whether it strikes now. It does not outside storms.
    pub(crate) fn strikes(&mut self, fault: Fault) -> bool {
        let chance = self.kinds[fault as usize].0;
        self.on && self.strikes_with(fault, chance)
    }

    /// Whether it strikes now, in a storm or not, with `times` its chance and at most three quarters.
    pub(crate) fn strikes_anytime(&mut self, fault: Fault, times: f64) -> bool {
        let chance = self.kinds[fault as usize].0 * times;
        self.strikes_with(fault, chance.min(0.75))
    }

    fn strikes_with(&mut self, fault: Fault, chance: f64) -> bool {
        if chance == 0.0 {
            return false;
        }
        let strikes = self.kinds[fault as usize].1.random::<f64>() < chance;
        self.struck[fault as usize] += u64::from(strikes);
        strikes
    }

    /// Whether it is on for as long as this storm lasts.
    pub(crate) fn lasts(&mut self, fault: Fault) -> bool {
        let on = self.on && self.intensity(fault) > 0.0;
        self.struck[fault as usize] += u64::from(on);
        on
    }

    /// A number from the kind's own stream.
    pub(crate) fn pick(&mut self, fault: Fault, below: usize) -> usize {
        self.kinds[fault as usize].1.random_range(0..below.max(1))
    }
}
