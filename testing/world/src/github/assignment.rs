//! Assignment of jobs to runners, and the connections of runners.

use jiff::Timestamp;
use rand::Rng;

use super::*;

impl GitHub {
    /// A runner process connects with the secret of its JIT config, which is then used up.
    pub fn connect(&mut self, secret: &str, now: Timestamp) -> Result<RunnerId, Unknown> {
        let id = self.secrets.remove(secret).ok_or(Unknown)?;
        self.come_online(id, now)?;
        Ok(id)
    }

    /// Connects a runner that has no process, and accepts the job that it is offered, if there is one.
    pub fn run_without_process(&mut self, id: RunnerId, now: Timestamp) -> Result<Option<JobId>, Unknown> {
        self.come_online(id, now)?;
        let job = self.runners.get(&id).and_then(|runner| runner.job);
        job.map(|job| self.acquire(id, job, now)).transpose()?;
        Ok(job)
    }

    fn come_online(&mut self, id: RunnerId, now: Timestamp) -> Result<(), Unknown> {
        let runner = self.runners.get_mut(&id).ok_or(Unknown)?;
        runner.online = true;
        runner.connected_at = Some(now);
        self.idle.insert(id);
        if let Some(limit) = self.faults.idle_limit {
            self.agenda.plan(now + limit, Due::IdleLimit(id, now));
        }
        self.assign(now);
        Ok(())
    }

    /// Assigns queued jobs, oldest first, each to a random idle runner that fits.
    pub(super) fn assign(&mut self, now: Timestamp) {
        while !self.idle.is_empty() {
            let served = self.queue.iter().filter_map(|(wanted, jobs)| {
                let oldest = jobs.first()?;
                let fitting: Vec<_> = self.idle.iter().copied().filter(|runner| self.fits(*runner, wanted)).collect();
                (!fitting.is_empty()).then_some((oldest, fitting))
            });
            let Some((&(queued_at, id), fitting)) = served.min_by_key(|(oldest, _)| *oldest) else { return };
            let chosen = fitting[self.rng.random_range(0..fitting.len())];
            self.take_from_queue(id, queued_at);
            self.offer(chosen, id, now);
        }
    }

    pub(super) fn take_from_queue(&mut self, id: JobId, queued_at: Timestamp) {
        let Some(wanted) = self.jobs.get(&id).map(Wanted::by) else { return };
        if let Some(jobs) = self.queue.get_mut(&wanted) {
            jobs.remove(&(queued_at, id));
            if jobs.is_empty() {
                self.queue.remove(&wanted);
            }
        }
    }

    /// Whether GitHub may assign the jobs to the runner: scope, group and labels match.
    fn fits(&self, runner: RunnerId, wanted: &Wanted) -> bool {
        let (Some(runner), Some(repository)) = (self.runners.get(&runner), self.repositories.get(&wanted.repository))
        else {
            return false;
        };
        let allowed = self
            .owners
            .get(&repository.owner)
            .and_then(|owner| owner.groups.iter().find(|group| group.id == runner.group))
            .is_some_and(|group| group.admits(repository));
        let has = |wanted: &String| runner.labels.iter().any(|label| label.eq_ignore_ascii_case(wanted));
        runner.scope.covers(repository) && allowed && wanted.labels.iter().all(has)
    }

    fn offer(&mut self, runner: RunnerId, job: JobId, now: Timestamp) {
        self.idle.remove(&runner);
        let Some(entry) = self.runners.get_mut(&runner) else {
            return;
        };
        entry.job = Some(job);
        entry.busy_since = Some(now);
        let operator = entry.operator;
        let Some(offered) = self.jobs.get_mut(&job) else {
            return;
        };
        offered.state = JobState::Queued { assigned: Some(runner) };
        match operator {
            Operator::Process => {
                let Some(at) = self.repositories.get(&offered.repository) else { return };
                let offer = Offer {
                    runner,
                    job,
                    repository: format!("{}/{}", at.owner_login, at.name),
                    visibility: at.visibility,
                    runs_for: offered.runs_for,
                    ends: offered.ends,
                    steps: offered.steps,
                };
                self.agenda.plan(now, Due::Report(Happening::Offered(offer)));
                self.agenda.plan(now + self.config.pick_up, Due::PickUp(job, runner));
            }
            Operator::Model => {
                let finishes = now + offered.runs_for;
                self.begin(runner, job, now);
                self.agenda.plan(finishes, Due::Finish(runner, job));
            }
        }
    }

