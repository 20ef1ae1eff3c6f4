//! Replaces two programs of a runner machine's image: as `run.sh` GitHub's runner, and as `poweroff` the command that
//! powers the machine off.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use platform::environment::{optional, required};
use sandbox::machine::{RunnerMessage, SANDBOX_INSTANCE, SANDBOX_URL};
use tokio::process::Command;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let name = std::env::args().next().unwrap_or_default();
    let done = match name.rsplit('/').next().unwrap_or_default() {
        "run.sh" => run().await,
        "poweroff" => power_off().await,
        other => Err(anyhow::anyhow!("{other}: the name must be run.sh or poweroff")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            // The real run.sh exits with 0 after most failures, too.
            ExitCode::SUCCESS
        }
    }
}

struct Sandbox {
    http: reqwest::Client,
    url: String,
    instance: String,
}

impl Sandbox {
    fn from_environment() -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().tls_certs_only([]).build()?;
        Ok(Self { http, url: required(SANDBOX_URL)?, instance: required(SANDBOX_INSTANCE)? })
    }

    async fn post(&self, path: &str, body: String) -> anyhow::Result<reqwest::Response> {
        Ok(self.http.post(format!("{}{path}", self.url)).body(body).send().await?)
    }

    async fn message(&self, runner: u64) -> anyhow::Result<RunnerMessage> {
        Ok(self.http.get(format!("{}/runners/{runner}/message", self.url)).send().await?.json().await?)
    }
}

async fn power_off() -> anyhow::Result<()> {
    let sandbox = Sandbox::from_environment()?;
    sandbox.post(&format!("/machines/{}/power-off", sandbox.instance), String::new()).await?;
    Ok(())
}

/// Connects, acquires one job, runs the hook, waits for the run time of the job, and reports the conclusion.
async fn run() -> anyhow::Result<()> {
    if std::env::args().count() > 1 {
        bail!("run.sh must be called without arguments, because every process can read them");
    }
    let sandbox = Sandbox::from_environment()?;
    let jit_config = required("ACTIONS_RUNNER_INPUT_JITCONFIG")?;
    let connected = sandbox.post(&format!("/machines/{}/session", sandbox.instance), jit_config).await?;
    if !connected.status().is_success() {
        bail!("GitHub does not know this registration");
    }
    let runner: u64 = connected.json().await?;
    println!("Listening for Jobs");
    loop {
        match sandbox.message(runner).await? {
            RunnerMessage::Nothing | RunnerMessage::Cancel => {}
            RunnerMessage::Removed => return Ok(()),
            RunnerMessage::Job { job, repository, runs_for_ms, ends } => {
                let path = format!("/runners/{runner}/jobs/{job}");
                if !sandbox.post(&format!("{path}/acquire"), String::new()).await?.status().is_success() {
                    continue;
                }
                println!("Running job {job} of {repository}");
                let conclusion = match hook(&repository).await? {
                    HookResult::Failed => "failure".to_owned(),
                    HookResult::Passed => tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(runs_for_ms)) => ends,
                        () = cancelled(&sandbox, runner) => "cancelled".to_owned(),
                    },
                };
                println!("Job {job} completed with result: {conclusion}");
                sandbox.post(&format!("{path}/complete"), conclusion).await?;
                return Ok(());
            }
        }
    }
}

async fn cancelled(sandbox: &Sandbox, runner: u64) {
    loop {
        match sandbox.message(runner).await {
            Ok(RunnerMessage::Cancel) => return,
            Ok(RunnerMessage::Removed) | Err(_) => return std::future::pending().await,
            Ok(RunnerMessage::Nothing | RunnerMessage::Job { .. }) => {}
        }
    }
}

enum HookResult {
    Passed,
    Failed,
}

/// Runs the job-started hook with the job's variables, as the runner does before the first step.
async fn hook(repository: &str) -> anyhow::Result<HookResult> {
    let Some(hook) = optional("ACTIONS_RUNNER_HOOK_JOB_STARTED") else { return Ok(HookResult::Passed) };
    let status = Command::new(&hook).env("GITHUB_REPOSITORY", repository).status().await;
    let status = status.with_context(|| format!("cannot run {hook}"))?;
    Ok(if status.success() { HookResult::Passed } else { HookResult::Failed })
}
