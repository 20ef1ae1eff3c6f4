//! A model of GitHub Actions: jobs, runners, who gets which job, the app's API and its webhooks.
//!
//! The rule everything else exists for: GitHub gives a queued job to **any** idle runner whose labels and scope fit. Which
//! one is a roll of the model's dice, never the one that was launched for it.

mod accounts;
mod app;
mod assignment;
mod check_run;
mod checks;
mod deliveries;
mod delivery;
mod error;
mod jobs;
mod limits;
mod runners;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub use app::{AccessToken, App, HookConfig};
pub use check_run::{CheckOutput, CheckRun, CheckRunChange};
pub use delivery::{Answer, Attempted, Delivery, JobEvent};
pub use error::Failure;
pub use jobs::{Attempts, QueueJob};
pub use limits::{Caller, Endpoint, Limits, Rate};
pub use runners::{JitRegistration, JitRequest};
pub use types::*;

use crate::agenda::Agenda;
use crate::{LostReply, Model};

/// How long GitHub takes, and what it allows.
#[derive(Debug, Clone)]
pub struct Config {
    /// A job that its runner has not picked up by then is queued again.
    pub pick_up: Duration,
    /// A job that is still queued after that fails.
    pub queue_limit: Duration,
    /// An ephemeral registration that is offline for so long is removed.
    pub offline_limit: Duration,
    /// How long GitHub waits for a runner that vanished, before it fails the job.
    pub lost_runner: Duration,
    /// Webhooks are sent after a time between these two, each on its own: so they overtake each other.
    pub webhook_delay: (Duration, Duration),
    /// How long deliveries are kept.
    pub deliveries_kept: Duration,
    /// How long an installation's token is good.
    pub token_life: Duration,
    /// The rate limits.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            pick_up: Duration::from_secs(60),
            queue_limit: day,
            offline_limit: day,
            lost_runner: Duration::from_secs(600),
            webhook_delay: (Duration::from_millis(500), Duration::from_secs(3)),
            deliveries_kept: 3 * day,
            token_life: Duration::from_secs(3600),
            limits: Limits::default(),
        }
    }
}

/// What goes wrong. Everything is off by default and may be changed at any time.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Replies that get lost, in the order of the calls of that endpoint.
    pub lost_replies: VecDeque<(Endpoint, LostReply)>,
    /// Calls that are answered with this status (500, 502, 401, ...) and nothing else, in their order.
    pub broken: VecDeque<(Endpoint, u16)>,
    /// Calls that fail in this very way, in their order: a limit, a name that is taken, a permission that is gone.
    pub failures: VecDeque<(Endpoint, Failure)>,
    /// Every call is answered with 503.
    pub down: bool,
    /// Until then every call of an installation meets a secondary limit, used or not.
    pub limited_until: Option<Timestamp>,
    /// The share of webhooks that GitHub never attempts, from 0 to 1.
    pub never_attempted: f64,
    /// For so long after a runner became busy, lists still call it idle.
    pub busy_lag: Duration,
    /// Lists of runners are empty, whatever runners there are.
    pub lists_nothing: bool,
    /// An idle JIT runner is removed after so long, as some report.
    pub idle_limit: Option<Duration>,
}

/// How often lasting faults struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Struck {
    /// Calls answered with 503 because of [`Faults::down`].
    pub down: u64,
    /// Calls refused because of [`Faults::limited_until`].
    pub limited: u64,
}

/// What GitHub tells its driver.
#[derive(Debug, Clone)]
pub enum Happening {
    /// A webhook is to be posted. Tell the outcome with [`GitHub::record_answer`].
    Deliver(Box<Delivery>),
    /// A connected runner is offered a job. It has a minute to [`GitHub::acquire`] it.
    Offered(Offer),
    /// The runner shall stop the job it runs and report it as cancelled.
    CancelWanted {
        /// Which runner.
        runner: RunnerId,
        /// Which job.
        job: JobId,
    },
    /// The registration is gone: its session ends.
    RunnerRemoved {
        /// Which runner.
        runner: RunnerId,
    },
}

/// What is due later.
#[derive(Debug)]
enum Due {
    Tell(Happening),
    /// The runner was offered the job and should have picked it up.
    PickUp(JobId, RunnerId),
    /// The job was queued at that time and should not be any more.
    QueueLimit(JobId),
    /// The model's own runner finishes.
    Finish(RunnerId, JobId),
    /// A runner that vanished has had its chance to come back.
    RunnerLost(RunnerId, JobId),
    /// The runner went offline at that time.
    OfflineLimit(RunnerId, Timestamp),
    /// The runner connected at that time.
    IdleLimit(RunnerId, Timestamp),
    Deliver(DeliveryId),
}

/// All of GitHub that one app can see.
#[derive(Debug)]
pub struct GitHub {
    config: Config,
    /// What goes wrong.
    pub faults: Faults,
    rng: SmallRng,
    app: App,
    hook: HookConfig,
    manifest_codes: BTreeMap<String, Timestamp>,
    owners: BTreeMap<OwnerId, Owner>,
    repositories: BTreeMap<RepositoryId, Repository>,
    /// What renamed repositories were called.
    former_names: BTreeMap<Scope, RepositoryId>,
    tokens: BTreeMap<String, (InstallationId, Timestamp)>,
    runs: BTreeMap<RunId, Run>,
    jobs: BTreeMap<JobId, Job>,
    /// Queued and not assigned, oldest first.
    queue: BTreeSet<(Timestamp, JobId)>,
    runners: BTreeMap<RunnerId, Runner>,
    /// Online without a job.
    idle: BTreeSet<RunnerId>,
    /// Secrets of JIT configs that were not used yet.
    secrets: BTreeMap<String, RunnerId>,
    check_runs: BTreeMap<CheckRunId, CheckRun>,
    deliveries: BTreeMap<DeliveryId, Delivery>,
    agenda: Agenda<Due>,
    usage: limits::Usage,
    calls: BTreeMap<Endpoint, u64>,
    struck: Struck,
    last_id: u64,
}

