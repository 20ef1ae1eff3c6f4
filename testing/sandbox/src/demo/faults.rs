//! What goes wrong on purpose, and when: the part of the demo that works against Drover.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use engine::ports::Clock;
use platform::clock::SystemClock;
use tokio::task::JoinHandle;
use toml::Value;
use world::ec2::{Code, InstanceId, LaunchMatch, Market, Refusal, When};
use world::github::{Endpoint, JobId, JobState};

use super::{Arguments, Pushed};
use crate::sandbox::{Options, Sandbox};
use crate::state::State;

/// How long something may take that is only waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// EC2 takes its spot machines back so soon after it said so.
const SPOT_NOTICE: Duration = Duration::from_secs(1);

/// A job that is to lose its machine runs so long: to its notice and beyond.
pub(super) const VICTIM_RUNS_FOR: Duration = Duration::from_secs(4);

/// How long a limit of GitHub's lasts.
const LIMITED_FOR: jiff::SignedDuration = jiff::SignedDuration::from_secs(3);

/// A function that was killed keeps what it had begun until its invocation would have ended; more than what it wants in
/// reserve, less than a person wants to wait.
const TIMEOUT: Duration = Duration::from_secs(12);

/// How often a fault really struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Injected {
    /// The flag that asked for it.
    pub(crate) flag: &'static str,
    /// What happened.
    pub(crate) what: &'static str,
    /// How often.
    pub(crate) times: usize,
}

/// EC2's words for "not here, not now" that the demo uses.
const CAPACITY: [Code; 2] = [Code::InsufficientInstanceCapacity, Code::InsufficientFreeAddressesInSubnet];

/// What lasts for a while, and is over before the next of them begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spell {
    /// All is well.
    None,
    /// GitHub refuses every call of the installations.
    Limited,
    /// GitHub answers 503.
    Down,
    /// The app is not installed.
    Uninstalled,
    /// The spot quota is used up.
    Quota,
}

impl Arguments {
    /// Every flag on, each with its share.
    pub(super) fn everything(self) -> Self {
        let share = Some(0.25);
        Self {
            duplicate: self.duplicate.or(share),
            reorder: self.reorder.or(share),
            steal: self.steal.or(share),
            cancel: self.cancel.or(share),
            capacity: true,
            quota: true,
            throttle: true,
            github_limit: true,
            github_down: true,
            lose_webhooks: true,
            never_sent: true,
            spot_kill: true,
            boot_fail: true,
            uninstall: true,
            crash: true,
            ..self
        }
    }

    /// What every pool must say for the faults to be possible and short.
    pub(super) fn fields(&self) -> Vec<(&'static str, Value)> {
        let mut fields = Vec::new();
        if self.quota || self.spot_kill {
            fields.push(("market", Value::String("spot-then-on-demand".to_owned())));
        }
        if self.spot_kill {
            fields.push(("rerun_on_interruption", Value::Boolean(true)));
        }
        if self.boot_fail {
            // Longer than a real boot takes here, however busy the machine is.
            fields.push(("boot_grace", Value::String("10s".to_owned())));
        }
        fields
    }

    /// What the world must be like.
    pub(super) fn prepare(&self, options: &mut Options) {
        options.ec2.spot_notice = SPOT_NOTICE;
        options.github.lost_runner = Duration::from_secs(3);
        if self.crash {
            options.scaler_timeout = TIMEOUT;
            options.janitor_timeout = TIMEOUT;
            // GitHub takes ten minutes to give a runner up: more than a message takes to come again after a crash.
            options.github.lost_runner = options.visibility + Duration::from_secs(3);
        }
    }

    /// One after the other: each spell with some of the jobs.
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

