//! Machines. When an instance boots, the unmodified agent starts as a process, with a metadata service of its own and a
//! runner folder whose `run.sh` is the stand-in. When the instance loses its power, all its processes are killed. When it is
//! started again, it has the same identity and the same files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, PipeReader};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use axum::extract::{Path, State as Shared};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use world::ec2::InstanceId;
use world::github::{Conclusion, JobId, Offer, RunnerId, Steps, Visibility};

use crate::aws::instance_credentials;
use crate::names::{BOOT_TABLE, REGION, REPORTS_TABLE};
use crate::state::{Notification, World};

/// The longest time that a runner's poll waits for a message.
const LONG_POLL: Duration = Duration::from_secs(30);

/// The variable with the sandbox's URL, for the stand-in.
pub const SANDBOX_URL: &str = "SANDBOX_URL";

/// The variable with the machine's instance id, for the stand-in.
pub const SANDBOX_INSTANCE: &str = "SANDBOX_INSTANCE";

/// The variable with the number of the machine's starts, for the stand-in. 0 without it.
pub const SANDBOX_STARTS: &str = "SANDBOX_STARTS";

/// The variable with the milliseconds that a runner takes until it connects, for the stand-in. 0 without it.
pub const SANDBOX_RUNNER_START: &str = "SANDBOX_RUNNER_START";

/// The running machines, and the connections of their runners.
#[derive(Debug)]
pub struct Machines {
    pub world: Arc<World>,
    /// Path of the executable.
    pub agent: PathBuf,
    /// Path of the executable.
    pub stand_in: PathBuf,
    /// Contains a folder and a log for each machine.
    pub folder: PathBuf,
    pub aws_url: String,
    /// URL of [`router`].
    pub own_url: String,
    /// Additional variables of the agents. They replace others.
    environment: Vec<(String, String)>,
    running: Mutex<BTreeMap<String, Machine>>,
    inboxes: Mutex<BTreeMap<RunnerId, Inbox>>,
    /// The machine from which each runner connected, including machines that are gone.
    hosts: Mutex<BTreeMap<RunnerId, InstanceId>>,
}

/// Messages that a runner has not fetched.
type Inbox = Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Notification>>>;

#[derive(Debug)]
struct Machine {
    agent: Option<Child>,
    /// Its metadata service, or the task of a machine without a process.
    task: Option<JoinHandle<()>>,
    runner: Option<RunnerId>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(id) = self.agent.as_ref().and_then(Child::id) {
            kill_session(id);
        }
    }
}

/// Kills every process of a session, as a machine that loses its power does. The agent leads the session of its machine, and
/// its runner has a process group of its own.
pub fn kill_session(leader: u32) {
    let mut killed = BTreeSet::new();
    loop {
        // A process may have started another one meanwhile.
        let found: Vec<i32> = processes_in(leader).into_iter().filter(|process| killed.insert(*process)).collect();
        if found.is_empty() {
            return;
        }
        for process in found {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }
}

/// Asks every process of a session to end, as a shutdown of the operating system does.
fn terminate_session(leader: u32) {
    for process in processes_in(leader) {
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(process), Signal::SIGTERM);
    }
}

fn processes_in(session: u32) -> Vec<i32> {
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id: &i32| session_of(*id) == Some(session)).collect()
}

fn session_of(process: i32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the name, which is in parentheses: state, parent, process group, session.
    stat.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
}

/// A command that runs the program as the leader of a session of its own.
pub fn in_own_session(program: &std::path::Path) -> Command {
    // With a mere name the standard library would look it up in a fork of this process, which may have gigabytes.
    let mut command = Command::new("/usr/bin/setsid");
    command.arg(program);
    command
}

impl Machines {
    /// No machine runs.
    pub fn new(
        world: Arc<World>,
        agent: PathBuf,
        stand_in: PathBuf,
        folder: PathBuf,
        aws_url: String,
        own_url: String,
        environment: Vec<(String, String)>,
    ) -> Self {
        let (running, inboxes, hosts) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { world, agent, stand_in, folder, aws_url, own_url, environment, running, inboxes, hosts }
    }

