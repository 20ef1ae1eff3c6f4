//! The pools and the jobs that are queued for them.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;
use world::github::{JobId, QueueJob, Webhooks};

use super::weather::{Fault, Weather};
use crate::demo::faults::VICTIM_RUNS_FOR;
use crate::demo::pushed::Pushed;
use crate::demo::saboteur::interrupt_running;
use crate::demo::shapes;
use crate::names::FOREIGN_REPOSITORY;
use crate::sandbox::Sandbox;

/// The pools but that with shapes, which is like the first of these. Time limits that wait for a process are longer than in other
/// runs of the sandbox: functions share this machine with everything else.
const POOLS: &str = r#"
[defaults]
idle_grace = "15s"
unbound_grace = "15s"
orphan_grace = "30s"
done_grace = "15s"
stale_grace = "15s"
boot_grace = "30s"
job_check = "10s"
poll_interval = "10s"

[[pool]]
name = "spot"
owner = "octo-org"
labels = ["spot"]
repositories = ["octo-org/widgets", "octo-org/gadgets"]
launch_template = "drover-runner"
instance_types = ["m7i.large", "m7a.large"]
market = "spot-then-on-demand"
rerun_on_interruption = true
max = 300

[[pool]]
name = "linux"
owner = "octo-org"
labels = ["linux"]
repositories = ["octo-org/widgets", "octo-org/gadgets"]
launch_template = "drover-runner"
instance_types = ["m7i.large"]
warm = 3
max = 300

[[pool]]
name = "parked"
owner = "acme"
labels = ["parked"]
repositories = ["acme/tools"]
launch_template = "drover-runner"
instance_types = ["m7i.large"]
stopped = 3
max = 300
"#;

/// The sum of the pools' `max`.
pub(super) const MACHINES: usize = 1200;

pub(super) const REPOSITORIES: [&str; 3] = ["octo-org/widgets", "octo-org/gadgets", "acme/tools"];

/// The pool file.
///
/// # Errors
/// If it is not TOML.
pub(super) fn pools() -> anyhow::Result<String> {
    shapes::add_pool(&crate::short_timings::with_short_timings(POOLS)?, 600)
}

/// The pool file without warm and stopped machines, so that all of them end.
pub(super) fn pools_that_keep_nothing() -> anyhow::Result<String> {
    Ok(pools()?.replace("warm = 3", "warm = 0").replace("stopped = 3", "stopped = 0"))
}

/// How long jobs run, in milliseconds.
const RUNS_FOR: std::ops::Range<u64> = 500..3000;

/// One job in this many has each fault of jobs.
const ONE_IN: usize = 5;

/// How long after it was queued a job is cancelled: it waits, runs or has ended.
const CANCELLED_AFTER: Duration = Duration::from_secs(1);

/// Queues the jobs.
pub(super) struct Jobs {
    random: SmallRng,
    pub(super) pushed: Pushed,
    /// The weather in which each job was queued.
    pub(super) weather: Vec<(JobId, Weather)>,
    to_cancel: VecDeque<(Instant, JobId)>,
    victims: BTreeSet<JobId>,
}

impl Jobs {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            pushed: Pushed::default(),
            weather: Vec::new(),
            to_cancel: VecDeque::new(),
            victims: BTreeSet::new(),
        }
    }

    /// Queues the next job.
    pub(super) fn queue(&mut self, sandbox: &Sandbox, weather: Weather) {
        let number = self.pushed.ours.len();
        let shapes = shapes::labels(true);
        let (repository, label) = match number % 4 {
            0 => (REPOSITORIES[number / 4 % 2], "spot"),
            1 => (REPOSITORIES[number / 4 % 2], "linux"),
            2 => (REPOSITORIES[2], "parked"),
            _ => (REPOSITORIES[0], shapes[number / 4 % shapes.len()]),
        };
        // Each fault affects another job, and jobs of every pool.
        let strikes = |fault, first| weather.has(fault) && number / 4 % ONE_IN == first;
        let is_victim = strikes(Fault::SpotKill, 0);
        let is_unsent = strikes(Fault::NeverSent, 1);
        let runs_for = match is_victim {
            true => VICTIM_RUNS_FOR,
            false => Duration::from_millis(self.random.random_range(RUNS_FOR)),
        };
        // GitHub gives the older one of two jobs to a runner.
        if strikes(Fault::Steal, 3) {
            let owner = repository.split('/').next().unwrap_or_default();
            let rival = sandbox.queue_job(&format!("{owner}/{FOREIGN_REPOSITORY}"), &[label], runs_for);
            self.pushed.rivals.push(rival);
        }
        let webhooks = if is_unsent { Webhooks::NeverAttempted } else { Webhooks::Sent };
        let job = sandbox.queue(repository, &[label], |job| QueueJob { runs_for, webhooks, ..job });
        self.pushed.ours.push(job);
        self.weather.push((job, weather));
        self.pushed.unsent += usize::from(is_unsent);
        if is_victim {
            self.pushed.victims.push(job);
            self.victims.insert(job);
        }
        if strikes(Fault::Cancel, 2) {
            self.pushed.cancelled.push(job);
            self.to_cancel.push_back((Instant::now() + CANCELLED_AFTER, job));
        }
    }

    /// Cancels the jobs whose time has come, and lets EC2 reclaim the machines of others. Called once per second.
    pub(super) fn disturb(&mut self, sandbox: &Sandbox) {
        let now = Instant::now();
        while let Some((_, job)) = self.to_cancel.pop_front_if(|(at, _)| *at <= now) {
            sandbox.world.act(|state, now| state.github.cancel(job, now));
        }
        interrupt_running(sandbox, &mut self.victims);
    }

    /// Whether no job is still to be disturbed.
    pub(super) fn is_calm(&self) -> bool {
        self.to_cancel.is_empty() && self.victims.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use drover::pool_file::PoolFile;

    use super::*;

    #[test]
    fn the_pool_file_is_valid_and_has_this_many_machines() {
        for text in [pools().unwrap(), pools_that_keep_nothing().unwrap()] {
            let file = PoolFile::parse("pools.toml", &text);
            assert!(file.errors.is_empty(), "{}", file.report().text);
            assert_eq!(file.pools.iter().map(|pool| pool.max as usize).sum::<usize>(), MACHINES);
        }
    }
}
