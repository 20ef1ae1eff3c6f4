//! One invocation of a function.

use domain::config::{Pool, Rates};
use domain::ids::StackName;
use domain::log::{Cause, Turn};
use jiff::{SignedDuration, Timestamp};

use crate::ports::Ports;

/// No effect begins with less time left than this. It is enough for the slowest call, a launch of some seconds, and for the
/// writes after it. An effect that is cut off is due again only after its lease.
pub const RESERVE: SignedDuration = SignedDuration::from_secs(8);

/// Pools read or reconciled at a time.
pub(crate) const MAX_CONCURRENT_POOLS: usize = 4;

/// One invocation: its ports, its identity and its deadline.
#[expect(missing_debug_implementations, reason = "ports do not implement Debug")]
pub struct Context<'a> {
    pub ports: Ports<'a>,
    pub stack: &'a StackName,
    /// Unique id of the runner machines' role: the first half of their boot keys.
    pub runner_role: &'a str,
    pub rates: &'a Rates,
    /// The invocation's id, which its log lines and events carry.
    pub request: &'a str,
    /// When the invocation ends, whether or not it has finished.
    pub deadline: Timestamp,
}

impl Context<'_> {
    pub fn now(&self) -> Timestamp {
        self.ports.clock.now()
    }

    /// Whether too little time is left to begin another effect.
    pub fn short_of_time(&self) -> bool {
        self.now() + RESERVE > self.deadline
    }

    /// When the leases of this invocation expire. None of its calls is still under way then.
    pub fn lease(&self, pool: &Pool) -> Timestamp {
        self.deadline + pool.timings.lease_margin.duration()
    }

    /// The turn for a decision that is made now.
    pub fn turn(&self, pool: &Pool) -> Turn {
        Turn { now: self.now(), lease: self.lease(pool), cause: self.cause() }
    }

    pub fn cause(&self) -> Cause {
        Cause::Invocation(self.request.to_owned())
    }
}
