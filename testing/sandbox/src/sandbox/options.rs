//! How a sandbox is set up.

use std::path::PathBuf;
use std::time::Duration;

use domain::ids::{Owner, Repository};
use world::{ec2, github};

use crate::bare::Programs;
use crate::deliveries::WebhookFaults;
use crate::events::Rules;

/// The template's `BatchSize`: messages in one invocation of the scaler.
pub const BATCH_SIZE: usize = 10;

/// The template's `ScalerMaximumConcurrency`.
pub const CONCURRENCY: usize = 5;

/// Who runs the functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driven {
    /// The event source mapping and the schedule.
    Live,
    /// The test, with `Sandbox::scale` and `Sandbox::sweep`.
    ByHand,
}

/// How functions and machines reach AWS and GitHub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Directly.
    Open,
    /// Through a proxy, and with certificates of a private CA. Machines reach STS directly.
    BehindProxy,
    /// Each service at an address of its own, whose door can be closed. The operator reaches everything directly.
    BehindDoors,
}

/// A runner group that allows only these repositories.
#[derive(Debug, Clone)]
pub struct RunnerGroup {
    pub owner: Owner,
    /// Id of the group.
    pub group: u64,
    pub repositories: Vec<Repository>,
}

/// How the sandbox is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seed of the models' random numbers.
    pub seed: u64,
    /// Durations and limits of EC2.
    pub ec2: ec2::Config,
    /// Durations and limits of GitHub.
    pub github: github::Config,
    /// How long GitHub takes to register a runner.
    pub registration: Duration,
    /// How long a runner takes from its start until it has connected to GitHub.
    pub runner_start: Duration,
    /// The repositories. Their owners are organisations.
    pub repositories: Vec<Repository>,
    /// The runner groups. An organisation's default group allows its repositories above, but no public ones, unless this
    /// list contains the group.
    pub groups: Vec<RunnerGroup>,
    /// Names of the launch templates.
    pub launch_templates: Vec<String>,
    /// Names of the launch templates with an image for Arm.
    pub arm_launch_templates: Vec<String>,
    /// Ids of the subnets. Each has the stack's tag and a zone of its own.
    pub subnets: Vec<String>,
    pub webhook_faults: WebhookFaults,
    /// The EC2 events that reach the queue.
    pub rules: Rules,
    pub driven: Driven,
    pub network: Network,
    /// Which machines have processes.
    pub programs: Programs,
    /// When a message is received again after its invocation failed.
    pub retry_after: Duration,
    /// `BatchSize` of the event source mapping.
    pub batch_size: usize,
    /// Batching window of the event source mapping.
    pub window: Duration,
    /// How many batches are consumed at the same time: `MaximumConcurrency` of the event source mapping.
    pub scaler_concurrency: usize,
    /// The interval between two runs of the janitor.
    pub sweep_every: Duration,
    /// The scaler's time-out, which also limits its leases.
    pub scaler_timeout: Duration,
    /// What starts on this machine when an instance boots; None is the agent.
    pub agent: Option<PathBuf>,
    /// What runs on machines in place of GitHub's runner; None is the stand-in.
    pub runner: Option<PathBuf>,
    /// The janitor's time-out, which also limits its lock.
    pub janitor_timeout: Duration,
    /// `RUST_LOG` of the functions. None for that of this process.
    pub log_level: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let millis = Duration::from_millis;
        let ec2 = ec2::Config {
            pending: millis(150),
            boot: millis(250),
            shutting_down: millis(300),
            stopping: millis(300),
            start_pending: millis(100),
            start_boot: millis(150),
            ..ec2::Config::default()
        };
        let github = github::Config {
            webhook_delay: (millis(10), millis(120)),
            lost_runner: Duration::from_secs(3),
            ..github::Config::default()
        };
        Self {
            seed: 1,
            ec2,
            github,
            registration: Duration::ZERO,
            runner_start: Duration::ZERO,
            repositories: vec!["octo-org/widgets".parse().expect("the text is owner/name")],
            groups: Vec::new(),
            launch_templates: vec!["drover-runner".to_owned()],
            arm_launch_templates: Vec::new(),
            subnets: vec!["subnet-a".to_owned(), "subnet-b".to_owned()],
            webhook_faults: WebhookFaults::default(),
            rules: Rules::default(),
            driven: Driven::Live,
            network: Network::Open,
            programs: Programs::OfAll,
            retry_after: Duration::from_secs(10),
            batch_size: 100,
            window: Duration::ZERO,
            scaler_concurrency: 2,
            sweep_every: Duration::from_secs(2),
            scaler_timeout: Duration::from_secs(60),
            agent: None,
            runner: None,
            janitor_timeout: Duration::from_secs(60),
            log_level: None,
        }
    }
}
