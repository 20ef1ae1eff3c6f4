//! What an operator does: `drover` with the operator's environment, and the table.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use anyhow::{Context, ensure};
use domain::ids::PoolName;
use domain::log::Stream;
use platform::table::Table;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::Sandbox;
use super::environment::environment;
use crate::aws::{self, access_key};
use crate::names::{BOOT_TABLE, TABLE};

/// A running `drover`.
#[derive(Debug)]
pub struct Follower {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Follower {
    /// The next line of its output.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn line(&mut self) -> anyhow::Result<String> {
        self.lines.next_line().await?.context("drover has ended")
    }
}

impl Sandbox {
    /// Runs `drover` as the operator, in [`Sandbox::folder`].
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn drover(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.drover_with(arguments, &[]).await
    }

    /// Runs `drover` in the operator's environment with these changes. An empty value removes the variable.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn drover_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<Output> {
        self.operator(arguments, variables).output().await.context("cannot run drover")
    }

    /// Starts `drover` as the operator. Dropping the result kills it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn follow(&self, arguments: &[&str]) -> anyhow::Result<Follower> {
        self.follow_with(arguments, &[])
    }

    /// Starts `drover` in the operator's environment with these changes. An empty value removes the variable.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn follow_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<Follower> {
        let mut command = self.operator(arguments, variables);
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().context("cannot run drover")?;
        let lines = BufReader::new(child.stdout.take().context("it has no standard output")?).lines();
        Ok(Follower { lines, _child: child })
    }

    /// The command of `drover` in the operator's environment with these changes. An empty value removes the variable.
    pub fn operator(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(self.programs.join("drover"));
        command
            .args(arguments)
            .env_clear()
            .envs(self.operators_environment())
            .envs(variables.iter().copied())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        for (name, _) in variables.iter().filter(|(_, value)| value.is_empty()) {
            command.env_remove(name);
        }
        command
    }

    /// The variables of the operator's environment.
    pub fn operators_environment(&self) -> Vec<(String, String)> {
        let mut all = environment("operator", &self.aws_url, &self.github_url);
        all.push(("DROVER_WEBHOOK_URL".to_owned(), self.webhooks.url.clone()));
        all
    }

    /// Writes a shell script that sets the operator's environment, with `drover` in the path.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn operators_shell(&self) -> anyhow::Result<PathBuf> {
        // Variables for real accounts, which would change the requests.
        let mut text = "unset AWS_PROFILE AWS_SESSION_TOKEN AWS_CA_BUNDLE\n".to_owned();
        text.extend(self.operators_environment().iter().map(|(name, value)| format!("export {name}='{value}'\n")));
        text += &format!("export PATH='{}':\"$PATH\"\n", self.programs.display());
        let file = self.folder.path().join("operator.sh");
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// Applies a pool file.
    ///
    /// # Errors
    /// If it is invalid.
    pub async fn apply(&self, pools: &str) -> anyhow::Result<()> {
        let file = self.folder.path().join("pools.toml");
        std::fs::write(&file, pools)?;
        let path = file.to_str().context("the folder's name is not UTF-8")?;
        let output = self.drover(&["pools", "apply", path, "--yes"]).await?;
        let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "drover pools apply: {printed}");
        Ok(())
    }

    /// The tables, with the permissions of the operator.
    pub async fn table(&self) -> Table {
        let key = access_key("operator").unwrap_or_default();
        let aws = platform::aws::emulator(&self.aws_url, key).await;
        Table::new(&aws, TABLE.to_owned(), BOOT_TABLE.to_owned())
    }

    /// Deletes the main table and creates an empty one.
    ///
    /// # Errors
    /// If the emulator refuses.
    pub async fn lose_table(&self) -> anyhow::Result<()> {
        aws::lose_table(&self.http, &self.dynamodb_url).await
    }

    /// A pool's log for the message of a failing test: one line per event, oldest first.
    pub async fn log(&self, pool: &PoolName) -> String {
        let events = self.table().await.events(&Stream::Pool(pool.clone()), 1000).await.unwrap_or_default();
        let lines = events.iter().rev().map(|event| format!("{} {:?} {:?}\n", event.at, event.what, event.cause));
        lines.collect()
    }
}
