//! How a sandbox is set up.

use std::time::Duration;

use domain::ids::{Owner, Repository};
use world::{ec2, github};

use crate::deliveries::WebhookFaults;
use crate::events::Rules;

/// Who runs the functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driven {
    /// The event source mapping and the schedule.
    Live,
    /// The test, by [`Sandbox::scale`] and [`Sandbox::sweep`].
    ByHand,
}

/// A runner group that admits a few repositories.
#[derive(Debug, Clone)]
pub struct RunnerGroup {
    /// Whose.
    pub owner: Owner,
    /// Its id.
    pub group: u64,
    /// Whom it admits.
    pub repositories: Vec<Repository>,
}

/// How the sandbox is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides every roll of the models' dice.
    pub seed: u64,
    /// How long EC2 takes, and what it allows.
    pub ec2: ec2::Config,
    /// How long GitHub takes, and what it allows.
    pub github: github::Config,
    /// The repositories that there are, and with them their owners, all of them organisations.
    pub repositories: Vec<Repository>,
    /// The runner groups that there are, beyond the default one. Where that is not named, it admits all repositories of its
    /// organisation above, and no public ones.
    pub groups: Vec<RunnerGroup>,
    /// The launch templates that there are.
    pub launch_templates: Vec<String>,
    /// The subnets that there are, tagged with the stack, each in a zone of its own.
    pub subnets: Vec<String>,
    /// What goes wrong with deliveries.
    pub webhook_faults: WebhookFaults,
    /// What EC2 tells that reaches the queue.
    pub rules: Rules,
    /// Who runs the functions.
    pub driven: Driven,
    /// The queue's visibility timeout.
    pub visibility: Duration,
    /// The event source mapping's `BatchSize`.
    pub batch_size: usize,
    /// The event source mapping's window.
    pub window: Duration,
    /// How often the janitor is woken.
    pub sweep_every: Duration,
    /// The scaler's timeout; with it ends the lease of what it began.
    pub scaler_timeout: Duration,
    /// The janitor's timeout; with it ends its lock.
    pub janitor_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let millis = Duration::from_millis;
        let ec2 = ec2::Config {
            pending: millis(150),
            boot: millis(250),
            shutting_down: millis(300),
            stopping: millis(300),
            ..ec2::Config::default()
        };
        let github = github::Config { webhook_delay: (millis(10), millis(120)), ..github::Config::default() };
        Self {
            seed: 1,
            ec2,
            github,
            repositories: vec!["octo-org/widgets".parse().expect("it is owner/name")],
            groups: Vec::new(),
            launch_templates: vec!["drover-runner".to_owned()],
            subnets: vec!["subnet-a".to_owned(), "subnet-b".to_owned()],
            webhook_faults: WebhookFaults::default(),
            rules: Rules::default(),
            driven: Driven::Live,
            visibility: Duration::from_secs(10),
            batch_size: 100,
            window: Duration::ZERO,
            sweep_every: Duration::from_secs(2),
            scaler_timeout: Duration::from_secs(60),
            janitor_timeout: Duration::from_secs(60),
        }
    }
}
