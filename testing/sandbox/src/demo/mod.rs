//! `make demo`: jobs are pushed, machines come and go, and the models judge what became of them.

mod faults;
mod pools;
mod progress;
mod verdict;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::time::Instant;
use world::ec2::EndCause;
use world::github::{JobId, JobState, QueueJob, Webhooks};

use crate::deliveries::WebhookFaults;
use crate::sandbox::{FOREIGN_REPOSITORY, Options, Sandbox};
use crate::short_timings::SHORT_TIMINGS;
use faults::{Saboteur, Spell, VICTIM_RUNS_FOR, latest};
use pools::{Pools, Target};
use progress::Progress;
use verdict::Verdict;

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
    /// EC2 has no machines in the first subnet for a while.
    #[arg(long)]
    capacity: bool,
    /// The account's quota of spot machines is used up.
    #[arg(long)]
    quota: bool,
    /// EC2 throttles launches.
    #[arg(long)]
    throttle: bool,
    /// GitHub's secondary limit is met.
    #[arg(long)]
    github_limit: bool,
    /// GitHub answers nothing but 503 for a while.
    #[arg(long)]
    github_down: bool,
    /// One of four deliveries does not arrive, and is marked as failed.
    #[arg(long)]
    lose_webhooks: bool,
    /// Of one in four jobs GitHub never attempts a delivery.
    #[arg(long)]
    never_sent: bool,
    /// EC2 takes the spot machines of one in four jobs while they run.
    #[arg(long)]
    spot_kill: bool,
    /// Some machines never boot.
    #[arg(long)]
    boot_fail: bool,
    /// The app is uninstalled, and installed anew.
    #[arg(long)]
    uninstall: bool,
    /// Functions are killed at random calls.
    #[arg(long)]
    crash: bool,
    /// All of these.
    #[arg(long)]
    all: bool,
    /// Decides every roll of the models' dice. `1..20` runs the demo once with each of them, the last one included.
    #[arg(long, default_value = "1", value_parser = seeds)]
    seed: RangeInclusive<u64>,
}

/// A number, or two with two dots between them.
fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    match (first.parse(), last.trim_start_matches('=').parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err("must be a number, or two such as 1..20".to_owned()),
    }
}

/// With fewer jobs, two faults that exclude each other would strike the same one.
const ENOUGH_FOR_ALL: u32 = 8;

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

