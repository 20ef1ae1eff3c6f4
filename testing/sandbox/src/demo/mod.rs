//! `make demo`: pushes jobs, and lets the models of EC2 and GitHub judge the outcome.

mod arguments;
mod attack;
mod delay;
pub(crate) mod faults;
mod kept;
mod pools;
mod progress;
mod push;
pub(crate) mod pushed;
pub(crate) mod saboteur;
mod serve;
mod shape_judge;
pub(crate) mod shapes;
mod verdict;

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use serde_json::Value;
use tokio::time::Instant;
use world::github::{Job, JobId, JobState};

use crate::deliveries::WebhookFaults;
use crate::names::FOREIGN_REPOSITORY;
use crate::pace::PATIENCE;
use crate::sandbox::{Options, Sandbox};
use crate::short_timings::short_timings;
use crate::state::State;
pub use arguments::Arguments;
use arguments::ONE_IN;
use arguments::every;
use attack::Attack;
pub use kept::take_real_time;
use kept::{Kept, Starts};
use pools::{AttackPools, Pools};
use progress::Progress;
use push::push;
use pushed::{Pushed, is_over, latest};
use saboteur::Saboteur;
use serve::serve;
use shape_judge::Shapes;
pub(crate) use verdict::{Verdict, seconds};

/// With fewer jobs, faults that exclude each other would affect the same job.
const MIN_JOBS_FOR_ALL: u32 = 8;

/// Runs the demo once per seed.
///
/// # Errors
/// If a job was lost or killed, something is left, or a requested fault did not happen.
pub async fn demo(arguments: Arguments) -> anyhow::Result<()> {
    let arguments = if arguments.all { arguments.everything() } else { arguments };
    if arguments.all {
        ensure!(
            arguments.jobs() >= MIN_JOBS_FOR_ALL,
            "--all needs at least {MIN_JOBS_FOR_ALL} jobs: --jobs {MIN_JOBS_FOR_ALL}"
        );
    }
    let several = arguments.seed.start() != arguments.seed.end();
    for seed in arguments.seed.clone() {
        if several {
            println!("\n== seed {seed}");
        }
        let once = Arguments { seed: seed..=seed, ..arguments.clone() };
        demo_once(once).await.with_context(|| format!("with seed {seed}"))?;
    }
    Ok(())
}

async fn demo_once(arguments: Arguments) -> anyhow::Result<()> {
    let mut pools = Pools::read(&arguments.pools, &arguments.fields())?;
    let attacked = if arguments.attack { Some(pools.add_for_attack()?) } else { None };
    if arguments.shapes {
        pools.with_short_timings = shapes::add_pool(&pools.with_short_timings, arguments.jobs())?;
    }
    let mut options = Options {
        seed: arguments.seed(),
        repositories: pools.repositories(),
        groups: pools.groups(),
        launch_templates: pools.launch_templates(),
        arm_launch_templates: arguments.shapes.then(|| shapes::ARM_TEMPLATE.to_owned()).into_iter().collect(),
        subnets: pools.subnets(),
        webhook_faults: WebhookFaults {
            duplicate_every: every(arguments.duplicate),
            reorder_every: every(arguments.reorder),
            lose_every: arguments.lose_webhooks.then_some(ONE_IN),
        },
        ..Options::default()
    };
    arguments.prepare(&mut options);
    let mut sandbox = Sandbox::start(options).await?;
    let ended = run(&sandbox, &pools, attacked.as_ref(), &arguments).await;
    if ended.is_err() {
        // Explains the first job that has not ended, or was killed and not re-run, or was started twice.
        let left = sandbox.world.look(|state| {
            let is_ours = |job: &&Job| {
                let repository = state.github.repository(job.repository);
                repository.is_some_and(|it| it.name != FOREIGN_REPOSITORY)
                    && job.labels.iter().any(|label| label.starts_with("drover") || shapes::is_valid(label))
            };
            let wrong = |job: &&Job| !is_over(job) || job.history.started.len() > 1;
            let ours = state.github.jobs().filter(is_ours);
            ours.filter_map(|job| latest(state, job.id)).find(wrong).map(|job| job.id)
        });
        if let Some(job) = left {
            let said = said(&sandbox, &["explain", &job.to_string()]).await;
            println!("\n$ drover explain {job}\n{}", said.unwrap_or_else(|error| format!("{error:#}\n")));
        }
        println!("Logs of all processes: {}", sandbox.keep_logs().display());
    }
    ended
}

