//! Workflow runs and jobs: queueing, lists, re-runs, and ends without a runner.

use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;

use super::*;

/// GitHub lists at most this many runs if the list is filtered.
const MAX_SEARCHED_RUNS: usize = 1000;

/// The parameters of a new job.
#[derive(Debug, Clone)]
pub struct QueueJob {
    pub repository: RepositoryId,
    pub name: String,
    /// The labels that its runner must have.
    pub labels: Vec<String>,
    /// The run time.
    pub runs_for: Duration,
    /// The conclusion, unless something interrupts the job.
    pub ends: Conclusion,
    pub steps: Steps,
    /// Whether GitHub sends webhooks for it.
    pub webhooks: Webhooks,
    /// The run of the job, or `None` for a new one.
    pub run: Option<RunId>,
}

impl QueueJob {
    /// A job in a run of its own that runs for a second, succeeds, and sends webhooks.
    pub fn new(repository: RepositoryId, labels: &[&str]) -> Self {
        Self {
            repository,
            name: "build".to_owned(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            runs_for: Duration::from_secs(1),
            ends: Conclusion::Success,
            steps: Steps::Ordinary,
            webhooks: Webhooks::Sent,
            run: None,
        }
    }
}

impl GitHub {
    /// Queues a job.
    pub fn queue_job(&mut self, job: QueueJob, now: Timestamp) -> JobId {
        let id = self.new_job(job, now);
        self.enqueue(id, now);
        id
    }

    /// Queues a job that waits for the approval of an environment. GitHub sends `queued` with the status `waiting`, then
    /// `waiting`.
    pub fn queue_gated_job(&mut self, job: QueueJob, now: Timestamp) -> JobId {
        let id = self.new_job(job, now);
        self.announce(id, "queued", now);
        self.announce(id, "waiting", now);
        id
    }

    /// A job that was queued some time ago, and that GitHub calls queued for ever. If GitHub sends webhooks for it, it sends
    /// `queued` now.
    pub fn queue_immortal_job(&mut self, job: QueueJob, immortal: Immortal, age: Duration, now: Timestamp) -> JobId {
        let id = self.new_job(job, now);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.state = JobState::Queued { assigned: None };
            job.created_at = now - age;
            job.queued_at = job.created_at;
            job.history.queued.push(job.created_at);
            job.immortal = Some(immortal);
        }
        self.announce(id, "queued", now);
        id
    }

    /// Approves a waiting job.
    pub fn approve(&mut self, id: JobId, now: Timestamp) {
        if self.jobs.get(&id).is_some_and(|job| job.state == JobState::Waiting) {
            self.enqueue(id, now);
        }
    }

    /// Cancels a job. A job that has not started ends at once, a running one when its runner reports the end.
    pub fn cancel(&mut self, id: JobId, now: Timestamp) {
        if self.jobs.get(&id).is_some_and(|job| job.immortal.is_some()) {
            return;
        }
        match self.jobs.get(&id).map(|job| job.state.clone()) {
            Some(JobState::Waiting | JobState::Queued { .. }) => {
                self.end_without_runner(id, Conclusion::Cancelled, now)
            }
            Some(JobState::InProgress { runner }) => match self.runners.get(&runner.id).map(|runner| runner.operator) {
                Some(Operator::Process) => {
                    self.agenda.plan(now, Due::Report(Happening::CancelWanted { runner: runner.id, job: id }));
                }
                Some(Operator::Model) => self.conclude(runner.id, id, Conclusion::Cancelled, now),
                None => {}
            },
            Some(JobState::Completed { .. }) | None => {}
        }
    }

