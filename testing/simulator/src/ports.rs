//! The engine's ports on the models.

use async_trait::async_trait;
use domain::ids::{
    BatchTag, DeliveryId, InstanceId, JobId, Owner, PoolName, Repository, RunId, RunnerId, RunnerName, Scope, StackName,
};
use domain::log::Transaction;
use domain::state::{Item, Key, Rank};
use domain::wire::{JobNotice, MESSAGE_VERSION as VERSION, MachineState, Message};
use engine::ports::{
    Budget, CheckRunUpdate, Clock, CommitError, Compute, ComputeError, DeliveryAttempt, Deregistered, ErrorClass,
    FoundJob, GitHub, GitHubError, Launch, LaunchError, Launched, ObservedInstance, ObservedRunner, Queue, QueueError,
    Registered, Registration, Rerun, Store, StoreError, Terminated, TerminationPermit,
};
use jiff::{SignedDuration, Timestamp};
use world::LostReply;
use world::ec2::{self, Code, Filter, RunInstances, Tags, TemplateRef};
use world::github::{self, Answer, CheckOutput, CheckRunChange, CheckRunId, GroupId, JitRequest, Paging};

use crate::universe::{State, Universe, job_notice};

/// The store answers at once: its futures are ready when they are first polled.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    futures::FutureExt::now_or_never(future).expect("the table in memory never waits")
}

impl Universe {
    /// A reading, unless the table is to fail it.
    fn reading<T>(&self, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.state().table_fault.take() {
            Some(_) => Err(StoreError::new("throttled")),
            None => read(),
        }
    }

