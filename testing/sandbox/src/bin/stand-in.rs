//! Replaces two programs of a runner machine's image: as `run.sh` GitHub's runner, and as `poweroff` the command that
//! powers the machine off.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use platform::environment::{optional, required};
use sandbox::machine::{
    Condition, RunnerMessage, RunnerStep, SANDBOX_INSTANCE, SANDBOX_RUNNER_START, SANDBOX_STARTS, SANDBOX_URL,
};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::mpsc;

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

#[derive(Clone)]
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
    let starts = optional(SANDBOX_STARTS).unwrap_or_else(|| "0".to_owned());
    sandbox.post(&format!("/machines/{}/{starts}/power-off", sandbox.instance), String::new()).await?;
    Ok(())
}

/// Connects, acquires one job, runs it, and reports the conclusion.
async fn run() -> anyhow::Result<()> {
    if std::env::args().count() > 1 {
        bail!("run.sh must be called without arguments, because every process can read them");
    }
    let sandbox = Sandbox::from_environment()?;
    let jit_config = required("ACTIONS_RUNNER_INPUT_JITCONFIG")?;
    let start: u64 = optional(SANDBOX_RUNNER_START).map_or(Ok(0), |start| start.parse())?;
    tokio::time::sleep(Duration::from_millis(start)).await;
    let connected = sandbox.post(&format!("/machines/{}/session", sandbox.instance), jit_config).await?;
    if !connected.status().is_success() {
        bail!("GitHub does not know this registration");
    }
    let runner: u64 = connected.json().await?;
    println!("Listening for Jobs");
    loop {
        match sandbox.message(runner).await? {
            RunnerMessage::Nothing | RunnerMessage::Cancel | RunnerMessage::Finish => {}
            RunnerMessage::Removed => return Ok(()),
            RunnerMessage::Job { job, repository, event, steps, ends } => {
                let path = format!("/runners/{runner}/jobs/{job}");
                if !sandbox.post(&format!("{path}/acquire"), String::new()).await?.status().is_success() {
                    continue;
                }
                println!("Running job {job} of {repository}");
                let started = hook(JOB_STARTED, &repository, &event);
                let status = run_steps(&sandbox, runner, &path, started, &steps).await?;
                // It runs after every step, also of a job that failed or was cancelled.
                let completed = hook(JOB_COMPLETED, &repository, &event).await?;
                let status = if status == Status::Success { completed } else { status };
                let conclusion = match status {
                    Status::Success => ends,
                    Status::Failure => "failure".to_owned(),
                    Status::Cancelled => "cancelled".to_owned(),
                };
                println!("Job {job} completed with result: {conclusion}");
                sandbox.post(&format!("{path}/complete"), conclusion).await?;
                return Ok(());
            }
        }
    }
}

/// The state of a job, on which the conditions of its steps depend.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Success,
    Failure,
    Cancelled,
}

/// Runs the hook and then the steps as GitHub's runner does: a failed hook or a cancellation skips the steps with the
/// condition `success()`, and the others run.
async fn run_steps(
    sandbox: &Sandbox,
    runner: u64,
    path: &str,
    hook: impl Future<Output = anyhow::Result<Status>>,
    steps: &[RunnerStep],
) -> anyhow::Result<Status> {
    let (mut hook, mut orders) = (Box::pin(hook), orders(sandbox.clone(), runner));
    let mut is_finished = false;
    let mut status = loop {
        tokio::select! {
            status = &mut hook => break status?,
            Some(order) = orders.recv() => match order {
                Order::Cancel => break Status::Cancelled,
                Order::Finish => is_finished = true,
            },
        }
    };
    // Ends the hook's process if the job was cancelled.
    drop(hook);
    for step in steps {
        match step.condition {
            Condition::Success if status != Status::Success => continue,
            Condition::Success | Condition::Always => {}
        }
        sandbox.post(&format!("{path}/step"), step.name.clone()).await?;
        if is_finished {
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(step.runs_for_ms)) => {}
            Some(order) = orders.recv() => match order {
                Order::Cancel => status = Status::Cancelled,
                Order::Finish => is_finished = true,
            },
        }
    }
    Ok(status)
}

/// What the runner is asked to do while its job runs.
enum Order {
    Cancel,
    Finish,
}

/// Receives the orders in a task of its own, because an answer to a request that is given up would be lost.
fn orders(sandbox: Sandbox, runner: u64) -> mpsc::UnboundedReceiver<Order> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let order = match sandbox.message(runner).await {
                Ok(RunnerMessage::Cancel) => Order::Cancel,
                Ok(RunnerMessage::Finish) => Order::Finish,
                Ok(RunnerMessage::Nothing | RunnerMessage::Job { .. }) => continue,
                Ok(RunnerMessage::Removed) | Err(_) => return,
            };
            if sender.send(order).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The variables with the hooks before the first and after the last step.
const JOB_STARTED: &str = "ACTIONS_RUNNER_HOOK_JOB_STARTED";
const JOB_COMPLETED: &str = "ACTIONS_RUNNER_HOOK_JOB_COMPLETED";

/// Runs a hook as the runner does: with `bash -e` or `sh -e`, with the variables of the job and without those of its workflow's
/// `env`.
async fn hook(variable: &'static str, repository: &str, event: &Value) -> anyhow::Result<Status> {
    let Some(hook) = optional(variable) else { return Ok(Status::Success) };
    let folder = std::env::current_dir()?.join("_work/_temp/_github_workflow");
    std::fs::create_dir_all(&folder)?;
    let payload = folder.join("event.json");
    std::fs::write(&payload, event.to_string())?;
    let shell = if Path::new("/bin/bash").exists() { "bash" } else { "sh" };
    let mut command = Command::new(shell);
    command.arg("-e").arg(&hook).env("GITHUB_REPOSITORY", repository).env("GITHUB_EVENT_PATH", payload);
    let status = command.kill_on_drop(true).status().await.with_context(|| format!("cannot run {hook}"))?;
    Ok(if status.success() { Status::Success } else { Status::Failure })
}