    /// The faults that are there from the beginning.
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
                let here = LaunchMatch { subnet: first, ..LaunchMatch::default() };
                CAPACITY.into_iter().for_each(|code| refuse(here.clone(), code, 1));
            }
        });
        if self.crash {
            let times = (self.jobs as usize / 10).clamp(1, 4);
            sandbox.calls.wreak_havoc(self.seed(), times);
        }
    }

    /// How often each fault that was asked for really struck.
    pub(super) fn injected(&self, sandbox: &Sandbox, pushed: &Pushed, broken: usize) -> Vec<Injected> {
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
                (self.duplicate.is_some(), "duplicate", "deliveries posted twice", done.duplicated),
                (self.reorder.is_some(), "reorder", "ends told before beginnings", done.reordered),
                (self.steal.is_some(), "steal", "runners stolen", stolen.count()),
                (self.cancel.is_some(), "cancel", "jobs cancelled", pushed.cancelled.len()),
                (self.capacity, "capacity", "launches refused for lack of capacity", refused(&CAPACITY)),
                (self.quota, "quota", "launches refused for a quota", refused(&[Code::MaxSpotInstanceCountExceeded])),
                (self.throttle, "throttle", "launches throttled", refused(&[Code::RequestLimitExceeded])),
                (self.github_limit, "github-limit", "calls over GitHub's limit", count(struck.limited)),
                (self.github_down, "github-down", "calls while GitHub was down", count(struck.down)),
                (self.lose_webhooks, "lose-webhooks", "deliveries lost", done.lost),
                (self.never_sent, "never-sent", "jobs of which no delivery was sent", pushed.unsent),
                (self.spot_kill, "spot-kill", "jobs whose machine EC2 took", killed.count()),
                (self.boot_fail, "boot-fail", "machines that never booted", broken),
                (self.uninstall, "uninstall", "times that the app was uninstalled", pushed.uninstalled),
                (self.crash, "crash", "functions killed at a call", sandbox.calls.killed()),
            ]
            .into_iter()
            .filter(|(asked, ..)| *asked)
            .map(|(_, flag, what, times)| Injected { flag, what, times })
            .collect()
        })
    }
}

impl Spell {
    /// It begins. For the quota to strike, machines have to be launched, so that nothing may be left of before.
    pub(super) async fn cast(self, sandbox: &Sandbox, before: &[JobId]) -> anyhow::Result<()> {
        match self {
            Spell::None => {}
            Spell::Limited => limit(sandbox),
            Spell::Down => sandbox.world.act(|state, _| state.github.faults.down = true),
            Spell::Uninstalled => sandbox.world.act(|state, _| {
                let owners: Vec<_> = state.github.owners().map(|owner| owner.id).collect();
                owners.into_iter().for_each(|owner| state.github.uninstall(owner));
            }),
            Spell::Quota => {
                let over = |state: &State| {
                    let over = |id: &JobId| latest(state, *id).is_some_and(|job| job.completed_at.is_some());
                    (before.iter().all(over) && state.ec2.alive().count() == 0).then_some(())
                };
                let patience = PATIENCE + Duration::from_secs(before.len() as u64);
                sandbox.world.until("the machines of before to be gone", patience, over).await?;
                sandbox.world.act(|state, _| {
                    let matches = LaunchMatch { market: Some(Market::Spot), ..LaunchMatch::default() };
                    let code = Code::MaxSpotInstanceCountExceeded;
                    state.ec2.faults.refusals.push(Refusal { matches, code, when: When::Next(1) });
                });
            }
        }
        Ok(())
    }

