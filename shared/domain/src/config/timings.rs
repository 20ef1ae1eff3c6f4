//! Durations that an operator may set.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_with::{DeserializeFromStr, SerializeDisplay};

use crate::ids::InvalidName;

/// The durations of a pool. Written in the pool file as `"90s"`, `"8m"`, `"12h"`; zero is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timings {
    /// How long an idle runner that no job needs is kept for the next job.
    pub idle_grace: Span,
    /// A runner must be online within this time after its JIT config was handed over. Otherwise it is a boot failure.
    pub boot_grace: Span,
    /// Not used: no decision reads it. Existing pool files may contain it.
    pub unbound_grace: Span,
    /// An instance with the stack's tags that no record mentions is removed after this time.
    pub orphan_grace: Span,
    /// An instance whose job is done powers itself off; after this time it is terminated.
    pub done_grace: Span,
    /// A registration that no open slot uses is deleted after this time.
    pub stale_grace: Span,
    /// The time between two readings that must agree before something is removed.
    pub confirm_gap: Span,
    /// The longest life of a machine.
    pub max_life: Span,
    /// Another invocation repeats a launch only this long after the deadline of the invocation that began it.
    pub lease_margin: Span,
    /// A check run explains to a job's author why the job waits, after this time.
    pub notice_after: Span,
    /// The check run of a job that still waits is marked as failed after this time. Drover keeps trying.
    pub launch_deadline: Span,
    /// How often GitHub is asked about a job that has not ended.
    pub job_check: Span,
    /// How often repositories are searched for jobs whose webhook never came.
    pub poll_interval: Span,
    /// The wait after a first failure. It doubles with each further failure.
    pub backoff_min: Span,
    /// The longest wait.
    pub backoff_max: Span,
    /// At most `policy::charge::RELAUNCH_LIMIT` machines are launched for one job within this time.
    pub relaunch_window: Span,
}

impl Default for Timings {
    fn default() -> Self {
        let seconds = |n| Span(SignedDuration::from_secs(n));
        Self {
            idle_grace: seconds(120),
            boot_grace: seconds(480),
            unbound_grace: seconds(180),
            orphan_grace: seconds(600),
            done_grace: seconds(90),
            stale_grace: seconds(300),
            confirm_gap: seconds(60),
            max_life: seconds(12 * 3600),
            lease_margin: seconds(30),
            notice_after: seconds(15 * 60),
            launch_deadline: seconds(60 * 60),
            job_check: seconds(300),
            poll_interval: seconds(600),
            backoff_min: seconds(30),
            backoff_max: seconds(30 * 60),
            relaunch_window: seconds(60 * 60),
        }
    }
}

/// A duration from zero to 30 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, DeserializeFromStr, SerializeDisplay)]
pub struct Span(SignedDuration);

impl Span {
    pub fn duration(self) -> SignedDuration {
        self.0
    }
}
impl From<Span> for SignedDuration {
    fn from(span: Span) -> SignedDuration {
        span.0
    }
}
impl FromStr for Span {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName {
            kind: "time",
            value: value.to_owned(),
            rule: "must be a length of time such as \"90s\", \"8m\" or \"12h\", at most 30 days",
        };
        let duration: SignedDuration = value.parse().map_err(|_| invalid())?;
        if duration.is_negative() || duration > SignedDuration::from_hours(30 * 24) {
            return Err(invalid());
        }
        Ok(Self(duration))
    }
}
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        match (seconds, millis) {
            (0, 1..) => write!(f, "{millis}ms"),
            (_, 1..) => write!(f, "{seconds}s {millis}ms"),
            (3600.., _) if seconds % 3600 == 0 => write!(f, "{}h", seconds / 3600),
            (60.., _) if seconds % 60 == 0 => write!(f, "{}m", seconds / 60),
            _ => write!(f, "{seconds}s"),
        }
    }
}
