//! Measures what the job uses: takes a sample per second, answers the job-completed hook, and reports.
//!
//! Any process of the job can connect to the hook's socket. So a connection permits and ends nothing: it gets what the job has
//! used until then, is closed without being read, and the measurement goes on. The hook asks shortly before the runner ends, so that
//! its answer is what is reported.

use std::io::Write;
use std::time::Duration;

use domain::config::Rates;
use domain::state::{MeasuredMachine, Usage};
use platform::reports::ReportsTable;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use crate::report;
use crate::sample::Sampler;
use crate::summary;
use crate::usage::Meter;

/// The time between samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long power off waits for the report.
const REPORT_WAIT: Duration = Duration::from_secs(10);

/// The least time between two reports while the job runs, because it can ask for summaries without end.
const BETWEEN_REPORTS: Duration = Duration::from_secs(10);

/// The last answer is the hook's if it was given this long before the runner's end, or later. Something else asked for an older one.
const HOOK_BEFORE_END: Duration = Duration::from_secs(30);

/// The pause after a connection that could not be accepted: a job may have used up the machine's file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The machine that is measured.
pub(crate) struct Subject {
    pub(crate) machine: MeasuredMachine,
    pub(crate) region: String,
    /// The table and the key of this machine's report. None: nothing is reported.
    pub(crate) reports: Option<(ReportsTable, String)>,
}

/// A measurement from the start of a job.
pub(crate) struct Measurement {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Measurement {
    pub(crate) fn start(subject: Subject, summaries: UnixListener) -> Self {
        let (end, ended) = oneshot::channel();
        Self { end, task: tokio::spawn(measure(subject, summaries, ended)) }
    }

    /// Ends the measurement when the runner has ended, and reports. Takes at most [`REPORT_WAIT`].
    pub(crate) async fn end(self) {
        // The task has ended earlier if the machine cannot be measured.
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}

async fn measure(subject: Subject, summaries: UnixListener, mut ended: oneshot::Receiver<()>) {
    let Subject { machine, region, reports } = subject;
    let rates = Rates::of(region);
    let mut job = match MeasuredJob::start() {
        Ok(job) => job,
        Err(error) => return tracing::warn!("what this job uses is not measured: {error:#}"),
    };
    let mut reporter = reports.map(|(table, key)| Reporter { table, key, sending: None });
    let mut last_answer = None;
    let mut ticks = interval_at(Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // In this order, so that no number of connections delays the end or a sample.
            biased;
            _ = &mut ended => break,
            _ = ticks.tick() => job.sample(),
            connection = summaries.accept() => match connection {
                Ok((connection, _)) => {
                    let usage = job.usage_until_now();
                    answer(connection, &summary::text(&usage, &machine, &rates));
                    if let Some(reporter) = &mut reporter {
                        reporter.report_early(&usage);
                    }
                    last_answer = Some((Instant::now(), usage));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    if let Some(reporter) = reporter {
        // Without an answer the runner was killed before its hook.
        let usage = last_answer.and_then(|answer| of_hook(answer, Instant::now()));
        reporter.report(usage.unwrap_or_else(|| job.usage_until_now())).await;
    }
}

/// What the hook was told, if the last answer was for it.
fn of_hook((at, usage): (Instant, Usage), end: Instant) -> Option<Usage> {
    (end.duration_since(at) < HOOK_BEFORE_END).then_some(usage)
}

/// Writes what fits into the socket's buffer, which any summary does, and closes the connection.
fn answer(connection: UnixStream, text: &str) {
    // The other end may be gone. tokio's stream cannot be written to before its first event.
    let _ = connection.into_std().and_then(|mut connection| connection.write_all(text.as_bytes()));
}

/// A job that is measured from its start.
struct MeasuredJob {
    sampler: Sampler,
    meter: Meter,
}

impl MeasuredJob {
    fn start() -> anyhow::Result<Self> {
        let sampler = Sampler::new();
        let meter = Meter::start(sampler.capacity()?, sampler.sample()?);
        Ok(Self { sampler, meter })
    }

    fn sample(&mut self) {
        // The next sample covers the time of one that fails.
        if let Ok(sample) = self.sampler.sample() {
            self.meter.add(sample);
        }
    }

    /// Does not change the measurement.
    fn usage_until_now(&self) -> Usage {
        let mut meter = self.meter.clone();
        if let Ok(sample) = self.sampler.sample() {
            meter.add(sample);
        }
        meter.usage()
    }
}

/// Writes the report: early, so that the end of the machine need not wait for it, and the last one at the end.
struct Reporter {
    table: ReportsTable,
    key: String,
    sending: Option<Sending>,
}

/// A report that is being written or is written.
struct Sending {
    usage: Usage,
    began: Instant,
    write: JoinHandle<bool>,
}

impl Reporter {
    fn report_early(&mut self, usage: &Usage) {
        if self.sending.as_ref().is_none_or(|sending| sending.began.elapsed() >= BETWEEN_REPORTS) {
            self.begin(usage.clone());
        }
    }

    /// Replaces an earlier report.
    fn begin(&mut self, usage: Usage) {
        if let Some(earlier) = self.sending.take() {
            earlier.write.abort();
        }
        let write = tokio::spawn(report::used(self.table.clone(), self.key.clone(), usage.clone()));
        self.sending = Some(Sending { usage, began: Instant::now(), write });
    }

    async fn report(mut self, usage: Usage) {
        // One that is not written yet is begun again: it may be in a long pause after a failure.
        if self.sending.as_ref().is_none_or(|sending| sending.usage != usage || !sending.write.is_finished()) {
            self.begin(usage);
        }
        let Some(sending) = self.sending else { return };
        if !matches!(timeout(REPORT_WAIT, sending.write).await, Ok(Ok(true))) {
            tracing::warn!("what the job used is not reported: the reports table did not confirm it in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_long_before_the_end_was_not_for_the_hook() {
        let (asked, usage) = (Instant::now(), MeasuredJob::start().unwrap().usage_until_now());
        let reported = |seconds| of_hook((asked, usage.clone()), asked + Duration::from_secs(seconds));
        assert_eq!((reported(29), reported(30)), (Some(usage.clone()), None));
    }
}
