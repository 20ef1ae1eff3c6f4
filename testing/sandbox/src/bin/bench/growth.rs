//! `make bench ARGS=--growth`: what a job costs the scaler in bursts and pools of different sizes. Without latency and
//! without limits, so only Drover's own work is measured.

use std::time::Duration;

use anyhow::{Context, ensure};
use domain::policy::MAX_DEMAND_PER_REPOSITORY;
use domain::policy::nudge::pause;
use domain::policy::pace::INTERVAL;
use drover::output::table;
use sandbox::calls::Capacity;
use sandbox::sandbox::{BATCH_SIZE, CONCURRENCY, Driven, Options, QUEUE, Sandbox};
use sandbox::short_timings::one_pool;
use sandbox::state::State;
use tokio::time::{Instant, sleep};
use world::github::{JobId, RunnerId};

use crate::{median, millis, processor_time, without_limits};

/// How often the events of one job are measured in a pool.
const REPETITIONS: usize = 30;

/// Longer than any measurement.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// The most that a job of a burst may cost, and how much the cost may differ between bursts.
const KILOBYTES_PER_JOB: f64 = 10.0;
const MILLISECONDS_PER_JOB: f64 = 3.0;
const DIFFERENCE: f64 = 1.3;

/// The most that a job's three events may cost in a pool with a thousand busy machines.
const READ_UNITS_PER_JOB: f64 = 20.0;
const PROCESSOR_TIME_FACTOR: f64 = 1.5;

/// Prints the tables of bursts of these sizes, and of pools with this many busy machines.
pub(crate) async fn growth(bursts: &[usize], pools: &[usize]) -> anyhow::Result<()> {
    println!("\nBursts: jobs queued at once, in batches of {BATCH_SIZE}, {CONCURRENCY} at a time. Per job:\n");
    let mut costs = Vec::new();
    for jobs in bursts {
        costs.push(burst(*jobs).await?);
    }
    let least = costs.iter().map(|cost| cost.milliseconds).fold(f64::INFINITY, f64::min);
    let rows = costs.iter().map(|cost| {
        let is_met = cost.kilobytes() <= KILOBYTES_PER_JOB
            && cost.milliseconds <= MILLISECONDS_PER_JOB
            && cost.milliseconds <= least * DIFFERENCE;
        cost.row(is_met)
    });
    let header =
        ["JOBS", "KB READ", "READ UNITS", "WRITE UNITS", "LOST", "CPU MS", "ALL LAUNCHED", "ALL REGISTERED", ""];
    print!("{}", table(&header, rows));
    println!(
        "\nTargets: at most {KILOBYTES_PER_JOB} KB and {MILLISECONDS_PER_JOB} ms per job, and equal within 30 %. LOST is the number of transactions \
         of the whole burst that another invocation was faster than."
    );

    crate::life::life().await?;

    println!("\nLarge pools: the three events of one more job. Medians and means of {REPETITIONS} jobs\n");
    let mut events = Vec::new();
    for busy in pools {
        events.push(large_pool(*busy).await?);
    }
    let empty = events.first().context("no pool")?.milliseconds;
    let rows = events.iter().map(|pool| {
        let times = if pool.busy > 1000 { 2.0 } else { 1.0 };
        let is_met = pool.read_units() <= READ_UNITS_PER_JOB * times
            && pool.milliseconds <= empty * PROCESSOR_TIME_FACTOR * times;
        pool.row(is_met)
    });
    let header =
        ["BUSY", "QUEUED MS", "IN_PROGRESS MS", "COMPLETED MS", "READ UNITS OF EACH", "WRITE UNITS", "CPU MS", ""];
    print!("{}", table(&header, rows));
    println!(
        "\nTargets: with 1,000 busy machines at most {READ_UNITS_PER_JOB} read units and {PROCESSOR_TIME_FACTOR} times the processor \
         time of an empty pool; with 10,000 at most twice that."
    );
    Ok(())
}

fn verdict(is_met: bool) -> String {
    if is_met { String::new() } else { "MISSED".to_owned() }
}

/// What a burst cost.
struct Burst {
    jobs: usize,
    /// Per job.
    capacity: Capacity,
    lost: u64,
    /// Processor time of the scaler, per job.
    milliseconds: f64,
    all_launched: Duration,
    all_registered: Duration,
}

