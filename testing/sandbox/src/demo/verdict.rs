//! The outcome according to the models of EC2 and GitHub, not to Drover's table.

use std::fmt;

use anyhow::ensure;
use drover::output::table;
use world::github::{Conclusion, Job, JobId, JobState};

use super::attack::Attack;
use super::delay::Delay;
use super::faults::Injected;
use super::kept::Starts;
use super::pushed::{Pushed, latest};
use super::shape_judge::Shapes;
use crate::calls::Counts;
use crate::names::FOREIGN_REPOSITORY;
use crate::sandbox::{DEAD_LETTERS, Sandbox};

/// The counts that decide between success and failure.
pub(crate) struct Verdict {
    jobs: usize,
    cancelled: usize,
    served_once: usize,
    /// The jobs that were not.
    wrong: Vec<JobId>,
    killed: usize,
    /// Steps of jobs that the pools do not serve, on Drover's machines.
    exposed: usize,
    /// Killed because EC2 reclaimed the spot machine.
    reclaimed: usize,
    launches: u64,
    pick_up: Vec<f64>,
    /// Of jobs whose pool is neither attacked nor flooded, during an attack.
    delay: Option<Delay>,
    machines_left: usize,
    runners_left: usize,
    dead_letters: usize,
    counts: Counts,
    injected: Vec<Injected>,
    /// What ran where, with `--shapes`.
    shapes: Option<Shapes>,
    /// Jobs with wrong labels whose authors can read how to correct them.
    advised: usize,
    /// How fast jobs started, with `--warm` or `--stopped`.
    starts: Option<Starts>,
}

/// The percentile of sorted seconds as `12.34 s`, or `-` without any.
pub(crate) fn seconds(sorted: &[f64], share: f64) -> String {
    let Some(last) = sorted.len().checked_sub(1) else { return "-".to_owned() };
    format!("{:.2} s", sorted[(last as f64 * share).round() as usize])
}

impl Verdict {
    pub(super) fn of(
        sandbox: &Sandbox,
        pushed: &Pushed,
        injected: Vec<Injected>,
        attack: Option<&Attack>,
        shapes: Option<Shapes>,
        starts: Option<Starts>,
    ) -> Self {
        let Pushed { ours, cancelled, wrong: advised, .. } = pushed;
        let counts = sandbox.calls.counts();
        let (machines_left, runners_left) = sandbox.leftovers();
        let killed = sandbox.killed_by_us().len();
        sandbox.world.look(|state| {
            let jobs = ours.iter().filter_map(|id| state.github.job(*id));
            let mut pick_up: Vec<f64> = jobs
                .clone()
                .filter_map(|job| Some((job.history.queued.first()?, job.history.started.first()?)))
                .map(|(queued, start)| start.at.duration_since(*queued).as_secs_f64())
                .collect();
            pick_up.sort_by(f64::total_cmp);
            // A job whose machine EC2 reclaimed counts as served if its re-run is.
            let last = jobs.filter(|job| !cancelled.contains(&job.id)).filter_map(|job| latest(state, job.id));
            let (served, wrong): (Vec<&Job>, Vec<&Job>) = last.partition(|job| {
                let succeeded = matches!(job.state, JobState::Completed { conclusion: Conclusion::Success, .. });
                job.served_once() && succeeded
            });
            let is_foreign =
                |job: &&Job| state.github.repository(job.repository).is_some_and(|it| it.name == FOREIGN_REPOSITORY);
            let foreign = state.github.jobs().filter(is_foreign);
            Self {
                jobs: ours.len(),
                cancelled: cancelled.len(),
                served_once: served.len(),
                wrong: wrong.iter().map(|job| job.id).collect(),
                exposed: foreign.map(|job| job.history.steps.len()).sum(),
                killed,
                reclaimed: state.github.killed().filter(|job| !is_foreign(job)).count() - killed,
                launches: state.ec2.launches(),
                pick_up,
                delay: attack.and_then(|it| it.delay(sandbox, state)),
                machines_left,
                runners_left,
                dead_letters: state.sqs.bodies(DEAD_LETTERS).len(),
                counts,
                injected,
                shapes,
                advised: advised.len(),
                starts,
            }
        })
    }

    /// Every API call with its count.
    pub(crate) fn calls(&self) -> String {
        let calls = self.counts.iter().map(|((service, call), n)| vec![format!("{service} {call}"), n.to_string()]);
        table(&["API CALLS", "HOW MANY"], calls)
    }

    /// Success in one line.
    pub(crate) fn summary(&self) -> String {
        let cancelled = match self.cancelled {
            0 => String::new(),
            some => format!(", {some} more cancelled"),
        };
        let jobs = count(self.jobs - self.cancelled, "job");
        let median = seconds(&self.pick_up, 0.5);
        format!("OK: {jobs}, each served once{cancelled}, nothing left over; median pick-up {median}")
    }

