//! One invocation of a function.

use domain::config::{Pool, Rates};
use domain::ids::StackName;
use domain::log::Cause;
use jiff::{SignedDuration, Timestamp};

use crate::ports::Ports;

/// No effect is begun with less than this left: the slowest call (a launch, some seconds) and the writes after it must
/// find time, else every one of them is left to the next who finds its lease expired.
pub const RESERVE: SignedDuration = SignedDuration::from_secs(8);

/// Who is at work, for how long, and with what.
#[expect(missing_debug_implementations, reason = "the ports have nothing to show")]
pub struct Context<'a> {
    /// The world.
    pub ports: Ports<'a>,
    /// The stack.
    pub stack: &'a StackName,
    /// Unique id of the runner machines' role: the first half of their boot keys.
    pub runner_role: &'a str,
    /// What machines cost here.
    pub rates: &'a Rates,
    /// The invocation's id, which its log lines and events carry.
    pub request: &'a str,
    /// When the invocation ends, whether it is ready or not.
    pub deadline: Timestamp,
}

impl Context<'_> {
    /// Now.
    pub fn now(&self) -> Timestamp {
        self.ports.clock.now()
    }

    /// Whether there is no time to begin another effect.
    pub fn short_of_time(&self) -> bool {
        self.now() + RESERVE > self.deadline
    }

    /// Until when what this invocation begins belongs to it. Nothing it started can still be on its way after that.
    pub fn lease(&self, pool: &Pool) -> Timestamp {
        self.deadline + pool.timings.lease_margin.duration()
    }

    /// As an event tells it.
    pub fn cause(&self) -> Cause {
        Cause::Invocation(self.request.to_owned())
    }
}
