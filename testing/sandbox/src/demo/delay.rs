//! How much longer jobs wait beside a flood than without it, and where the time goes.

use std::fmt;
use std::time::Duration;

use anyhow::ensure;
use drover::output::table;
use jiff::Timestamp;
use world::github::JobId;

use super::pools::{Added, AttackPools};
use crate::sandbox::{BATCH_SIZE, Sandbox};
use crate::state::{Reception, State};

/// Jobs that are queued at once.
const JOBS: usize = 4;

/// The longest delay that Drover promises, in seconds. What is measured also depends on the speed of this machine.
const TARGET: f64 = 5.0;

/// Jobs of one pool: some before a flood, and as many beside it.
pub(super) struct Comparison {
    measured: Added,
    flooded: Added,
    /// Served before those that are measured, while functions start and caches are empty.
    first: JobId,
    without: Vec<JobId>,
    beside: Vec<JobId>,
}

impl Comparison {
    /// Waits until the jobs without a flood have ended and nothing of them is left.
    pub(super) async fn run_undisturbed(sandbox: &Sandbox, pools: &AttackPools) -> anyhow::Result<Self> {
        let AttackPools { flooded, measured } = pools;
        let queue = || {
            let runs_for = Duration::from_secs(3600);
            sandbox.queue_job(&measured.repository.to_string(), &[measured.label], runs_for)
        };
        let first = queue();
        sandbox.serve(&[first]).await?;
        let without: Vec<JobId> = (0..JOBS).map(|_| queue()).collect();
        sandbox.serve(&without).await?;
        let (measured, flooded) = (measured.clone(), flooded.clone());
        Ok(Self { measured, flooded, first, without, beside: Vec::new() })
    }

    /// Queues the jobs beside the flood.
    pub(super) fn queue_beside(&mut self, sandbox: &Sandbox) {
        let repository = self.measured.repository.to_string();
        let queue = |_| sandbox.queue_job(&repository, &[self.measured.label], Duration::from_secs(1));
        self.beside = (0..JOBS).map(queue).collect();
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = JobId> {
        [self.first].into_iter().chain(self.without.iter().copied()).chain(self.beside.iter().copied())
    }

    /// None if one of the jobs did not run.
    pub(super) fn delay(&self, sandbox: &Sandbox, state: &State) -> Option<Delay> {
        let waits = |jobs: &[JobId]| {
            let mut waits: Vec<Wait> = jobs.iter().map(|id| Wait::of(sandbox, state, *id)).collect::<Option<_>>()?;
            waits.sort_by(|a, b| a.seconds().total_cmp(&b.seconds()));
            Some(waits)
        };
        let (without, beside) = (waits(&self.without)?, waits(&self.beside)?);
        let overtaking = self.beside.iter().map(|id| overtaking(state, *id, &self.flooded)).max()?;
        Some(Delay { beside: *beside.last()?, without: *without.get(without.len() / 2)?, overtaking })
    }
}

/// The first reception of the message that a job is queued.
fn reception(state: &State, job: JobId) -> Option<&Reception> {
    state.receptions.iter().find(|it| it.queued == Some(job))
}

/// How many messages about the flood the scaler received while the message about this job was on the queue.
fn overtaking(state: &State, job: JobId, flooded: &Added) -> usize {
    let repository = state.github.find_repository(flooded.repository.owner.as_str(), flooded.repository.name());
    let is_flood = |it: &&Reception| it.repository.is_some() && it.repository == repository.map(|it| it.id.0);
    let Some(own) = reception(state, job) else { return 0 };
    state.receptions.iter().filter(is_flood).filter(|it| own.sent_at < it.at && it.at < own.at).count()
}

/// The parts of the time from a job's creation until it runs, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Wait([f64; PARTS.len()]);

const PARTS: [&str; 4] = ["GitHub and ingest", "on the queue", "scaler, until EC2 launches", "boot and registration"];

impl Wait {
    fn of(sandbox: &Sandbox, state: &State, job: JobId) -> Option<Self> {
        let history = &state.github.job(job)?.history;
        let (queued, start) = (history.queued.first()?, history.started.first()?);
        let host = sandbox.host_of(start.runner);
        let launched = host.and_then(|host| state.ec2.instance(&host)).map(|instance| instance.launched_at);
        let received = reception(state, job);
        let marks = [received.map(|it| it.sent_at), received.map(|it| it.at), launched];
        Some(Self::between(*queued, marks, start.at))
    }

