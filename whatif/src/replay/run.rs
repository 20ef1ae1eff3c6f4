//! One run: the pools of one file, and the jobs of a trace.

use std::collections::BTreeMap;

use domain::config::Pool;
use jiff::SignedDuration;
use world::github::{self, Conclusion, JobId, QueueJob};

use crate::replay::outcome::{Outcome, PoolOutcome, Waits, hours};
use crate::replay::state::{Due, Run, Scenario};
use crate::trace::Trace;

/// The size of a batch in the template.
const BATCH: usize = 10;

/// The `ScalerMaximumConcurrency` of the template. An invocation takes about a second, so this many begin per second.
const SCALERS: usize = 5;

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// After this many sweeps that found nothing, no more are made until something happens: everything is closed by then.
const QUIET_SWEEPS: u32 = 15;

/// How often what is over is forgotten. Models remember machines for an hour.
const FORGET_EVERY: SignedDuration = SignedDuration::from_mins(30);

/// Runs the jobs of a trace with these pools. `progress` is called from time to time with the share of jobs that have ended.
pub fn replay(trace: &Trace, scenario: &Scenario, progress: &dyn Fn(f64)) -> Outcome {
    let mut run = Run::new(trace, scenario);
    let jobs = trace.jobs.len().max(1);
    let mut steps: u64 = 0;
    while !run.is_over() {
        run.step();
        steps += 1;
        if steps.is_multiple_of(4096) {
            progress(1.0 - run.open as f64 / jobs as f64);
        }
    }
    run.outcome()
}

