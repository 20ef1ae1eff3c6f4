//! The faults and when they strike: storms with several faults, outages of one service, and calm between them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use world::ec2::{Code, LaunchMatch, Market, Refusal, When};
use world::github::{Group, OwnerId};

use crate::deliveries::WebhookFaults;
use crate::demo::faults::{install, limit, uninstall};
use crate::door::{Door, Doors};
use crate::sandbox::Sandbox;

/// A fault, named by its flag of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Duplicate,
    Reorder,
    LoseWebhooks,
    NeverSent,
    Cancel,
    Steal,
    Capacity,
    Quota,
    Throttle,
    SpotKill,
    BootFail,
    GithubLimit,
    GithubDown,
    Uninstall,
    Crash,
}

impl Fault {
    pub(super) fn flag(self) -> &'static str {
        match self {
            Fault::Duplicate => "duplicate",
            Fault::Reorder => "reorder",
            Fault::LoseWebhooks => "lose-webhooks",
            Fault::NeverSent => "never-sent",
            Fault::Cancel => "cancel",
            Fault::Steal => "steal",
            Fault::Capacity => "capacity",
            Fault::Quota => "quota",
            Fault::Throttle => "throttle",
            Fault::SpotKill => "spot-kill",
            Fault::BootFail => "boot-fail",
            Fault::GithubLimit => "github-limit",
            Fault::GithubDown => "github-down",
            Fault::Uninstall => "uninstall",
            Fault::Crash => "crash",
        }
    }
}

/// A service whose door closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Service {
    Dynamodb,
    Sqs,
    Ec2,
    Github,
    SecretsManager,
}

impl Service {
    pub(super) const ALL: [Self; 5] = [Self::Dynamodb, Self::Sqs, Self::Ec2, Self::Github, Self::SecretsManager];

    pub(super) fn describe(self) -> &'static str {
        match self {
            Service::Dynamodb => "DynamoDB",
            Service::Sqs => "SQS",
            Service::Ec2 => "EC2",
            Service::Github => "GitHub",
            Service::SecretsManager => "Secrets Manager",
        }
    }

    pub(super) fn door(self, doors: &Doors) -> &Arc<Door> {
        match self {
            Service::Dynamodb => &doors.dynamodb,
            Service::Sqs => &doors.sqs,
            Service::Ec2 => &doors.ec2,
            Service::Github => &doors.github,
            Service::SecretsManager => &doors.secrets_manager,
        }
    }
}

/// What happens for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    Calm,
    Storm(&'static [Fault]),
    Outage(Service),
}

impl Weather {
    pub(super) fn has(self, fault: Fault) -> bool {
        matches!(self, Weather::Storm(faults) if faults.contains(&fault))
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Weather::Calm => write!(f, "calm"),
            Weather::Storm(faults) => {
                let flags: Vec<&str> = faults.iter().map(|fault| fault.flag()).collect();
                write!(f, "storm: {}", flags.join(", "))
            }
            Weather::Outage(service) => write!(f, "outage of {}", service.describe()),
        }
    }
}

/// Each is followed by the outage of the service at the same place, and the last one has nearly everything at once.
const STORMS: [&[Fault]; 5] = [
    &[Fault::Crash, Fault::Duplicate, Fault::Reorder, Fault::LoseWebhooks, Fault::Steal],
    &[Fault::Capacity, Fault::Throttle, Fault::SpotKill, Fault::BootFail, Fault::Cancel],
    &[Fault::Uninstall, Fault::NeverSent, Fault::Crash],
    &[Fault::GithubDown, Fault::Quota, Fault::LoseWebhooks],
    &[
        Fault::Crash,
        Fault::Duplicate,
        Fault::Reorder,
        Fault::LoseWebhooks,
        Fault::NeverSent,
        Fault::Cancel,
        Fault::Steal,
        Fault::Capacity,
        Fault::Throttle,
        Fault::SpotKill,
        Fault::BootFail,
        Fault::GithubLimit,
    ],
];

/// No part lasts longer.
const LONGEST: Duration = Duration::from_secs(60);

/// The parts of a run of this length, each with its duration. Without `only`: calm, a storm and an outage in turn, so that each
/// service has an outage, of a minute if the run lasts for eight or longer. A storm lasts three times as long as a calm part: each of
/// its faults needs jobs that it affects. A longer run begins anew after a quarter of an hour.
pub(super) fn schedule(total: Duration, only: &[Service]) -> Vec<(Weather, Duration)> {
    if !only.is_empty() {
        let part = total / u32::try_from(2 * only.len() + 1).unwrap_or(u32::MAX);
        let parts = only.iter().flat_map(|service| [(Weather::Calm, part), (Weather::Outage(*service), part)]);
        return parts.chain([(Weather::Calm, part)]).collect();
    }
    let outage = LONGEST.min(total / 8);
    // Six calm parts, and five storms.
    let calm = (total - outage * 5) / (6 + 5 * 3);
    let (storm_length, calm) = (LONGEST.min(calm * 3), LONGEST.min(calm));
    let mut parts = Vec::new();
    let mut left = total;
    'rounds: loop {
        for (storm, service) in STORMS.into_iter().zip(Service::ALL) {
            let three =
                [(Weather::Calm, calm), (Weather::Storm(storm), storm_length), (Weather::Outage(service), outage)];
            for (weather, length) in three {
                if left < length {
                    break 'rounds;
                }
                parts.push((weather, length));
                left -= length;
            }
        }
        if left < LONGEST {
            break;
        }
    }
    parts.push((Weather::Calm, left));
    parts
}

