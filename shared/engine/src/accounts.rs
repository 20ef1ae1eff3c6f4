//! GitHub's port as one invocation uses it.
//!
//! GitHub's limits apply to an account, and other invocations reach them as well. So before a call for an account, the limit
//! that is stored for the account is read. The first answer that names a limit is stored for other invocations, and ends the
//! calls for the account in this one. So does the first call that GitHub does not answer in time: the others would take as
//! long.
//!
//! An account's registrations are shared between pools in turn, so that a pool with many jobs does not delay another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use domain::ids::{JobId, Owner, Repository, RunId, RunnerId, Scope, StackName};
use domain::log::Transaction;
use domain::state::{Item, Key, Limit};
use domain::wire::JobNotice;
use jiff::{SignedDuration, Timestamp};

use crate::context::Context;
use crate::error::ReconcileError;
use crate::ports::{
    Budget, CheckRunUpdate, DeliveryPage, Deregistered, GitHub, GitHubError, NamedRunners, Registered, Registration,
    RepositoryPage, Rerun, RunJobs, RunReference, RunnerPage, RunsUnderWay, StoreError,
};
use crate::table::commit_or_leave;
use crate::turnstile::Turnstile;

/// How long a reading of a stored limit counts. Calls that begin together need one reading, not one each, and a pool is read
/// together with the limit, some seconds before its machines are launched and need GitHub. A limit lasts a minute or longer.
const LIMIT_COUNTS_FOR: SignedDuration = SignedDuration::from_secs(5);

/// A call that fails after this time was not answered. GitHub reports its own failures within a second.
const HANGS_AFTER: SignedDuration = SignedDuration::from_secs(4);

/// Concurrent registrations for one account. GitHub allows 100 concurrent requests per installation, and four invocations
/// with large launches make 96.
const MAX_CONCURRENT_REGISTRATIONS: usize = 24;

/// GitHub's port for one invocation.
pub(crate) struct Accounts<'a> {
    /// The invocation, with the port that makes the calls.
    context: &'a Context<'a>,
    accounts: Mutex<BTreeMap<Owner, Account>>,
}

struct Account {
    /// When the stored limit was read, and did not forbid calls.
    free_at: Option<Timestamp>,
    /// Why no further call is made in this invocation.
    ended: Option<GitHubError>,
    /// Held while the stored limit is read.
    reading: Arc<futures::lock::Mutex<()>>,
    registrations: Arc<Turnstile>,
}

impl Default for Account {
    fn default() -> Self {
        let registrations = Arc::new(Turnstile::new(MAX_CONCURRENT_REGISTRATIONS));
        Self { free_at: None, ended: None, reading: Arc::default(), registrations }
    }
}

impl<'a> Accounts<'a> {
    pub(crate) fn new(context: &'a Context<'a>) -> Self {
        Self { context, accounts: Mutex::default() }
    }