    /// A part whose end is unknown takes no time. GitHub gives a job any runner, whose machine may have been launched for another
    /// job, earlier.
    fn between(queued: Timestamp, marks: [Option<Timestamp>; PARTS.len() - 1], started: Timestamp) -> Self {
        let mut before = queued;
        let mut ends = marks.into_iter().chain([Some(started)]);
        Self(std::array::from_fn(|_| {
            let end = ends.next().flatten().unwrap_or(before).clamp(before, started.max(before));
            let part = end.duration_since(before).as_secs_f64();
            before = end;
            part
        }))
    }

    fn seconds(&self) -> f64 {
        self.0.iter().sum()
    }
}

/// What the flood changed for others.
pub(super) struct Delay {
    /// Of the job that waited longest.
    beside: Wait,
    /// Of the job with the median wait.
    without: Wait,
    /// The most messages about the flood that overtook the message about a job.
    overtaking: usize,
}

impl Delay {
    pub(super) fn row(&self) -> Vec<String> {
        vec!["messages of the flood received before an older one of others".to_owned(), self.overtaking.to_string()]
    }

    /// Judges only what does not depend on the speed of this machine.
    ///
    /// # Errors
    /// The flood kept the message about a job on the queue.
    pub(super) fn judge(&self) -> anyhow::Result<()> {
        ensure!(
            self.overtaking <= BATCH_SIZE,
            "{} messages of the flood were received before an older one of another repository",
            self.overtaking
        );
        Ok(())
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (beside, without) = (self.beside.seconds(), self.without.seconds());
        let parts = PARTS.iter().zip(self.beside.0).zip(self.without.0);
        let rows = parts.map(|((name, a), b)| vec![(*name).to_owned(), format!("{a:.2} s"), format!("{b:.2} s")]);
        writeln!(f, "{}", table(&["PICK-UP", "BESIDE THE FLOOD", "WITHOUT IT"], rows))?;
        let delay = beside - without;
        let missed = if delay > TARGET { ", missed on this machine" } else { "" };
        writeln!(
            f,
            "Picked up in {beside:.1} s beside the flood, {without:.1} s without it: delayed by {delay:.1} s (target: {TARGET} s{missed})"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(millisecond).unwrap()
    }

    fn wait(seconds: f64) -> Wait {
        Wait([seconds, 0.0, 0.0, 0.0])
    }

    #[test]
    fn the_parts_of_a_wait_add_up_to_it() {
        let wait = |marks: [Option<i64>; 3]| Wait::between(at(1000), marks.map(|mark| mark.map(at)), at(5000)).0;
        assert_eq!(wait([Some(1500), Some(2500), Some(4000)]), [0.5, 1.0, 1.5, 1.0]);
        assert_eq!(
            wait([Some(1500), Some(2500), Some(2000)]),
            [0.5, 1.0, 0.0, 2.5],
            "a machine launched for another job"
        );
        assert_eq!(wait([None, None, Some(4000)]), [0.0, 0.0, 3.0, 1.0], "no webhook arrived");
    }

    #[test]
    fn a_long_delay_is_shown_and_only_a_message_that_waits_behind_the_flood_fails() {
        let delay = |beside, overtaking| Delay { beside: wait(beside), without: wait(1.0), overtaking };
        let shown = delay(3.5, 0).to_string();
        assert!(shown.contains("3.5 s beside the flood, 1.0 s without it: delayed by 2.5 s (target: 5 s)"), "{shown}");
        let missed = delay(7.0, BATCH_SIZE);
        assert!(missed.to_string().contains("delayed by 6.0 s (target: 5 s, missed on this machine)"), "{missed}");
        assert!(missed.judge().is_ok());
        assert!(delay(1.0, BATCH_SIZE + 1).judge().is_err());
    }
}