/// Runs the demo, once a seed.
///
/// # Errors
/// The reason why it is not a success.
pub async fn demo(arguments: Arguments) -> anyhow::Result<()> {
    let arguments = if arguments.all { arguments.everything() } else { arguments };
    if arguments.all {
        ensure!(arguments.jobs >= ENOUGH_FOR_ALL, "--all wants --jobs {ENOUGH_FOR_ALL} or more");
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
    let pools = Pools::read(&arguments.pools, &arguments.fields())?;
    let mut options = Options {
        seed: arguments.seed(),
        repositories: pools.repositories(),
        groups: pools.groups(),
        launch_templates: pools.launch_templates(),
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
    let ended = run(&sandbox, &pools, &arguments).await;
    if ended.is_err() {
        // The first job that is not over, or was killed and not run again, is the best witness there is.
        let left = sandbox.world.look(|state| {
            let ours = state.github.jobs().filter(|job| job.labels.iter().any(|label| label.starts_with("drover")));
            ours.filter_map(|job| latest(state, job.id)).find(|job| !is_over(job)).map(|job| job.id)
        });
        if let Some(job) = left {
            let said = said(&sandbox, &["explain", &job.to_string()]).await;
            println!("\n$ drover explain {job}\n{}", said.unwrap_or_else(|error| format!("{error:#}\n")));
        }
        println!("The logs of all processes are in {}", sandbox.keep_logs().display());
    }
    ended
}

async fn run(sandbox: &Sandbox, pools: &Pools, arguments: &Arguments) -> anyhow::Result<()> {
    sandbox.apply(&pools.with_short_timings).await.context("applying the pool file")?;
    println!("webhook {}  GitHub {}  AWS {}", sandbox.webhooks.url, sandbox.github_url, sandbox.aws_url);
    println!(
        "pools applied; time limits shortened for the demo: {}\n",
        SHORT_TIMINGS.map(|(name, time)| format!("{name} {time}")).join(", ")
    );
    if arguments.serve {
        return serve(sandbox, pools).await;
    }
    if arguments.steal.is_some() {
        // Applying refuses a group that admits more than its pool serves. Nothing keeps it from being opened afterwards.
        sandbox.open_groups();
    }
    arguments.begin(sandbox);
    let most = if arguments.boot_fail { (arguments.jobs as usize / 8).max(1) } else { 0 };
    let saboteur = Saboteur::start(sandbox, most);
    let progress = Progress::start(sandbox.world.clone(), arguments.jobs);
    let over = async {
        let pushed = push(sandbox, pools, arguments).await?;
        reconcile(sandbox, &pushed).await?;
        Ok::<_, anyhow::Error>(pushed)
    };
    let pushed = over.await;
    progress.finish().await;
    let pushed = pushed?;

    let injected = arguments.injected(sandbox, &pushed, saboteur.broken());
    let verdict = Verdict::of(sandbox, &pushed.ours, &pushed.cancelled, injected);
    // The time line of a job that something happened to, if there is one; one that was cancelled may never have been told of.
    let told = pushed.ours.iter().find(|job| !pushed.cancelled.contains(job));
    if let Some(job) = pushed.victims.first().or(told) {
        println!("\n$ drover explain {job}");
        print!("{}", said(sandbox, &["explain", &job.to_string()]).await?);
    }
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

/// What was pushed, and what happened to it on purpose.
#[derive(Debug, Default)]
struct Pushed {
    ours: Vec<JobId>,
    cancelled: Vec<JobId>,
    rivals: Vec<JobId>,
    /// Jobs whose machine EC2 is to take.
    victims: Vec<JobId>,
    /// Jobs of which GitHub told nothing.
    unsent: usize,
    uninstalled: usize,
}

impl Arguments {
    /// The seed of this run.
    fn seed(&self) -> u64 {
        *self.seed.start()
    }
}

/// Pushes the jobs, a part of them under each spell, and what is to go wrong with them.
async fn push(sandbox: &Sandbox, pools: &Pools, arguments: &Arguments) -> anyhow::Result<Pushed> {
    let mut random = SmallRng::seed_from_u64(arguments.seed());
    let mut pushed = Pushed::default();
    let (jobs, spells) = (arguments.jobs as usize, arguments.spells());
    for (place, spell) in spells.iter().enumerate() {
        spell.cast(sandbox, &pushed.ours).await?;
        let (from, to) = (jobs * place / spells.len(), jobs * (place + 1) / spells.len());
        let already = pushed.victims.len();
        for job in from..to {
            push_one(sandbox, &pools.target(job), arguments, job, &mut random, &mut pushed).await?;
        }
        spell.lift(sandbox).await?;
        pushed.uninstalled += usize::from(*spell == Spell::Uninstalled);
        faults::interrupt(sandbox, &pushed.victims[already..]).await?;
    }
    Ok(pushed)
}

/// One in so many, where no share can be chosen.
const ONE_IN: usize = 4;

async fn push_one(
    sandbox: &Sandbox,
    target: &Target,
    arguments: &Arguments,
    job: usize,
    random: &mut SmallRng,
    pushed: &mut Pushed,
) -> anyhow::Result<()> {
    let jobs = arguments.jobs as usize;
    let labels: Vec<&str> = target.labels.iter().map(String::as_str).collect();
    // Not the same job is cancelled, stolen from, interrupted and never told of, if there are enough of them.
    let strikes =
        |every: Option<usize>, first: usize| every.is_some_and(|every| job % every == first.min(jobs - 1) % every);
    let asked = |flag: bool| flag.then_some(ONE_IN);
    let mut runs_for = Duration::from_millis(random.random_range(300..1500));
    let is_cancelled = strikes(every(arguments.cancel), 0);
    let is_victim = !is_cancelled && strikes(asked(arguments.spot_kill), 2);
    let is_unsent = !is_cancelled && strikes(asked(arguments.never_sent), 3);
    if is_victim {
        runs_for = VICTIM_RUNS_FOR;
    }
    if strikes(every(arguments.steal), 1) {
        pushed.rivals.push(rival(sandbox, target, &labels));
    }
    let id = sandbox.queue(&target.repository, &labels, |queued| QueueJob {
        runs_for,
        webhooks: if is_unsent { Webhooks::NeverAttempted } else { Webhooks::Sent },
        ..queued
    });
    pushed.ours.push(id);
    pushed.unsent += usize::from(is_unsent);
    if is_victim {
        pushed.victims.push(id);
    }
    if is_cancelled {
        // Of an account without the app, nothing is delivered that could be waited for.
        let told = |state: &crate::state::State| {
            let mut deliveries = state.github.deliveries().filter(|it| it.event.job.id == id).peekable();
            (deliveries.peek().is_none() || deliveries.any(|it| it.attempted.is_some())).then_some(())
        };
        sandbox.world.until("the job to be delivered", Duration::from_secs(30), told).await?;
        sandbox.world.act(|state, now| state.github.cancel(id, now));
        pushed.cancelled.push(id);
    }
    Ok(())
}

/// A job with the same labels that nobody launches for: of a repository that the pool does not serve, if it serves only
/// some; else one of which GitHub tells us nothing.
fn rival(sandbox: &Sandbox, target: &Target, labels: &[&str]) -> JobId {
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

/// One that EC2 killed is over when it was run again, and is over then.
fn is_over(job: &world::github::Job) -> bool {
    job.completed_at.is_some() && job.history.killed.is_none()
}

/// Waits until everything is over, then for the table to see it, too.
async fn reconcile(sandbox: &Sandbox, pushed: &Pushed) -> anyhow::Result<()> {
    let patience = Duration::from_secs(90 + 2 * pushed.ours.len() as u64);
    let served = |state: &crate::state::State| {
        pushed.ours.iter().all(|id| latest(state, *id).is_some_and(is_over)).then_some(())
    };
    let waited = sandbox.world.until("all jobs to be over", patience, served).await;
    let killed = sandbox.killed_by_us();
    ensure!(killed.is_empty(), "killed while running, and not by EC2: {killed:?}");
    waited?;
    // Rivals that found no runner would wait for ever.
    sandbox.world.act(|state, now| {
        for rival in &pushed.rivals {
            if matches!(state.github.job(*rival).map(|job| &job.state), Some(JobState::Queued { .. })) {
                state.github.cancel(*rival, now);
            }
        }
    });
    let rivals = |state: &crate::state::State| {
        pushed.rivals.iter().all(|id| state.github.job(*id).is_some_and(is_over)).then_some(())
    };
    sandbox.world.until("all rivals to be over", patience, rivals).await?;
    sandbox.webhooks.release().await;
    sandbox.reconcile(&[], patience).await?;
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        // One that is killed at a call, or that finds another under way, has seen nothing.
        let Ok(report) = sandbox.sweep().await else { continue };
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

/// Until somebody presses Ctrl-C: prints how to post a delivery, and what happens then.
async fn serve(sandbox: &Sandbox, pools: &Pools) -> anyhow::Result<()> {
    println!(
        "To operate it, in another shell:\n\n. {}\ndrover dashboard\n\n(and drover ps, explain, doctor, ...)\n",
        sandbox.operators_shell()?.display()
    );
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