    /// Starts the agent of a machine that was launched or started.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub async fn boot(&self, instance: &InstanceId) -> anyhow::Result<()> {
        let id = instance.as_str().to_owned();
        let runner_dir = self.folder.join(&id);
        std::fs::create_dir_all(&runner_dir)?;
        for name in ["run.sh", "poweroff"] {
            match symlink(&self.stand_in, runner_dir.join(name)) {
                // The machine has booted before.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => made?,
            }
        }
        let starts = self.world.look(|state| state.ec2.instance(instance).map_or(0, |it| it.starts));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let metadata_url = format!("http://{}", listener.local_addr()?);
        let metadata = tokio::spawn(serve(listener, metadata_router(id.clone(), self.world.clone())));
        let log = File::options().create(true).append(true).open(self.folder.join(format!("{id}.log"))).await?;
        let (read, write) = std::io::pipe()?;
        let also = write.try_clone()?;
        let agent = in_own_session(&self.agent)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ENDPOINT_URL", &self.aws_url)
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata_url)
            .env("DROVER_BOOT_TABLE", BOOT_TABLE)
            .env("DROVER_REPORTS_TABLE", REPORTS_TABLE)
            .env("DROVER_RUNNER_DIR", &runner_dir)
            .env("DROVER_POWEROFF", runner_dir.join("poweroff"))
            // A machine that loses its power does not tidy up.
            .env("TMPDIR", &runner_dir)
            .env(SANDBOX_URL, &self.own_url)
            .env(SANDBOX_INSTANCE, &id)
            .env(SANDBOX_STARTS, starts.to_string())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(write)
            .stderr(also)
            .spawn()
            .with_context(|| format!("cannot start {}", self.agent.display()))?;
        tokio::spawn(console(read, log, self.world.clone(), instance.clone()));
        let machine = Machine { agent: Some(agent), task: Some(metadata), runner: None };
        self.running.lock().expect("nobody panics while holding it").insert(id, machine);
        Ok(())
    }

    /// Asks the processes of a machine to end.
    pub fn shut_down(&self, instance: &InstanceId) {
        let running = self.running.lock().expect("nobody panics while holding it");
        let agent = running.get(instance.as_str()).and_then(|machine| machine.agent.as_ref());
        if let Some(leader) = agent.and_then(Child::id) {
            terminate_session(leader);
        }
    }

    /// Kills the processes of a machine and disconnects its runner from GitHub. A running job counts as killed.
    pub fn power_lost(&self, instance: &InstanceId) {
        let machine = self.running.lock().expect("nobody panics while holding it").remove(instance.as_str());
        let runner = machine.as_ref().and_then(|machine| machine.runner);
        // Kills the processes first, so that the runner cannot report anything after its disconnection.
        drop(machine);
        if let Some(runner) = runner {
            self.inboxes.lock().expect("nobody panics while holding it").remove(&runner);
            self.world.act(|state, now| {
                state.sessions.remove(&runner);
                state.github.disconnect(runner, now);
            });
        }
    }

    /// Adds a machine without a process, which has this task until it loses its power.
    pub(crate) fn add_bare(&self, instance: &InstanceId, task: JoinHandle<()>) {
        let machine = Machine { agent: None, task: Some(task), runner: None };
        let mut running = self.running.lock().expect("nobody panics while holding it");
        running.insert(instance.as_str().to_owned(), machine);
    }

    /// Connects a machine's runner with its JIT config. None if GitHub does not know the registration.
    pub(crate) fn connect(
        &self,
        instance: &InstanceId,
        jit_config: &str,
    ) -> Option<(RunnerId, mpsc::UnboundedReceiver<Notification>)> {
        let decoded = STANDARD.decode(jit_config.trim()).ok();
        let secret = decoded.and_then(|json| serde_json::from_slice::<Value>(&json).ok());
        let secret = secret.and_then(|json| Some(json["secret"].as_str()?.to_owned())).unwrap_or_default();
        let (sender, receiver) = mpsc::unbounded_channel();
        let connected = self.world.act(|state, now| {
            let runner = state.github.connect(&secret, now)?;
            self.hosts.lock().expect("nobody panics while holding it").insert(runner, instance.clone());
            state.sessions.insert(runner, sender);
            Ok::<_, world::github::Unknown>(runner)
        });
        let runner = connected.ok()?;
        let mut running = self.running.lock().expect("nobody panics while holding it");
        if let Some(machine) = running.get_mut(instance.as_str()) {
            machine.runner = Some(runner);
        }
        Some((runner, receiver))
    }

    pub(crate) fn host_of(&self, runner: RunnerId) -> Option<InstanceId> {
        self.hosts.lock().expect("nobody panics while holding it").get(&runner).cloned()
    }

    /// Kills the processes of all machines.
    pub fn end(&self) {
        self.running.lock().expect("nobody panics while holding it").clear();
    }
}