    fn writing(&self, transaction: &Transaction) -> Result<(), CommitError> {
        let fault = self.state().table_fault.take();
        match fault {
            Some(TableFault::Conflict) => {
                return Err(CommitError::Conflict("another transaction was under way and it".to_owned()));
            }
            Some(TableFault::Unavailable(LostReply::NotApplied)) => {
                return Err(StoreError::new("throttled").into());
            }
            Some(TableFault::Unavailable(LostReply::Applied)) | None => {}
        }
        now_or_never(self.store.commit(transaction))?;
        self.judge_written(transaction);
        match fault {
            Some(_) => Err(StoreError::new("no reply").into()),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Store for Universe {
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        let get = || self.reading(|| now_or_never(self.store.get(key)));
        self.steps.around(|| format!("get {key}"), get).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, StoreError> {
        let get = || self.reading(|| now_or_never(self.store.get_many(keys)));
        self.steps.around(|| format!("get {} items", keys.len()), get).await
    }

    async fn partition(&self, pool: &PoolName) -> Result<Vec<Item>, StoreError> {
        let query = || self.reading(|| now_or_never(self.store.partition(pool)));
        self.steps.around(|| format!("query {pool}"), query).await
    }

    async fn commit(&self, transaction: &Transaction) -> Result<(), CommitError> {
        let what = || match &transaction.event {
            Some(event) => format!("commit {:?}", event.what).chars().take(60).collect(),
            None => format!("commit {} quietly", transaction.len()),
        };
        self.steps.around(what, || self.writing(transaction)).await
    }
}

#[async_trait]
impl Compute for Universe {
    async fn launch(&self, launch: &Launch) -> Result<Vec<Launched>, LaunchError> {
        self.state().sending = Some(launch.clone());
        self.steps.around(|| format!("RunInstances {}", launch.tag), || self.launch_now(launch)).await
    }

    async fn by_batch(&self, tag: &BatchTag) -> Result<Vec<ObservedInstance>, ComputeError> {
        let look = || self.state().describe(&[Filter::tag("drover:batch", &tag.to_string())]);
        self.steps.around(|| format!("DescribeInstances {tag}"), look).await
    }

    async fn census(&self) -> Result<Vec<ObservedInstance>, ComputeError> {
        let look = || self.state().describe(&[Filter::tag("drover:stack", "sim")]);
        self.steps.around(|| "DescribeInstances".to_owned(), look).await
    }

    async fn terminate(&self, permit: &TerminationPermit) -> Result<Terminated, ComputeError> {
        let instance = permit.instance();
        let end = || {
            let (answer, wrong) = self.state().terminate(instance);
            if let Some(wrong) = wrong {
                self.store.broken(wrong);
            }
            answer
        };
        self.steps.around(|| format!("TerminateInstances {instance}"), end).await
    }

    async fn console(&self, instance: &InstanceId) -> Result<Option<String>, ComputeError> {
        let look = || {
            let mut state = self.state();
            let now = state.now;
            match state.ec2.console_output(&instance.as_str().into(), now) {
                Ok(written) => Ok(Some(written.to_owned())),
                Err(error) if error.code() == Some(Code::InvalidInstanceIdNotFound) => Ok(None),
                Err(error) => Err(ec2_error(&error)),
            }
        };
        self.steps.around(|| format!("GetConsoleOutput {instance}"), look).await
    }
}

/// How the table fails one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableFault {
    /// Another transaction on the same items is under way.
    Conflict,
    /// Throttled, slow or away.
    Unavailable(LostReply),
}

impl Universe {
    /// RunInstances, judged by what EC2 then has. Also what a call does whose caller is no more.
    pub(crate) fn launch_now(&self, launch: &Launch) -> Result<Vec<Launched>, LaunchError> {
        let mut state = self.state();
        let before = state.ec2.launches();
        let answer = state.run_instances(launch);
        let (launched, now) = (state.ec2.launches() - before, state.now);
        if launched > 0 {
            state.launched.push((now, launch.tag.clone(), launched));
            let again = !state.launched_attempts.insert(launch.tag.clone());
            drop(state);
            if again {
                self.store.broken(format!("S2: {} was launched twice", launch.tag));
            }
        }
        answer
    }

    /// What was written, held against what GitHub and the machines know.
    fn judge_written(&self, transaction: &Transaction) {
        let mut wrong = Vec::new();
        let mut state = self.state();
        if let Some((key, item)) = &transaction.boot {
            let machine = key.split_once(':').map_or("", |(_, instance)| instance);
            let machine: ec2::InstanceId = machine.into();
            let runner = state.secrets.get(&item.jit_config).copied();
            match runner {
                None => wrong.push(format!("S5: {machine} was left a JIT config that GitHub never gave")),
                Some(runner) => {
                    if state.configured.values().any(|other| *other == runner) {
                        wrong.push(format!("S5: the JIT config of runner {runner} was left twice"));
                    }
                    if state.configured.insert(machine.clone(), runner).is_some() {
                        wrong.push(format!("S5: {machine} was left a second JIT config"));
                    }
                    state.handed_over.push(machine);
                }
            }
        }
        for item in &transaction.puts {
            let Item::Job(job) = item else { continue };
            let Some(truth) = state.github.job(github::JobId(job.id.0)) else { continue };
            let most = match &truth.state {
                github::JobState::Waiting | github::JobState::Queued { .. } => Rank::Queued,
                github::JobState::InProgress { .. } => Rank::Started,
                github::JobState::Completed { .. } => Rank::Done,
            };
            if job.rank > most {
                wrong.push(format!("S4: job {} is {:?} in the table, but {}", job.id, job.rank, truth.state.status()));
            }
        }
        drop(state);
        for wrong in wrong {
            self.store.broken(wrong);
        }
    }
}

impl State {
    /// TerminateInstances, and what is wrong with it: nobody may end a machine whose runner can still be given a job.
    fn terminate(&mut self, instance: &InstanceId) -> (Result<Terminated, ComputeError>, Option<String>) {
        let (id, now): (ec2::InstanceId, _) = (instance.as_str().into(), self.now);
        let was_live = self.ec2.instance(&id).is_some_and(|machine| machine.state.is_live());
        let ours =
            self.ec2.instance(&id).is_none_or(|machine| machine.tags.get("drover:stack").is_some_and(|s| s == "sim"));
        let answer = match self.ec2.terminate_instances(std::slice::from_ref(&id), now) {
            Ok(_) => Ok(Terminated::Ending),
            Err(error) if error.code() == Some(Code::InvalidInstanceIdNotFound) => Ok(Terminated::NotFound),
            Err(error) => Err(ec2_error(&error)),
        };
        let Some(machine) = self.ec2.instance(&id) else { return (answer, None) };
        if !was_live || machine.state.is_live() {
            return (answer, None);
        }
        if !ours {
            return (answer, Some(format!("S1: {id} was terminated, which is not ours")));
        }
        let age = now.duration_since(machine.launched_at);
        let pool = machine.tags.get("drover:pool").cloned().unwrap_or_default();
        let past_life = self.max_life.get(&pool).is_some_and(|most| age >= *most);
        let registered = self.configured.get(&id).and_then(|runner| self.github.runner(*runner));
        let wrong = registered.filter(|_| !past_life).map(|runner| {
            let doing = if runner.job.is_some() { "has a job" } else { "can be given a job" };
            format!("S1: {id} was terminated while its runner {} {doing}", runner.id)
        });
        (answer, wrong)
    }

    fn run_instances(&mut self, launch: &Launch) -> Result<Vec<Launched>, LaunchError> {
        let stack: StackName = "sim".parse().expect("a stack's name");
        let tags: Tags = [
            ("drover:stack".to_owned(), stack.to_string()),
            ("drover:pool".to_owned(), launch.tag.pool.to_string()),
            ("drover:batch".to_owned(), launch.tag.to_string()),
        ]
        .into();
        let market = match launch.tuple.market {
            domain::config::Market::OnDemand => ec2::Market::OnDemand,
            domain::config::Market::Spot => ec2::Market::Spot,
        };
        let request = RunInstances {
            template: TemplateRef::Id(launch.tuple.template.as_str().into()),
            template_version: Some(launch.tuple.template_version.to_string()),
            min_count: 1,
            max_count: launch.count,
            subnet: launch.tuple.subnet.as_str().into(),
            instance_type: Some(launch.tuple.instance_type.as_str().to_owned()),
            market,
            client_token: Some(self.token(launch, &stack)),
            tags: tags.clone(),
            volume_tags: tags,
        };
        let now = self.now;
        let reservation = self.ec2.run_instances(request, now).map_err(|error| {
            let code = error.code().map_or("NoReply", Code::as_str).to_owned();
            LaunchError { class: ErrorClass::of(&code), code, message: error.to_string() }
        })?;
        Ok(reservation
            .instances
            .into_iter()
            .map(|instance| Launched { id: instance.id.as_str().into(), launched_at: instance.launched_at })
            .collect())
    }

    fn token(&mut self, launch: &Launch, stack: &StackName) -> String {
        match &mut self.random_tokens {
            None => launch.tag.token(stack),
            Some(used) => {
                *used += 1;
                format!("random-{used}")
            }
        }
    }

    fn describe(&mut self, filters: &[Filter]) -> Result<Vec<ObservedInstance>, ComputeError> {
        let now = self.now;
        let mut seen = Vec::new();
        let mut next_token = None;
        loop {
            let page = self
                .ec2
                .describe_instances(&[], filters, Some(1000), next_token.as_deref(), now)
                .map_err(|error| ec2_error(&error))?;
            seen.extend(page.items.into_iter().flat_map(|reservation| reservation.instances).map(|instance| {
                ObservedInstance {
                    id: instance.id.as_str().into(),
                    state: match instance.state {
                        ec2::State::Pending => MachineState::Pending,
                        ec2::State::Running => MachineState::Running,
                        ec2::State::Stopping => MachineState::Stopping,
                        ec2::State::Stopped => MachineState::Stopped,
                        ec2::State::ShuttingDown => MachineState::ShuttingDown,
                        ec2::State::Terminated => MachineState::Terminated,
                    },
                    launched_at: instance.launched_at,
                    pool: instance.tags.get("drover:pool").and_then(|pool| pool.parse().ok()),
                    batch: instance.tags.get("drover:batch").and_then(|batch| batch.parse().ok()),
                    hold: instance.tags.contains_key("drover:hold"),
                }
            }));
            next_token = page.next_token;
            if next_token.is_none() {
                return Ok(seen);
            }
        }
    }
}

fn ec2_error(failure: &ec2::Failure) -> ComputeError {
    match failure {
        ec2::Failure::Refused { code, message } => {
            ComputeError { code: Some(code.to_string()), ..ComputeError::new(message) }
        }
        ec2::Failure::NoReply => ComputeError::new(failure.to_string()),
    }
}

fn scope_of(scope: &Scope) -> github::Scope {
    match scope {
        Scope::Organization(owner) => github::Scope::organization(owner.as_str()),
        Scope::Repository(repository) => github::Scope::repository(repository.owner.as_str(), repository.name()),
    }
}

fn failed(error: github::Failure, now: Timestamp) -> GitHubError {
    match error {
        github::Failure::Unauthorized | github::Failure::Forbidden(_) => GitHubError::Denied(error.to_string().into()),
        github::Failure::NotFound | github::Failure::Unprocessable(_) => GitHubError::Refused(error.to_string().into()),
        github::Failure::Conflict(_) => GitHubError::NameTaken,
        github::Failure::PrimaryLimit { reset } => {
            GitHubError::Limited { until: reset.max(now), message: error.to_string() }
        }
        github::Failure::SecondaryLimit { until } => GitHubError::Limited { until, message: error.to_string() },
        github::Failure::Broken(_) | github::Failure::NoReply => GitHubError::unavailable(error.to_string()),
    }
}

#[async_trait]
impl GitHub for Universe {
    async fn register(&self, registration: &Registration) -> Result<Registered, GitHubError> {
        let register = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(registration.scope.owner().as_str()));
            let request = JitRequest {
                name: registration.name.to_string(),
                group: GroupId(registration.group),
                labels: registration.labels.iter().map(|label| label.as_str().to_owned()).collect(),
            };
            state
                .github
                .generate_jit(installation, &scope_of(&registration.scope), request, now)
                .map(|made| {
                    state.secrets.insert(made.secret.clone(), made.runner.id);
                    Registered { runner_id: RunnerId(made.runner.id.0), jit_config: made.secret }
                })
                .map_err(|error| failed(error, now))
        };
        self.steps.around(|| format!("generate-jitconfig {}", registration.name), register).await
    }

