//! Pools that keep machines ready for jobs (`--warm`, `--stopped`), and how fast jobs start on these machines and on others.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::ensure;
use drover::output::table;
use engine::ports::Clock;
use jiff::{SignedDuration, Timestamp};
use platform::clock::SystemClock;
use toml::Value;
use world::ec2;
use world::github::JobId;

use super::arguments::Arguments;
use super::pools::Pools;
use crate::pace::PATIENCE;
use crate::sandbox::{Options, QUEUE, Sandbox};
use crate::short_timings::with_fields;
use crate::state::State;

/// From the launch until `running`, and from there until the agent starts: 21 seconds together.
const PENDING: Duration = Duration::from_secs(6);
const BOOT: Duration = Duration::from_secs(15);

/// The same from the start of a stopped machine: 12 seconds together.
const START_PENDING: Duration = Duration::from_secs(3);
const START_BOOT: Duration = Duration::from_secs(9);

/// How long GitHub takes to register a runner.
const REGISTRATION: Duration = Duration::from_millis(700);

/// From the start of the runner until it has connected to GitHub.
const RUNNER_START: Duration = Duration::from_millis(3700);

/// What the agent prints when its machine is prepared.
const PREPARED: &str = "this machine is prepared";

/// How soon after its stop Drover knows that a machine is stopped.
const SETTLES_IN: SignedDuration = SignedDuration::from_secs(5);

/// The most machines of each kind that a pool keeps.
const MOST: u32 = 10;

/// How many machines each pool keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    warm: u32,
    stopped: u32,
    max: u32,
}

impl Kept {
    /// None if no flag asks for machines that are kept.
    pub(super) fn of(arguments: &Arguments) -> Option<Self> {
        let some = (arguments.jobs() / 8).clamp(1, MOST);
        let kept = |asked: bool| if asked { some } else { 0 };
        let (warm, stopped) = (kept(arguments.warm), kept(arguments.stopped));
        // Enough for machines that replace the kept ones while all jobs run.
        (warm + stopped > 0).then_some(Self { warm, stopped, max: arguments.jobs() + 2 * (warm + stopped) })
    }

    /// The fields of every pool.
    pub(super) fn fields(self) -> Vec<(&'static str, Value)> {
        let fields = [("warm", self.warm), ("stopped", self.stopped), ("max", self.max)];
        fields.into_iter().map(|(name, number)| (name, Value::Integer(number.into()))).collect()
    }

    /// Waits until the pools have their machines and Drover knows that.
    pub(super) async fn ready(self, sandbox: &Sandbox, pools: usize) -> anyhow::Result<()> {
        let (warm, stopped) = (self.warm as usize * pools, self.stopped as usize * pools);
        println!("Waiting for {warm} warm and {stopped} stopped machines.");
        let are_ready = |state: &State| {
            let now = SystemClock.now();
            let is_warm = |it: &&ec2::Instance| it.state == ec2::State::Running && it.console.contains(PREPARED);
            let is_stopped = |it: &&ec2::Instance| {
                it.state == ec2::State::Stopped && now.duration_since(it.state_since) >= SETTLES_IN
            };
            let alive = state.ec2.alive().count();
            let are = (state.ec2.alive().filter(is_warm).count(), state.ec2.alive().filter(is_stopped).count());
            (are == (warm, stopped) && alive == warm + stopped && state.sqs.bodies(QUEUE).is_empty()).then_some(())
        };
        sandbox.world.until("the machines that the pools keep", PATIENCE, are_ready).await
    }

    /// Applies the pools without machines that are kept, so that all of them end.
    pub(super) async fn release(sandbox: &Sandbox, pools: &Pools) -> anyhow::Result<()> {
        let none = [("warm", Value::Integer(0)), ("stopped", Value::Integer(0))];
        sandbox.apply(&with_fields(&pools.with_short_timings, &none)?).await
    }
}

/// The models take as long as EC2 and GitHub do. Otherwise nothing could be compared.
pub fn take_real_time(options: &mut Options) {
    (options.ec2.pending, options.ec2.boot) = (PENDING, BOOT);
    (options.ec2.start_pending, options.ec2.start_boot) = (START_PENDING, START_BOOT);
    (options.registration, options.runner_start) = (REGISTRATION, RUNNER_START);
}

/// The machine that ran a job, as it was when the job was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Start {
    /// It was launched later.
    Cold,
    /// It was stopped, and was started later.
    Stopped,
    /// It was running.
    Warm,
}