/// The number of calls between two kills. A job takes about 70 calls.
const CALLS_BETWEEN_KILLS: std::ops::Range<u32> = 50..400;

/// One in this many deliveries or jobs is affected.
const ONE_IN: usize = 8;

/// The share of launches whose machine never boots.
const BOOT_FAILURES: f64 = 0.15;

/// What the storms have to restore.
pub(super) struct Sky {
    groups: Vec<(OwnerId, Vec<Group>)>,
    seed: u64,
    /// Uninstallations.
    pub(super) uninstalled: usize,
}

impl Sky {
    pub(super) fn new(sandbox: &Sandbox, seed: u64) -> Self {
        let groups = sandbox.world.look(|state| {
            let owners = state.github.owners();
            owners.map(|owner| (owner.id, owner.groups.clone())).collect()
        });
        Self { groups, seed, uninstalled: 0 }
    }

    /// Begins what lasts.
    pub(super) fn begin(&mut self, sandbox: &Sandbox, weather: Weather) -> anyhow::Result<()> {
        if let Weather::Outage(service) = weather {
            service.door(sandbox.doors.as_ref().context("the sandbox has no doors")?).close();
        }
        if weather.has(Fault::Crash) {
            self.seed = self.seed.wrapping_add(1);
            sandbox.calls.kill_at_random_calls(self.seed, usize::MAX, CALLS_BETWEEN_KILLS);
        }
        let every = |fault| weather.has(fault).then_some(ONE_IN);
        sandbox.webhooks.set_faults(WebhookFaults {
            duplicate_every: every(Fault::Duplicate),
            reorder_every: every(Fault::Reorder),
            lose_every: every(Fault::LoseWebhooks),
        });
        if weather.has(Fault::Steal) {
            sandbox.open_groups();
        }
        if weather.has(Fault::Uninstall) {
            uninstall(sandbox);
            self.uninstalled += 1;
        }
        sandbox.world.act(|state, _| {
            state.github.faults.down = weather.has(Fault::GithubDown);
            state.ec2.faults.boot_failures = if weather.has(Fault::BootFail) { BOOT_FAILURES } else { 0.0 };
            let refusals = &mut state.ec2.faults.refusals;
            let mut refuse = |matches, code, share| {
                refusals.push(Refusal { matches, code, when: When::Chance(share) });
            };
            if weather.has(Fault::Capacity) {
                refuse(LaunchMatch::default(), Code::InsufficientInstanceCapacity, 0.2);
            }
            if weather.has(Fault::Throttle) {
                refuse(LaunchMatch::default(), Code::RequestLimitExceeded, 0.2);
            }
            if weather.has(Fault::Quota) {
                let spot = LaunchMatch { market: Some(Market::Spot), ..LaunchMatch::default() };
                refuse(spot, Code::MaxSpotInstanceCountExceeded, 0.5);
            }
        });
        Ok(())
    }

    /// Continues what lasts only for a moment. Called once per second.
    pub(super) fn blow(&mut self, sandbox: &Sandbox, weather: Weather) {
        if weather.has(Fault::GithubLimit) {
            limit(sandbox);
        }
    }

    /// Ends all faults.
    pub(super) fn clear(&self, sandbox: &Sandbox) {
        for service in sandbox.doors.iter().flat_map(|doors| Service::ALL.map(|service| service.door(doors))) {
            service.open();
        }
        sandbox.calls.kill_at_random_calls(self.seed, 0, CALLS_BETWEEN_KILLS);
        sandbox.webhooks.set_faults(WebhookFaults::default());
        let is_uninstalled = sandbox.world.act(|state, _| {
            state.github.faults.down = false;
            state.github.faults.limited_until = None;
            state.ec2.faults.refusals.clear();
            state.ec2.faults.boot_failures = 0.0;
            for (owner, groups) in &self.groups {
                groups.iter().for_each(|group| state.github.set_group(*owner, group.clone()));
            }
            state.github.owners().any(|owner| owner.installation.is_none())
        });
        if is_uninstalled {
            install(sandbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn eight_minutes_have_a_minute_without_each_service_and_every_storm() {
        let minutes = |minutes: u64| schedule(Duration::from_secs(60 * minutes), &[]);
        let parts = minutes(8);
        let outages: Vec<_> = parts.iter().filter(|(it, _)| matches!(it, Weather::Outage(_))).collect();
        assert!(outages.len() == 5 && outages.iter().all(|(_, length)| *length == LONGEST), "{parts:?}");
        for parts in [parts, minutes(16), minutes(60)] {
            let storms: BTreeSet<String> = parts.iter().map(|(it, _)| it.to_string()).collect();
            assert_eq!(storms.len(), 11, "{storms:?}");
            assert_eq!(parts.last().map(|it| it.0), Some(Weather::Calm));
        }
        let total: Duration = minutes(60).iter().map(|it| it.1).sum();
        assert_eq!(total, Duration::from_secs(3600));
    }
}
