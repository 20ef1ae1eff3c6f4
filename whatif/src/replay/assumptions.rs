//! What a trace does not say.

use jiff::SignedDuration;
use serde::Serialize;

use crate::trace::Measured;

/// How long machines take, and what spot machines cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Assumptions {
    /// The time of a call of RunInstances or StartInstances.
    pub launch_seconds: f64,
    /// From EC2's answer until the agent of a launched machine looks for its registration.
    pub boot_seconds: f64,
    /// The same for a stopped machine that is started.
    pub start_seconds: f64,
    /// The time of a registration at GitHub. A machine that boots meanwhile does not wait for it.
    pub registration_seconds: f64,
    /// From the moment at which the agent has its registration until the runner has a job.
    pub runner_seconds: f64,
    /// What a spot machine costs, as a share of the list price.
    pub spot_share: f64,
    /// How often EC2 reclaims a spot machine, per hour.
    pub interruptions_per_hour: f64,
    /// Decides which idle runner gets a job, how long a webhook takes, and which machines EC2 reclaims.
    pub seed: u64,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            launch_seconds: 1.0,
            boot_seconds: 21.0,
            start_seconds: 12.0,
            registration_seconds: 0.7,
            runner_seconds: 3.7,
            spot_share: 0.4,
            interruptions_per_hour: 0.0,
            seed: 1,
        }
    }
}

impl Assumptions {
    /// The defaults, and what a stack measured.
    pub fn with(measured: &Measured) -> Self {
        let Measured { boot_seconds, start_seconds, runner_seconds } = *measured;
        let default = Self::default();
        // A stack measures from the launch, and from the hand-over of the registration.
        let less = |seconds: f64, part: f64| (seconds - part).max(0.0);
        Self {
            boot_seconds: boot_seconds.map_or(default.boot_seconds, |it| less(it, default.launch_seconds)),
            start_seconds: start_seconds.map_or(default.start_seconds, |it| less(it, default.launch_seconds)),
            runner_seconds: runner_seconds.unwrap_or(default.runner_seconds),
            ..default
        }
    }

    pub(super) fn launch(&self) -> SignedDuration {
        SignedDuration::from_secs_f64(self.launch_seconds)
    }

    pub(super) fn registration(&self) -> SignedDuration {
        SignedDuration::from_secs_f64(self.registration_seconds)
    }

    pub(super) fn runner(&self) -> SignedDuration {
        SignedDuration::from_secs_f64(self.runner_seconds)
    }
}
