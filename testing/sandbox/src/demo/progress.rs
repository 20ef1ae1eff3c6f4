//! Progress: one line per change for a few jobs, a bar for many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::ports::Clock;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use platform::clock::SystemClock;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use world::github::JobState;

use crate::state::{State, World};

/// After this time without a line the demo prints what it waits for.
const LONGEST_SILENCE: Duration = Duration::from_secs(4);

/// With more jobs, lines would be too many to read.
const MAX_JOBS_WITH_LINES: u32 = 10;

/// The task that prints the progress.
pub(crate) struct Progress {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Progress {
    pub(crate) fn start(world: Arc<World>, jobs: u32) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut watch = Watch::new(jobs);
            let mut changed = world.changed();
            let mut ticks = tokio::time::interval(LONGEST_SILENCE);
            loop {
                tokio::select! {
                    _ = ticks.tick() => world.look(|state| watch.break_silence(state)),
                    _ = changed.changed() => {
                        world.look(|state| {
                            let steps = watch.changes(state);
                            watch.show(state, steps);
                        });
                    }
                    _ = &mut stopped => break,
                }
            }
            watch.end();
        });
        Self { stop, task }
    }

    pub(crate) async fn finish(self) {
        // Both fail only if the task has ended already.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

struct Watch {
    began: Timestamp,
    seen: BTreeMap<String, String>,
    bar: Option<ProgressBar>,
    done: u64,
    /// Whether a line was printed since the last tick.
    has_printed: bool,
}

/// A change: the subject, its new state, and since when the subject exists.
struct Step {
    what: String,
    state: String,
    since: Timestamp,
}

impl Watch {
    fn new(jobs: u32) -> Self {
        let bar = (jobs > MAX_JOBS_WITH_LINES).then(|| {
            // `wide_msg` is cut to the terminal: a bar of two lines would be drawn below itself.
            let style = "{elapsed_precise} [{bar:20}] {pos}/{len} jobs done{wide_msg}";
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(u64::from(jobs)).with_style(style);
            // The time goes on while nothing else changes.
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        });
        Self { began: SystemClock.now(), seen: BTreeMap::new(), bar, done: 0, has_printed: false }
    }

    /// The changes since the last call.
    fn changes(&mut self, state: &State) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut step = |what: String, is: String, since: Timestamp| {
            if self.seen.get(&what) != Some(&is) {
                self.seen.insert(what.clone(), is.clone());
                steps.push(Step { what, state: is, since });
            }
        };
        for instance in state.ec2.instances() {
            step(format!("machine {}", instance.id), instance.state.to_string(), instance.launched_at);
        }
        for runner in state.github.registrations().filter(|runner| runner.name.starts_with("drover_")) {
            let is = if runner.online { "online" } else { "registered" };
            step(format!("runner  {}", runner.name), is.to_owned(), runner.created_at);
        }
        for job in state.github.jobs() {
            let is = match &job.state {
                JobState::Waiting => "waiting for approval".to_owned(),
                JobState::Queued { .. } => "queued".to_owned(),
                JobState::InProgress { runner } => format!("running on {}", runner.name),
                JobState::Completed { conclusion, .. } => format!("completed: {}", conclusion.as_str()),
            };
            step(format!("job     {}", job.id), is, job.created_at);
        }
        let jobs = state.github.jobs().filter(|job| job.completed_at.is_some());
        self.done = jobs.count() as u64;
        steps
    }

    /// Prints what the demo waits for, if nothing was printed since the last call. A bar on a terminal shows it all the time.
    fn break_silence(&mut self, state: &State) {
        let is_visible = self.bar.as_ref().is_some_and(|bar| !bar.is_hidden());
        if !is_visible && !std::mem::take(&mut self.has_printed) {
            let seconds = SystemClock.now().duration_since(self.began).as_secs_f64();
            println!("{seconds:>8.3} s  waiting for {}", awaited(state));
        }
    }

    fn show(&mut self, state: &State, steps: Vec<Step>) {
        let now = SystemClock.now();
        let seconds = |since: Timestamp| now.duration_since(since).as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.set_message(format!(", waiting for {}", awaited(state)));
            bar.set_position(self.done.min(bar.length().unwrap_or(self.done)));
            return;
        }
        for Step { what, state, since } in steps {
            println!("{:>8.3} s  {what}  {state} (after {:.3} s)", seconds(self.began), seconds(since));
            self.has_printed = true;
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_with_message("");
        }
    }
}

/// What is left until the demo can end.
fn awaited(state: &State) -> String {
    let jobs = |is: fn(&JobState) -> bool| state.github.jobs().filter(|job| is(&job.state)).count();
    let queued = jobs(|state| matches!(state, JobState::Queued { .. } | JobState::Waiting));
    let running = jobs(|state| matches!(state, JobState::InProgress { .. }));
    let machines = state.ec2.alive().count();
    let all = [(queued, "job to start"), (running, "job to end"), (machines, "machine to end")];
    let parts: Vec<String> =
        all.into_iter().filter(|(number, _)| *number > 0).map(|(number, what)| counted(number, what)).collect();
    match parts.is_empty() {
        true if state.github.jobs().next().is_none() => "the first job".to_owned(),
        true => "the janitor to find nothing left".to_owned(),
        false => parts.join(", "),
    }
}

/// `1 job to end`, `2 jobs to end`.
fn counted(number: usize, what: &str) -> String {
    let (noun, rest) = what.split_once(' ').unwrap_or((what, ""));
    format!("{number} {noun}{} {rest}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_right_noun() {
        assert_eq!([counted(1, "job to end"), counted(2, "machine to end")], ["1 job to end", "2 machines to end"]);
    }
}
