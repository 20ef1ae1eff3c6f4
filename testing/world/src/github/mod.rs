//! A model of GitHub Actions: jobs, runners, the assignment of jobs to runners, the app's API and its webhooks.
//!
//! GitHub may assign a queued job to **any** idle runner whose scope, group and labels match. The model chooses one at random,
//! not the one that was launched for the job.

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
mod users;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub use app::{AccessToken, App, FIRST_KEY, HookConfig};
pub use check_run::{CheckOutput, CheckRun, CheckRunChange};
pub use delivery::{Answer, Attempted, Delivery, JobEvent};
pub use error::Failure;
pub use jobs::{Attempts, QueueJob, RunSearch};
pub use limits::{Caller, Endpoint, Limits, Rate};
pub use runners::{JitRegistration, JitRequest};
pub use types::*;

use self::types::Wanted;
use crate::agenda::Agenda;
use crate::{LostReply, Model};

/// Durations and limits of GitHub.
#[derive(Debug, Clone)]
pub struct Config {
    /// A job that its runner has not acquired after this time is queued again.
    pub pick_up: Duration,
    /// A job that is still queued after this time fails.
    pub queue_limit: Duration,
    /// An ephemeral registration that is offline for this long is removed.
    pub offline_limit: Duration,
    /// How long GitHub waits for a lost runner before it fails the job.
    pub lost_runner: Duration,
    /// Shortest and longest delay of a webhook. The delays are independent, so webhooks overtake each other.
    pub webhook_delay: (Duration, Duration),
    /// How long deliveries are kept.
    pub deliveries_kept: Duration,
    /// How long an installation's token is valid.
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

/// Injected faults. There are none by default. A test may change them at any time.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Lost replies, in the order of the calls of each endpoint.
    pub lost_replies: VecDeque<(Endpoint, LostReply)>,
    /// Calls that are answered only with this status (500, 502, 401, ...), in the order of the calls of each endpoint.
    pub broken: VecDeque<(Endpoint, u16)>,
    /// Calls that fail with this error, in the order of the calls of each endpoint.
    pub failures: VecDeque<(Endpoint, Failure)>,
    /// Every call is answered with 503.
    pub down: bool,
    /// Until this time, every call of an installation is refused by a secondary limit.
    pub limited_until: Option<Timestamp>,
    /// The share of webhooks that GitHub never attempts, from 0 to 1.
    pub never_attempted: f64,
    /// How long lists still show a runner as idle after it became busy.
    pub busy_lag: Duration,
    /// Lists of runners are empty.
    pub lists_nothing: bool,
    /// An idle JIT runner is removed after this time, as some users report.
    pub idle_limit: Option<Duration>,
    /// Jobs that every answer shows with a null `started_at`.
    pub malformed_jobs: BTreeSet<JobId>,
    /// Runners that lists show in an unknown form.
    pub malformed_runners: BTreeMap<RunnerId, Malformed>,
    /// Delivery attempts that the list shows in an unknown form.
    pub malformed_deliveries: BTreeSet<DeliveryId>,
}

/// What is wrong with an item of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Everything but its id is null.
    State,
    /// Everything is null.
    All,
}

/// Numbers of calls that lasting faults affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Struck {
    /// Calls answered with 503 because of [`Faults::down`].
    pub down: u64,
    /// Calls refused because of [`Faults::limited_until`].
    pub limited: u64,
}

/// Something that happened and that the driver has to act on.
#[derive(Debug, Clone)]
pub enum Happening {
    /// A webhook must be posted. [`GitHub::record_answer`] takes the outcome.
    Deliver(Box<Delivery>),
    /// A connected runner is offered a job. It has one minute to [`GitHub::acquire`] it.
    Offered(Offer),
    /// The runner must stop its job and report it as cancelled.
    CancelWanted { runner: RunnerId, job: JobId },
    /// The registration was removed, so its session ends.
    RunnerRemoved { runner: RunnerId },
}

