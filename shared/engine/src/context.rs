//! One invocation of a function.

use domain::config::{Pool, Rates};
use domain::ids::StackName;
use domain::log::{Cause, Turn};
use jiff::{SignedDuration, Timestamp};

use crate::ports::Ports;

/// No effect begins with less time left than this: the slowest call (a launch, some seconds) and the writes after it need
/// it. Otherwise every effect would be left to the next invocation after its lease.
pub const RESERVE: SignedDuration = SignedDuration::from_secs(8);

/// Pools read or reconciled at a time.
pub(crate) const MAX_CONCURRENT_POOLS: usize = 4;

/// Which invocation is at work, until when, and with what.
#[expect(missing_debug_implementations, reason = "the ports have nothing to show")]
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

    /// Whether no time is left to begin another effect.
    pub fn short_of_time(&self) -> bool {
        self.now() + RESERVE > self.deadline
    }

    /// Until when this invocation holds what it begins. None of its calls is still under way after that.
    pub fn lease(&self, pool: &Pool) -> Timestamp {
        self.deadline + pool.timings.lease_margin.duration()
    }

    /// What a decision about the pool is made with, now.
    pub fn turn(&self, pool: &Pool) -> Turn {
        Turn { now: self.now(), lease: self.lease(pool), cause: self.cause() }
    }

    /// The cause of this invocation's events.
    pub fn cause(&self) -> Cause {
        Cause::Invocation(self.request.to_owned())
    }
}
