//! The engine's ports on the models.

use std::future::poll_fn;
use std::sync::Mutex;
use std::task::Poll;

use async_trait::async_trait;
use domain::event::{Event, Stream};
use domain::ids::{BatchTag, InstanceId, JobId, PoolName, Repository, RunnerId, RunnerName, Scope, StackName};
use domain::item::{Item, Key};
use domain::notice::{JobNotice, Message, VERSION};
use domain::sweep::MachineState;
use domain::transaction::Transaction;
use engine::ports::{
    Clock, CommitError, Compute, ComputeError, Deregistered, GitHub, GitHubError, Launch, LaunchError, Launched, Queue,
    QueueError, Refusal, Registered, Registration, Seen, SeenRunner, Store, StoreError, Terminated,
};
use jiff::{SignedDuration, Timestamp};
use world::ec2::{self, Code, Filter, RunInstances, Tags, TemplateRef};
use world::github::{self, GroupId, JitRequest, Paging};

use crate::universe::{State, Universe, job_notice};

/// One call of a port, for traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call(pub String);

/// Where an engine under test stands still: before and after every call of a port, once, so that whoever polls it can let
/// others run or drop it.
#[derive(Debug, Default)]
pub struct Step {
    trace: Mutex<Option<Vec<Call>>>,
}

impl Step {
    /// From now on every call is written down, and the engine pauses before and after it.
    pub fn record(&self) {
        *self.trace.lock().expect("nobody panics while holding it") = Some(Vec::new());
    }

    /// What was written down; ends the recording.
    pub fn recorded(&self) -> Vec<Call> {
        self.trace.lock().expect("nobody panics while holding it").take().unwrap_or_default()
    }

    async fn around<T>(&self, call: impl FnOnce() -> String, act: impl FnOnce() -> T) -> T {
        let recording = {
            let mut trace = self.trace.lock().expect("nobody panics while holding it");
            if let Some(trace) = trace.as_mut() {
                trace.push(Call(call()));
            }
            trace.is_some()
        };
        if !recording {
            return act();
        }
        pause().await;
        let answer = act();
        pause().await;
        answer
    }
}

/// Gives way once.
async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The store answers at once: its futures are ready when they are first polled.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    futures::FutureExt::now_or_never(future).expect("the table in memory never waits")
}

#[async_trait]
impl Store for Universe {
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        self.steps.around(|| format!("get {key}"), || now_or_never(self.store.get(key))).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, StoreError> {
        self.steps.around(|| format!("get {} items", keys.len()), || now_or_never(self.store.get_many(keys))).await
    }

    async fn partition(&self, pool: &PoolName) -> Result<Vec<Item>, StoreError> {
        self.steps.around(|| format!("query {pool}"), || now_or_never(self.store.partition(pool))).await
    }

    async fn commit(&self, transaction: &Transaction) -> Result<(), CommitError> {
        let what = || match &transaction.event {
            Some(event) => format!("commit {:?}", event.what).chars().take(60).collect(),
            None => format!("commit {} quietly", transaction.len()),
        };
        self.steps.around(what, || now_or_never(self.store.commit(transaction))).await
    }

    async fn events(&self, stream: &Stream, newest: usize) -> Result<Vec<Event>, StoreError> {
        self.store.events(stream, newest).await
    }
}

#[async_trait]
impl Compute for Universe {
    async fn launch(&self, launch: &Launch) -> Result<Vec<Launched>, LaunchError> {
        self.steps.around(|| format!("RunInstances {}", launch.tag), || self.state().run_instances(launch)).await
    }

    async fn by_batch(&self, tag: &BatchTag) -> Result<Vec<Seen>, ComputeError> {
        let look = || self.state().describe(&[Filter::tag("drover:batch", &tag.to_string())]);
        self.steps.around(|| format!("DescribeInstances {tag}"), look).await
    }

    async fn census(&self) -> Result<Vec<Seen>, ComputeError> {
        let look = || self.state().describe(&[Filter::tag("drover:stack", "sim")]);
        self.steps.around(|| "DescribeInstances".to_owned(), look).await
    }

    async fn terminate(&self, instance: &InstanceId) -> Result<Terminated, ComputeError> {
        let end = || {
            let mut state = self.state();
            let now = state.now;
            match state.ec2.terminate_instances(&[instance.as_str().into()], now) {
                Ok(_) => Ok(Terminated::Ending),
                Err(error) if error.code() == Some(Code::InvalidInstanceIdNotFound) => Ok(Terminated::NotFound),
                Err(error) => Err(ComputeError(error.to_string())),
            }
        };
        self.steps.around(|| format!("TerminateInstances {instance}"), end).await
    }
}

