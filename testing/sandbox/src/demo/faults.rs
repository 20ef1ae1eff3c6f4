//! The faults that the demo can inject, and when.

use std::time::Duration;

use engine::ports::Clock;
use platform::clock::SystemClock;
use toml::Value;
use world::ec2::{Code, LaunchMatch, Market, Refusal, When};
use world::github::{Endpoint, JobId};

use super::arguments::Arguments;
use super::attack::Attack;
use super::kept::{self, Kept};
use super::pushed::{Pushed, latest};
use crate::calls::CALLS_BETWEEN_KILLS;
use crate::pace::{PATIENCE, slowness};
use crate::sandbox::{BATCH_SIZE, CONCURRENCY, Options, Sandbox};
use crate::state::State;

/// From the interruption warning until EC2 reclaims the machine.
pub(crate) const SPOT_NOTICE: Duration = Duration::from_secs(1);

/// The run time of a job that loses its machine: it runs until then.
pub(crate) const VICTIM_RUNS_FOR: Duration = Duration::from_secs(3600);

/// How long GitHub's secondary limit lasts.
const LIMITED_FOR: jiff::SignedDuration = jiff::SignedDuration::from_secs(3);

/// The time that the functions keep before they begin an effect, and the time that they have for effects. The leases of a
/// killed function last until both have passed.
const RESERVE: Duration = Duration::from_secs(8);
const EFFECTS: Duration = Duration::from_secs(4);

/// How often a fault happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Injected {
    pub(crate) flag: &'static str,
    pub(crate) what: &'static str,
    pub(crate) times: usize,
}

/// EC2's error codes for missing capacity that the demo uses.
const CAPACITY: [Code; 2] = [Code::InsufficientInstanceCapacity, Code::InsufficientFreeAddressesInSubnet];

/// A fault that lasts for a while. One ends before the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spell {
    /// No fault.
    None,
    /// GitHub enforces its secondary rate limit for all installations.
    Limited,
    /// GitHub answers 503.
    Down,
    /// The app is not installed.
    Uninstalled,
    /// The spot quota is used up.
    Quota,
}

impl Arguments {
    /// Fields that every pool needs for the faults.
    pub(super) fn fields(&self) -> Vec<(&'static str, Value)> {
        let mut fields = Kept::of(self).map(Kept::fields).unwrap_or_default();
        if self.quota || self.spot_kill {
            fields.push(("market", Value::String("spot-then-on-demand".to_owned())));
        }
        if self.spot_kill {
            fields.push(("rerun_on_interruption", Value::Boolean(true)));
        }
        if self.attack {
            // The attacker needs a repository that no pool serves.
            fields.push(("repositories", Value::Array(vec![Value::String("octo-org/widgets".to_owned())])));
        }
        if self.serve && !self.never_sent {
            // Otherwise a search would find the job whose delivery the operator is asked to send.
            fields.push(("poll_interval", Value::String("10m".to_owned())));
        }
        if self.boot_fail {
            // Longer than a boot takes here.
            fields.push(("boot_grace", Value::String(format!("{}s", 10 * slowness()))));
        }
        fields
    }

    /// Options that the sandbox needs for the faults.
    pub(super) fn prepare(&self, options: &mut Options) {
        options.ec2.spot_notice = SPOT_NOTICE;
        if Kept::of(self).is_some() {
            kept::take_real_time(options);
        }
        if self.attack {
            (options.batch_size, options.scaler_concurrency) = (BATCH_SIZE, CONCURRENCY);
        }
        if self.crash {
            let timeout = RESERVE + EFFECTS * slowness();
            options.scaler_timeout = timeout;
            options.janitor_timeout = timeout;
            // As in production, longer than it takes until a message becomes visible again after a crash.
            options.github.lost_runner = options.retry_after + Duration::from_secs(3);
        }
    }

    /// The lasting faults, in their order. Each affects some of the jobs.
    pub(super) fn spells(&self) -> Vec<Spell> {
        let asked = [
            (self.uninstall, Spell::Uninstalled),
            (true, Spell::None),
            (self.github_limit, Spell::Limited),
            (self.github_down, Spell::Down),
            (self.quota, Spell::Quota),
        ];
        asked.into_iter().filter(|(asked, _)| *asked).map(|(_, spell)| spell).collect()
    }

    /// Injects the faults that exist from the beginning.
    pub(super) fn begin(&self, sandbox: &Sandbox) {
        sandbox.world.act(|state, _| {
            let first = state.ec2.subnets().next().cloned();
            let mut refuse = |matches: LaunchMatch, code, times| {
                state.ec2.faults.refusals.push(Refusal { matches, code, when: When::Next(times) });
            };
            if self.throttle {
                refuse(LaunchMatch::default(), Code::RequestLimitExceeded, 2);
            }
            if self.capacity {
                // Prices choose the subnet of a shape, and may never choose the first one.
                let subnet = first.filter(|_| !self.shapes);
                let here = LaunchMatch { subnet, ..LaunchMatch::default() };
                CAPACITY.into_iter().for_each(|code| refuse(here.clone(), code, 1));
            }
        });
        if self.crash {
            let times = (self.jobs() as usize / 10).clamp(1, 4);
            sandbox.calls.kill_at_random_calls(self.seed(), times, CALLS_BETWEEN_KILLS);
        }
    }