/// Copies the output of the agent and its children to the machine's console, and to a log for failed tests.
async fn console(pipe: PipeReader, mut log: File, world: Arc<World>, instance: InstanceId) -> std::io::Result<()> {
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe.into())?;
    let mut some = [0; 4096];
    loop {
        let length = pipe.read(&mut some).await?;
        if length == 0 {
            return Ok(());
        }
        log.write_all(&some[..length]).await?;
        log.flush().await?;
        world.act(|state, _| state.ec2.print(&instance, &String::from_utf8_lossy(&some[..length])));
    }
}

/// Serves until aborted.
pub async fn serve(listener: TcpListener, router: Router) {
    // Fails only if the listener breaks. Callers then get a refused connection.
    let _ = axum::serve(listener, router).await;
}

/// IMDSv2: the token, the role's credentials, the interruption warning if there is one, and what cloud-init reads.
pub fn metadata_router(instance: String, world: Arc<World>) -> Router {
    let role = "drover-runner";
    let credentials = Arc::new(instance);
    let spot = credentials.clone();
    let described = credentials.clone();
    let describe = move |uri: Uri| {
        let described = description(&described, uri.path());
        async move { described.ok_or(StatusCode::NOT_FOUND) }
    };
    let credentials_of = move |Path(asked): Path<String>| {
        let instance = credentials.clone();
        async move {
            match asked == role {
                true => Json(instance_credentials(&instance)).into_response(),
                false => StatusCode::NOT_FOUND.into_response(),
            }
        }
    };
    let notice = move || {
        let (instance, world) = (spot.clone(), world.clone());
        async move {
            let instance = InstanceId::from(instance.to_string());
            match world.look(|state| state.ec2.instance(&instance).and_then(|it| it.reclaimed_at)) {
                Some(at) => Json(serde_json::json!({ "action": "terminate", "time": at })).into_response(),
                None => StatusCode::NOT_FOUND.into_response(),
            }
        }
    };
    let token = || async { ([("x-aws-ec2-metadata-token-ttl-seconds", "21600")], "token") };
    Router::new()
        .route("/latest/api/token", put(token))
        .route("/latest/meta-data/iam/security-credentials/", get(move || async move { role }))
        .route("/latest/meta-data/iam/security-credentials/{role}", get(credentials_of))
        .route("/latest/meta-data/spot/instance-action", get(notice))
        .fallback(describe)
}

/// The machine's description at a path such as `/latest/meta-data/placement/region`, in any version: a value, or the names in
/// a folder.
fn description(instance: &str, path: &str) -> Option<String> {
    let (_version, path) = path.strip_prefix('/')?.split_once("/meta-data/")?;
    let zone = format!("{REGION}a");
    let values = [
        ("ami-id", "ami-0123456789abcdef0"),
        ("instance-id", instance),
        ("instance-type", "m7i.large"),
        ("local-hostname", instance),
        ("placement/availability-zone", &zone),
        ("placement/region", REGION),
    ];
    if let Some((_, value)) = values.iter().find(|(key, _)| *key == path) {
        return Some((*value).to_owned());
    }
    let inside = values.iter().filter_map(|(key, _)| key.strip_prefix(path));
    let names: BTreeSet<&str> = inside.map(|rest| rest.split_inclusive('/').next().unwrap_or(rest)).collect();
    let is_folder = path.is_empty() || path.ends_with('/');
    (is_folder && !names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join("\n"))
}

/// A message to the stand-in for GitHub's runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RunnerMessage {
    /// No message yet. Poll again.
    Nothing,
    /// A job to acquire and run.
    Job {
        job: u64,
        /// `owner/name`.
        repository: String,
        /// The payload of the event that triggered its workflow.
        event: Value,
        steps: Vec<RunnerStep>,
        /// Its conclusion, if nothing fails or is cancelled: `success` or `failure`.
        ends: String,
    },
    /// Stop the job.
    Cancel,
    /// End the step that takes the run time.
    Finish,
    /// The registration is gone.
    Removed,
}

/// A step of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerStep {
    pub name: String,
    pub condition: Condition,
    pub runs_for_ms: u64,
}

/// A step's `if`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// `success()`, the default of a step.
    Success,
    /// `always()`, the default of an action's `pre` step.
    Always,
}

