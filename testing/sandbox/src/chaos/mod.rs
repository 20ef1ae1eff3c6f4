//! `make chaos`: jobs at a constant rate on the real functions, through storms of faults and outages of each service. Then the
//! faults stop, and the models of EC2 and GitHub judge the outcome.

mod figures;
mod jobs;
mod weather;

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use tokio::time::{Instant, Interval, interval, sleep};
use world::github::JobState;

use crate::bare::Programs;
use crate::demo;
use crate::demo::faults::SPOT_NOTICE;
use crate::sandbox::{BATCH_SIZE, CONCURRENCY, Network, Options, Sandbox};
use crate::short_timings::machine;
use figures::{Figures, Peaks};
use jobs::{Jobs, REPOSITORIES, pools, pools_that_keep_nothing};
pub use weather::Service;
use weather::{Fault, Sky, Weather, schedule};

/// Run the real functions through storms of all faults of the demo and through outages of each emulated service, and judge by the
/// models. Takes the given minutes and about two more.
#[derive(Debug, Clone, Parser)]
#[command(name = "make chaos ARGS=\"...\"", no_binary_name = false)]
pub struct Arguments {
    /// Minutes in which jobs are queued.
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// Jobs queued per second. The functions share this machine with the emulators and the models.
    #[arg(long, default_value_t = 1.0, value_parser = rate)]
    rate: f64,
    /// Seed of the jobs, the kills and the models' random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One machine in this many runs the real agent. The others have no process: a task makes the agent's calls. 0 is none.
    #[arg(long, default_value_t = 20)]
    agents: u32,
    /// No storms, and outages of these services only.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Service>,
    /// Minutes after the last fault in which everything must be in order.
    #[arg(long, default_value_t = 20)]
    settle: u64,
    /// Make a mistake, to see that the verdict finds it.
    #[arg(long, value_enum)]
    mistake: Option<Mistake>,
}

/// A mistake that the verdict must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mistake {
    /// Nobody runs the janitor after its first sweep.
    NoJanitor,
    /// DynamoDB has forgotten the table when its outage ends.
    ForgetfulTable,
    /// SQS has forgotten its messages when its outage ends, and nobody runs the janitor.
    ForgetfulQueue,
}

fn minutes(text: &str) -> Result<f64, String> {
    positive(text, 24.0 * 60.0)
}

fn rate(text: &str) -> Result<f64, String> {
    positive(text, 1000.0)
}

fn positive(text: &str, most: f64) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number <= most => Ok(number),
        _ => Err(format!("must be greater than 0 and at most {most}")),
    }
}

/// When a message is received again after its invocation failed. A message must survive an outage of a minute and some kills before
/// its fifth reception, as it does with the template's 360 s.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// A killed function's lease ends after the time-out.
const TIMEOUT: Duration = Duration::from_secs(30);

const SECOND: Duration = Duration::from_secs(1);

/// Never, as far as a run is concerned.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Runs the jobs and judges the outcome.
///
/// # Errors
/// If a job was lost or killed, something is left, a bound is exceeded, or a fault never happened.
pub async fn chaos(arguments: Arguments) -> anyhow::Result<()> {
    let mut sandbox = Sandbox::start(options(&arguments)?).await?;
    let ended = run(&sandbox, &arguments).await;
    if ended.is_err() {
        println!("Logs of all processes: {}", sandbox.keep_logs().display());
    }
    ended
}

