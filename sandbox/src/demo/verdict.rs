//! What became of it all, in the words of the models of EC2 and GitHub: Drover's own table has no say here.

use std::fmt;

use anyhow::ensure;
use drover::output::table;
use world::github::{Conclusion, JobId, JobState};

use crate::calls::Counts;
use crate::sandbox::{DEAD_LETTERS, Sandbox};

/// How often each misbehaviour really happened; None if it was not asked for.
pub(crate) struct Injected {
    pub(crate) duplicate: Option<usize>,
    pub(crate) reorder: Option<usize>,
    pub(crate) steal: Option<usize>,
    pub(crate) cancel: Option<usize>,
}

/// The models' judgement.
pub(crate) struct Verdict {
    jobs: usize,
    cancelled: usize,
    served_once: usize,
    killed: usize,
    launches: u64,
    pick_up: Vec<f64>,
    machines_left: usize,
    runners_left: usize,
    dead_letters: usize,
    counts: Counts,
    injected: Injected,
}

impl Verdict {
    pub(crate) fn of(sandbox: &Sandbox, ours: &[JobId], cancelled: &[JobId], injected: Injected) -> Self {
        let counts = sandbox.calls.counts();
        let (machines_left, runners_left) = sandbox.leftovers();
        sandbox.world.look(|state| {
            let jobs = ours.iter().filter_map(|id| state.github.job(*id));
            let mut pick_up: Vec<f64> = jobs
                .clone()
                .filter_map(|job| Some((job.history.queued.first()?, job.history.started.first()?)))
                .map(|(queued, start)| start.at.duration_since(*queued).as_secs_f64())
                .collect();
            pick_up.sort_by(f64::total_cmp);
            let served = jobs.filter(|job| {
                let succeeded = matches!(job.state, JobState::Completed { conclusion: Conclusion::Success, .. });
                !cancelled.contains(&job.id) && job.served_once() && succeeded
            });
            Self {
                jobs: ours.len(),
                cancelled: cancelled.len(),
                served_once: served.count(),
                killed: state.github.killed().count(),
                launches: state.ec2.launches(),
                pick_up,
                machines_left,
                runners_left,
                dead_letters: state.sqs.bodies(DEAD_LETTERS).len(),
                counts,
                injected,
            }
        })
    }

    fn percentile(&self, share: f64) -> String {
        let Some(last) = self.pick_up.len().checked_sub(1) else { return "-".to_owned() };
        format!("{:.2} s", self.pick_up[(last as f64 * share).round() as usize])
    }

    /// # Errors
    /// What is not as it should be.
    pub(crate) fn judge(&self) -> anyhow::Result<()> {
        let wanted = self.jobs - self.cancelled;
        ensure!(self.served_once == wanted, "{} of {wanted} jobs were served exactly once", self.served_once);
        ensure!(self.killed == 0, "{} jobs were killed", self.killed);
        ensure!(self.machines_left == 0, "{} machines are left", self.machines_left);
        ensure!(self.runners_left == 0, "{} registrations are left", self.runners_left);
        ensure!(self.dead_letters == 0, "{} messages are dead letters", self.dead_letters);
        let Injected { duplicate, reorder, steal, cancel } = &self.injected;
        for (name, times) in [("duplicate", duplicate), ("reorder", reorder), ("steal", steal), ("cancel", cancel)] {
            ensure!(*times != Some(0), "--{name} was asked for and never happened");
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![
            vec!["jobs".to_owned(), self.jobs.to_string()],
            vec!["  served exactly once".to_owned(), self.served_once.to_string()],
            vec!["  cancelled".to_owned(), self.cancelled.to_string()],
            vec!["  killed".to_owned(), self.killed.to_string()],
            vec!["launches".to_owned(), self.launches.to_string()],
            vec!["pick-up time p50".to_owned(), self.percentile(0.5)],
            vec!["pick-up time p99".to_owned(), self.percentile(0.99)],
            vec!["leftovers".to_owned(), (self.machines_left + self.runners_left).to_string()],
            vec!["dead letters".to_owned(), self.dead_letters.to_string()],
        ];
        let Injected { duplicate, reorder, steal, cancel } = &self.injected;
        let injected = [
            ("deliveries posted twice", duplicate),
            ("ends told before beginnings", reorder),
            ("runners stolen", steal),
            ("jobs cancelled", cancel),
        ];
        for (what, times) in injected {
            rows.extend(times.map(|times| vec![what.to_owned(), times.to_string()]));
        }
        write!(f, "{}", table(&["WHAT", "HOW MANY"], rows))?;
        let calls = self.counts.iter().map(|((service, call), n)| vec![format!("{service} {call}"), n.to_string()]);
        write!(f, "\n{}", table(&["API CALLS", "HOW MANY"], calls))
    }
}
