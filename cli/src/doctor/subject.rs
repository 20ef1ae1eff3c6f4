//! What `drover doctor` examines.

use domain::ids::StackName;
use domain::state::Config;
use jiff::Timestamp;
use platform::environment::EnvironmentError;
use platform::github::GitHubApp;
use platform::inspect::Inspect;
use platform::table::Table;

use crate::output::Failure;

/// Whether doctor may change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    ReportOnly,
    /// Repairs the webhook's settings and its secret.
    Repair,
}

/// The installation. A part that the environment does not name is reported as missing, and its checks are skipped.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    pub inspect: &'a Inspect,
    pub table: Result<&'a Table, EnvironmentError>,
    pub github: Result<&'a GitHubApp, EnvironmentError>,
    pub stack: Result<StackName, EnvironmentError>,
    pub queue_url: Result<String, EnvironmentError>,
    /// The URL of ingest.
    pub webhook_url: Result<String, EnvironmentError>,
    /// The Secrets Manager id of the webhook secret.
    pub webhook_secret: Result<String, EnvironmentError>,
    /// Why the stack's outputs are not known, with the next step.
    pub outputs: Option<&'a Failure>,
    pub mode: Mode,
    pub now: Timestamp,
}

/// The configuration in force, if it could be read.
pub(super) type MaybeConfig<'a> = Option<&'a Config>;