    /// Changes the run time of a job that has not started, and of its re-run.
    pub fn set_runs_for(&mut self, id: JobId, runs_for: Duration) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.runs_for = runs_for;
        }
    }

    /// Forgets the runs of which every job ended before that time, with their jobs, so that a run of weeks does not grow.
    pub fn forget(&mut self, before: Timestamp) {
        let jobs = &self.jobs;
        let is_over = |id: &JobId| jobs.get(id).is_none_or(|job| job.completed_at.is_some_and(|at| at < before));
        let over: Vec<RunId> =
            self.runs.values().filter(|run| run.jobs.iter().all(is_over)).map(|run| run.id).collect();
        for run in over.iter().filter_map(|run| self.runs.remove(run)) {
            run.jobs.iter().for_each(|job| drop(self.jobs.remove(job)));
        }
    }

    fn new_job(&mut self, job: QueueJob, now: Timestamp) -> JobId {
        let run = job.run.filter(|run| self.runs.contains_key(run)).unwrap_or_else(|| {
            let id = RunId(self.fresh_id());
            let runs = self.runs_of.entry(job.repository).or_default();
            *runs += 1;
            let number = *runs;
            let head_sha = format!("{}{:08x}", self.fresh_secret(), self.rng.random::<u32>());
            let run =
                Run { id, repository: job.repository, number, attempt: 1, head_sha, jobs: Vec::new(), created_at: now };
            self.runs.insert(id, run);
            id
        });
        let id = JobId(self.fresh_id());
        let attempt = self.runs.get_mut(&run).map_or(1, |run| {
            run.jobs.push(id);
            run.attempt
        });
        let job = Job {
            id,
            run,
            attempt,
            repository: job.repository,
            name: job.name,
            labels: job.labels,
            state: JobState::Waiting,
            created_at: now,
            started_at: None,
            completed_at: None,
            runs_for: job.runs_for,
            ends: job.ends,
            steps: job.steps,
            webhooks: job.webhooks,
            immortal: None,
            history: History::default(),
            queued_at: now,
        };
        self.jobs.insert(id, job);
        id
    }

    /// Queues the job and sends the webhook.
    fn enqueue(&mut self, id: JobId, now: Timestamp) {
        self.agenda.plan(now + self.config.queue_limit, Due::QueueLimit(id));
        self.put_in_queue(id, now);
        self.announce(id, "queued", now);
        self.assign(now);
    }

    /// Queues the job without a webhook: GitHub sends none when a runner did not acquire a job.
    pub(super) fn put_in_queue(&mut self, id: JobId, now: Timestamp) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.state = JobState::Queued { assigned: None };
            job.queued_at = now;
            job.history.queued.push(now);
            self.queue.entry(Wanted::by(job)).or_default().insert((now, id));
        }
    }

    fn end_without_runner(&mut self, id: JobId, conclusion: Conclusion, now: Timestamp) {
        let Some(queued_at) = self.jobs.get(&id).map(|job| job.queued_at) else { return };
        self.take_from_queue(id, queued_at);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let assigned = match &job.state {
            JobState::Queued { assigned } => *assigned,
            JobState::Waiting | JobState::InProgress { .. } | JobState::Completed { .. } => None,
        };
        job.state = JobState::Completed { conclusion, runner: None };
        job.completed_at = Some(now);
        self.announce(id, "completed", now);
        if let Some(runner) = assigned {
            self.release(runner, now);
        }
    }

    pub(super) fn queued_too_long(&mut self, id: JobId, now: Timestamp) {
        let overdue = self.jobs.get(&id).is_some_and(|job| {
            matches!(job.state, JobState::Queued { .. })
                && job.history.queued.first().is_some_and(|first| *first + self.config.queue_limit <= now)
        });
        if overdue {
            self.end_without_runner(id, Conclusion::Failure, now);
        }
    }

    /// A run by its id.
    pub fn run(&self, id: RunId) -> Option<&Run> {
        self.runs.get(&id)
    }

    /// A run's status and conclusion, derived from the jobs of its latest attempt as GitHub does. If one job has started, the
    /// run is `in_progress`, even if other jobs are queued.
    pub fn run_status(&self, run: &Run) -> (&'static str, Option<Conclusion>) {
        let jobs = run.jobs.iter().filter_map(|id| self.jobs.get(id));
        let jobs = jobs.filter(|job| job.immortal != Some(Immortal::RunOver));
        let states: Vec<&JobState> = jobs.filter(|job| job.attempt == run.attempt).map(|job| &job.state).collect();
        let conclusions: Vec<Conclusion> = states.iter().filter_map(|state| state.conclusion()).collect();
        if conclusions.len() == states.len() {
            let worst = [Conclusion::Failure, Conclusion::Cancelled].into_iter().find(|it| conclusions.contains(it));
            return ("completed", Some(worst.unwrap_or(Conclusion::Success)));
        }
        let status = if states.iter().any(|state| state.runner().is_some()) || !conclusions.is_empty() {
            "in_progress"
        } else if states.iter().any(|state| matches!(state, JobState::Queued { .. })) {
            "queued"
        } else {
            "waiting"
        };
        (status, None)
    }

    /// `GET /repos/{owner}/{repo}/actions/jobs/{id}`
    pub fn get_job(
        &mut self,
        caller: InstallationId,
        owner: &str,
        repo: &str,
        id: JobId,
        now: Timestamp,
    ) -> Result<Job, Failure> {
        let reply = self.admit(Caller::Installation(caller), Endpoint::GetJob, now)?;
        let repository = self.entitled_repository(caller, owner, repo)?;
        let job = self.jobs.get(&id).filter(|job| job.repository == repository).ok_or(Failure::NotFound)?;
        reply.with(job.clone())
    }

    /// `GET /repos/{owner}/{repo}/actions/runs?status=`: newest first, and at most 1,000 of one status.
    pub fn list_runs(
        &mut self,
        caller: InstallationId,
        owner: &str,
        repo: &str,
        status: Option<&str>,
        paging: Paging,
        now: Timestamp,
    ) -> Result<Listed<Run>, Failure> {
        let search = RunSearch { status, created: None };
        self.search_runs(caller.into(), owner, repo, search, paging, now)
    }

    /// `GET /repos/{owner}/{repo}/actions/runs`: newest first, and at most 1,000 if the list is filtered.
    pub fn search_runs(
        &mut self,
        reader: Reader,
        owner: &str,
        repo: &str,
        search: RunSearch<'_>,
        paging: Paging,
        now: Timestamp,
    ) -> Result<Listed<Run>, Failure> {
        let reply = self.admit(reader.into(), Endpoint::ListRuns, now)?;
        let repository = self.readable_repository(reader, owner, repo)?;
        let RunSearch { status, created } = search;
        let has_status = |run: &Run, status: &str| {
            let (current, conclusion) = self.run_status(run);
            status == current || conclusion.is_some_and(|how| how.as_str() == status)
        };
        let wanted = |run: &&Run| {
            let created_at = run.created_at.as_second();
            run.repository == repository
                && created.is_none_or(|(from, until)| (from.as_second()..=until.as_second()).contains(&created_at))
                && status.is_none_or(|status| has_status(run, status))
        };
        let most = if status.is_some() || created.is_some() { MAX_SEARCHED_RUNS } else { usize::MAX };
        reply.with(paging.of(self.runs.values().rev().filter(wanted).take(most).cloned()))
    }

    /// `GET /repos/{owner}/{repo}/actions/runs/{id}/jobs`: the jobs of the latest attempt, or of all attempts.
    #[expect(clippy::too_many_arguments, reason = "the endpoint has these parameters")]
    pub fn list_run_jobs(
        &mut self,
        reader: impl Into<Reader>,
        owner: &str,
        repo: &str,
        run: RunId,
        attempts: Attempts,
        paging: Paging,
        now: Timestamp,
    ) -> Result<Listed<Job>, Failure> {
        let reader = reader.into();
        let reply = self.admit(reader.into(), Endpoint::ListRunJobs, now)?;
        let repository = self.readable_repository(reader, owner, repo)?;
        let run = self.runs.get(&run).filter(|run| run.repository == repository).ok_or(Failure::NotFound)?;
        let jobs = run.jobs.iter().filter_map(|id| self.jobs.get(id));
        reply.with(paging.of(jobs.filter(|job| attempts == Attempts::All || job.attempt == run.attempt).cloned()))
    }

    /// `POST /repos/{owner}/{repo}/actions/jobs/{id}/rerun`: a new attempt of the run with a new job id. The run's other jobs
    /// get new ids, too, and keep their results. Only jobs of the latest attempt can be re-run.
    pub fn rerun_job(
        &mut self,
        caller: InstallationId,
        owner: &str,
        repo: &str,
        id: JobId,
        now: Timestamp,
    ) -> Result<JobId, Failure> {
        let reply = self.admit(Caller::Installation(caller), Endpoint::RerunJob, now)?;
        let repository = self.entitled_repository(caller, owner, repo)?;
        let old = self.jobs.get(&id).filter(|job| job.repository == repository).ok_or(Failure::NotFound)?.clone();
        let is = self.runs.get(&old.run).map(|run| self.run_status(run)).ok_or(Failure::NotFound)?;
        if is.1.is_none() {
            return Err(Failure::Forbidden("The workflow run containing this job is already running".to_owned()));
        }
        let Some(run) = self.runs.get_mut(&old.run) else { return Err(Failure::NotFound) };
        if old.attempt < run.attempt {
            return Err(Failure::Forbidden("Only jobs of the latest attempt can be re-run".to_owned()));
        }
        run.attempt += 1;
        self.copy_others(&old, now);
        let again = self.queue_job(
            QueueJob {
                repository,
                name: old.name,
                labels: old.labels,
                runs_for: old.runs_for,
                ends: old.ends,
                steps: old.steps,
                webhooks: old.webhooks,
                run: Some(old.run),
            },
            now,
        );
        reply.with(again)
    }
}

impl GitHub {
    /// The jobs of the same attempt appear in the run's new attempt with their results. GitHub sends `completed` for them.
    fn copy_others(&mut self, rerun: &Job, now: Timestamp) {
        let others = self.jobs.values().filter(|job| job.run == rerun.run && job.attempt == rerun.attempt);
        let others: Vec<Job> = others.filter(|job| job.id != rerun.id).cloned().collect();
        for other in others {
            let id = JobId(self.fresh_id());
            let copy = Job { id, attempt: other.attempt + 1, history: History::default(), ..other };
            self.jobs.insert(id, copy);
            if let Some(run) = self.runs.get_mut(&rerun.run) {
                run.jobs.push(id);
            }
            self.announce(id, "completed", now);
        }
    }
}

/// Which runs a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunSearch<'a> {
    /// `status=`: a status or a conclusion.
    pub status: Option<&'a str>,
    /// `created=FROM..UNTIL`, in whole seconds, both included.
    pub created: Option<(Timestamp, Timestamp)>,
}

/// Which attempts of a run a list shows: `filter=latest` or `filter=all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempts {
    /// The last one.
    Latest,
    /// Every one.
    All,
}
