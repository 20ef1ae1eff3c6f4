//! `make demo`: jobs are pushed, machines come and go, and the models judge what became of them.

mod pools;
mod progress;
mod verdict;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use world::ec2::EndCause;
use world::github::{JobId, JobState, QueueJob, Webhooks};

use crate::deliveries::Mischief;
use crate::hurry::HURRY;
use crate::sandbox::{FOREIGN_REPOSITORY, Options, Sandbox};
use pools::Pools;
use progress::Progress;
use verdict::{Injected, Verdict};

/// One of so many misbehaves, unless a share is given.
const SHARE: &str = "0.25";

/// Runs the whole of Drover on this machine: the real executables, an emulated AWS, a model of GitHub.
#[derive(Debug, Clone, Parser)]
#[command(name = "make demo ARGS=\"...\"", no_binary_name = false)]
pub struct Arguments {
    /// How many jobs are pushed.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=5000))]
    jobs: u32,
    /// The pool file.
    #[arg(long, default_value = "pools.toml")]
    pools: PathBuf,
    /// Keep running, and print how to post a signed delivery by hand.
    #[arg(long)]
    serve: bool,
    /// Post this share of the deliveries twice.
    #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = SHARE, value_parser = share)]
    duplicate: Option<f64>,
    /// Tell the end of this share of the jobs before their beginning.
    #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = SHARE, value_parser = share)]
    reorder: Option<f64>,
    /// Let so many jobs that are not ours compete for our runners.
    #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = SHARE, value_parser = share)]
    steal: Option<f64>,
    /// Cancel this share of the jobs.
    #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = SHARE, value_parser = share)]
    cancel: Option<f64>,
    /// Decides every roll of the models' dice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("must be above 0 and at most 1".to_owned()),
    }
}

/// Every so many, for a share.
fn every(share: Option<f64>) -> Option<usize> {
    share.map(|share| (1.0 / share).round() as usize)
}

/// Runs the demo.
///
/// # Errors
/// The reason why it is not a success.
pub async fn demo(arguments: Arguments) -> anyhow::Result<()> {
    let pools = Pools::read(&arguments.pools)?;
    let options = Options {
        seed: arguments.seed,
        repositories: pools.repositories(),
        groups: pools.groups(),
        launch_templates: pools.launch_templates(),
        subnets: pools.subnets(),
        mischief: Mischief { duplicate_every: every(arguments.duplicate), reorder_every: every(arguments.reorder) },
        ..Options::default()
    };
    let mut sandbox = Sandbox::start(options).await?;
    let ended = run(&sandbox, &pools, &arguments).await;
    if ended.is_err() {
        println!("\nThe logs of all processes are in {}", sandbox.keep_logs().display());
    }
    ended
}

async fn run(sandbox: &Sandbox, pools: &Pools, arguments: &Arguments) -> anyhow::Result<()> {
    sandbox.apply(&pools.hurried).await.context("applying the pool file")?;
    println!("webhook {}  GitHub {}  AWS {}", sandbox.webhooks.url, sandbox.github_url, sandbox.aws_url);
    println!(
        "pools applied; time limits shortened for the demo: {}\n",
        HURRY.map(|(name, time)| format!("{name} {time}")).join(", ")
    );
    if arguments.serve {
        return serve(sandbox, pools).await;
    }
    if arguments.steal.is_some() {
        // Applying refuses a group that admits more than its pool serves. Nothing keeps it from being opened afterwards.
        sandbox.open_groups();
    }
    let progress = Progress::start(sandbox.world.clone(), arguments.jobs);
    let pushed = push(sandbox, pools, arguments).await?;
    let waited = settle(sandbox, &pushed).await;
    progress.finish().await;
    waited?;

    let verdict = Verdict::of(sandbox, &pushed.ours, &pushed.cancelled, injected(sandbox, arguments, &pushed));
    println!("\n$ drover explain {}", pushed.ours[0]);
    print!("{}", said(sandbox, &["explain", &pushed.ours[0].to_string()]).await?);
    println!("\n$ drover ps");
    print!("{}", said(sandbox, &["ps"]).await?);
    println!("\n{verdict}");
    verdict.judge()
}