    fn accounts(&self) -> MutexGuard<'_, BTreeMap<Owner, Account>> {
        self.accounts.lock().expect("no thread panics while it holds the lock")
    }

    fn github(&self) -> &'a dyn GitHub {
        self.context.ports.github
    }

    /// What is known about the account without a reading: whether it may be called now.
    fn known(&self, owner: &Owner, now: Timestamp) -> Option<Result<(), GitHubError>> {
        let mut accounts = self.accounts();
        let account = accounts.entry(owner.clone()).or_default();
        if let Some(error) = &account.ended {
            return Some(Err(error.clone()));
        }
        account.free_at.is_some_and(|at| now.duration_since(at) < LIMIT_COUNTS_FOR).then_some(Ok(()))
    }

    /// Fails if the account may not be called now. Calls that begin together share one reading.
    async fn admit(&self, owner: &Owner) -> Result<(), GitHubError> {
        if let Some(known) = self.known(owner, self.context.now()) {
            return known;
        }
        let reading = self.accounts().entry(owner.clone()).or_default().reading.clone();
        let _alone = reading.lock().await;
        let now = self.context.now();
        if let Some(known) = self.known(owner, now) {
            return known;
        }
        let stored = self.stored_limit(owner).await;
        let limit = stored.map_err(|error| GitHubError::unavailable(format!("its limit cannot be read: {error}")))?;
        self.limit_was_read(owner, limit, now);
        self.known(owner, now).unwrap_or(Ok(()))
    }

    /// The account's stored limit was read at that time.
    pub(crate) fn limit_was_read(&self, owner: &Owner, stored: Option<Limit>, now: Timestamp) {
        match stored.filter(|limit| limit.backoff_until > now) {
            Some(limit) => self.end(owner, GitHubError::Limited { until: limit.backoff_until, message: limit.why }),
            None => self.accounts().entry(owner.clone()).or_default().free_at = Some(now),
        }
    }

    async fn stored_limit(&self, owner: &Owner) -> Result<Option<Limit>, StoreError> {
        match self.context.ports.store.get(&Key::Limit(owner.clone())).await? {
            Some(Item::Limit(limit)) => Ok(Some(limit)),
            _ => Ok(None),
        }
    }

    /// Stores a limit for every function, unless a longer one is stored.
    async fn store_limit(&self, owner: &Owner, until: Timestamp, why: String) -> Result<(), ReconcileError> {
        let stored = self.stored_limit(owner).await?;
        if stored.as_ref().is_some_and(|limit| limit.backoff_until >= until) {
            return Ok(());
        }
        let revision = stored.map_or(0, |limit| limit.revision);
        let limit = Limit { owner: owner.clone(), backoff_until: until, why, revision };
        commit_or_leave(self.context, Transaction::new().put(limit)).await
    }

    fn end(&self, owner: &Owner, why: GitHubError) {
        self.accounts().entry(owner.clone()).or_default().ended.get_or_insert(why);
    }

    /// Makes a call for an account, if the account may be called now.
    async fn call<T>(
        &self,
        owner: &Owner,
        call: impl Future<Output = Result<T, GitHubError>> + Send,
    ) -> Result<T, GitHubError> {
        self.admit(owner).await?;
        let began_at = self.context.now();
        let answer = call.await;
        match &answer {
            Err(error @ GitHubError::Limited { until, .. }) => {
                self.end(owner, error.clone());
                if let Err(error) = self.store_limit(owner, *until, error.to_string()).await {
                    tracing::warn!("GitHub's limit for {owner} is not stored: {error}");
                }
            }
            Err(GitHubError::Unavailable { message, .. })
                if self.context.now().duration_since(began_at) >= HANGS_AFTER =>
            {
                tracing::error!(%owner, "GitHub did not answer a call for {owner} in time: {message}");
                let why = format!("it did not answer a call for {owner} in time, and is not called again for now");
                self.end(owner, GitHubError::unavailable(why));
            }
            Ok(_) | Err(_) => {}
        }
        answer
    }
}

#[async_trait]
impl GitHub for Accounts<'_> {
    async fn register(&self, registration: &Registration) -> Result<Registered, GitHubError> {
        let owner = registration.scope.owner();
        let turnstile = self.accounts().entry(owner.clone()).or_default().registrations.clone();
        let _inside = turnstile.enter(&registration.name.pool).await;
        if self.context.short_of_time() {
            return Err(GitHubError::unavailable("too little time is left to call it"));
        }
        self.call(owner, self.github().register(registration)).await
    }

    async fn runners(&self, scope: &Scope, stack: &StackName, page: usize) -> Result<RunnerPage, GitHubError> {
        self.call(scope.owner(), self.github().runners(scope, stack, page)).await
    }

    async fn runners_named(&self, scope: &Scope, name: &str) -> Result<NamedRunners, GitHubError> {
        self.call(scope.owner(), self.github().runners_named(scope, name)).await
    }

    async fn deregister(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError> {
        self.call(scope.owner(), self.github().deregister(scope, runner)).await
    }

    async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError> {
        self.call(&repository.owner, self.github().job(repository, job)).await
    }

    async fn repositories(&self, owner: &Owner, page: usize) -> Result<RepositoryPage, GitHubError> {
        self.call(owner, self.github().repositories(owner, page)).await
    }

    async fn run_jobs(&self, repository: &Repository, run: RunId) -> Result<RunJobs, GitHubError> {
        self.call(&repository.owner, self.github().run_jobs(repository, run)).await
    }

    async fn is_run_over(&self, run: &RunReference) -> Result<bool, GitHubError> {
        self.call(&run.repository.owner, self.github().is_run_over(run)).await
    }

    async fn runs_under_way(&self, repository: &Repository) -> Result<RunsUnderWay, GitHubError> {
        self.call(&repository.owner, self.github().runs_under_way(repository)).await
    }

    async fn deliveries(&self, from: Option<&str>) -> Result<DeliveryPage, GitHubError> {
        self.github().deliveries(from).await
    }

    async fn redeliver(&self, attempt: u64) -> Result<(), GitHubError> {
        self.github().redeliver(attempt).await
    }

    async fn write_check_run(&self, update: &CheckRunUpdate) -> Result<u64, GitHubError> {
        self.call(&update.repository.owner, self.github().write_check_run(update)).await
    }

    async fn rerun(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError> {
        self.call(&repository.owner, self.github().rerun(repository, job)).await
    }

    fn budget(&self, owner: &Owner) -> Option<Budget> {
        self.github().budget(owner)
    }
}