impl Start {
    fn of(machine: &ec2::Instance, queued: Timestamp) -> Self {
        // EC2 states whole seconds.
        let is_later = |time: Timestamp| time.as_second() >= queued.as_second();
        match (machine.starts, is_later(machine.created_at)) {
            (_, true) => Start::Cold,
            (0, false) => Start::Warm,
            (1.., false) if is_later(machine.launched_at) => Start::Stopped,
            (1.., false) => Start::Warm,
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Start::Cold => "cold: launched for the job",
            Start::Stopped => "stopped, and started for the job",
            Start::Warm => "warm: already running",
        }
    }
}

/// How fast jobs started, by the machines that ran them.
#[derive(Debug, Clone)]
pub(crate) struct Starts {
    wanted: Vec<(&'static str, Start)>,
    /// Seconds from the receipt of the webhook until the job started, sorted.
    seconds: BTreeMap<Start, Vec<f64>>,
}

impl Starts {
    /// None if no machines were kept.
    pub(super) fn of(arguments: &Arguments, sandbox: &Sandbox, state: &State, jobs: &[JobId]) -> Option<Self> {
        Kept::of(arguments)?;
        let asked = [(arguments.warm, "warm", Start::Warm), (arguments.stopped, "stopped", Start::Stopped)];
        let wanted = asked.into_iter().filter(|(asked, ..)| *asked).map(|(_, flag, start)| (flag, start)).collect();
        let mut seconds: BTreeMap<Start, Vec<f64>> = BTreeMap::new();
        for (start, took) in jobs.iter().filter_map(|job| start_of(sandbox, state, *job)) {
            seconds.entry(start).or_default().push(took);
        }
        seconds.values_mut().for_each(|all| all.sort_by(f64::total_cmp));
        Some(Self { wanted, seconds })
    }

    /// # Errors
    /// No job started on a machine of a kind that a flag asks for.
    pub(super) fn judge(&self) -> anyhow::Result<()> {
        for (flag, start) in &self.wanted {
            ensure!(self.seconds.contains_key(start), "--{flag} was requested, but no job started on such a machine");
        }
        Ok(())
    }
}

/// The kind of the machine, and the time from the first receipt of the webhook. None for a job without either.
fn start_of(sandbox: &Sandbox, state: &State, job: JobId) -> Option<(Start, f64)> {
    let history = &state.github.job(job)?.history;
    let (queued, started) = (history.queued.first()?, history.started.first()?);
    let is_receipt = |it: &&world::github::Delivery| it.event.job.id == job && it.event.action == "queued";
    let received = state.github.deliveries().filter(is_receipt).filter_map(|it| it.attempted.as_ref()).map(|it| it.at);
    let machine = sandbox.host_of(started.runner)?;
    let start = Start::of(state.ec2.instance(&machine)?, *queued);
    Some((start, started.at.duration_since(received.min()?).as_secs_f64()))
}

impl fmt::Display for Starts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |(start, all): (&Start, &Vec<f64>)| {
            let median = all[(all.len() - 1) / 2];
            vec![start.describe().to_owned(), all.len().to_string(), format!("{median:.1} s")]
        };
        let rows = self.seconds.iter().map(row);
        writeln!(f, "{}", table(&["MACHINE OF THE JOB", "JOBS", "FROM WEBHOOK TO JOB, P50"], rows))?;
        write!(
            f,
            "The models assume, in real time: {:?} until a launched machine has booted, {:?} until a started one has, \
             {REGISTRATION:?} for a registration at GitHub, {RUNNER_START:?} until a runner has connected.",
            PENDING + BOOT,
            START_PENDING + START_BOOT,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requested_kind_of_machine_without_jobs_is_a_failure() {
        let starts = |of: &[Start]| Starts {
            wanted: vec![("warm", Start::Warm), ("stopped", Start::Stopped)],
            seconds: of.iter().map(|start| (*start, vec![1.0])).collect(),
        };
        assert!(starts(&[Start::Warm, Start::Stopped]).judge().is_ok());
        for (some, missing) in [(Start::Warm, "--stopped"), (Start::Stopped, "--warm"), (Start::Cold, "--warm")] {
            let failed = starts(&[some]).judge().unwrap_err().to_string();
            assert!(failed.contains(missing), "{failed}");
        }
    }

    #[test]
    fn the_table_has_the_median_of_each_kind_and_what_is_assumed() {
        let seconds = BTreeMap::from([(Start::Stopped, vec![15.0, 16.25, 40.0]), (Start::Warm, vec![5.0])]);
        let shown = Starts { wanted: Vec::new(), seconds }.to_string();
        let line = |part: &str| {
            let line = shown.lines().find(|line| line.contains(part)).unwrap_or_default();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert!(line("started for the job").ends_with("job 3 16.2 s"), "{shown}");
        assert!(line("already running").ends_with("running 1 5.0 s"), "{shown}");
        assert!(
            shown.contains("21s") && shown.contains("12s") && shown.contains("700ms") && shown.contains("3.7s"),
            "{shown}"
        );
    }
}