    /// # Errors
    /// The first count that is not as expected.
    pub(crate) fn judge(&self) -> anyhow::Result<()> {
        let wanted = self.jobs - self.cancelled;
        ensure!(
            self.served_once == wanted,
            "{} of {wanted} jobs were served exactly once, not these: {}",
            self.served_once,
            self.wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        );
        ensure!(self.exposed == 0, "{} of foreign jobs ran on Drover's machines", count(self.exposed, "step"));
        ensure!(self.killed == 0, "Drover killed {} running", count(self.killed, "job"));
        if let Some(shapes) = &self.shapes {
            shapes.judge()?;
        }
        if let Some(delay) = &self.delay {
            delay.judge()?;
        }
        if let Some(starts) = &self.starts {
            starts.judge()?;
        }
        ensure!(self.machines_left == 0, "{} left", count(self.machines_left, "machine"));
        ensure!(self.runners_left == 0, "{} left", count(self.runners_left, "registration"));
        ensure!(self.dead_letters == 0, "{} in the dead-letter queue", count(self.dead_letters, "message"));
        for Injected { flag, times, .. } in &self.injected {
            ensure!(*times > 0, "--{flag} was requested, but the fault never happened");
        }
        Ok(())
    }
}

/// `1 job`, `2 jobs`.
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![
            vec!["jobs".to_owned(), self.jobs.to_string()],
            vec!["  served exactly once".to_owned(), self.served_once.to_string()],
            vec!["  cancelled".to_owned(), self.cancelled.to_string()],
            vec!["  killed by Drover".to_owned(), self.killed.to_string()],
            vec!["  steps of foreign jobs".to_owned(), self.exposed.to_string()],
            vec!["  killed by EC2 and re-run".to_owned(), self.reclaimed.to_string()],
            vec!["launches".to_owned(), self.launches.to_string()],
            vec!["pick-up time p50".to_owned(), seconds(&self.pick_up, 0.5)],
            vec!["pick-up time p99".to_owned(), seconds(&self.pick_up, 0.99)],
            vec!["machines and registrations left".to_owned(), (self.machines_left + self.runners_left).to_string()],
            vec!["dead letters".to_owned(), self.dead_letters.to_string()],
        ];
        if let Some(shapes) = &self.shapes {
            let wrong = "jobs on machines that their labels do not ask for";
            rows.push(vec![wrong.to_owned(), shapes.mismatches.len().to_string()]);
            rows.push(vec!["authors told how to correct a label".to_owned(), self.advised.to_string()]);
        }
        rows.extend(self.delay.iter().map(Delay::row));
        rows.extend(self.injected.iter().map(|it| vec![it.what.to_owned(), it.times.to_string()]));
        write!(f, "{}", table(&["WHAT", "HOW MANY"], rows))?;
        if let Some(shapes) = &self.shapes {
            write!(f, "\n{}", shapes.table())?;
        }
        if let Some(starts) = &self.starts {
            write!(f, "\n{starts}")?;
        }
        match &self.delay {
            Some(delay) => write!(f, "\n{delay}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(injected: Vec<Injected>) -> Verdict {
        Verdict {
            jobs: 2,
            cancelled: 1,
            served_once: 1,
            wrong: Vec::new(),
            killed: 0,
            exposed: 0,
            reclaimed: 0,
            launches: 1,
            pick_up: Vec::new(),
            delay: None,
            machines_left: 0,
            runners_left: 0,
            dead_letters: 0,
            counts: Counts::new(),
            injected,
            shapes: None,
            advised: 0,
            starts: None,
        }
    }

    #[test]
    fn a_requested_fault_that_never_happened_is_a_failure() {
        let injected = |times| vec![Injected { flag: "quota", what: "launches refused by the spot quota", times }];
        assert!(verdict(injected(1)).judge().is_ok());
        assert!(verdict(injected(0)).judge().is_err_and(|error| error.to_string().contains("--quota")));
        assert!(Verdict { exposed: 1, ..verdict(Vec::new()) }.judge().is_err());
        assert!(Verdict { killed: 1, ..verdict(Vec::new()) }.judge().is_err());
        assert!(Verdict { reclaimed: 1, ..verdict(Vec::new()) }.judge().is_ok(), "EC2 may reclaim machines");
        assert!(Verdict { served_once: 0, ..verdict(Vec::new()) }.judge().is_err());
        let shown = verdict(injected(3)).to_string();
        assert!(shown.contains("launches refused by the spot quota") && shown.contains('3'), "{shown}");
    }

    #[test]
    fn the_verdict_fits_forty_rows_and_its_last_line_says_it_all() {
        let injected: Vec<Injected> = (0..16).map(|_| Injected { flag: "quota", what: "a fault", times: 1 }).collect();
        let verdict = Verdict { pick_up: vec![0.5, 0.71, 3.0], ..verdict(injected) };
        assert_eq!(
            verdict.summary(),
            "OK: 1 job, each served once, 1 more cancelled, nothing left over; median pick-up 0.71 s"
        );
        assert!(verdict.to_string().lines().count() < 35, "{verdict}");
    }
}