    /// The runner accepts the offered job, which runs from now on.
    pub fn acquire(&mut self, runner: RunnerId, job: JobId, now: Timestamp) -> Result<(), Unknown> {
        let offered = self.jobs.get(&job).is_some_and(|job| job.state == JobState::Queued { assigned: Some(runner) });
        if !offered {
            return Err(Unknown);
        }
        self.begin(runner, job, now);
        Ok(())
    }

    fn begin(&mut self, runner: RunnerId, id: JobId, now: Timestamp) {
        let (Some(runner), Some(job)) = (self.runners.get(&runner), self.jobs.get_mut(&id)) else {
            return;
        };
        job.state = JobState::InProgress { runner: runner.as_job_runner() };
        job.started_at = Some(now);
        job.history.started.push(Start { at: now, runner: runner.id, name: runner.name.clone() });
        self.announce(id, "in_progress", now);
    }

    /// The runner reports that it begins a step of its job.
    pub fn begin_step(&mut self, runner: RunnerId, job: JobId, step: &str) -> Result<(), Unknown> {
        let job = self.jobs.get_mut(&job).ok_or(Unknown)?;
        if !matches!(&job.state, JobState::InProgress { runner: on } if on.id == runner) {
            return Err(Unknown);
        }
        job.history.steps.push(step.to_owned());
        Ok(())
    }

    /// The runner reports the end of its job.
    pub fn complete(
        &mut self,
        runner: RunnerId,
        job: JobId,
        conclusion: Conclusion,
        now: Timestamp,
    ) -> Result<(), Unknown> {
        let runs = self
            .jobs
            .get(&job)
            .is_some_and(|job| matches!(&job.state, JobState::InProgress { runner: on } if on.id == runner));
        if !runs {
            return Err(Unknown);
        }
        self.conclude(runner, job, conclusion, now);
        Ok(())
    }

    pub(super) fn conclude(&mut self, runner: RunnerId, id: JobId, conclusion: Conclusion, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let by = job.state.runner().cloned();
        job.state = JobState::Completed { conclusion, runner: by };
        job.completed_at = Some(now);
        self.announce(id, "completed", now);
        if self.runners.get(&runner).is_some_and(|runner| runner.ephemeral) {
            self.remove_runner(runner, now);
        } else {
            self.release(runner, now);
        }
    }

    /// The runner process has exited, or its machine lost its power. A running job counts as killed, and GitHub fails it
    /// later.
    pub fn disconnect(&mut self, id: RunnerId, now: Timestamp) {
        self.idle.remove(&id);
        let Some(runner) = self.runners.get_mut(&id) else {
            return;
        };
        runner.online = false;
        runner.offline_since = now;
        let running = runner
            .job
            .filter(|job| self.jobs.get(job).is_some_and(|job| matches!(job.state, JobState::InProgress { .. })));
        match running {
            Some(killed) => {
                if let Some(job) = self.jobs.get_mut(&killed) {
                    job.history.killed = Some(now);
                }
                self.agenda.plan(now + self.config.lost_runner, Due::RunnerLost(id, killed));
            }
            None => self.agenda.plan(now + self.config.offline_limit, Due::OfflineLimit(id, now)),
        }
    }

    /// The runner becomes idle.
    pub(super) fn release(&mut self, id: RunnerId, now: Timestamp) {
        let Some(runner) = self.runners.get_mut(&id) else {
            return;
        };
        runner.job = None;
        runner.busy_since = None;
        if runner.online {
            self.idle.insert(id);
            self.assign(now);
        }
    }

    pub(super) fn not_picked_up(&mut self, job: JobId, runner: RunnerId, now: Timestamp) {
        if self.jobs.get(&job).is_some_and(|job| job.state == JobState::Queued { assigned: Some(runner) }) {
            self.put_in_queue(job, now);
            self.release(runner, now);
            self.assign(now);
        }
    }

    pub(super) fn finish_operated(&mut self, runner: RunnerId, job: JobId, now: Timestamp) {
        if let Some(ends) = self.jobs.get(&job).map(|job| job.ends) {
            // Fails if the job was cancelled meanwhile.
            let _ = self.complete(runner, job, ends, now);
        }
    }

    pub(super) fn runner_lost(&mut self, runner: RunnerId, job: JobId, now: Timestamp) {
        let _ = self.complete(runner, job, Conclusion::Failure, now);
    }
}