async fn said(sandbox: &Sandbox, arguments: &[&str]) -> anyhow::Result<String> {
    let output = sandbox.drover(arguments).await?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "drover {}: {error}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What was pushed.
struct Pushed {
    ours: Vec<JobId>,
    cancelled: Vec<JobId>,
    rivals: Vec<JobId>,
}

/// Pushes the jobs, a few at a time, and what is to go wrong with them.
async fn push(sandbox: &Sandbox, pools: &Pools, arguments: &Arguments) -> anyhow::Result<Pushed> {
    let mut random = SmallRng::seed_from_u64(arguments.seed);
    let mut pushed = Pushed { ours: Vec::new(), cancelled: Vec::new(), rivals: Vec::new() };
    let jobs = arguments.jobs as usize;
    // Not the same jobs are stolen from and cancelled, if there are two.
    let strikes = |share: Option<f64>, job: usize, first: usize| {
        every(share).is_some_and(|every| job % every == first.min(jobs - 1) % every)
    };
    for job in 0..jobs {
        let target = pools.target(job);
        let labels: Vec<&str> = target.labels.iter().map(String::as_str).collect();
        let runs_for = Duration::from_millis(random.random_range(300..1500));
        if strikes(arguments.steal, job, 1) {
            pushed.rivals.push(rival(sandbox, &target, &labels));
        }
        let id = sandbox.queue_job(&target.repository, &labels, runs_for);
        pushed.ours.push(id);
        if strikes(arguments.cancel, job, 0) {
            let told = |state: &crate::state::State| {
                let mut deliveries = state.github.deliveries();
                deliveries.any(|it| it.event.job.id == id && it.attempted.is_some()).then_some(())
            };
            sandbox.world.until("the job to be delivered", Duration::from_secs(30), told).await?;
            sandbox.world.act(|state, now| state.github.cancel(id, now));
            pushed.cancelled.push(id);
        }
    }
    Ok(pushed)
}

/// A job with the same labels that nobody launches for: of a repository that the pool does not serve, if it serves only
/// some; else one of which GitHub tells us nothing.
fn rival(sandbox: &Sandbox, target: &pools::Target, labels: &[&str]) -> JobId {
    let runs_for = Duration::from_millis(500);
    match target.serves_all {
        false => {
            let owner = target.repository.split('/').next().unwrap_or_default();
            sandbox.queue_job(&format!("{owner}/{FOREIGN_REPOSITORY}"), labels, runs_for)
        }
        true => sandbox.queue(&target.repository, labels, |job| QueueJob {
            runs_for,
            webhooks: Webhooks::NeverAttempted,
            ..job
        }),
    }
}

/// Waits until everything is over, then for the table to see it, too.
async fn settle(sandbox: &Sandbox, pushed: &Pushed) -> anyhow::Result<()> {
    let patience = Duration::from_secs(90 + pushed.ours.len() as u64);
    let over = |state: &crate::state::State, jobs: &[JobId]| {
        let is_over =
            |id: &JobId| state.github.job(*id).is_some_and(|job| matches!(job.state, JobState::Completed { .. }));
        jobs.iter().all(is_over).then_some(())
    };
    sandbox.world.until("all jobs to be over", patience, |state| over(state, &pushed.ours)).await?;
    // Rivals that found no runner would wait for ever.
    sandbox.world.act(|state, now| {
        for rival in &pushed.rivals {
            if matches!(state.github.job(*rival).map(|job| &job.state), Some(JobState::Queued { .. })) {
                state.github.cancel(*rival, now);
            }
        }
    });
    sandbox.world.until("all rivals to be over", patience, |state| over(state, &pushed.rivals)).await?;
    sandbox.settle(&[], patience).await?;
    for _ in 0..20 {
        let report = sandbox.sweep().await?;
        let listed: Value = serde_json::from_str(&said(sandbox, &["ps", "--json"]).await?)?;
        if listed.as_array().is_some_and(Vec::is_empty) {
            let report_again = sandbox.sweep().await?;
            ensure!(report_again["found"] == 0, "the janitor still finds something: {report_again}");
            return Ok(());
        }
        ensure!(report["failed"] == 0, "the janitor fails: {report}");
    }
    bail!("the table does not see the end: {}", said(sandbox, &["ps"]).await?)
}

/// How often each misbehaviour really happened; None if it was not asked for.
fn injected(sandbox: &Sandbox, arguments: &Arguments, pushed: &Pushed) -> Injected {
    let done = sandbox.webhooks.done();
    let stolen = sandbox.world.look(|state| {
        let served = |id: &&JobId| {
            let job = state.github.job(**id);
            job.is_some_and(|job| job.history.started.iter().any(|start| start.name.starts_with("drover_")))
        };
        pushed.rivals.iter().filter(served).count()
    });
    Injected {
        duplicate: arguments.duplicate.map(|_| done.duplicated),
        reorder: arguments.reorder.map(|_| done.reordered),
        steal: arguments.steal.map(|_| stolen),
        cancel: arguments.cancel.map(|_| pushed.cancelled.len()),
    }
}

/// Until somebody presses Ctrl-C: prints how to post a delivery, and what happens then.
async fn serve(sandbox: &Sandbox, pools: &Pools) -> anyhow::Result<()> {
    let progress = Progress::start(sandbox.world.clone(), 1);
    let mut number = 0;
    loop {
        let target = pools.target(number);
        let labels: Vec<&str> = target.labels.iter().map(String::as_str).collect();
        let job = sandbox.queue_job(&target.repository, &labels, Duration::from_secs(2));
        let delivery = sandbox.webhooks.withhold(job).context("the model told nothing about the job")?;
        let file = sandbox.folder().join(format!("queued-{job}.json"));
        std::fs::write(&file, &delivery.body)?;
        println!(
            "Job {job} is queued on GitHub, but its delivery was not sent. Send it:\n\n\
             curl -i {} -H 'content-type: application/json' -H 'x-github-event: workflow_job' \
             -H 'x-github-delivery: {}' -H 'x-hub-signature-256: {}' --data-binary @{}\n\n(Ctrl-C ends)",
            sandbox.webhooks.url,
            delivery.guid,
            delivery.signature,
            file.display()
        );
        let over = |state: &crate::state::State| {
            let ended = state.github.job(job).is_some_and(|job| job.completed_at.is_some());
            (ended && state.ec2.ended().iter().any(|it| it.why == EndCause::PowerOff)).then_some(())
        };
        tokio::select! {
            _ = sandbox.world.until("the delivery", Duration::from_secs(365 * 24 * 3600), over) => number += 1,
            pressed = tokio::signal::ctrl_c() => {
                progress.finish().await;
                return pressed.context("cannot listen to Ctrl-C");
            }
        }
    }
}