    async fn runners(&self, scope: &Scope, stack: &StackName) -> Result<Vec<ObservedRunner>, GitHubError> {
        let list = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(scope.owner().as_str()));
            let prefix = RunnerName::prefix(stack);
            let mut seen = Vec::new();
            for page in 1.. {
                let paging = Paging { page, per_page: 100 };
                let listed = state
                    .github
                    .list_runners(installation, &scope_of(scope), None, paging, now)
                    .map_err(|error| failed(error, now))?;
                if listed.items.is_empty() {
                    break;
                }
                seen.extend(listed.items.into_iter().filter(|runner| runner.name.starts_with(&prefix)).map(|runner| {
                    ObservedRunner {
                        id: RunnerId(runner.id.0),
                        name: runner.name,
                        online: runner.online,
                        busy: runner.job.is_some(),
                    }
                }));
            }
            Ok(seen)
        };
        self.steps.around(|| format!("list runners of {scope}"), list).await
    }

    async fn deregister(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError> {
        let delete = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(scope.owner().as_str()));
            match state.github.delete_runner(installation, &scope_of(scope), github::RunnerId(runner.0), now) {
                Ok(()) => Ok(Deregistered::Removed),
                Err(github::Failure::NotFound) => Ok(Deregistered::AlreadyGone),
                Err(github::Failure::Unprocessable(_)) => Ok(Deregistered::Busy),
                Err(error) => Err(failed(error, now)),
            }
        };
        self.steps.around(|| format!("DELETE runner {runner}"), delete).await
    }

    async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError> {
        let look = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(repository.owner.as_str()));
            let (owner, name) = (repository.owner.as_str(), repository.name());
            match state.github.get_job(installation, owner, name, github::JobId(job.0), now) {
                Ok(job) => Ok(Some(state.notice_of(&job))),
                Err(github::Failure::NotFound) => Ok(None),
                Err(error) => Err(failed(error, now)),
            }
        };
        self.steps.around(|| format!("GET job {job}"), look).await
    }

    async fn run_jobs(&self, repository: &Repository, run: RunId) -> Result<Vec<JobNotice>, GitHubError> {
        let look = || {
            let mut state = self.state();
            let now = state.now;
            let jobs = state.jobs_of(repository, github::RunId(run.0)).map_err(|error| failed(error, now))?;
            Ok(jobs.iter().map(|job| state.notice_of(job)).collect())
        };
        self.steps.around(|| format!("GET jobs of run {run}"), look).await
    }

    async fn jobs_under_way(&self, repository: &Repository) -> Result<Vec<FoundJob>, GitHubError> {
        let look = || {
            let mut state = self.state();
            let now = state.now;
            state.under_way(repository).map_err(|error| failed(error, now))
        };
        self.steps.around(|| format!("GET runs of {repository}"), look).await
    }

    async fn deliveries(&self, since: Timestamp) -> Result<Vec<DeliveryAttempt>, GitHubError> {
        let look = || {
            let mut state = self.state();
            let now = state.now;
            let mut seen = Vec::new();
            let mut cursor = None;
            loop {
                let (page, next) =
                    state.github.list_deliveries(100, cursor.as_deref(), now).map_err(|error| failed(error, now))?;
                for delivery in page {
                    let Some(attempted) = delivery.attempted else { continue };
                    if attempted.at < since {
                        return Ok(seen);
                    }
                    seen.push(DeliveryAttempt {
                        id: delivery.id.0,
                        guid: DeliveryId::from(delivery.guid.as_str()),
                        delivered_at: attempted.at,
                        redelivery: delivery.redelivery,
                        succeeded: matches!(attempted.answer, Answer::Status(200..300)),
                        about_a_job: true,
                    });
                }
                match next {
                    Some(next) => cursor = Some(next),
                    None => return Ok(seen),
                }
            }
        };
        self.steps.around(|| "GET deliveries".to_owned(), look).await
    }

    async fn redeliver(&self, attempt: u64) -> Result<(), GitHubError> {
        let again = || {
            let mut state = self.state();
            let now = state.now;
            state.github.redeliver(github::DeliveryId(attempt), now).map_err(|error| failed(error, now))
        };
        self.steps.around(|| format!("redeliver {attempt}"), again).await
    }

    async fn write_check_run(&self, update: &CheckRunUpdate) -> Result<u64, GitHubError> {
        let tell = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(update.repository.owner.as_str()));
            let (owner, name) = (update.repository.owner.as_str(), update.repository.name());
            let output = CheckOutput { title: update.title.clone(), summary: update.summary.clone() };
            let change = CheckRunChange {
                name: Some("Drover".to_owned()),
                external_id: Some(update.external_id.clone()),
                status: Some("completed".to_owned()),
                conclusion: Some(update.conclusion.as_str().to_owned()),
                details_url: None,
                output: Some(output),
            };
            let github = &mut state.github;
            let told = match update.check_run {
                Some(id) => github.update_check_run(installation, owner, name, CheckRunId(id), change, now),
                None => github.create_check_run(installation, owner, name, &update.head_sha, change, now),
            };
            told.map(|run| run.id.0).map_err(|error| failed(error, now))
        };
        self.steps.around(|| format!("check run of {}", update.external_id), tell).await
    }

    async fn rerun(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError> {
        let again = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation_of(repository.owner.as_str()));
            let (owner, name) = (repository.owner.as_str(), repository.name());
            match state.github.rerun_job(installation, owner, name, github::JobId(job.0), now) {
                Ok(_) => Ok(Rerun::Begun),
                Err(github::Failure::Forbidden(why)) if why.contains("already running") => Ok(Rerun::RunUnderWay),
                Err(error) => Err(failed(error, now)),
            }
        };
        self.steps.around(|| format!("rerun {job}"), again).await
    }

    fn budget(&self, owner: &Owner) -> Option<Budget> {
        let mut state = self.state();
        let (now, installation) = (state.now, state.installation_of(owner.as_str()));
        let rate = state.github.rate(github::Caller::Installation(installation), now);
        Some(Budget { remaining: rate.limit.saturating_sub(rate.used), limit: rate.limit })
    }
}

