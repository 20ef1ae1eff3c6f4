//! Deliberate mistakes: what the simulator must find, or else it sees nothing.
//!
//! Each is one deviation from the design and works as long as nothing goes wrong. Without the feature `mutants`, which only
//! `make mutants` turns on, every question here is answered no when the code is compiled, and nothing of this is left.

/// One deviation from the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
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

impl Mutant {
    /// Every one.
    pub const ALL: &'static [Mutant] = &[
        Mutant::NoClientToken,
        Mutant::ZoneChanged,
        Mutant::NoVersionCheck,
        Mutant::NoLease,
        Mutant::NoPolling,
        Mutant::PerJobPairing,
        Mutant::TerminateFirst,
        Mutant::FixedName,
        Mutant::NoTombstone,
        Mutant::NoListing,
        Mutant::Counters,
        Mutant::ZeroGrace,
        Mutant::StaleBusy,
        Mutant::NoClaim,
        Mutant::NoRelaunchBound,
        Mutant::Acknowledged,
    ];
}

/// Whether this mistake is to be made.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is(_: Mutant) -> bool {
    false
}

/// Another number each time, for [`Mutant::NoClientToken`].
#[cfg(not(feature = "mutants"))]
pub const fn number() -> u64 {
    0
}

/// The counter of [`Mutant::Counters`] moves.
#[cfg(not(feature = "mutants"))]
pub const fn count(_: &crate::ids::PoolName, _: i64) {}

/// What it says.
#[cfg(not(feature = "mutants"))]
pub const fn counted(_: &crate::ids::PoolName) -> usize {
    0
}

#[cfg(feature = "mutants")]
pub use made::{count, counted, is, make, number};

#[cfg(feature = "mutants")]
mod made {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use super::Mutant;
    use crate::ids::PoolName;

    thread_local! {
        static MADE: Cell<Option<Mutant>> = const { Cell::new(None) };
        static NUMBER: Cell<u64> = const { Cell::new(0) };
        static COUNTED: RefCell<BTreeMap<PoolName, i64>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// From now on this thread makes that mistake, and no other.
    pub fn make(mutant: Option<Mutant>) {
        MADE.set(mutant);
        NUMBER.set(0);
        COUNTED.with_borrow_mut(BTreeMap::clear);
    }

    /// Whether this mistake is to be made.
    pub fn is(mutant: Mutant) -> bool {
        MADE.get() == Some(mutant)
    }

    /// Another number each time, for [`Mutant::NoClientToken`].
    pub fn number() -> u64 {
        NUMBER.set(NUMBER.get() + 1);
        NUMBER.get()
    }

    /// The counter of [`Mutant::Counters`] moves.
    pub fn count(pool: &PoolName, by: i64) {
        COUNTED.with_borrow_mut(|counted| *counted.entry(pool.clone()).or_default() += by);
    }

    /// What it says.
    pub fn counted(pool: &PoolName) -> usize {
        COUNTED.with_borrow(|counted| counted.get(pool).map_or(0, |count| usize::try_from(*count).unwrap_or_default()))
    }
}
