//! One invocation of a function, in a process that keeps the app's key, and GitHub's port as the process sees it: GitHub
//! refuses calls with a key that was deleted.

use std::sync::Arc;

use async_trait::async_trait;
use domain::ids::{JobId, Owner, Repository, RunId, RunnerId, Scope, StackName};
use domain::wire::JobNotice;
use engine::context::{Context, Share};
use engine::ports::{
    Budget, CheckRunUpdate, Clock, DeliveryPage, Deregistered, GitHub, GitHubAnswer, GitHubError, NamedRunners, Ports,
    Registered, Registration, RepositoryPage, Rerun, RunJobs, RunReference, RunnerPage, RunsUnderWay, SecretError,
    SecretStore, SecretVersion, StoredSecret,
};
use jiff::{SignedDuration, Timestamp};

use crate::call::Call;
use crate::mistakes::{Mistake, MistakenPorts};
use crate::universe::process::Process;
use crate::universe::{INVOCATION, ROLE, Universe};

/// The shortest time between two reads of a secret by one process, as the documents promise.
const READ_EVERY: SignedDuration = SignedDuration::from_secs(10);

impl Universe {
    /// One invocation of a function. The caller may poll it, interleave it with others or drop it.
    pub async fn invocation<T>(&self, run: impl AsyncFnOnce(&Context<'_>) -> T) -> T {
        let request = {
            let mut state = self.state();
            state.invocations += 1;
            format!("invocation-{}", state.invocations)
        };
        let process = self.take_process();
        let warm = Warm { universe: self, process: &process };
        let began = if process.has_lambdas_clock() { Clock::now(&warm) } else { self.now() };
        let deadline = began + INVOCATION;
        let world = || Ports { store: self, compute: self, github: &warm, queue: self, clock: &warm };
        let mistaken = self.mistake.map(|mistake| MistakenPorts::new(mistake, world(), deadline, &self.memory));
        let context = Context {
            ports: mistaken.as_ref().map_or_else(world, MistakenPorts::ports),
            stack: &self.stack,
            runner_role: ROLE,
            rates: &self.rates,
            request: &request,
            deadline,
            share: Share::of_invocation(deadline),
        };
        let done = run(&context).await;
        // The process of an invocation that does not end is not used again.
        self.keep_process(process);
        done
    }

    /// A process for an invocation: one that was used before, if there is one.
    pub(super) fn take_process(&self) -> Arc<Process> {
        let idle = self.idle.lock().expect("no thread panics while it holds the lock").pop();
        idle.unwrap_or_else(|| {
            let mut state = self.state();
            state.processes += 1;
            Arc::new(Process::new(state.processes))
        })
    }

    pub(super) fn keep_process(&self, process: Arc<Process>) {
        self.idle.lock().expect("no thread panics while it holds the lock").push(process);
    }

    /// From now on the clocks of functions are wrong by at most so much.
    pub(crate) fn set_clock_error(&self, most: SignedDuration) {
        let mut state = self.state();
        state.clock_error = most;
        state.clocks_differ_by = state.clocks_differ_by.max(most * 2);
        self.store.clocks_differ_by(state.clocks_differ_by);
    }

    /// From now on reading a secret is a call with a duration, which faults may strike.
    pub(crate) fn secrets_take_time(&self) {
        self.state().secrets_take_time = true;
    }

    /// An operator stores this key.
    pub fn store_key(&self, key: u32) {
        self.state().stored_key = key;
        self.key_changed();
    }

    /// An operator deletes the app's other keys at GitHub.
    pub fn delete_other_keys(&self, key: u32) {
        self.state().github.keep_only_key(key);
        self.key_changed();
    }

    fn key_changed(&self) {
        let mut state = self.state();
        let is_accepted = state.github.app().keys.contains(&state.stored_key);
        state.key_accepted_since = match (is_accepted, state.key_accepted_since) {
            (true, None) => Some(state.now),
            (true, since) => since,
            (false, _) => None,
        };
    }
}

/// GitHub's port and the clock in one process.
pub(super) struct Warm<'u> {
    pub(super) universe: &'u Universe,
    pub(super) process: &'u Process,
}

#[async_trait]
impl Clock for Warm<'_> {
    fn now(&self) -> Timestamp {
        let state = self.universe.state();
        state.now + self.process.clock_error(state.clock_error)
    }

    /// Never returns: the simulator ends invocations that take too long.
    async fn sleep_until(&self, _: Timestamp) {
        std::future::pending().await
    }
}