impl Run<'_> {
    /// Every job has ended, and so has the period of the trace.
    fn is_over(&self) -> bool {
        self.open == 0 && self.now >= self.trace.header.until && !self.is_busy()
    }

    /// Jumps to the next event, and performs what is due.
    fn step(&mut self) {
        let planned = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let messages = self.universe.next_message_at().map(|at| at.max(self.scalers_at));
        let next = [planned, messages, self.universe.next_due()].into_iter().flatten().min();
        self.now = next.expect("the janitor is always due").max(self.now);
        let happened = self.universe.advance_to(self.now);
        happened.ec2.into_iter().for_each(|it| self.ec2_happened(it));
        happened.github.into_iter().for_each(|it| self.github_happened(it));
        self.universe.report_states();
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let due = entry.remove();
            self.happen(due);
        }
        self.scale();
        self.universe.take_handed_over().into_iter().for_each(|it| self.handed_over(it));
    }

    /// The scalers take messages from the queue.
    fn scale(&mut self) {
        if self.now < self.scalers_at {
            return;
        }
        for _ in 0..SCALERS {
            let messages = self.universe.receive_some(BATCH);
            if messages.is_empty() {
                return;
            }
            self.universe.scale_with(&messages);
        }
        self.scalers_at = self.now + SECOND;
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Queue(index) => self.queue(index),
            Due::Cancel(index) => {
                let Some(job) = self.ids.get(&index).copied() else { return };
                self.universe.github(|github, now| github.cancel(job, now));
                let is_over =
                    self.universe.github(|github, _| github.job(job).is_none_or(|it| it.completed_at.is_some()));
                if is_over {
                    self.job_ended(index);
                }
            }
            Due::EndElsewhere(index) => self.job_ended(index),
            Due::Finish(runner, job, how) => self.finish(runner, job, how),
            Due::Machine(id, doing) => self.machine_does(&id, doing),
            Due::Janitor => {
                self.quiet_sweeps = if self.is_quiet() { self.quiet_sweeps + 1 } else { 0 };
                if self.quiet_sweeps <= QUIET_SWEEPS {
                    self.universe.sweep();
                }
                self.plan_in(MINUTE, Due::Janitor);
            }
            Due::Forget => {
                self.book();
                self.plan_in(FORGET_EVERY, Due::Forget);
            }
        }
    }

    /// Whether there is nothing that a sweep could find: no machine, no job, no message, and no pool that keeps machines or needs
    /// prices.
    fn is_quiet(&self) -> bool {
        let keeps_none =
            |pool: &Pool| pool.warm == 0 && pool.stopped == 0 && pool.schedules.is_empty() && !pool.needs_prices();
        self.ids.is_empty()
            && self.universe.next_message_at().is_none()
            && self.universe.ec2(|ec2, _| ec2.alive().next().is_none())
            && self.pools.iter().all(keeps_none)
    }

    /// Adds up what machines did, and forgets what is over.
    fn book(&mut self) {
        self.universe.report_states();
        let entered = self.universe.ec2(|ec2, _| ec2.entered().to_vec());
        for it in entered {
            let described = self.describe(&it.instance);
            self.account.enter(it, |_| described);
        }
        self.universe.forget();
    }

    fn queue(&mut self, index: usize) {
        let planned = &self.plan[index];
        let recorded = &self.trace.jobs[index];
        self.progress[index].queued_at = Some(self.now);
        if planned.pool.is_err() {
            // It takes as long as it did when it was recorded.
            let ended_at = recorded.ended_at.unwrap_or(recorded.queued_at + planned.runs_for);
            let after = ended_at.duration_since(recorded.queued_at);
            return self.plan_in(after, Due::EndElsewhere(index));
        }
        let Some(repository) = &planned.repository else { return };
        let cancelled_after = planned.cancelled_after;
        let labels = planned.labels.clone();
        let run = self.runs.get(&(recorded.run, recorded.attempt)).copied();
        let (runs_for, ends) = (planned.runs_for.unsigned_abs(), planned.ends);
        let (job, run) = self.universe.github(|github, now| {
            let found = github.find_repository(repository.owner.as_str(), repository.name());
            let repository = found.expect("every repository of the trace is in the world").id;
            // The name identifies the job in all attempts.
            let job = QueueJob { name: index.to_string(), runs_for, ends, run, ..QueueJob::new(repository, &[]) };
            let id = github.queue_job(QueueJob { labels, ..job }, now);
            (id, github.job(id).map(|job| job.run))
        });
        self.runs.extend(run.map(|run| ((recorded.run, recorded.attempt), run)));
        self.ids.insert(index, job);
        if let Some(after) = cancelled_after {
            self.plan_in(after, Due::Cancel(index));
        }
    }

    fn github_happened(&mut self, happening: github::Happening) {
        match happening {
            github::Happening::Deliver(delivery) => {
                let event = &delivery.event;
                // A job may also end because its machine is lost, or because it was queued for a day.
                if event.action == "completed"
                    && let Some(index) = self.index_of(event.job.id)
                {
                    self.job_ended(index);
                }
                self.universe.deliver(&delivery);
            }
            github::Happening::Offered(offer) => self.offered(&offer),
            github::Happening::CancelWanted { runner, job } => self.finish(runner, job, Conclusion::Cancelled),
            github::Happening::RunnerRemoved { runner } => self.runner_removed(runner),
        }
    }

    /// The index in the trace of one of the model's jobs, whichever attempt it belongs to.
    pub(super) fn index_of(&self, job: JobId) -> Option<usize> {
        self.universe.github(|github, _| github.job(job)?.name.parse().ok())
    }

    pub(super) fn started(&mut self, index: usize) {
        self.progress[index].started_at.get_or_insert(self.now);
    }

    pub(super) fn job_ended(&mut self, index: usize) {
        if self.progress[index].ended_at.is_some() {
            return;
        }
        self.progress[index].ended_at = Some(self.now);
        self.open -= 1;
        self.ids.remove(&index);
        for (follower, gap) in std::mem::take(&mut self.plan[index].followers) {
            self.plan_in(gap, Due::Queue(follower));
        }
    }

    fn outcome(mut self) -> Outcome {
        self.end_machines();
        self.book();
        self.account.close(self.now);
        let mut refused = BTreeMap::new();
        let mut waits: Vec<Vec<f32>> = vec![Vec::new(); self.pools.len()];
        let mut never = vec![0; self.pools.len()];
        for (planned, progress) in self.plan.iter().zip(&self.progress) {
            match planned.pool {
                Err(why) => *refused.entry(why).or_default() += 1,
                Ok(pool) => match progress.queued_at.zip(progress.started_at) {
                    Some((queued, started)) => waits[pool].push(started.duration_since(queued).as_secs_f32()),
                    None => never[pool] += 1,
                },
            }
        }
        let all: Vec<f32> = waits.iter().flatten().copied().collect();
        let pools = (0..self.pools.len()).map(|pool| {
            let (sums, hosted) = (self.account.sums[pool].clone(), self.hosted[pool]);
            let waits = std::mem::take(&mut waits[pool]);
            PoolOutcome {
                name: self.pools[pool].name.to_string(),
                started: waits.len() as u64,
                never_started: never[pool],
                waits: Waits::of(waits),
                machines: sums.machines,
                machine_hours: hours(sums.seconds),
                spot_hours: hours(sums.spot_seconds),
                job_hours: hours(self.job_seconds[pool]),
                usd: sums.cost.usd(),
                list_usd: sums.list_cost.usd(),
                volume_usd: sums.volume_usd,
                unpriced: sums.unpriced,
                interruptions: self.interruptions[pool],
                hosted_usd: hosted.usd,
                hosted_minutes: hosted.minutes,
                hosted_unpriced: hosted.unpriced,
                job_minutes: hosted.all_minutes,
                running: sums.running,
            }
        });
        Outcome {
            jobs: self.plan.len() as u64,
            started: all.len() as u64,
            never_started: never.iter().sum(),
            refused,
            pools: pools.collect(),
            waits: Waits::of(all),
            assumptions: self.assumptions,
            step_seconds: self.account.step().as_secs(),
        }
    }
}
