//! Powering the machine off.

use std::process::Command;

use anyhow::{Context, bail};
use platform::environment::optional;

/// Powers the machine off with the command in `DROVER_POWEROFF`, by default `systemctl poweroff`. The command is split at
/// spaces and runs without a shell.
pub(crate) fn off() -> anyhow::Result<()> {
    let command = optional("DROVER_POWEROFF").filter(|command| !command.trim().is_empty());
    let command = command.unwrap_or_else(|| "systemctl poweroff".to_owned());
    let mut words = command.split_whitespace();
    let program = words.next().context("DROVER_POWEROFF names no program")?;
    let status = Command::new(program).args(words).status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// Powers the machine off if the agent panics.
pub(crate) fn off_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if let Err(error) = off() {
            eprintln!("cannot power off: {error:#}");
        }
    }));
}
