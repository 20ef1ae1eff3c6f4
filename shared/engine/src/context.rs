//! One invocation of a function.

use domain::config::{Pool, Rates};
use domain::ids::StackName;
use domain::log::{Cause, Turn};
use domain::policy::due::{MAX_POINTS, YIELD_AFTER, points_each};
use jiff::{SignedDuration, Timestamp};

use crate::ports::{GitHub, Ports};

/// No effect begins with less time left than this. It is enough for the slowest call, a launch of some seconds, and for the
/// writes after it. An effect that is cut off is due again only after its lease.
pub const RESERVE: SignedDuration = SignedDuration::from_secs(8);

/// Pools read or reconciled at a time.
pub(crate) const MAX_CONCURRENT_POOLS: usize = 4;

/// One invocation: its ports, its identity and its deadline.
#[derive(Clone, Copy)]
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
    /// What this part of the invocation may use.
    pub share: Share,
}

/// What a part of an invocation may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// No effect begins later.
    pub until: Timestamp,
    /// No question to GitHub and no further round of a pool begins later.
    pub yields_at: Timestamp,
    /// GitHub's points that checks and notifications of one pool may cost.
    pub points: u32,
}

impl Share {
    /// A whole invocation, which ends at `deadline`.
    pub fn of_invocation(deadline: Timestamp) -> Self {
        let until = deadline - RESERVE;
        Self { until, yields_at: until, points: MAX_POINTS }
    }
}

impl<'a> Context<'a> {
    /// The same invocation, with GitHub's port replaced.
    pub(crate) fn with_github<'b>(&self, github: &'b dyn GitHub) -> Context<'b>
    where
        'a: 'b,
    {
        Context { ports: Ports { github, ..self.ports }, ..*self }
    }

    /// The same invocation, shared by this many pools.
    pub(crate) fn shared_by(&self, pools: usize) -> Self {
        Self { share: Share { points: points_each(pools), ..self.share }, ..*self }
    }

    /// The same invocation, which other messages wait for.
    pub(crate) fn yielding(&self) -> Self {
        let yields_at = self.share.yields_at.min(self.now() + YIELD_AFTER);
        Self { share: Share { yields_at, ..self.share }, ..*self }
    }

    /// The same invocation, where no effect begins after `until`.
    pub(crate) fn until(&self, until: Timestamp) -> Self {
        Self { share: Share { until: self.share.until.min(until), ..self.share }, ..*self }
    }

    pub fn now(&self) -> Timestamp {
        self.ports.clock.now()
    }

    /// Whether too little time is left to begin another effect.
    pub fn short_of_time(&self) -> bool {
        self.now() > self.share.until
    }

    /// Whether only what machines wait for may begin.
    pub fn must_yield(&self) -> bool {
        self.now() > self.share.yields_at
    }

    /// When the leases of this invocation expire. None of its calls is still under way then.
    pub fn lease(&self, pool: &Pool) -> Timestamp {
        self.deadline + pool.timings.lease_margin.duration()
    }

    /// How long a call of which no later effect may come can take.
    pub(crate) fn longest_call(&self) -> SignedDuration {
        self.deadline.duration_since(self.now()) - RESERVE / 2
    }

    /// The turn for a decision that is made now.
    pub fn turn(&self, pool: &Pool) -> Turn {
        Turn { now: self.now(), lease: self.lease(pool), cause: self.cause() }
    }

    pub fn cause(&self) -> Cause {
        Cause::Invocation(self.request.to_owned())
    }
}