/// What is due later.
#[derive(Debug)]
enum Due {
    Report(Happening),
    /// The runner was offered the job and should have acquired it.
    PickUp(JobId, RunnerId),
    /// The job should not be queued any more.
    QueueLimit(JobId),
    /// A runner that the model operates finishes its job.
    Finish(RunnerId, JobId),
    /// A lost runner has not reconnected in time.
    RunnerLost(RunnerId, JobId),
    /// The runner has been offline since this time.
    OfflineLimit(RunnerId, Timestamp),
    /// The runner has been connected since this time.
    IdleLimit(RunnerId, Timestamp),
    Deliver(DeliveryId),
}

/// GitHub, as one app sees it.
#[derive(Debug)]
pub struct GitHub {
    config: Config,
    /// Injected faults.
    pub faults: Faults,
    rng: SmallRng,
    app: App,
    hook: HookConfig,
    manifest_codes: BTreeMap<String, Timestamp>,
    owners: BTreeMap<OwnerId, Owner>,
    repositories: BTreeMap<RepositoryId, Repository>,
    /// The previous names of renamed repositories.
    former_names: BTreeMap<Scope, RepositoryId>,
    /// Repositories that their owner removed from the app's installation.
    excluded: BTreeSet<RepositoryId>,
    tokens: BTreeMap<String, (InstallationId, Timestamp)>,
    user_tokens: BTreeMap<String, (UserTokenId, UserAccess)>,
    runs: BTreeMap<RunId, Run>,
    /// How many runs each repository has had.
    runs_of: BTreeMap<RepositoryId, u64>,
    jobs: BTreeMap<JobId, Job>,
    /// Queued jobs that are not assigned, oldest first, by what they ask for: thousands may ask for the same.
    queue: BTreeMap<Wanted, BTreeSet<(Timestamp, JobId)>>,
    runners: BTreeMap<RunnerId, Runner>,
    /// Online runners without a job.
    idle: BTreeSet<RunnerId>,
    /// Secrets of unused JIT configs.
    secrets: BTreeMap<String, RunnerId>,
    check_runs: BTreeMap<CheckRunId, CheckRun>,
    deliveries: BTreeMap<DeliveryId, Delivery>,
    agenda: Agenda<Due>,
    usage: limits::Usage,
    calls: BTreeMap<Endpoint, u64>,
    /// The calls of each caller that counted towards its hourly limit.
    counted: BTreeMap<Caller, u64>,
    /// Those of them that register or remove a runner.
    counted_for_runners: BTreeMap<Caller, u64>,
    struck: Struck,
    last_id: u64,
}

