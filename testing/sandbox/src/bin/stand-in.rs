//! What a runner machine's image brings, in place of the real things: as `run.sh`, GitHub's runner; as `poweroff`, the
//! machine's power button.

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
        other => Err(anyhow::anyhow!("{other}: call it as run.sh or poweroff")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            // As the real run.sh, which maps most failures to 0.
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

/// Connects, takes one job, runs its hook and its "steps", reports.
async fn run() -> anyhow::Result<()> {
    if std::env::args().count() > 1 {
        bail!("run.sh is to be called without arguments: they are visible to every process");
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
                    false => "failure".to_owned(),
                    true => tokio::select! {
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

/// The job-started hook, as the runner runs it: before the first step, with the job's variables.
async fn hook(repository: &str) -> anyhow::Result<bool> {
    let Some(hook) = optional("ACTIONS_RUNNER_HOOK_JOB_STARTED") else { return Ok(true) };
    let status = Command::new(&hook).env("GITHUB_REPOSITORY", repository).status().await;
    Ok(status.with_context(|| format!("cannot run {hook}"))?.success())
}