fn options(arguments: &Arguments) -> anyhow::Result<Options> {
    let has_janitor = !matches!(arguments.mistake, Some(Mistake::NoJanitor | Mistake::ForgetfulQueue));
    let mut options = Options {
        seed: arguments.seed,
        repositories: REPOSITORIES.iter().map(|it| it.parse()).collect::<Result<_, _>>()?,
        arm_launch_templates: vec![demo::shapes::ARM_TEMPLATE.to_owned()],
        network: Network::BehindDoors,
        programs: Programs::OfOneIn(arguments.agents),
        retry_after: RETRY_AFTER,
        batch_size: BATCH_SIZE,
        scaler_concurrency: CONCURRENCY,
        sweep_every: if has_janitor { 5 * SECOND } else { NEVER },
        scaler_timeout: TIMEOUT,
        janitor_timeout: TIMEOUT,
        ..Options::default()
    };
    // GitHub grants 5,000 calls per hour and EC2 two launches per second, which is far less than these jobs need.
    options.github.limits.enforced = false;
    options.ec2.throttle = false;
    options.ec2.spot_notice = SPOT_NOTICE;
    // As in production, longer than it takes until a message becomes visible again after a crash.
    options.github.lost_runner = RETRY_AFTER + 3 * SECOND;
    Ok(options)
}

async fn run(sandbox: &Sandbox, arguments: &Arguments) -> anyhow::Result<()> {
    sandbox.apply(&pools()?).await.context("cannot apply the pool file")?;
    let total = Duration::from_secs_f64(60.0 * arguments.minutes);
    println!(
        "{} jobs per second for {} min, seed {}, on {}\n",
        arguments.rate,
        arguments.minutes,
        arguments.seed,
        machine()
    );
    let parts = schedule(total, &arguments.only);
    let (mut jobs, mut sky, mut peaks) =
        (Jobs::new(arguments.seed), Sky::new(sandbox, arguments.seed), Peaks::default());
    let began = Instant::now();
    storm(sandbox, arguments, &parts, (&mut jobs, &mut sky, &mut peaks)).await?;
    let queued_for = began.elapsed();
    sky.clear(sandbox);
    let calm = Instant::now();

    let patience = Duration::from_secs(60 * arguments.settle);
    let settled = async {
        while !jobs.is_calm() {
            jobs.disturb(sandbox);
            peaks.sample(sandbox);
            ensure!(calm.elapsed() < patience, "some jobs have not started {patience:?} after the last fault");
            sleep(SECOND).await;
        }
        demo::served(sandbox, &jobs.pushed, patience).await?;
        let served_after = calm.elapsed();
        sandbox.apply(&pools_that_keep_nothing()?).await?;
        demo::reconcile(sandbox, &jobs.pushed, patience).await?;
        Ok::<_, anyhow::Error>(served_after)
    };
    let settled = settled.await;
    peaks.sample(sandbox);

    jobs.pushed.uninstalled = sky.uninstalled;
    let rate = jobs.pushed.ours.len() as f64 / queued_for.as_secs_f64();
    let mut figures = Figures::of(sandbox, rate, &jobs.weather, peaks);
    if let Ok(served_after) = &settled {
        (figures.served_after, figures.ordered_after) = (Some(*served_after), Some(calm.elapsed()));
    }
    let struck = |flag: &str| parts.iter().any(|(weather, _)| weather_has(*weather, flag));
    let broken = sandbox.world.look(|state| state.ec2.instances().filter(|machine| !machine.can_boot).count());
    let verdict = demo::verdict_of(sandbox, &jobs.pushed, broken, struck)?;
    println!("\n{verdict}\n{figures}");
    settled?;
    verdict.judge()?;
    let closed: Vec<Service> = parts.iter().filter_map(|(it, _)| closed(*it)).collect();
    figures.judge(&closed)?;
    println!("{}", verdict.summary());
    Ok(())
}

fn weather_has(weather: Weather, flag: &str) -> bool {
    matches!(weather, Weather::Storm(faults) if faults.iter().any(|fault| Fault::flag(*fault) == flag))
}

fn closed(weather: Weather) -> Option<Service> {
    match weather {
        Weather::Outage(service) => Some(service),
        Weather::Calm | Weather::Storm(_) => None,
    }
}