impl GitHub {
    /// GitHub with one app and no accounts. The seed determines all secrets and random decisions.
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
            excluded: BTreeSet::new(),
            tokens: BTreeMap::new(),
            user_tokens: BTreeMap::new(),
            runs: BTreeMap::new(),
            runs_of: BTreeMap::new(),
            jobs: BTreeMap::new(),
            queue: BTreeMap::new(),
            runners: BTreeMap::new(),
            idle: BTreeSet::new(),
            secrets: BTreeMap::new(),
            check_runs: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            agenda: Agenda::new(),
            usage: limits::Usage::default(),
            calls: BTreeMap::new(),
            counted: BTreeMap::new(),
            counted_for_runners: BTreeMap::new(),
            struck: Struck::default(),
            // Large, as GitHub's ids are. Small ids would hide a mix-up of an id with an index or a count.
            last_id: 40_000_000_000,
        }
    }

    /// The durations and limits.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The number of calls of each endpoint, including refused calls.
    pub fn calls(&self) -> &BTreeMap<Endpoint, u64> {
        &self.calls
    }

    /// The number of a caller's calls that counted towards its hourly limit since the beginning.
    pub fn counted(&self, caller: Caller) -> u64 {
        self.counted.get(&caller).copied().unwrap_or_default()
    }

    /// The number of those that registered or removed a runner.
    pub fn counted_for_runners(&self, caller: Caller) -> u64 {
        self.counted_for_runners.get(&caller).copied().unwrap_or_default()
    }

    /// Numbers of calls that lasting faults affected.
    pub fn struck(&self) -> Struck {
        self.struck
    }

    /// Every job, by id.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// A job by its id.
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// Jobs that lost their runner while they ran.
    pub fn killed(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values().filter(|job| job.history.killed.is_some())
    }

    /// Every registration that exists now.
    pub fn registrations(&self) -> impl Iterator<Item = &Runner> {
        self.runners.values()
    }

    /// A registration by its id, without the delay of lists.
    pub fn runner(&self, id: RunnerId) -> Option<&Runner> {
        self.runners.get(&id)
    }

    /// Counts a call, charges the caller's limits, and injects faults. On success, returns whether the reply gets lost after
    /// the call took effect.
    fn admit(&mut self, caller: Caller, endpoint: Endpoint, now: Timestamp) -> Result<Reply, Failure> {
        *self.calls.entry(endpoint).or_default() += 1;
        if self.faults.down {
            self.struck.down += 1;
            return Err(Failure::Broken(503));
        }
        if let (Some(until), Caller::Installation(_) | Caller::User(_)) =
            (self.faults.limited_until.filter(|until| *until > now), caller)
        {
            self.struck.limited += 1;
            return Err(Failure::SecondaryLimit { until });
        }
        self.usage.charge(&self.config.limits, caller, endpoint, now)?;
        *self.counted.entry(caller).or_default() += 1;
        if matches!(endpoint, Endpoint::GenerateJit | Endpoint::DeleteRunner) {
            *self.counted_for_runners.entry(caller).or_default() += 1;
        }
        if let Some(status) = take_first(&mut self.faults.broken, endpoint) {
            return Err(Failure::Broken(status));
        }
        if let Some(failure) = take_first(&mut self.faults.failures, endpoint) {
            return Err(failure);
        }
        match take_first(&mut self.faults.lost_replies, endpoint) {
            None => Ok(Reply::Delivered),
            Some(LostReply::Applied) => Ok(Reply::Lost),
            Some(LostReply::NotApplied) => Err(Failure::NoReply),
        }
    }

    /// The values of the caller's `x-ratelimit-*` headers.
    pub fn rate(&mut self, caller: Caller, now: Timestamp) -> Rate {
        self.usage.rate(&self.config.limits, caller, now)
    }

    /// Refunds the last call, because its answer is 304 and does not count towards the hourly limit.
    pub fn not_modified(&mut self, caller: Caller, now: Timestamp) {
        self.usage.refund(caller, now);
        if let Some(counted) = self.counted.get_mut(&caller) {
            *counted = counted.saturating_sub(1);
        }
    }

    fn fresh_id(&mut self) -> u64 {
        self.last_id += self.rng.random_range(1..1000);
        self.last_id
    }

    fn fresh_secret(&mut self) -> String {
        format!("{:016x}{:016x}", self.rng.random::<u64>(), self.rng.random::<u64>())
    }
}

/// Whether an answer reaches the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Delivered,
    Lost,
}

impl Reply {
    fn with<T>(self, answer: T) -> Result<T, Failure> {
        match self {
            Reply::Delivered => Ok(answer),
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
        let mut happenings = Vec::new();
        while let Some((at, due)) = self.agenda.pop(now) {
            match due {
                Due::Report(happening) => happenings.push(happening),
                Due::PickUp(job, runner) => self.not_picked_up(job, runner, at),
                Due::QueueLimit(job) => self.queued_too_long(job, at),
                Due::Finish(runner, job) => self.finish_operated(runner, job, at),
                Due::RunnerLost(runner, job) => self.runner_lost(runner, job, at),
                Due::OfflineLimit(runner, since) => self.offline_too_long(runner, since),
                Due::IdleLimit(runner, since) => self.idle_too_long(runner, since, at),
                Due::Deliver(delivery) => happenings.extend(self.send(delivery)),
            }
        }
        happenings
    }
}
