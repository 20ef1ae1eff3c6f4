//! The list of deliberate mistakes.

use clap::ValueEnum;

/// One deviation from the design. It does no harm as long as nothing else goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Mistake {
    /// Each call of RunInstances has a random client token, which is what the SDK does if none is given.
    NoClientToken,
    /// After an unanswered launch the same attempt goes to another zone, where EC2 does not know its token.
    ZoneChanged,
    /// A decision that lost the race is written over the new version.
    NoVersionCheck,
    /// Leases expire at once.
    NoLease,
    /// GitHub never says whether a job still waits.
    NoPolling,
    /// A machine is launched for one job and counts for no other.
    PerJobPairing,
    /// A machine is terminated without deregistering its runner.
    TerminateFirst,
    /// A repeated registration has the same name.
    FixedName,
    /// A `completed` of an unknown job leaves no trace.
    NoTombstone,
    /// The janitor cannot list EC2's instances.
    NoListing,
    /// Demand is kept in a counter.
    Counters,
    /// A machine that is not online at once has failed.
    ZeroGrace,
    /// A machine is terminated although GitHub says that its runner is busy.
    StaleBusy,
    /// Nothing bounds the number of machines launched for a job.
    NoRelaunchBound,
    /// A job that GitHub calls queued is demand, however old it is.
    NoAgeLimit,
    /// A message that could not be recorded is acknowledged.
    Acknowledged,
    /// The janitor does not store what failed in a sweep.
    SilentSweep,
    /// A machine is terminated because the end of its job was reported.
    TrustsJobEnd,
    /// A runner counts as deregistered because GitHub answered 404.
    TrustsNotFound,
    /// The tag that protects a machine is not read.
    IgnoresHold,
    /// The limit that is stored for an account is never read.
    LimitUnread,
    /// A question about a waiting job is asked without a claim.
    UnclaimedCheck,
    /// One unreadable item of a list hides the others.
    AllOrNothing,
    /// A refusal of a launch counts as a call without an answer.
    RefusalUnclear,
    /// Every machine that has ended counts as reclaimed by EC2.
    AllReclaimed,
    /// A process that has read the app's key never reads another one.
    StaleKey,
    /// A re-run that is due is not requested.
    NoRerun,
    /// Machines of slots that were not read do not count towards `max`.
    UncountedMachines,
    /// After EC2 has refused a type, a launch takes a small one, whatever the class.
    SmallFallback,
    /// Schedules are ignored.
    NoSchedule,
    /// A schedule is in effect all the time.
    EndlessSchedule,
    /// A boot report is never missing.
    NeverMissed,
    /// A function of an old version writes a table whose format is newer than its own.
    FormatUnchecked,
    /// One reading of the list of runners decides about a machine without a slot.
    OneReading,
    /// A pool that the file no longer has is dropped although scalers may still use the file of before.
    DroppedAtOnce,
    /// A pool that the file no longer has is dropped although EC2 or GitHub shows something of it.
    DroppedUnseen,
    /// No nudge is sent.
    NoDoorbell,
    /// Whoever answers a nudge deletes its record only after reading the pool.
    LateAnswer,
    /// A machine is stopped although the table does not say that it is set aside.
    StopUnclaimed,
}

impl Mistake {
    /// Whether it is one only in worlds with classes.
    pub fn concerns_classes(self) -> bool {
        self == Mistake::SmallFallback
    }

    /// Whether only the exploration of small worlds looks for it: in random worlds the janitor makes up for it within a minute, or
    /// it needs one order of calls in thousands.
    pub fn is_for_small_worlds(self) -> bool {
        matches!(self, Mistake::NoDoorbell | Mistake::LateAnswer | Mistake::StopUnclaimed)
    }

    /// Its name on the command line and in reports.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no mistake is hidden from the command line");
        value.get_name().to_owned()
    }
}