async fn run(
    sandbox: &Sandbox,
    pools: &Pools,
    attacked: Option<&AttackPools>,
    arguments: &Arguments,
) -> anyhow::Result<()> {
    sandbox.apply(&pools.with_short_timings).await.context("cannot apply the pool file")?;
    println!("webhook {}  GitHub {}  AWS {}", sandbox.webhooks.url, sandbox.github_url, sandbox.aws_url);
    println!(
        "Pools applied. The demo uses shorter time limits: {}\n",
        short_timings().iter().map(|(name, time)| format!("{name} {time}")).collect::<Vec<_>>().join(", ")
    );
    if arguments.serve {
        return serve(sandbox, pools, arguments).await;
    }
    if arguments.steal.is_some() || arguments.attack {
        // `pools apply` refuses a runner group that allows more repositories than its pool serves. Opens the groups only
        // afterwards.
        sandbox.open_groups();
    }
    arguments.begin(sandbox);
    let most = if arguments.boot_fail { (arguments.jobs() as usize / 8).max(1) } else { 0 };
    let saboteur = Saboteur::start(sandbox, most);
    let progress = Progress::start(sandbox.world.clone(), arguments.jobs());
    let over = async {
        let mut attack = match attacked {
            Some(attacked) => {
                Some(Attack::begin(sandbox, &pools.target(0), attacked, arguments.jobs() as usize).await?)
            }
            None => None,
        };
        if let Some(kept) = Kept::of(arguments) {
            kept.ready(sandbox, pools.number()).await?;
        }
        let mut pushed = push(sandbox, pools, arguments).await?;
        if let Some(attack) = &mut attack {
            pushed.ours.extend(attack.end(sandbox).await?);
        }
        served(sandbox, &pushed, patience(&pushed)).await?;
        shapes::advised(sandbox, &pushed).await?;
        if Kept::of(arguments).is_some() {
            Kept::release(sandbox, pools).await?;
        }
        // Their authors cancel them.
        pushed.rivals.extend(pushed.wrong.iter().map(|wrong| wrong.job));
        pushed.rivals.extend(attack.iter().flat_map(Attack::jobs));
        reconcile(sandbox, &pushed, patience(&pushed)).await?;
        Ok::<_, anyhow::Error>((pushed, attack))
    };
    let pushed = over.await;
    progress.finish().await;
    let (pushed, attack) = pushed?;

    let injected = arguments.injected(sandbox, &pushed, saboteur.broken(), attack.as_ref());
    let shapes = arguments.shapes.then(|| sandbox.world.look(|state| Shapes::of(sandbox, state)));
    let starts = sandbox.world.look(|state| Starts::of(arguments, sandbox, state, &pushed.ours));
    let verdict = Verdict::of(sandbox, &pushed, injected, attack.as_ref(), shapes, starts);
    // Prefers a job whose machine was interrupted. Drover may not know a cancelled job.
    let known = pushed.ours.iter().find(|job| !pushed.cancelled.contains(job));
    if let Some(job) = pushed.victims.first().or(known) {
        println!("\n$ drover explain {job}");
        print!("{}", said(sandbox, &["explain", &job.to_string()]).await?);
    }
    println!("\n$ drover ps");
    print!("{}", said(sandbox, &["ps"]).await?);
    println!("\n{verdict}");
    if arguments.calls {
        println!("{}", verdict.calls());
    }
    verdict.judge()?;
    println!("{}\n\n{NEXT_STEPS}", verdict.summary());
    Ok(())
}

