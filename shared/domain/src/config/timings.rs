//! Durations that an operator may set.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::ids::InvalidName;

/// How long things may take. Written in the pool file as `"90s"`, `"8m"`, `"12h"`; zero is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timings {
    /// An idle runner that no job needs is kept this long, for the next job.
    pub idle_grace: Span,
    /// A machine that was handed a registration must be online within this time, else it is a boot failure.
    pub boot_grace: Span,
    /// An instance of an open batch that is bound to no slot is bound after this time.
    pub unbound_grace: Span,
    /// An instance with our tag that nothing knows is removed after this time.
    pub orphan_grace: Span,
    /// An instance whose job is done powers itself off; after this time it is terminated.
    pub done_grace: Span,
    /// A registration without an instance is deleted after this time.
    pub stale_grace: Span,
    /// Two readings that must agree before something is destroyed are this far apart.
    pub confirm_gap: Span,
    /// No machine lives longer.
    pub max_life: Span,
    /// A launch is repeated by somebody else only this long after the deadline of the one who began it.
    pub lease_margin: Span,
    /// A waiting job is explained to its author after this time.
    pub notice_after: Span,
    /// A job that could not be served for this long is said to have failed.
    pub launch_deadline: Span,
    /// A job that is not over is asked about this often.
    pub job_check: Span,
    /// Repositories are searched for jobs whose webhook never came this often.
    pub poll_interval: Span,
    /// The first wait after a refusal; doubles.
    pub backoff_min: Span,
    /// The longest wait.
    pub backoff_max: Span,
    /// At most `policy::decide::RELAUNCH_LIMIT` machines are launched on one job's account within this time.
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

/// A length of time that is not negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(SignedDuration);

impl Span {
    /// As a duration to reckon with.
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
impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
