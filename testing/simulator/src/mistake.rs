//! Deliberate mistakes: what the simulator must find, or else it sees nothing.
//!
//! Each is one deviation from the design and works as long as nothing goes wrong. Without the feature `mutants`, which only
//! `make mutants` turns on, every question here is answered no when the code is compiled, and nothing of this is left.

/// One deviation from the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mistake {
    /// Each call of RunInstances has a token of its own, as the SDK makes one when none is given.
    NoClientToken,
    /// After an answer that never came the same attempt goes to another zone, where its token means nothing.
    ZoneChanged,
    /// A decision that lost the race is written all the same, over the new version.
    NoVersionCheck,
    /// What an invocation has begun anybody else may begin, too.
    NoLease,
    /// GitHub is never asked whether a job still waits.
    NoPolling,
    /// A machine is launched for one job and counts for no other.
    PerJobPairing,
    /// A machine is terminated without deregistering its runner.
    TerminateFirst,
    /// A registration that is tried again has the same name.
    FixedName,
    /// A `completed` of a job that nobody has heard of leaves no trace.
    NoTombstone,
    /// The janitor does not look at EC2.
    NoListing,
    /// Demand is kept in a counter.
    Counters,
    /// A machine that does not come online at once has failed.
    ZeroGrace,
    /// A runner that was listed as idle is ended although GitHub says that it is busy.
    StaleBusy,
    /// A machine is destroyed before that is written down.
    NoClaim,
    /// As many machines are launched for a job as it takes.
    NoRelaunchBound,
    /// A message that could not be recorded is acknowledged.
    Acknowledged,
}

impl Mistake {
    /// Every one.
    pub const ALL: &'static [Mistake] = &[
        Mistake::NoClientToken,
        Mistake::ZoneChanged,
        Mistake::NoVersionCheck,
        Mistake::NoLease,
        Mistake::NoPolling,
        Mistake::PerJobPairing,
        Mistake::TerminateFirst,
        Mistake::FixedName,
        Mistake::NoTombstone,
        Mistake::NoListing,
        Mistake::Counters,
        Mistake::ZeroGrace,
        Mistake::StaleBusy,
        Mistake::NoClaim,
        Mistake::NoRelaunchBound,
        Mistake::Acknowledged,
    ];
}
