//! What the scaler and the janitor share: their clients, built once per cold start.

use aws_config::SdkConfig;
use domain::config::Rates;
use domain::ids::StackName;
use engine::context::{Context, Share};
use engine::ports::Ports;
use jiff::Timestamp;

use crate::clock::SystemClock;
use crate::ec2::Ec2;
use crate::embedded_metrics::EmbeddedMetrics;
use crate::environment::{self, EnvironmentError, parsed, required};
use crate::github::{ApiUrl, GitHubApp, PublicRoots};
use crate::queue::Queue;
use crate::reports::ReportsTable;
use crate::secrets::Secret;
use crate::table::Table;

/// The clients of AWS and GitHub, and the identity of the stack.
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
    /// Reads the environment variables of `docs/environment.md`. Makes no call.
    ///
    /// # Errors
    /// If a variable is missing or invalid.
    pub fn from_environment(aws: &SdkConfig) -> Result<Self, EnvironmentError> {
        let stack: StackName = parsed("DROVER_STACK")?;
        Ok(Self {
            table: table(aws)?,
            ec2: Ec2::new(aws, stack.clone()),
            github: github_with(aws, PublicRoots::BuiltIn)?,
            queue: Queue::new(aws, required("DROVER_QUEUE_URL")?),
            stack,
            runner_role: required("DROVER_RUNNER_ROLE_ID")?,
            rates: Rates::of(aws.region().map(ToString::to_string).unwrap_or_default()),
        })
    }

    /// The same clients, and one of this table for the machines' reports. None: no boot report is read.
    #[must_use]
    pub fn with_reports(self, aws: &SdkConfig, table: Option<String>) -> Self {
        let reports = table.map(|name| ReportsTable::new(aws, name));
        Self { table: self.table.with_reports(reports), ..self }
    }

    /// Starts collecting this process's metrics.
    ///
    /// # Errors
    /// If this process collects metrics already.
    pub fn metrics(&self) -> anyhow::Result<EmbeddedMetrics<'_>> {
        EmbeddedMetrics::collect(&self.stack, &self.table, &self.ec2, &self.github)
    }

    /// The context of one invocation. `deadline_ms` is in milliseconds since 1970.
    ///
    /// # Errors
    /// If the deadline is out of range.
    pub fn invocation<'a>(&'a self, request: &'a str, deadline_ms: u64) -> anyhow::Result<Context<'a>> {
        let deadline = Timestamp::from_millisecond(deadline_ms.try_into()?)?;
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
            deadline,
            share: Share::of_invocation(deadline),
        })
    }
}

/// The tables named by `DROVER_TABLE` and `DROVER_BOOT_TABLE`.
///
/// # Errors
/// If one of the variables is not set.
pub fn table(aws: &SdkConfig) -> Result<Table, EnvironmentError> {
    Ok(Table::new(aws, required("DROVER_TABLE")?, required("DROVER_BOOT_TABLE")?))
}

/// The app whose secret is named by `DROVER_APP_SECRET`, as an operator's computer calls it.
///
/// # Errors
/// If the variable is not set, or `DROVER_GITHUB_API_URL` is invalid.
pub fn github(aws: &SdkConfig) -> Result<GitHubApp, EnvironmentError> {
    github_with(aws, PublicRoots::System)
}

fn github_with(aws: &SdkConfig, roots: PublicRoots) -> Result<GitHubApp, EnvironmentError> {
    Ok(GitHubApp::new(Secret::new(aws, required("DROVER_APP_SECRET")?), github_api_url()?, roots))
}

/// The address in `DROVER_GITHUB_API_URL`; None if the variable is not set or empty.
///
/// # Errors
/// If it is invalid.
pub fn github_api_url() -> Result<Option<ApiUrl>, EnvironmentError> {
    match environment::optional("DROVER_GITHUB_API_URL") {
        None => Ok(None),
        Some(_) => parsed("DROVER_GITHUB_API_URL").map(Some),
    }
}