impl Burst {
    fn kilobytes(&self) -> f64 {
        4.0 * self.capacity.read
    }

    fn row(&self, is_met: bool) -> Vec<String> {
        vec![
            self.jobs.to_string(),
            format!("{:.1}", self.kilobytes()),
            format!("{:.1}", self.capacity.read),
            format!("{:.1}", self.capacity.write),
            self.lost.to_string(),
            format!("{:.1}", self.milliseconds),
            format!("{:.1} s", self.all_launched.as_secs_f64()),
            format!("{:.1} s", self.all_registered.as_secs_f64()),
            verdict(is_met),
        ]
    }
}

/// A sandbox without limits, with a pool for all repositories of the organisation, which has enough for this many jobs.
pub(crate) async fn unlimited(jobs: usize) -> anyhow::Result<Sandbox> {
    let repositories = (0..jobs.div_ceil(MAX_DEMAND_PER_REPOSITORY).max(1)).map(|number| repository(number).parse());
    let options = Options {
        driven: Driven::ByHand,
        batch_size: BATCH_SIZE,
        scaler_concurrency: CONCURRENCY,
        sweep_every: LONG,
        scaler_timeout: Duration::from_secs(300),
        repositories: repositories.collect::<Result<_, _>>()?,
        ..Options::default()
    };
    let sandbox = Sandbox::start(without_limits(options)).await?;
    let served = "repositories = [\"octo-org/widgets\"]\n";
    // With a short interval, a search would find a burst's jobs before their webhooks are consumed.
    let settings = "max = 20000\nidle_grace = \"1h\"\npoll_interval = \"10m\"\n";
    sandbox.apply(&one_pool(settings).replace(served, "")).await?;
    Ok(sandbox)
}

pub(crate) fn repository(number: usize) -> String {
    format!("octo-org/widgets-{number}")
}

/// Queues jobs, and waits until their messages are on the queue.
async fn enqueue(sandbox: &Sandbox, jobs: usize) -> anyhow::Result<()> {
    for job in 0..jobs {
        sandbox.queue_job(&repository(job / MAX_DEMAND_PER_REPOSITORY), &["drover"], LONG);
    }
    messages(sandbox, jobs).await
}

pub(crate) async fn messages(sandbox: &Sandbox, count: usize) -> anyhow::Result<()> {
    let arrived = |state: &State| (state.sqs.bodies(QUEUE).len() >= count).then_some(());
    sandbox.world.until("all messages on the queue", Duration::from_secs(300), arrived).await
}

fn scalers(sandbox: &Sandbox) -> anyhow::Result<Duration> {
    sandbox.calls.processes("scaler").into_iter().map(processor_time).sum()
}

fn lost(sandbox: &Sandbox) -> u64 {
    sandbox.calls.refused().get(&("DynamoDB", "TransactWriteItems".to_owned())).copied().unwrap_or_default()
}

async fn burst(jobs: usize) -> anyhow::Result<Burst> {
    let mut sandbox = unlimited(jobs).await?;
    enqueue(&sandbox, jobs).await?;
    // The janitor's first sweep searches the repositories meanwhile.
    sandbox.calls.measure_capacity_of("scaler");
    let began = Instant::now();
    sandbox.go_live();
    let launched = |state: &State| (state.ec2.launches() >= jobs as u64).then_some(());
    sandbox.world.until("all launches", Duration::from_secs(900), launched).await?;
    let all_launched = began.elapsed();
    let registered = |state: &State| {
        let is_done = state.github.registrations().count() >= jobs && state.sqs.bodies(QUEUE).is_empty();
        is_done.then_some(())
    };
    sandbox.world.until("all registrations", Duration::from_secs(900), registered).await?;
    let all_registered = began.elapsed();
    let launches = sandbox.world.look(|state| state.ec2.launches());
    ensure!(launches == jobs as u64, "{launches} machines for {jobs} jobs");
    let consumed = sandbox.calls.capacity().unwrap_or_default();
    let per_job = |whole: f64| whole / jobs as f64;
    Ok(Burst {
        jobs,
        capacity: Capacity { read: per_job(consumed.read), write: per_job(consumed.write) },
        lost: lost(&sandbox),
        milliseconds: per_job(millis(scalers(&sandbox)?)),
        all_launched,
        all_registered,
    })
}