fn steps_of(offer: &Offer) -> Vec<RunnerStep> {
    let step = |name: &str, condition, runs_for: Duration| RunnerStep {
        name: name.to_owned(),
        condition,
        runs_for_ms: u64::try_from(runs_for.as_millis()).unwrap_or(u64::MAX),
    };
    let work = step("work", Condition::Success, offer.runs_for);
    match offer.steps {
        Steps::Ordinary => vec![work],
        Steps::Unconditional => vec![
            step("pre", Condition::Always, Duration::ZERO),
            work,
            step("always", Condition::Always, Duration::ZERO),
        ],
    }
}

fn event_of(offer: &Offer) -> Value {
    let (private, visibility) = match offer.visibility {
        Visibility::Private => (true, "private"),
        Visibility::Public => (false, "public"),
    };
    serde_json::json!({
        "repository": { "full_name": offer.repository, "private": private, "visibility": visibility },
    })
}

/// The runners' connection to GitHub, and the machines' power button.
pub fn router(machines: Arc<Machines>) -> Router {
    Router::new()
        .route("/machines/{instance}/{starts}/power-off", post(power_off))
        .route("/machines/{instance}/session", post(connect))
        .route("/runners/{runner}/message", get(message))
        .route("/runners/{runner}/jobs/{job}/acquire", post(acquire))
        .route("/runners/{runner}/jobs/{job}/step", post(begin_step))
        .route("/runners/{runner}/jobs/{job}/complete", post(complete))
        .with_state(machines)
}

/// A late call of a process that ran before the machine was started again has no effect.
async fn power_off(machines: Shared<Arc<Machines>>, Path((instance, starts)): Path<(String, u32)>) -> StatusCode {
    let instance = InstanceId::from(instance);
    machines.world.act(|state, now| {
        if state.ec2.instance(&instance).is_some_and(|it| it.starts == starts) {
            state.ec2.power_off(&instance, now);
        }
    });
    StatusCode::NO_CONTENT
}

/// Connects a runner with its JIT config. Answers with its id.
async fn connect(machines: Shared<Arc<Machines>>, Path(instance): Path<String>, jit_config: String) -> Response {
    let connected = machines.connect(&InstanceId::from(instance), &jit_config);
    let Some((runner, receiver)) = connected else { return StatusCode::UNAUTHORIZED.into_response() };
    let inbox = Arc::new(tokio::sync::Mutex::new(receiver));
    machines.inboxes.lock().expect("nobody panics while holding it").insert(runner, inbox);
    Json(runner.0).into_response()
}

async fn message(machines: Shared<Arc<Machines>>, Path(runner): Path<u64>) -> Json<RunnerMessage> {
    let inbox = machines.inboxes.lock().expect("nobody panics while holding it").get(&RunnerId(runner)).cloned();
    let Some(inbox) = inbox else { return Json(RunnerMessage::Removed) };
    let mut inbox = inbox.lock().await;
    Json(match tokio::time::timeout(LONG_POLL, inbox.recv()).await {
        Err(_) => RunnerMessage::Nothing,
        Ok(None | Some(Notification::Removed)) => RunnerMessage::Removed,
        Ok(Some(Notification::CancelWanted)) => RunnerMessage::Cancel,
        Ok(Some(Notification::Finish)) => RunnerMessage::Finish,
        Ok(Some(Notification::Offered(offer))) => RunnerMessage::Job {
            job: offer.job.0,
            event: event_of(&offer),
            steps: steps_of(&offer),
            repository: offer.repository,
            ends: offer.ends.as_str().to_owned(),
        },
    })
}

async fn acquire(machines: Shared<Arc<Machines>>, Path((runner, job)): Path<(u64, u64)>) -> StatusCode {
    let acquired = machines.world.act(|state, now| state.github.acquire(RunnerId(runner), JobId(job), now));
    if acquired.is_ok() { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn begin_step(
    machines: Shared<Arc<Machines>>,
    Path((runner, job)): Path<(u64, u64)>,
    step: String,
) -> StatusCode {
    let begun = machines.world.act(|state, _| state.github.begin_step(RunnerId(runner), JobId(job), &step));
    if begun.is_ok() { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn complete(
    machines: Shared<Arc<Machines>>,
    Path((runner, job)): Path<(u64, u64)>,
    conclusion: String,
) -> StatusCode {
    let conclusion = match conclusion.as_str() {
        "success" => Conclusion::Success,
        "cancelled" => Conclusion::Cancelled,
        _ => Conclusion::Failure,
    };
    let (runner, job) = (RunnerId(runner), JobId(job));
    let completed = machines.world.act(|state, now| state.github.complete(runner, job, conclusion, now));
    if completed.is_ok() { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}