    /// How often each requested fault happened.
    pub(super) fn injected(
        &self,
        sandbox: &Sandbox,
        pushed: &Pushed,
        broken: usize,
        attack: Option<&Attack>,
    ) -> Vec<Injected> {
        let done = sandbox.webhooks.done();
        sandbox.world.look(|state| {
            let stolen = pushed.rivals.iter().filter(|id| {
                let job = state.github.job(**id);
                job.is_some_and(|job| job.history.started.iter().any(|start| start.name.starts_with("drover_")))
            });
            let count = |times: u64| usize::try_from(times).unwrap_or(usize::MAX);
            let refused = |codes: &[Code]| {
                let struck = state.ec2.struck();
                count(codes.iter().filter_map(|code| struck.get(code)).sum())
            };
            let struck = state.github.struck();
            let killed = pushed
                .victims
                .iter()
                .filter(|id| state.github.job(**id).is_some_and(|job| job.history.killed.is_some()));
            [
                (self.duplicate.is_some(), "duplicate", "webhooks delivered twice", done.duplicated),
                (self.reorder.is_some(), "reorder", "jobs with completed before in_progress", done.reordered),
                (self.steal.is_some(), "steal", "runners taken by other repositories' jobs", stolen.count()),
                (self.cancel.is_some(), "cancel", "jobs cancelled", pushed.cancelled.len()),
                (self.capacity, "capacity", "launches refused for lack of capacity", refused(&CAPACITY)),
                (
                    self.quota,
                    "quota",
                    "launches refused by the spot quota",
                    refused(&[Code::MaxSpotInstanceCountExceeded]),
                ),
                (self.throttle, "throttle", "launches throttled", refused(&[Code::RequestLimitExceeded])),
                (self.github_limit, "github-limit", "calls refused by GitHub's rate limit", count(struck.limited)),
                (self.github_down, "github-down", "calls while GitHub was down", count(struck.down)),
                (self.lose_webhooks, "lose-webhooks", "failed deliveries", done.lost),
                (self.never_sent, "never-sent", "jobs without webhooks", pushed.unsent),
                (self.spot_kill, "spot-kill", "jobs whose machine EC2 reclaimed", killed.count()),
                (self.boot_fail, "boot-fail", "machines that never booted", broken),
                (self.uninstall, "uninstall", "uninstallations of the app", pushed.uninstalled),
                (self.crash, "crash", "functions killed at an API call", sandbox.calls.killed()),
            ]
            .into_iter()
            .filter(|(asked, ..)| *asked)
            .map(|(_, flag, what, times)| Injected { flag, what, times })
            .chain(attack.into_iter().flat_map(|attack| attack.happened(state)).map(|(what, times)| Injected {
                flag: "attack",
                what,
                times,
            }))
            .collect()
        })
    }
}

impl Spell {
    /// Begins the fault. The quota affects only launches, so it waits until all earlier machines are gone.
    pub(super) async fn cast(self, sandbox: &Sandbox, before: &[JobId]) -> anyhow::Result<()> {
        match self {
            Spell::None => {}
            Spell::Limited => limit(sandbox),
            Spell::Down => sandbox.world.act(|state, _| state.github.faults.down = true),
            Spell::Uninstalled => uninstall(sandbox),
            Spell::Quota => {
                let over = |state: &State| {
                    let over = |id: &JobId| latest(state, *id).is_some_and(|job| job.completed_at.is_some());
                    (before.iter().all(over) && state.ec2.alive().count() == 0).then_some(())
                };
                let patience = PATIENCE + Duration::from_secs(before.len() as u64);
                sandbox.world.until("all earlier machines gone", patience, over).await?;
                sandbox.world.act(|state, _| {
                    let matches = LaunchMatch { market: Some(Market::Spot), ..LaunchMatch::default() };
                    let code = Code::MaxSpotInstanceCountExceeded;
                    state.ec2.faults.refusals.push(Refusal { matches, code, when: When::Next(1) });
                });
            }
        }
        Ok(())
    }

    /// Ends the fault, after Drover has encountered it.
    pub(super) async fn lift(self, sandbox: &Sandbox) -> anyhow::Result<()> {
        let world = &sandbox.world;
        match self {
            Spell::None | Spell::Quota => {}
            Spell::Limited => loop {
                let met = |state: &State| (state.github.struck().limited > 0).then_some(());
                if world.until("a call refused by the rate limit", Duration::from_secs(2), met).await.is_ok() {
                    break;
                }
                // No call so far. Extend the limit.
                limit(sandbox);
            },
            Spell::Down => {
                let met = |state: &State| (state.github.struck().down >= 3).then_some(());
                world.until("three calls while GitHub is down", PATIENCE, met).await?;
                world.act(|state, _| state.github.faults.down = false);
            }
            Spell::Uninstalled => {
                let asked = |state: &State| state.github.calls().get(&Endpoint::FindInstallation).copied();
                let before = world.look(asked).unwrap_or_default();
                let met = |state: &State| (asked(state).unwrap_or_default() >= before + 2).then_some(());
                world.until("two calls while the app is uninstalled", PATIENCE, met).await?;
                install(sandbox);
            }
        }
        Ok(())
    }
}

/// Uninstalls the app from every organisation.
pub(crate) fn uninstall(sandbox: &Sandbox) {
    sandbox.world.act(|state, _| {
        let owners: Vec<_> = state.github.owners().map(|owner| owner.id).collect();
        owners.into_iter().for_each(|owner| state.github.uninstall(owner));
    });
}

/// Installs the app in every organisation.
pub(crate) fn install(sandbox: &Sandbox) {
    sandbox.world.act(|state, now| {
        let owners: Vec<_> = state.github.owners().map(|owner| owner.id).collect();
        for owner in owners {
            state.github.install(owner, now);
        }
    });
}

/// GitHub enforces its secondary rate limit for a few seconds.
pub(crate) fn limit(sandbox: &Sandbox) {
    let until = SystemClock.now() + LIMITED_FOR;
    sandbox.world.act(|state, _| state.github.faults.limited_until = Some(until));
}