const NEXT_STEPS: &str = "Next: make demo ARGS=\"--all --jobs 20\" injects every fault; ARGS=\"--serve\" keeps it running for drover and curl;\n\
                          ARGS=\"--calls\" lists the API calls. docs/install.md installs Drover in an AWS account.";

async fn said(sandbox: &Sandbox, arguments: &[&str]) -> anyhow::Result<String> {
    let output = sandbox.drover(arguments).await?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "drover {}: {error}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The verdict about jobs that were pushed while some of the demo's faults struck, named by their flags. `broken` is the number of
/// machines that never booted.
pub(crate) fn verdict_of(
    sandbox: &Sandbox,
    pushed: &Pushed,
    broken: usize,
    struck: impl Fn(&str) -> bool,
) -> anyhow::Result<Verdict> {
    let all = Arguments::try_parse_from(["make demo", "--all"])?.everything();
    let mut injected = all.injected(sandbox, pushed, broken, None);
    injected.retain(|it| struck(it.flag));
    Ok(Verdict::of(sandbox, pushed, injected, None, None, None))
}

fn patience(pushed: &Pushed) -> Duration {
    PATIENCE + Duration::from_secs(2 * pushed.ours.len() as u64)
}

/// Waits until all jobs have ended.
pub(crate) async fn served(sandbox: &Sandbox, pushed: &Pushed, patience: Duration) -> anyhow::Result<()> {
    let waits = |state: &State, id: &JobId| !latest(state, *id).is_some_and(is_over);
    let served = |state: &State| (!pushed.ours.iter().any(|id| waits(state, id))).then_some(());
    let waited = sandbox.world.until("all jobs ended", patience, served).await;
    let killed = sandbox.killed_by_us();
    ensure!(killed.is_empty(), "Drover terminated the machines of running jobs: {killed:?}");
    waited.with_context(|| {
        let left = |state: &State| pushed.ours.iter().filter(|id| waits(state, id)).map(ToString::to_string).collect();
        let left: Vec<String> = sandbox.world.look(left);
        format!("these jobs have not ended: {}", left.join(", "))
    })
}

/// Waits until the table has no machines.
pub(crate) async fn reconcile(sandbox: &Sandbox, pushed: &Pushed, patience: Duration) -> anyhow::Result<()> {
    // Rivals without a runner would wait forever.
    sandbox.world.act(|state, now| {
        for rival in &pushed.rivals {
            if matches!(state.github.job(*rival).map(|job| &job.state), Some(JobState::Queued { .. })) {
                state.github.cancel(*rival, now);
            }
        }
    });
    // A rival that got a machine ends, too: the machine refuses it.
    let has_ended = |state: &State, id: &JobId| state.github.job(*id).is_some_and(|job| job.completed_at.is_some());
    let rivals = |state: &State| pushed.rivals.iter().all(|id| has_ended(state, id)).then_some(());
    sandbox.world.until("all rival jobs ended", patience, rivals).await?;
    sandbox.webhooks.release().await;
    sandbox.reconcile(&[], patience).await?;
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        // A sweep that is killed, or finds another sweep running, has compared nothing.
        let Ok(report) = sandbox.sweep().await else { continue };
        let listed: Value = serde_json::from_str(&said(sandbox, &["ps", "--json"]).await?)?;
        if listed.as_array().is_some_and(Vec::is_empty) {
            let report_again = sandbox.sweep().await?;
            ensure!(report_again["found"] == 0, "a second sweep still finds differences: {report_again}");
            return Ok(());
        }
        ensure!(report["failed"] == 0, "the sweep failed: {report}");
    }
    bail!("the table still has machines after all of them ended: {}", said(sandbox, &["ps"]).await?)
}
