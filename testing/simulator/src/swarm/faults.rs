//! What may go wrong, and how badly.
//!
//! The table is versioned and printed with every run: a quiet change of it would change what "no violation" means.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Raised with every change of the table below or of what a fault does.
pub const VERSION: u32 = 3;

macro_rules! faults {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $most:literal;)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault { $($(#[$doc])* $kind,)* }

        impl Fault {
            /// Every kind.
            pub const ALL: &'static [Fault] = &[$(Fault::$kind),*];

            /// Its name in reports and on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$kind => $name,)* }
            }

            /// The greatest chance that it strikes at one occasion.
            pub fn most(self) -> f64 {
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
    /// Ingest is away: the delivery is marked as failed, and GitHub does not repeat it by itself.
    WebhookFailed = "webhook-failed", 0.15;
    /// GitHub never attempts the delivery.
    WebhookNeverSent = "webhook-never-sent", 0.10;
    /// GitHub's clock is up to two minutes off.
    GithubClock = "github-clock", 1.0;
    /// GitHub answers 5xx, and did nothing.
    GithubBroken = "github-5xx", 0.15;
    /// GitHub did it, and the answer is lost.
    GithubLostAfter = "github-reply-lost", 0.10;
    /// The request never reached GitHub.
    GithubLostBefore = "github-request-lost", 0.10;
    /// A rate limit of one to four minutes.
    GithubLimit = "github-limit", 0.05;
    /// A runner of that name exists already.
    NameTaken = "github-name-taken", 0.10;
    /// Lists call busy runners idle, for up to two minutes.
    StaleList = "github-stale-list", 1.0;
    /// GitHub removes idle runners after two to six minutes.
    IdleRemoved = "github-idle-removed", 1.0;
    /// A runner does not pick its job up: it is queued again after a minute.
    NotPickedUp = "job-not-picked-up", 0.15;
    /// A job waits for approval first.
    Gated = "job-gated", 0.15;
    /// A finished job is run again.
    Rerun = "job-rerun", 0.10;
    /// A job is cancelled.
    Cancelled = "job-cancelled", 0.15;
    /// A job that no pool may serve, but whose labels our runners have.
    ForeignJob = "job-foreign", 0.10;
    /// Somebody else's runner with our labels takes jobs of one repository.
    ForeignRunner = "runner-foreign", 1.0;
    /// An account uninstalls the app, and installs it again a few minutes later.
    Uninstalled = "app-uninstalled", 0.08;
    /// EC2 has no machines of a kind.
    Capacity = "ec2-capacity", 0.40;
    /// The account's quota is used up.
    Quota = "ec2-quota", 0.10;
    /// EC2 throttles a launch.
    Throttled = "ec2-throttled", 0.30;
    /// EC2 refuses a launch as wrongly configured.
    Misconfigured = "ec2-configuration", 0.60;
    /// EC2 answers a launch with an error that nobody knows.
    Ec2Broken = "ec2-internal-error", 0.15;
    /// EC2 launched, and the answer is lost.
    LaunchLostAfter = "ec2-launch-reply-lost", 0.20;
    /// The launch never reached EC2.
    LaunchLostBefore = "ec2-launch-request-lost", 0.20;
    /// The call of an invocation that is no more still reaches EC2.
    LaunchLate = "ec2-launch-late", 0.80;
    /// EC2 launches fewer machines than asked for.
    Partial = "ec2-partial-launch", 0.40;
    /// New machines are in no list, for up to two minutes.
    Invisible = "ec2-invisible", 1.0;
    /// EC2 cannot be asked.
    DescribeFails = "ec2-describe-fails", 0.15;
    /// EC2 ended the machine, and the answer is lost.
    TerminateLostAfter = "ec2-terminate-reply-lost", 0.20;
    /// EC2 does not end the machine.
    TerminateFails = "ec2-terminate-fails", 0.20;
    /// A machine runs, but its programs never start.
    BootFailure = "machine-boot-failure", 0.15;
    /// A machine does not power off when its work is done.
    HungPowerOff = "machine-hangs", 0.20;
    /// A machine stops instead of ending.
    Stops = "machine-stops", 0.10;
    /// The agent takes its JIT config, and loses it.
    LostBootRead = "agent-lost-read", 0.10;
    /// A runner process ends without a job, and its machine powers off.
    RunnerExits = "runner-exits", 0.10;
    /// A runner process ends without a job, and its machine stays.
    RunnerVanishes = "runner-vanishes", 0.05;
    /// EC2 takes a spot machine, with notice.
    SpotTaken = "spot-taken", 0.80;
    /// A host breaks: its machine ends without notice.
    HostFails = "host-fails", 0.30;
    /// EC2's own events are lost.
    EventLost = "ec2-event-lost", 0.50;
    /// Somebody else's machine with our tag's key.
    ForeignMachine = "machine-foreign", 0.10;
    /// A message is received twice.
    MessageTwice = "sqs-twice", 0.25;
    /// A message is up to five minutes late.
    MessageLate = "sqs-late", 0.25;
    /// The queue does not take a message of ours.
    NudgeFails = "sqs-send-fails", 0.30;
    /// A function ends at a call.
    Crash = "lambda-crash", 0.02;
    /// Calls are slow: functions run into their time limit.
    Slow = "lambda-slow", 0.10;
    /// The janitor is not started.
    JanitorMissed = "janitor-missed", 0.40;
    /// The janitor is started twice.
    JanitorTwice = "janitor-twice", 0.30;
    /// Two transactions meet.
    TableConflict = "table-conflict", 0.06;
    /// The table throttles a call.
    TableThrottled = "table-throttled", 0.06;
    /// The table wrote, and the answer is lost.
    TableLostAfter = "table-reply-lost", 0.06;
    /// The main table is lost; an operator makes it anew and applies the pools.
    TableLost = "table-lost", 0.12;
}

/// The dice of one seed: each kind has an intensity and a stream of its own, so that switching one off leaves the others
/// as they were.
#[derive(Debug)]
pub(crate) struct Dice {
    kinds: Vec<(f64, SmallRng)>,
    /// How often each struck.
    pub(crate) struck: Vec<u64>,
    /// Whether this is a time of faults.
    pub(crate) on: bool,
}

impl Dice {
    /// Each kind is on with probability one half, with an intensity between a twentieth and all of its greatest.
    pub(crate) fn new(seed: u64, without: &[Fault]) -> Self {
        let kinds = Fault::ALL
            .iter()
            .map(|fault| {
                let mut rng = SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ *fault as u64);
                let on = rng.random::<bool>();
                let intensity = fault.most() * rng.random_range(0.05..=1.0);
                (if on && !without.contains(fault) { intensity } else { 0.0 }, rng)
            })
            .collect();
        Self { kinds, struck: vec![0; Fault::ALL.len()], on: false }
    }

    /// How likely it is to strike; 0 for a kind that is off.
    pub(crate) fn intensity(&self, fault: Fault) -> f64 {
        self.kinds[fault as usize].0
    }

    /// Whether it strikes now.
    pub(crate) fn strikes(&mut self, fault: Fault) -> bool {
        let likely = self.kinds[fault as usize].0;
        self.on && self.strikes_with(fault, likely)
    }

    /// The same, storm or not, at an occasion that is so many times as likely, but leaves at least a quarter of them alone.
    pub(crate) fn strikes_anytime(&mut self, fault: Fault, times: f64) -> bool {
        let likely = self.kinds[fault as usize].0 * times;
        self.strikes_with(fault, likely.min(0.75))
    }

    fn strikes_with(&mut self, fault: Fault, likely: f64) -> bool {
        if likely == 0.0 {
            return false;
        }
        let strikes = self.kinds[fault as usize].1.random::<f64>() < likely;
        self.struck[fault as usize] += u64::from(strikes);
        strikes
    }

    /// It struck for as long as this phase lasts.
    pub(crate) fn lasts(&mut self, fault: Fault) -> bool {
        let on = self.on && self.intensity(fault) > 0.0;
        self.struck[fault as usize] += u64::from(on);
        on
    }

    /// A number of that kind's own stream.
    pub(crate) fn pick(&mut self, fault: Fault, below: usize) -> usize {
        self.kinds[fault as usize].1.random_range(0..below.max(1))
    }
}