/// Queues the jobs at a constant rate while the weather changes. In the first calm part of the second half, the app's key and the
/// webhook's secret are rotated.
async fn storm(
    sandbox: &Sandbox,
    arguments: &Arguments,
    parts: &[(Weather, Duration)],
    (jobs, sky, peaks): (&mut Jobs, &mut Sky, &mut Peaks),
) -> anyhow::Result<()> {
    let began = Instant::now();
    let total: Duration = parts.iter().map(|(_, length)| *length).sum();
    let mut queueing = Queueing { ticks: interval(Duration::from_secs_f64(1.0 / arguments.rate)), next_second: began };
    let (mut has_rotated, mut ends_at) = (false, began);
    for (weather, length) in parts {
        ends_at += *length;
        show(sandbox, began.elapsed(), *weather, jobs, peaks);
        sky.begin(sandbox, *weather)?;
        let rotates = !has_rotated && *weather == Weather::Calm && began.elapsed() >= total / 2;
        has_rotated |= rotates;
        let rotation = async { if rotates { rotate(sandbox).await } else { Ok(()) } };
        let ((), rotated) = tokio::join!(queueing.until(ends_at, sandbox, *weather, (jobs, sky, peaks)), rotation);
        rotated?;
        match (arguments.mistake, closed(*weather)) {
            (Some(Mistake::ForgetfulTable), Some(Service::Dynamodb)) => sandbox.lose_table().await?,
            (Some(Mistake::ForgetfulQueue), Some(Service::Sqs)) => {
                sandbox.world.act(|state, _| state.sqs.purge_queue(crate::sandbox::QUEUE));
            }
            _ => {}
        }
        sky.clear(sandbox);
    }
    show(sandbox, began.elapsed(), Weather::Calm, jobs, peaks);
    Ok(())
}

/// What continues from one part to the next.
struct Queueing {
    ticks: Interval,
    next_second: Instant,
}

impl Queueing {
    /// Queues jobs at their rate. If this machine is too slow for a while, the jobs that are due are queued later at once.
    async fn until(
        &mut self,
        ends_at: Instant,
        sandbox: &Sandbox,
        weather: Weather,
        (jobs, sky, peaks): (&mut Jobs, &mut Sky, &mut Peaks),
    ) {
        while Instant::now() < ends_at {
            self.ticks.tick().await;
            jobs.queue(sandbox, weather);
            if Instant::now() >= self.next_second {
                self.next_second = Instant::now() + SECOND;
                sky.blow(sandbox, weather);
                jobs.disturb(sandbox);
                peaks.sample(sandbox);
            }
        }
    }
}

/// An operator replaces the app's key and the webhook's secret.
async fn rotate(sandbox: &Sandbox) -> anyhow::Result<()> {
    sandbox.rotate_app_key()?;
    let rotated = sandbox.drover(&["secrets", "rotate", "webhook"]).await?;
    ensure!(rotated.status.success(), "drover secrets rotate: {}", String::from_utf8_lossy(&rotated.stderr));
    println!("         the app's key and the webhook's secret are rotated");
    Ok(())
}

/// Prints what begins, and how many jobs wait.
fn show(sandbox: &Sandbox, elapsed: Duration, weather: Weather, jobs: &Jobs, peaks: &mut Peaks) {
    let (waiting, ended, machines) = sandbox.world.look(|state| {
        let states = jobs.pushed.ours.iter().filter_map(|id| state.github.job(*id)).map(|job| &job.state);
        let waiting = states.clone().filter(|it| matches!(it, JobState::Queued { .. })).count();
        let ended = states.filter(|it| matches!(it, JobState::Completed { .. })).count();
        (waiting, ended, state.ec2.alive().count())
    });
    peaks.waited(waiting);
    let queued = jobs.pushed.ours.len();
    println!(
        "{:>5.0} s  {queued} jobs queued, {waiting} wait, {ended} ended, {machines} machines; {weather}",
        elapsed.as_secs_f64()
    );
}