/// What a further job costs in a pool with busy machines.
struct LargePool {
    busy: usize,
    /// The median time of each event, in milliseconds.
    times: [f64; 3],
    /// The capacity that each event consumes.
    capacity: [Capacity; 3],
    /// Processor time of the three events of a job.
    milliseconds: f64,
}

impl LargePool {
    fn read_units(&self) -> f64 {
        self.capacity.iter().map(|event| event.read).sum()
    }

    fn row(&self, is_met: bool) -> Vec<String> {
        let [queued, in_progress, completed] = self.times.map(|time| format!("{time:.1}"));
        let reads = self.capacity.map(|event| format!("{:.0}", event.read)).join(" + ");
        let writes = self.capacity.iter().map(|event| event.write).sum::<f64>();
        let processor = format!("{:.1}", self.milliseconds);
        vec![
            self.busy.to_string(),
            queued,
            in_progress,
            completed,
            reads,
            format!("{writes:.0}"),
            processor,
            verdict(is_met),
        ]
    }
}

async fn large_pool(busy: usize) -> anyhow::Result<LargePool> {
    let sandbox = unlimited(busy + 1).await?;
    enqueue(&sandbox, busy).await?;
    drain(&sandbox).await?;
    run(&sandbox, &idle(&sandbox))?;
    messages(&sandbox, busy).await?;
    drain(&sandbox).await?;

    let mut times: [Vec<f64>; 3] = Default::default();
    let mut capacity = [Capacity::default(); 3];
    let mut events = 0;
    // The first job is not measured: until then, no decision has found out which slots need not be read.
    let mut before = Duration::ZERO;
    for repetition in 0..=REPETITIONS {
        if repetition == 1 {
            (times, capacity, events) = Default::default();
            before = scalers(&sandbox)?;
        }
        // Events of single jobs, not of a burst: a pool decides one launch in half a second.
        sleep(pause(busy + REPETITIONS).max(INTERVAL).unsigned_abs()).await;
        let job = sandbox.queue_job(&repository(0), &["drover"], LONG);
        for event in 0..3 {
            match event {
                0 => {}
                1 => run(&sandbox, &idle(&sandbox))?,
                _ => complete(&sandbox, job)?,
            }
            messages(&sandbox, 1).await?;
            sandbox.calls.measure_capacity();
            let began = Instant::now();
            ensure!(sandbox.scale().await?.failed == 0, "a message failed");
            times[event].push(millis(began.elapsed()));
            let consumed = sandbox.calls.capacity().unwrap_or_default();
            capacity[event].read += consumed.read / REPETITIONS as f64;
            capacity[event].write += consumed.write / REPETITIONS as f64;
            events += 1;
        }
    }
    let used = millis(scalers(&sandbox)? - before);
    Ok(LargePool { busy, times: times.map(median), capacity, milliseconds: 3.0 * used / f64::from(events) })
}

/// Ends a job that runs.
pub(crate) fn complete(sandbox: &Sandbox, job: JobId) -> anyhow::Result<()> {
    sandbox.world.act(|state, now| {
        let runner = state.github.job(job).and_then(|job| job.state.runner()).map(|runner| runner.id);
        let runner = runner.context("the job does not run")?;
        let ended = state.github.complete(runner, job, world::github::Conclusion::Success, now);
        ended.ok().context("the job does not run")
    })
}

/// Lets the scaler consume everything that is on the queue.
pub(crate) async fn drain(sandbox: &Sandbox) -> anyhow::Result<()> {
    while !sandbox.world.look(|state| state.sqs.bodies(QUEUE).is_empty()) {
        ensure!(sandbox.scale().await?.failed == 0, "a message failed");
    }
    Ok(())
}

/// The runners that are registered and have never been online.
pub(crate) fn idle(sandbox: &Sandbox) -> Vec<RunnerId> {
    sandbox.world.look(|state| {
        let offline = state.github.registrations().filter(|runner| !runner.online && runner.job.is_none());
        offline.map(|runner| runner.id).collect()
    })
}

/// Connects the runners, each of which receives a job.
pub(crate) fn run(sandbox: &Sandbox, runners: &[RunnerId]) -> anyhow::Result<()> {
    for runner in runners {
        let job = sandbox.world.act(|state, now| state.github.run_without_process(*runner, now));
        ensure!(job.is_ok_and(|job| job.is_some()), "the runner receives no job");
    }
    Ok(())
}
