//! The agent's configuration, which the machine's image sets.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use domain::config::Span;
use domain::state::AGENT_WAIT;
use platform::environment::{optional, required};

/// The agent's environment variables.
pub(crate) struct Config {
    /// `DROVER_BOOT_TABLE`.
    pub(crate) boot_table: String,
    /// `DROVER_REPORTS_TABLE`. None: the agent sends no report.
    pub(crate) reports_table: Option<String>,
    /// `DROVER_RUNNER_DIR`: the folder that contains `run.sh`.
    pub(crate) runner_dir: PathBuf,
    /// `DROVER_RUNNER_USER`: the user that runs the runner. None for the agent's own user.
    pub(crate) runner_user: Option<String>,
    /// `DROVER_AGENT_WAIT`: how long the agent waits for a JIT config before it powers off.
    pub(crate) wait: Duration,
}

impl Config {
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let wait = optional("DROVER_AGENT_WAIT").filter(|wait| !wait.is_empty());
        let wait: Option<Span> = wait.map(|wait| wait.parse().context("DROVER_AGENT_WAIT")).transpose()?;
        Ok(Self {
            boot_table: required("DROVER_BOOT_TABLE")?,
            reports_table: optional("DROVER_REPORTS_TABLE").filter(|name| !name.is_empty()),
            runner_dir: required("DROVER_RUNNER_DIR")?.into(),
            runner_user: optional("DROVER_RUNNER_USER").filter(|user| !user.is_empty()),
            wait: wait.map_or(AGENT_WAIT, Span::duration).unsigned_abs(),
        })
    }
}