#[async_trait]
impl SecretStore for Warm<'_> {
    async fn read(&self, _: SecretVersion) -> Result<Option<StoredSecret>, SecretError> {
        // By the clock of the process. One that was set back does not keep the process from reading.
        let now = Clock::now(self);
        let last = self.process.reads(|reads| reads.last_at.replace(now));
        if last.is_some_and(|at| at <= now && now.duration_since(at) < READ_EVERY) {
            self.universe.store.violate("L7: a process read the app's secret twice within ten seconds".to_owned());
        }
        let read = || {
            let mut state = self.universe.state();
            let failed = std::mem::take(&mut state.secret_fault);
            let stored = state.stored_key;
            self.process.reads(|reads| {
                reads.failed += u32::from(failed);
                let first = *reads.first_key.get_or_insert(stored);
                let read = if self.universe.mistake == Some(Mistake::StaleKey) { first } else { stored };
                (!failed).then_some(read)
            })
        };
        let takes_time = self.universe.state().secrets_take_time;
        let key = match takes_time {
            true => self.universe.steps.around(|| Call::GetSecretValue, read).await,
            false => read(),
        };
        let unreadable = || SecretError { id: "app".to_owned(), why: "no reply".to_owned() };
        let key = key.ok_or_else(unreadable)?;
        Ok(Some(StoredSecret { text: key.to_string().into(), created_at: None }))
    }
}

impl Warm<'_> {
    /// Makes a call with the key of the process.
    ///
    /// L7: if GitHub accepts the stored key all the time, and it is not replaced, the call is not refused because of the key, unless the process could
    /// not look, because it has read the secret less than ten seconds before or because the read fails.
    async fn authorized<T, F>(&self, call: impl Fn() -> F + Sync) -> Result<T, GitHubError>
    where
        F: Future<Output = Result<T, GitHubError>> + Send,
    {
        let (began, clock_began) = (self.universe.now(), Clock::now(self));
        let stored = self.universe.state().stored_key;
        let before = self.process.reads(|reads| (reads.last_at, reads.failed));
        let with_key = |key: Arc<u32>| {
            let call = &call;
            async move {
                let is_accepted = self.universe.state().github.app().keys.contains(&*key);
                if is_accepted { call().await } else { Err(unauthorized()) }
            }
        };
        let refused = |answer: &Result<T, GitHubError>| matches!(answer, Err(GitHubError::Denied(_)));
        let answer = self.process.key.call(self, self, with_key, refused).await?;
        if matches!(&answer, Err(GitHubError::Denied(why)) if *why == bad_credentials()) {
            let state = self.universe.state();
            let accepted = state.stored_key == stored && state.key_accepted_since.is_some_and(|since| since <= began);
            drop(state);
            // At any moment of the call, also if the clock was set back since the last read.
            let clock_ended = Clock::now(self);
            let was_set = clock_ended.duration_since(clock_began) != self.universe.now().duration_since(began);
            let is_apart = |at: Timestamp| at + READ_EVERY <= clock_began || clock_ended + READ_EVERY <= at;
            let may_look = !was_set && before.0.is_none_or(is_apart);
            let failed = self.process.reads(|reads| reads.failed) > before.1;
            if accepted && may_look && !failed {
                self.universe.store.violate("L7: a call is refused although the stored key is accepted".to_owned());
            }
        }
        answer
    }
}

fn bad_credentials() -> GitHubAnswer {
    GitHubAnswer { code: Some(401), message: "Bad credentials".to_owned() }
}

fn unauthorized() -> GitHubError {
    GitHubError::Denied(bad_credentials())
}

#[async_trait]
impl GitHub for Warm<'_> {
    async fn register(&self, registration: &Registration) -> Result<Registered, GitHubError> {
        self.authorized(|| self.universe.register(registration)).await
    }

    async fn runners(&self, scope: &Scope, stack: &StackName, page: usize) -> Result<RunnerPage, GitHubError> {
        self.authorized(|| self.universe.runners(scope, stack, page)).await
    }

    async fn runners_named(&self, scope: &Scope, name: &str) -> Result<NamedRunners, GitHubError> {
        self.authorized(|| self.universe.runners_named(scope, name)).await
    }

    async fn deregister(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError> {
        self.authorized(|| self.universe.deregister(scope, runner)).await
    }

    async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError> {
        self.authorized(|| self.universe.job(repository, job)).await
    }

    async fn run_jobs(&self, repository: &Repository, run: RunId) -> Result<RunJobs, GitHubError> {
        self.authorized(|| self.universe.run_jobs(repository, run)).await
    }

    async fn repositories(&self, owner: &Owner, page: usize) -> Result<RepositoryPage, GitHubError> {
        self.authorized(|| self.universe.repositories(owner, page)).await
    }

    async fn runs_under_way(&self, repository: &Repository) -> Result<RunsUnderWay, GitHubError> {
        self.authorized(|| self.universe.runs_under_way(repository)).await
    }

    async fn deliveries(&self, from: Option<&str>) -> Result<DeliveryPage, GitHubError> {
        self.authorized(|| self.universe.deliveries(from)).await
    }

    async fn is_run_over(&self, run: &RunReference) -> Result<bool, GitHubError> {
        self.authorized(|| self.universe.is_run_over(run)).await
    }

    async fn redeliver(&self, attempt: u64) -> Result<(), GitHubError> {
        self.authorized(|| self.universe.redeliver(attempt)).await
    }

    async fn write_check_run(&self, update: &CheckRunUpdate) -> Result<u64, GitHubError> {
        self.authorized(|| self.universe.write_check_run(update)).await
    }

    async fn rerun(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError> {
        self.authorized(|| self.universe.rerun(repository, job)).await
    }

    fn budget(&self, owner: &Owner) -> Option<Budget> {
        self.universe.budget(owner)
    }
}
