//! GitHub's runner, as a process.

use std::io::{Stdout, stdout};
use std::process::Stdio;

use anyhow::Context;
use domain::state::BootItem;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User};
use tokio::process::{Child, Command};

use crate::config::Config;
use crate::hook::{Hook, JOB_COMPLETED, JOB_STARTED};
use crate::output::Output;

/// The runner reads the JIT config from this variable and removes it from its environment. A command-line argument would
/// be visible to every process on the machine.
const JIT_CONFIG: &str = "ACTIONS_RUNNER_INPUT_JITCONFIG";

/// The running runner and the files of its hooks.
pub(crate) struct Running {
    pub(crate) process: Child,
    pub(crate) output: Output<Stdout>,
    pub(crate) hook: Hook,
}

impl Running {
    /// Kills the runner and all processes of its group.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        let Some(id) = self.process.id() else { return Ok(()) };
        killpg(Pid::from_raw(id.cast_signed()), Signal::SIGKILL).context("cannot kill the runner")?;
        self.process.wait().await.context("cannot wait for the runner")?;
        Ok(())
    }
}

/// Starts `run.sh` as the runner's user, in a process group of its own.
pub(crate) fn start(config: &Config, item: &BootItem) -> anyhow::Result<Running> {
    let hook = Hook::write(item)?;
    let (output, write) = std::io::pipe().context("cannot create a pipe")?;
    let also = write.try_clone().context("cannot create a pipe")?;
    let script = config.runner_dir.join("run.sh");
    let mut command = match &config.runner_user {
        None => Command::new(&script),
        Some(name) => {
            let user = User::from_name(name).with_context(|| format!("cannot look up the user {name}"))?;
            let user = user.with_context(|| format!("DROVER_RUNNER_USER names {name}, who does not exist"))?;
            // setpriv instead of setuid, to keep the user's other groups, such as docker.
            let mut command = Command::new("setpriv");
            command.arg("--reuid").arg(name).arg("--regid").arg(user.gid.as_raw().to_string());
            command.arg("--init-groups").arg("--").arg(&script);
            command.env("HOME", user.dir).env("USER", name).env("LOGNAME", name);
            command
        }
    };
    if let Some(script) = &hook.completed_script {
        command.env(JOB_COMPLETED, script);
    }
    let process = command
        .current_dir(&config.runner_dir)
        .env(JIT_CONFIG, &item.jit_config)
        .env(JOB_STARTED, &hook.started_script)
        // It configures the agent. A job may work in another region, or rely on none being set.
        .env_remove("AWS_REGION")
        .stdin(Stdio::null())
        .stdout(write)
        .stderr(also)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", script.display()))?;
    tracing::info!("the runner has started");
    Ok(Running { process, output: Output::of(output, stdout())?, hook })
}