    /// It ends, once Drover has met it.
    pub(super) async fn lift(self, sandbox: &Sandbox) -> anyhow::Result<()> {
        let world = &sandbox.world;
        match self {
            Spell::None | Spell::Quota => {}
            Spell::Limited => loop {
                let met = |state: &State| (state.github.struck().limited > 0).then_some(());
                if world.until("a call over the limit", Duration::from_secs(2), met).await.is_ok() {
                    break;
                }
                // Nobody called meanwhile: the limit goes on until somebody does.
                limit(sandbox);
            },
            Spell::Down => {
                let met = |state: &State| (state.github.struck().down >= 3).then_some(());
                world.until("calls while GitHub is down", PATIENCE, met).await?;
                world.act(|state, _| state.github.faults.down = false);
            }
            Spell::Uninstalled => {
                let asked = |state: &State| state.github.calls().get(&Endpoint::FindInstallation).copied();
                let before = world.look(asked).unwrap_or_default();
                let met = |state: &State| (asked(state).unwrap_or_default() >= before + 2).then_some(());
                world.until("Drover to miss the app", PATIENCE, met).await?;
                world.act(|state, now| {
                    let owners: Vec<_> = state.github.owners().map(|owner| owner.id).collect();
                    for owner in owners {
                        state.github.install(owner, now);
                    }
                });
            }
        }
        Ok(())
    }
}

fn limit(sandbox: &Sandbox) {
    let until = SystemClock.now() + LIMITED_FOR;
    sandbox.world.act(|state, _| state.github.faults.limited_until = Some(until));
}

/// The last attempt of a job that was pushed: the last job of its run.
pub(crate) fn latest(state: &State, job: JobId) -> Option<&world::github::Job> {
    let run = state.github.run(state.github.job(job)?.run)?;
    state.github.job(*run.jobs.last()?)
}

/// Watches for machines: some never boot.
pub(super) struct Saboteur {
    task: JoinHandle<()>,
    broken: Arc<std::sync::Mutex<BTreeSet<InstanceId>>>,
}

impl Saboteur {
    /// Of every four machines that are launched the second one fails, at most so many.
    pub(super) fn start(sandbox: &Sandbox, most: usize) -> Self {
        let (world, broken) = (sandbox.world.clone(), Arc::default());
        let seen: Arc<std::sync::Mutex<BTreeSet<InstanceId>>> = Arc::clone(&broken);
        let task = tokio::spawn(async move {
            let mut changed = world.changed();
            let mut known = 0;
            while changed.changed().await.is_ok() {
                let fresh: Vec<InstanceId> =
                    world.look(|state| state.ec2.instances().skip(known).map(|instance| instance.id.clone()).collect());
                for id in fresh {
                    known += 1;
                    let mut broken = seen.lock().expect("nobody panics while holding it");
                    if known % 4 == 2 && broken.len() < most {
                        broken.insert(id.clone());
                        drop(broken);
                        world.act(|state, _| state.ec2.fail_boot(&id));
                    }
                }
            }
        });
        Self { task, broken }
    }

    /// How many machines it broke.
    pub(super) fn broken(&self) -> usize {
        self.broken.lock().expect("nobody panics while holding it").len()
    }
}

impl Drop for Saboteur {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// EC2 takes the machines of these jobs as soon as they run on spot machines.
pub(super) async fn interrupt(sandbox: &Sandbox, victims: &[JobId]) -> anyhow::Result<()> {
    let mut left: BTreeSet<JobId> = victims.iter().copied().collect();
    while !left.is_empty() {
        let hosts = |state: &State| {
            let running = left.iter().filter_map(|id| match &state.github.job(*id)?.state {
                JobState::InProgress { runner } => Some((*id, sandbox.host_of(runner.id))),
                // Over before it could be interrupted: on an on-demand machine, say.
                JobState::Completed { .. } => Some((*id, None)),
                JobState::Waiting | JobState::Queued { .. } => None,
            });
            let running: Vec<_> = running.collect();
            (!running.is_empty()).then_some(running)
        };
        let running = sandbox.world.until("the jobs to interrupt", PATIENCE, hosts).await;
        for (job, host) in running.context("no job to interrupt begins")? {
            left.remove(&job);
            if let Some(host) = host {
                sandbox.world.act(|state, now| state.ec2.interrupt_spot(&host, now));
            }
        }
    }
    Ok(())
}