impl GitHub {
    /// A GitHub that knows one app and nothing else. The seed decides every secret and every roll of the dice.
    pub fn new(config: Config, app: App, seed: u64) -> Self {
        Self {
            config,
            faults: Faults::default(),
            rng: SmallRng::seed_from_u64(seed),
            app,
            hook: HookConfig::default(),
            manifest_codes: BTreeMap::new(),
            owners: BTreeMap::new(),
            repositories: BTreeMap::new(),
            former_names: BTreeMap::new(),
            tokens: BTreeMap::new(),
            runs: BTreeMap::new(),
            jobs: BTreeMap::new(),
            queue: BTreeSet::new(),
            runners: BTreeMap::new(),
            idle: BTreeSet::new(),
            secrets: BTreeMap::new(),
            check_runs: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            agenda: Agenda::new(),
            usage: limits::Usage::default(),
            calls: BTreeMap::new(),
            struck: Struck::default(),
            // GitHub's ids are large; small ones would hide a confusion of an id with an index or a count.
            last_id: 40_000_000_000,
        }
    }

    /// How long things take here.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How often each endpoint was called, refused calls included.
    pub fn calls(&self) -> &BTreeMap<Endpoint, u64> {
        &self.calls
    }

    /// How often lasting faults struck.
    pub fn struck(&self) -> Struck {
        self.struck
    }

    /// Every job, by id.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// One job.
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// Jobs whose runner vanished while running them: what must never happen.
    pub fn killed(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values().filter(|job| job.history.killed.is_some())
    }

    /// Every registration that exists now. Those of processes must not be left behind.
    pub fn registrations(&self) -> impl Iterator<Item = &Runner> {
        self.runners.values()
    }

    /// One registration, as it truly is.
    pub fn runner(&self, id: RunnerId) -> Option<&Runner> {
        self.runners.get(&id)
    }

    /// Counts the call, charges the caller's limits, and lets faults strike. On success says whether the reply, after the
    /// call took effect, gets lost.
    fn admit(&mut self, caller: Caller, endpoint: Endpoint, now: Timestamp) -> Result<Reply, Failure> {
        *self.calls.entry(endpoint).or_default() += 1;
        if self.faults.down {
            self.struck.down += 1;
            return Err(Failure::Broken(503));
        }
        if let (Some(until), Caller::Installation(_)) = (self.faults.limited_until.filter(|until| *until > now), caller)
        {
            self.struck.limited += 1;
            return Err(Failure::SecondaryLimit { until });
        }
        self.usage.charge(&self.config.limits, caller, endpoint, now)?;
        if let Some(status) = take_first(&mut self.faults.broken, endpoint) {
            return Err(Failure::Broken(status));
        }
        if let Some(failure) = take_first(&mut self.faults.failures, endpoint) {
            return Err(failure);
        }
        match take_first(&mut self.faults.lost_replies, endpoint) {
            None => Ok(Reply::Heard),
            Some(LostReply::Applied) => Ok(Reply::Lost),
            Some(LostReply::NotApplied) => Err(Failure::NoReply),
        }
    }

    /// What the caller's `x-ratelimit-*` headers say now.
    pub fn rate(&mut self, caller: Caller, now: Timestamp) -> Rate {
        self.usage.rate(&self.config.limits, caller, now)
    }

    /// The answer to the call just made is "not modified": it costs nothing of the caller's hourly limit.
    pub fn not_modified(&mut self, caller: Caller, now: Timestamp) {
        self.usage.refund(caller, now);
    }

    fn fresh_id(&mut self) -> u64 {
        self.last_id += self.rng.random_range(1..1000);
        self.last_id
    }

    fn fresh_secret(&mut self) -> String {
        format!("{:016x}{:016x}", self.rng.random::<u64>(), self.rng.random::<u64>())
    }
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Heard,
    Lost,
}

impl Reply {
    fn with<T>(self, answer: T) -> Result<T, Failure> {
        match self {
            Reply::Heard => Ok(answer),
            Reply::Lost => Err(Failure::NoReply),
        }
    }
}

fn take_first<T>(faults: &mut VecDeque<(Endpoint, T)>, endpoint: Endpoint) -> Option<T> {
    let at = faults.iter().position(|(of, _)| *of == endpoint)?;
    faults.remove(at).map(|(_, fault)| fault)
}

impl Model for GitHub {
    type Happening = Happening;

    fn next_due(&self) -> Option<Timestamp> {
        self.agenda.next()
    }

    fn advance(&mut self, now: Timestamp) -> Vec<Happening> {
        let mut told = Vec::new();
        while let Some((at, due)) = self.agenda.pop(now) {
            match due {
                Due::Tell(happening) => told.push(happening),
                Due::PickUp(job, runner) => self.not_picked_up(job, runner, at),
                Due::QueueLimit(job) => self.queued_too_long(job, at),
                Due::Finish(runner, job) => self.finish_own(runner, job, at),
                Due::RunnerLost(runner, job) => self.runner_lost(runner, job, at),
                Due::OfflineLimit(runner, since) => self.offline_too_long(runner, since),
                Due::IdleLimit(runner, since) => self.idle_too_long(runner, since, at),
                Due::Deliver(delivery) => told.extend(self.send(delivery)),
            }
        }
        told
    }
}
