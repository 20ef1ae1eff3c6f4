//! The arguments of the demo.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::Parser;

/// One in four jobs or deliveries is affected by faults without a share.
pub(super) const ONE_IN: usize = 4;

/// The number of jobs by default.
const JOBS: u32 = 3;

/// The share of jobs or deliveries that a fault affects by default.
const SHARE: &str = "0.25";

/// These change pools or machines in ways that leave nothing to compare.
const NOT_WITH_KEPT: [&str; 7] = ["all", "attack", "shapes", "serve", "quota", "spot_kill", "boot_fail"];

/// Run all of Drover on this machine: the real executables, an emulated AWS and a model of GitHub.
#[derive(Debug, Clone, Parser)]
#[command(name = "make demo ARGS=\"...\"", no_binary_name = false)]
pub struct Arguments {
    /// Number of jobs to push; with --serve, before it waits for deliveries [default: 3, with --serve none]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub(super) jobs: Option<u32>,
    /// Pool file.
    #[arg(long, default_value = "pools.toml")]
    pub(super) pools: PathBuf,
    /// End with a table of all API calls.
    #[arg(long)]
    pub(super) calls: bool,
    /// Keep running and print how to post a signed delivery by hand.
    #[arg(long)]
    pub(super) serve: bool,
    /// Deliver this share of the webhooks twice.
    #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = SHARE, value_parser = share)]
    pub(super) duplicate: Option<f64>,
    /// For this share of the jobs, deliver `completed` before `in_progress`.
    #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = SHARE, value_parser = share)]
    pub(super) reorder: Option<f64>,
    /// Queue jobs of other repositories that compete for the runners: this share of the number of jobs.
    #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = SHARE, value_parser = share)]
    pub(super) steal: Option<f64>,
    /// Cancel this share of the jobs.
    #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = SHARE, value_parser = share)]
    pub(super) cancel: Option<f64>,
    /// EC2 temporarily has no capacity in the first subnet.
    #[arg(long)]
    pub(super) capacity: bool,
    /// EC2 refuses a launch because the spot quota is used up.
    #[arg(long)]
    pub(super) quota: bool,
    /// EC2 throttles launches.
    #[arg(long)]
    pub(super) throttle: bool,
    /// GitHub temporarily enforces its secondary rate limit.
    #[arg(long)]
    pub(super) github_limit: bool,
    /// GitHub temporarily answers all calls with 503.
    #[arg(long)]
    pub(super) github_down: bool,
    /// One in four deliveries fails.
    #[arg(long)]
    pub(super) lose_webhooks: bool,
    /// GitHub sends no webhooks for one in four jobs.
    #[arg(long)]
    pub(super) never_sent: bool,
    /// EC2 reclaims the spot machines of one in four jobs while they run.
    #[arg(long)]
    pub(super) spot_kill: bool,
    /// Some machines never boot.
    #[arg(long)]
    pub(super) boot_fail: bool,
    /// The app is uninstalled and installed again.
    #[arg(long)]
    pub(super) uninstall: bool,
    /// Functions are killed at random API calls.
    #[arg(long)]
    pub(super) crash: bool,
    /// Somebody with access to two repositories of the organisation attacks: foreign jobs, runners with our names, forged ends
    /// of jobs, hostile labels, a storm of cancelled jobs, a flood of jobs.
    #[arg(long)]
    pub(super) attack: bool,
    /// A pool with shapes: the labels of jobs ask for machines, as `any/8cpu/32gb/arm64/spot` does. Authors of wrong labels must be
    /// shown how to correct them, which takes a minute. With --all, half of the jobs ask for shapes.
    #[arg(long)]
    pub(super) shapes: bool,
    /// The pools keep some machines warm. With models that take as long as EC2 and GitHub do, the demo compares how fast jobs
    /// start, and fails if none starts on a warm machine.
    #[arg(long, conflicts_with_all = NOT_WITH_KEPT)]
    pub(super) warm: bool,
    /// The pools keep some machines stopped. Like --warm, for machines that are started for their jobs.
    #[arg(long, conflicts_with_all = NOT_WITH_KEPT)]
    pub(super) stopped: bool,
    /// All of the faults above and a pool with shapes, without the attack.
    #[arg(long)]
    pub(super) all: bool,
    /// Seed of the models' random numbers. `1..20` runs the demo once with each seed from 1 to 20.
    #[arg(long, default_value = "1", value_parser = seeds)]
    pub(super) seed: RangeInclusive<u64>,
}

/// Parses `7` or `1..20`. The end is included.
fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    match (first.parse(), last.trim_start_matches('=').parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err("must be a number or a range such as 1..20".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("must be greater than 0 and at most 1".to_owned()),
    }
}

/// Converts a share to an interval: 0.25 is every fourth.
pub(super) fn every(share: Option<f64>) -> Option<usize> {
    share.map(|share| (1.0 / share).round() as usize)
}

impl Arguments {
    /// Whether it runs until somebody ends it.
    pub fn serves(&self) -> bool {
        self.serve
    }

    /// The number of jobs to push.
    pub(super) fn jobs(&self) -> u32 {
        self.jobs.unwrap_or(JOBS)
    }

    /// Whether a job asks for a shape, by its index. With --all, half of the jobs do: each fault affects jobs of both kinds.
    pub(super) fn asks_for_shape(&self, job: usize) -> bool {
        self.shapes && !(self.all && job / ONE_IN % 2 == 1)
    }

    /// The only seed of one run.
    pub(super) fn seed(&self) -> u64 {
        *self.seed.start()
    }

    /// Turns on every fault.
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
            shapes: true,
            ..self
        }
    }
}
