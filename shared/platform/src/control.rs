//! Everything that scaler and janitor reach the world through, built once a cold start.

use aws_config::SdkConfig;
use domain::config::Rates;
use domain::ids::StackName;
use engine::context::Context;
use engine::ports::Ports;
use jiff::Timestamp;

use crate::clock::SystemClock;
use crate::ec2::Ec2;
use crate::embedded_metrics::Figures;
use crate::environment::{self, EnvironmentError, parsed, required};
use crate::github::GitHubApp;
use crate::queue::Queue;
use crate::secrets::Secret;
use crate::table::Table;

/// The ports on AWS and GitHub, and who we are.
#[derive(Debug)]
pub struct ControlPlane {
    table: Table,
    ec2: Ec2,
    github: GitHubApp,
    queue: Queue,
    stack: StackName,
    runner_role: String,
    rates: Rates,
}

impl ControlPlane {
    /// As the environment says. Makes no call.
    ///
    /// # Errors
    /// When a variable is missing or makes no sense; see `docs/environment.md`.
    pub fn from_environment(aws: &SdkConfig) -> Result<Self, EnvironmentError> {
        let stack: StackName = parsed("DROVER_STACK")?;
        Ok(Self {
            table: table(aws)?,
            ec2: Ec2::new(aws, stack.clone()),
            github: github(aws)?,
            queue: Queue::new(aws, required("DROVER_QUEUE_URL")?),
            stack,
            runner_role: required("DROVER_RUNNER_ROLE_ID")?,
            rates: Rates::of(aws.region().map(ToString::to_string).unwrap_or_default()),
        })
    }

    /// Begins to collect the figures of this process.
    ///
    /// # Errors
    /// When it does already.
    pub fn figures(&self) -> anyhow::Result<Figures<'_>> {
        Figures::collect(&self.stack, &self.table, &self.ec2, &self.github)
    }

    /// One invocation, by its id, which ends at that time (in milliseconds since 1970).
    ///
    /// # Errors
    /// When that is no time.
    pub fn invocation<'a>(&'a self, request: &'a str, deadline_ms: u64) -> anyhow::Result<Context<'a>> {
        Ok(Context {
            ports: Ports {
                store: &self.table,
                compute: &self.ec2,
                github: &self.github,
                queue: &self.queue,
                clock: &SystemClock,
            },
            stack: &self.stack,
            runner_role: &self.runner_role,
            rates: &self.rates,
            request,
            deadline: Timestamp::from_millisecond(deadline_ms.try_into()?)?,
        })
    }
}

/// The tables that `DROVER_TABLE` and `DROVER_BOOT_TABLE` name.
///
/// # Errors
/// When one of them is not set.
pub fn table(aws: &SdkConfig) -> Result<Table, EnvironmentError> {
    Ok(Table::new(aws, required("DROVER_TABLE")?, required("DROVER_BOOT_TABLE")?))
}

/// The app whose secret `DROVER_APP_SECRET` names.
///
/// # Errors
/// When it is not set.
pub fn github(aws: &SdkConfig) -> Result<GitHubApp, EnvironmentError> {
    let secret = Secret::new(aws, required("DROVER_APP_SECRET")?);
    Ok(GitHubApp::new(secret, environment::optional("DROVER_GITHUB_API_URL").filter(|url| !url.is_empty())))
}