impl State {
    fn run_instances(&mut self, launch: &Launch) -> Result<Vec<Launched>, LaunchError> {
        let stack: StackName = "sim".parse().expect("a stack's name");
        let tags: Tags = [
            ("drover:stack".to_owned(), stack.to_string()),
            ("drover:pool".to_owned(), launch.tag.pool.to_string()),
            ("drover:batch".to_owned(), launch.tag.to_string()),
        ]
        .into();
        let market = match launch.tuple.market {
            domain::pool::Market::OnDemand => ec2::Market::OnDemand,
            domain::pool::Market::Spot => ec2::Market::Spot,
        };
        let request = RunInstances {
            template: TemplateRef::Id(launch.tuple.template.as_str().into()),
            template_version: Some(launch.tuple.template_version.to_string()),
            min_count: 1,
            max_count: launch.count,
            subnet: launch.tuple.subnet.as_str().into(),
            instance_type: Some(launch.tuple.instance_type.as_str().to_owned()),
            market,
            client_token: Some(launch.tag.token(&stack)),
            tags: tags.clone(),
            volume_tags: tags,
        };
        let now = self.now;
        let reservation = self.ec2.run_instances(request, now).map_err(|error| {
            let class = match error.code() {
                Some(Code::InsufficientInstanceCapacity) => Refusal::Capacity,
                Some(Code::VcpuLimitExceeded) => Refusal::Quota,
                Some(Code::RequestLimitExceeded) => Refusal::Throttled,
                Some(Code::UnauthorizedOperation) => Refusal::Configuration,
                _ => Refusal::Ambiguous,
            };
            let code = error.code().map_or("NoReply", Code::as_str).to_owned();
            LaunchError { class, code, message: error.to_string() }
        })?;
        Ok(reservation
            .instances
            .into_iter()
            .map(|instance| Launched { id: instance.id.as_str().into(), launched_at: instance.launched_at })
            .collect())
    }

    fn describe(&mut self, filters: &[Filter]) -> Result<Vec<Seen>, ComputeError> {
        let now = self.now;
        let mut seen = Vec::new();
        let mut next_token = None;
        loop {
            let page = self
                .ec2
                .describe_instances(&[], filters, Some(1000), next_token.as_deref(), now)
                .map_err(|error| ComputeError(error.to_string()))?;
            seen.extend(page.items.into_iter().flat_map(|reservation| reservation.instances).map(|instance| Seen {
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
            }));
            next_token = page.next_token;
            if next_token.is_none() {
                return Ok(seen);
            }
        }
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
        github::Failure::Unauthorized | github::Failure::Forbidden(_) => GitHubError::Denied(error.to_string()),
        github::Failure::NotFound | github::Failure::Unprocessable(_) => GitHubError::Refused(error.to_string()),
        github::Failure::Conflict(_) => GitHubError::NameTaken,
        github::Failure::PrimaryLimit { reset } => {
            GitHubError::Limited { until: reset.max(now), message: error.to_string() }
        }
        github::Failure::SecondaryLimit { until } => GitHubError::Limited { until, message: error.to_string() },
        github::Failure::Broken(_) | github::Failure::NoReply => GitHubError::Unavailable(error.to_string()),
    }
}

#[async_trait]
impl GitHub for Universe {
    async fn register(&self, registration: &Registration) -> Result<Registered, GitHubError> {
        let register = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation);
            let request = JitRequest {
                name: registration.name.to_string(),
                group: GroupId(registration.group),
                labels: registration.labels.iter().map(|label| label.as_str().to_owned()).collect(),
            };
            state
                .github
                .generate_jit(installation, &scope_of(&registration.scope), request, now)
                .map(|made| Registered { runner_id: RunnerId(made.runner.id.0), jit_config: made.secret })
                .map_err(|error| failed(error, now))
        };
        self.steps.around(|| format!("generate-jitconfig {}", registration.name), register).await
    }

    async fn runners(&self, scope: &Scope, stack: &StackName) -> Result<Vec<SeenRunner>, GitHubError> {
        let list = || {
            let mut state = self.state();
            let (now, installation) = (state.now, state.installation);
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
                    SeenRunner {
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
            let (now, installation) = (state.now, state.installation);
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
            let (now, installation) = (state.now, state.installation);
            let (owner, name) = (repository.owner.as_str(), repository.name());
            match state.github.get_job(installation, owner, name, github::JobId(job.0), now) {
                Ok(job) => Ok(Some(job_notice(&job))),
                Err(github::Failure::NotFound) => Ok(None),
                Err(error) => Err(failed(error, now)),
            }
        };
        self.steps.around(|| format!("GET job {job}"), look).await
    }
}

#[async_trait]
impl Queue for Universe {
    async fn nudge(&self, pool: &PoolName, after: SignedDuration) -> Result<(), QueueError> {
        let send = || {
            let mut state = self.state();
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