impl State {
    fn notice_of(&self, job: &github::Job) -> JobNotice {
        job_notice(job, self.github.run(job.run).map(|run| run.head_sha.as_str()).unwrap_or_default())
    }

    fn jobs_of(&mut self, repository: &Repository, run: github::RunId) -> Result<Vec<github::Job>, github::Failure> {
        let (owner, name) = (repository.owner.as_str(), repository.name());
        let mut jobs = Vec::new();
        for page in 1.. {
            let paging = Paging { page, per_page: 100 };
            let (now, installation) = (self.now, self.installation_of(owner));
            let listed =
                self.github.list_run_jobs(installation, owner, name, run, github::Attempts::Latest, paging, now)?;
            if listed.items.is_empty() {
                break;
            }
            jobs.extend(listed.items);
        }
        Ok(jobs)
    }

    fn under_way(&mut self, repository: &Repository) -> Result<Vec<FoundJob>, github::Failure> {
        let (owner, name) = (repository.owner.as_str(), repository.name());
        let (now, installation) = (self.now, self.installation_of(owner));
        let public = self
            .github
            .find_repository(owner, name)
            .is_some_and(|repository| repository.visibility == github::Visibility::Public);
        let mut found = Vec::new();
        for status in ["queued", "in_progress"] {
            let mut runs = Vec::new();
            for page in 1.. {
                let paging = Paging { page, per_page: 100 };
                let listed = self.github.list_runs(installation, owner, name, Some(status), paging, now)?;
                if listed.items.is_empty() {
                    break;
                }
                runs.extend(listed.items);
            }
            for run in runs {
                for job in self.jobs_of(repository, run.id)? {
                    if job.state.conclusion().is_none() {
                        found.push(FoundJob { job: self.notice_of(&job), public });
                    }
                }
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl Queue for Universe {
    async fn nudge(&self, pool: &PoolName, after: SignedDuration) -> Result<(), QueueError> {
        let send = || {
            let mut state = self.state();
            if std::mem::take(&mut state.queue_fault) {
                return Err(QueueError::new("no reply"));
            }
            let at = state.now + after;
            state.messages.push_back((at, Message::Nudge { v: VERSION, pool: pool.clone() }));
            Ok(())
        };
        self.steps.around(|| format!("nudge {pool}"), send).await
    }
}

impl Clock for Universe {
    fn now(&self) -> Timestamp {
        Universe::now(self)
    }
}
