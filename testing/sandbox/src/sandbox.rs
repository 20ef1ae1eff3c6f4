//! Everything together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use domain::ids::{Owner, PoolName, Repository};
use domain::log::Stream;
use domain::state::{Instance, Item, Key, Ownership};
use engine::ports::{Clock, Store};
use jiff::{SignedDuration, Timestamp};
use platform::clock::SystemClock;
use platform::environment::optional;
use platform::table::Table;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use world::ec2::{self, Ec2, Market, OnPowerOff, RunInstances, Tags, TemplateData, TemplateRef};
use world::github::{
    self, App, DEFAULT_GROUP, GitHub, Group, GroupId, HookConfig, JobId, Operator, OwnerKind, QueueJob, Visibility,
};
use world::sqs::{QueueConfig, Redrive};

use crate::aws::{self, Gateway, access_key};
use crate::calls::Calls;
use crate::deliveries::{WebhookFaults, Webhooks};
use crate::events::Rules;
use crate::github::{Api, AppKey};
use crate::lambda::{EventSource, Failed, Function, function_url};
use crate::machine::{self, Machines, serve};
pub use crate::names::{APP_SECRET, DEAD_LETTERS, FOREIGN_REPOSITORY, QUEUE, STACK, WEBHOOK_SECRET};
use crate::names::{BOOT_TABLE, RUNNER_ROLE_ID, TABLE};
use crate::state::{Happening, Secret, State, Told, World};

/// Who runs the functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driven {
    /// The event source mapping and the schedule.
    Live,
    /// The test, by [`Sandbox::scale`] and [`Sandbox::sweep`].
    ByHand,
}

/// A runner group that admits a few repositories.
#[derive(Debug, Clone)]
pub struct Fenced {
    /// Whose.
    pub owner: Owner,
    /// Its id.
    pub group: u64,
    /// Whom it admits.
    pub repositories: Vec<Repository>,
}

/// How the sandbox is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides every roll of the models' dice.
    pub seed: u64,
    /// How long EC2 takes, and what it allows.
    pub ec2: ec2::Config,
    /// How long GitHub takes, and what it allows.
    pub github: github::Config,
    /// The repositories that there are, and with them their owners, all of them organisations.
    pub repositories: Vec<Repository>,
    /// The runner groups that there are, beyond the default one. Where that is not named, it admits all repositories of its
    /// organisation above, and no public ones.
    pub groups: Vec<Fenced>,
    /// The launch templates that there are.
    pub launch_templates: Vec<String>,
    /// The subnets that there are, tagged with the stack, each in a zone of its own.
    pub subnets: Vec<String>,
    /// What goes wrong with deliveries.
    pub webhook_faults: WebhookFaults,
    /// What EC2 tells that reaches the queue.
    pub rules: Rules,
    /// Who runs the functions.
    pub driven: Driven,
    /// The queue's visibility timeout.
    pub visibility: Duration,
    /// The event source mapping's `BatchSize`.
    pub batch_size: usize,
    /// The event source mapping's window.
    pub window: Duration,
    /// How often the janitor is woken.
    pub sweep_every: Duration,
    /// The scaler's timeout; with it ends the lease of what it began.
    pub scaler_timeout: Duration,
    /// The janitor's timeout; with it ends its lock.
    pub janitor_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let millis = Duration::from_millis;
        let ec2 = ec2::Config {
            pending: millis(150),
            boot: millis(250),
            shutting_down: millis(300),
            stopping: millis(300),
            ..ec2::Config::default()
        };
        let github = github::Config { webhook_delay: (millis(10), millis(120)), ..github::Config::default() };
        Self {
            seed: 1,
            ec2,
            github,
            repositories: vec!["octo-org/widgets".parse().expect("it is owner/name")],
            groups: Vec::new(),
            launch_templates: vec!["drover-runner".to_owned()],
            subnets: vec!["subnet-a".to_owned(), "subnet-b".to_owned()],
            webhook_faults: WebhookFaults::default(),
            rules: Rules::default(),
            driven: Driven::Live,
            visibility: Duration::from_secs(10),
            batch_size: 100,
            window: Duration::ZERO,
            sweep_every: Duration::from_secs(2),
            scaler_timeout: Duration::from_secs(60),
            janitor_timeout: Duration::from_secs(60),
        }
    }
}

/// A running sandbox. Dropping it ends every process that it started.
#[derive(Debug)]
pub struct Sandbox {
    /// Everything outside Drover.
    pub world: Arc<World>,
    /// Who called what.
    pub calls: Arc<Calls>,
    /// GitHub's sender of webhooks.
    pub webhooks: Arc<Webhooks>,
    /// The function.
    pub ingest: Arc<Function>,
    /// The function.
    pub scaler: Arc<Function>,
    /// The function.
    pub janitor: Arc<Function>,
    /// The queue's consumer.
    pub source: Arc<EventSource>,
    /// Where AWS is.
    pub aws_url: String,
    /// Where GitHub's API is.
    pub github_url: String,
    dynamodb_url: String,
    http: reqwest::Client,
    machines: Arc<Machines>,
    programs: PathBuf,
    folder: TempDir,
    sweep_every: Duration,
    tasks: JoinSet<()>,
}

/// A `drover` that goes on.
#[derive(Debug)]
pub struct Follower {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Follower {
    /// Its next line.
    ///
    /// # Errors
    /// When there is none: it has ended.
    pub async fn line(&mut self) -> anyhow::Result<String> {
        self.lines.next_line().await?.context("drover has ended")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.machines.end();
    }
}

/// The folder with the executables: that of the running one, or the one above for a test.
fn programs() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the own executable")?;
    let folder = own.parent().context("no folder")?;
    Ok(if folder.ends_with("deps") { folder.parent().context("no folder")?.to_owned() } else { folder.to_owned() })
}

fn app_at(now: Timestamp) -> App {
    App::new(4242, "drover-sandbox", "Drover sandbox", now)
}

impl Sandbox {
    /// Starts everything: AWS, GitHub, the functions' runtimes; queue, tables, secrets and launch template are made. No
    /// pool is applied yet.
    ///
    /// # Errors
    /// When an executable is missing, or a port cannot be had.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let programs = programs()?;
        for name in ["ingest", "scaler", "janitor", "agent", "drover", "stand-in"] {
            ensure!(programs.join(name).exists(), "{name} is not in {}: cargo build --workspace", programs.display());
        }
        let folder = tempfile::Builder::new().prefix("drover-sandbox-").tempdir()?;
        let now = SystemClock.now();
        let mut ec2 = Ec2::new(options.ec2.clone(), options.seed);
        let stack_tag: Tags = [("drover:stack".to_owned(), STACK.to_owned())].into();
        for (number, subnet) in options.subnets.iter().enumerate() {
            ec2.add_subnet(subnet, &format!("eu-central-1-{number}"), stack_tag.clone());
        }
        let data = TemplateData {
            image: "ami-runner".to_owned(),
            instance_type: "m7i.large".to_owned(),
            on_power_off: OnPowerOff::Terminate,
        };
        for name in &options.launch_templates {
            ec2.create_launch_template(name, data.clone(), stack_tag.clone(), now)?;
        }
        // As `make build-image` does.
        let released_at = now - SignedDuration::from_hours(3 * 24);
        let about = [("drover:runner", "2.338.0".to_owned()), ("drover:runner-released", format!("{released_at:.0}"))];
        ec2.tag_image(&data.image, about.map(|(key, value)| (key.to_owned(), value)).into());
        let mut github = GitHub::new(options.github.clone(), app_at(now), options.seed);
        for repository in &options.repositories {
            let login = repository.owner.as_str();
            let known = github.find_owner(login).map(|owner| owner.id);
            let owner = known.unwrap_or_else(|| {
                let owner = github.add_owner(login, OwnerKind::Organization, now);
                github.install(owner, now);
                github.add_repository(owner, FOREIGN_REPOSITORY, Visibility::Private, now);
                owner
            });
            github.add_repository(owner, repository.name(), Visibility::Private, now);
        }
        let owners: BTreeSet<&Owner> = options.repositories.iter().map(|repository| &repository.owner).collect();
        for owner in owners {
            let of_owner = options.repositories.iter().filter(|repository| repository.owner == *owner);
            fence(&mut github, owner, DEFAULT_GROUP.0, of_owner);
        }
        for Fenced { owner, group, repositories } in &options.groups {
            fence(&mut github, owner, *group, repositories.iter());
        }
        let world = Arc::new(World::new(ec2, github));

        let key = AppKey::generate()?;
        let webhook_secret = "It's a Secret to Everybody".to_owned();
        let app_secret = json!({ "app_id": app_at(now).id, "private_key": key.private }).to_string();
        world.act(|state, now| {
            state.sqs.create_queue(DEAD_LETTERS, QueueConfig { visibility: options.visibility, redrive: None });
            let redrive = Some(Redrive { to: DEAD_LETTERS.to_owned(), after: 5 });
            state.sqs.create_queue(QUEUE, QueueConfig { visibility: options.visibility, redrive });
            for (name, current) in [(WEBHOOK_SECRET, webhook_secret.clone()), (APP_SECRET, app_secret)] {
                state.secrets.insert(name.to_owned(), Secret { current, previous: None, created_at: now });
            }
        });

        let mut tasks = JoinSet::new();
        let calls = Arc::new(Calls::default());
        let http = reqwest::Client::builder().tls_certs_only([]).build()?;
        let (dynamodb, dynamodb_url) = listen().await?;
        let database = dynoxide::Database::memory().context("DynamoDB's emulator does not start")?;
        tasks.spawn(dynoxide::server::serve_on(dynamodb, database));
        aws::create_tables(&http, &dynamodb_url).await?;

        let (listener, aws_url) = listen().await?;
        let gateway =
            Gateway { world: world.clone(), calls: calls.clone(), dynamodb: dynamodb_url.clone(), http: http.clone() };
        tasks.spawn(serve(listener, aws::router(Arc::new(gateway))));
        let (listener, github_url) = listen().await?;
        let api = Api { world: world.clone(), calls: calls.clone(), key };
        tasks.spawn(serve(listener, crate::github::router(Arc::new(api))));
        let (listener, machines_url) = listen().await?;
        let folder_of = |name: &str| -> anyhow::Result<PathBuf> {
            let path = folder.path().join(name);
            std::fs::create_dir(&path)?;
            Ok(path)
        };
        let machines = Arc::new(Machines::new(
            world.clone(),
            programs.join("agent"),
            programs.join("stand-in"),
            folder_of("machines")?,
            aws_url.clone(),
            machines_url,
        ));
        tasks.spawn(serve(listener, machine::router(machines.clone())));

        let logs = folder_of("functions")?;
        let function = |name: &'static str, timeout: Duration, concurrency: usize| {
            let environment = environment(name, &aws_url, &github_url);
            let (program, logs, calls) = (programs.join(name), logs.clone(), calls.clone());
            Arc::new(Function::new(name, program, environment, timeout, concurrency, logs, calls))
        };
        let ingest = function("ingest", Duration::from_secs(10), 4);
        let scaler = function("scaler", options.scaler_timeout, 2);
        let janitor = function("janitor", options.janitor_timeout, 1);
        let (listener, hook_url) = listen().await?;
        tasks.spawn(serve(listener, function_url(ingest.clone())));
        let hook = HookConfig { url: hook_url.clone(), secret: Some(webhook_secret), ..HookConfig::default() };
        world.act(|state, _| state.github.set_hook(hook));
        let webhooks = Arc::new(Webhooks::new(world.clone(), hook_url, options.webhook_faults, http.clone()));

        let source = Arc::new(EventSource {
            world: world.clone(),
            queue: QUEUE,
            scaler: scaler.clone(),
            batch_size: options.batch_size,
            window: options.window,
        });
        let (tell, told) = mpsc::unbounded_channel();
        let moving = world.clone();
        let rules = options.rules;
        tasks.spawn(async move { moving.run(tell, rules, QUEUE).await });
        tasks.spawn(happen(world.clone(), machines.clone(), webhooks.clone(), told));
        let driven = options.driven;
        let mut sandbox = Self {
            world,
            calls,
            webhooks,
            ingest,
            scaler,
            janitor,
            source,
            aws_url,
            github_url,
            dynamodb_url,
            http,
            machines,
            programs,
            folder,
            sweep_every: options.sweep_every,
            tasks,
        };
        if driven == Driven::Live {
            sandbox.go_live();
        }
        Ok(sandbox)
    }

    /// From now on, the event source mapping and the schedule run the functions.
    pub fn go_live(&mut self) {
        // As many pollers as the mapping's maximum concurrency.
        for _ in 0..2 {
            let source = self.source.clone();
            self.tasks.spawn(async move { source.run().await });
        }
        self.tasks.spawn(schedule(self.janitor.clone(), self.sweep_every));
    }

    /// Where the logs are: `functions/` and `machines/`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the logs when the sandbox ends, and says where they are.
    pub fn keep_logs(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// Runs `drover` as the operator, in [`Sandbox::folder`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn drover(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.drover_with(arguments, &[]).await
    }

    /// Runs `drover` as the operator, but for these variables of the environment; an empty one is not set.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn drover_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<Output> {
        self.operator(arguments, variables).output().await.context("cannot run drover")
    }

    /// Starts `drover` as the operator, to be listened to. Dropping it ends it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn follow(&self, arguments: &[&str]) -> anyhow::Result<Follower> {
        let mut command = self.operator(arguments, &[]);
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().context("cannot run drover")?;
        let lines = BufReader::new(child.stdout.take().context("it has no standard output")?).lines();
        Ok(Follower { lines, _child: child })
    }

    /// `drover` as the operator would start it, but for these variables; an empty one is not set.
    pub fn operator(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(self.programs.join("drover"));
        command
            .args(arguments)
            .env_clear()
            .envs(self.operators_environment())
            .envs(variables.iter().copied())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        for (name, _) in variables.iter().filter(|(_, value)| value.is_empty()) {
            command.env_remove(name);
        }
        command
    }

    /// As before anybody set an app up: the secrets are empty, and the app is installed nowhere.
    pub fn forget_app(&self) {
        self.world.act(|state, _| {
            for secret in state.secrets.values_mut() {
                *secret = Secret { current: String::new(), previous: None, created_at: secret.created_at };
            }
            let owners: Vec<_> = state.github.owners().map(|owner| owner.id).collect();
            owners.into_iter().for_each(|owner| state.github.uninstall(owner));
        });
    }

    /// What the operator's shell exports.
    pub fn operators_environment(&self) -> Vec<(String, String)> {
        let mut all = environment("operator", &self.aws_url, &self.github_url);
        all.push(("DROVER_WEBHOOK_URL".to_owned(), self.webhooks.url.clone()));
        all
    }

    /// Writes a file that makes a shell the operator's, with `drover` in its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn operators_shell(&self) -> anyhow::Result<PathBuf> {
        // What a shell may have for real accounts, and would be sent along.
        let mut text = "unset AWS_PROFILE AWS_SESSION_TOKEN AWS_CA_BUNDLE\n".to_owned();
        text.extend(self.operators_environment().iter().map(|(name, value)| format!("export {name}='{value}'\n")));
        text += &format!("export PATH='{}':\"$PATH\"\n", self.programs.display());
        let file = self.folder.path().join("operator.sh");
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// Applies a pool file's text, which must be right.
    ///
    /// # Errors
    /// When it is not.
    pub async fn apply(&self, pools: &str) -> anyhow::Result<()> {
        let file = self.folder.path().join("pools.toml");
        std::fs::write(&file, pools)?;
        let path = file.to_str().context("the folder's name is not UTF-8")?;
        let output = self.drover(&["pools", "apply", path]).await?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "drover pools apply: {said}");
        Ok(())
    }

    /// The table, as the operator reads it.
    pub async fn table(&self) -> Table {
        let key = access_key("operator").unwrap_or_default();
        let aws = platform::aws::emulator(&self.aws_url, key).await;
        Table::new(&aws, TABLE.to_owned(), BOOT_TABLE.to_owned())
    }

    /// Loses the main table with all that is in it, and makes an empty one, as an operator might.
    ///
    /// # Errors
    /// When the emulator refuses.
    pub async fn lose_table(&self) -> anyhow::Result<()> {
        aws::lose_table(&self.http, &self.dynamodb_url).await
    }

    /// A pool's log, oldest first, a line an event: what a failing test shows.
    pub async fn log(&self, pool: &PoolName) -> String {
        let events = self.table().await.events(&Stream::Pool(pool.clone()), 1000).await.unwrap_or_default();
        let lines = events.iter().rev().map(|event| format!("{} {:?} {:?}\n", event.at, event.what, event.cause));
        lines.collect()
    }

    /// Somebody pushes to `owner/name`: a job is queued.
    ///
    /// # Panics
    /// When there is no such repository.
    pub fn queue_job(&self, repository: &str, labels: &[&str], runs_for: Duration) -> JobId {
        self.queue(repository, labels, |job| QueueJob { runs_for, ..job })
    }

    /// The same, with everything else about the job to choose.
    ///
    /// # Panics
    /// When there is no such repository.
    pub fn queue(&self, repository: &str, labels: &[&str], change: impl FnOnce(QueueJob) -> QueueJob) -> JobId {
        let (owner, name) = repository.split_once('/').expect("a repository is owner/name");
        self.world.act(|state, now| {
            let repository = state.github.find_repository(owner, name).expect("the repository exists").id;
            state.github.queue_job(change(QueueJob::new(repository, labels)), now)
        })
    }

    /// A machine with our tags, and these besides, that nobody of ours launched.
    ///
    /// # Panics
    /// When EC2 refuses it.
    pub fn unowned(&self, more: &[(&str, &str)]) -> String {
        let own = [("drover:stack", STACK), ("drover:pool", "linux"), ("drover:batch", "linux.zz9.7.1")];
        let tags: Tags = own.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let request = RunInstances {
            template: TemplateRef::Name("drover-runner".to_owned()),
            template_version: None,
            min_count: 1,
            max_count: 1,
            subnet: "subnet-a".into(),
            instance_type: None,
            market: Market::OnDemand,
            client_token: None,
            tags,
            volume_tags: Tags::new(),
        };
        let launched = self.world.act(|state, now| state.ec2.run_instances(request, now));
        launched.expect("EC2 launches it").instances[0].id.to_string()
    }

    /// Somebody opens every runner group to all repositories: from now on other people's jobs may take our runners.
    pub fn open_groups(&self) {
        self.world.act(|state, _| {
            let owners: Vec<_> = state.github.owners().map(|owner| (owner.id, owner.groups.clone())).collect();
            for (owner, groups) in owners {
                for group in groups {
                    state.github.set_group(owner, Group { repositories: None, allows_public: true, ..group });
                }
            }
        });
    }

    /// What EC2 and GitHub say is left: machines that are not gone, registrations of processes.
    pub fn leftovers(&self) -> (usize, usize) {
        self.world.look(leftovers)
    }

    /// Waits until these jobs were served, each exactly once, nothing is left, and all of it was told and consumed.
    ///
    /// # Errors
    /// When that takes too long, or a job was killed.
    pub async fn reconcile(&self, jobs: &[JobId], patience: Duration) -> anyhow::Result<()> {
        let served = |state: &State| {
            let once = jobs.iter().all(|id| state.github.job(*id).is_some_and(github::Job::served_once));
            let told = state.github.deliveries().all(|delivery| delivery.attempted.is_some());
            (once && told && leftovers(state) == (0, 0) && state.sqs.bodies(QUEUE).is_empty()).then_some(())
        };
        let waited = self.world.until("all jobs served once, nothing left", patience, served).await;
        let killed = self.killed_by_us();
        ensure!(killed.is_empty(), "killed while running: {killed:?}");
        waited
    }

    /// Waits until a job runs, and until Drover has recorded what was told of it. Gives its machine.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn running(&self, job: JobId, patience: Duration) -> anyhow::Result<ec2::InstanceId> {
        let recorded = |state: &State| {
            let runner = state.github.job(job)?.history.started.last()?.runner;
            let told = state.github.deliveries().all(|delivery| delivery.attempted.is_some());
            (told && state.sqs.bodies(QUEUE).is_empty()).then(|| self.host_of(runner)).flatten()
        };
        self.world.until("the job to run", patience, recorded).await
    }

    /// The machine on which a runner is, or was.
    pub fn host_of(&self, runner: github::RunnerId) -> Option<ec2::InstanceId> {
        self.machines.host_of(runner)
    }

    /// Jobs whose machine was ended under them, and not by EC2.
    pub fn killed_by_us(&self) -> Vec<JobId> {
        let taken = |state: &State, job: &github::Job| {
            let host = job.history.started.last().and_then(|start| self.host_of(start.runner));
            host.and_then(|host| state.ec2.instance(&host)?.end) == Some(ec2::EndCause::Ec2)
        };
        self.world.look(|state| state.github.killed().filter(|job| !taken(state, job)).map(|job| job.id).collect())
    }

    /// Sweeps until nothing is left of a machine that is over, and gives what is known of it.
    ///
    /// # Errors
    /// When that takes too many sweeps, or the table cannot be read.
    pub async fn closed(&self, machine: &ec2::InstanceId) -> anyhow::Result<Instance> {
        let (table, key) = (self.table().await, Key::Instance(machine.as_str().into()));
        for _ in 0..100 {
            if let Some(Item::Instance(known)) = table.get(&key).await?
                && matches!(known.ownership, Ownership::Closed { .. })
            {
                return Ok(known);
            }
            self.sweep().await?;
        }
        bail!("{machine} is not closed after a hundred sweeps")
    }

    /// The scaler consumes what is on the queue, once.
    ///
    /// # Errors
    /// When the invocation fails.
    pub async fn scale(&self) -> Result<crate::lambda::Batch, Failed> {
        self.source.poll().await
    }

    /// The janitor sweeps, once.
    ///
    /// # Errors
    /// When the invocation fails.
    pub async fn sweep(&self) -> Result<Value, Failed> {
        self.janitor.invoke(json!({ "source": "aws.scheduler" })).await
    }
}

/// Makes a runner group that admits those repositories, and no public ones.
fn fence<'a>(github: &mut GitHub, owner: &Owner, group: u64, admitted: impl Iterator<Item = &'a Repository>) {
    let Some(id) = github.find_owner(owner.as_str()).map(|owner| owner.id) else { return };
    let found = admitted.filter_map(|it| github.find_repository(owner.as_str(), it.name())).map(|it| it.id);
    let repositories = Some(found.collect());
    let name = if group == DEFAULT_GROUP.0 { "Default".to_owned() } else { format!("group {group}") };
    github.set_group(id, Group { id: GroupId(group), name, repositories, allows_public: false });
}

fn leftovers(state: &State) -> (usize, usize) {
    let runners = state.github.registrations().filter(|it| it.operator == Operator::Process).count();
    (state.ec2.alive().count(), runners)
}

/// A function's or the operator's environment, whole.
fn environment(role: &str, aws_url: &str, github_url: &str) -> Vec<(String, String)> {
    let queue_url = format!("{aws_url}/123456789012/{QUEUE}");
    let own = [
        ("AWS_ACCESS_KEY_ID", access_key(role).unwrap_or_default()),
        ("AWS_SECRET_ACCESS_KEY", "sandbox"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ENDPOINT_URL", aws_url),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("DROVER_STACK", STACK),
        ("DROVER_QUEUE_URL", &queue_url),
        ("DROVER_WEBHOOK_SECRET", WEBHOOK_SECRET),
        ("DROVER_TABLE", TABLE),
        ("DROVER_BOOT_TABLE", BOOT_TABLE),
        ("DROVER_APP_SECRET", APP_SECRET),
        ("DROVER_GITHUB_API_URL", github_url),
        ("DROVER_RUNNER_ROLE_ID", RUNNER_ROLE_ID),
    ];
    let mut all: Vec<(String, String)> = own.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    all.extend(optional("RUST_LOG").map(|log| ("RUST_LOG".to_owned(), log)));
    all
}

async fn listen() -> anyhow::Result<(TcpListener, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("no port to listen on")?;
    let url = format!("http://{}", listener.local_addr()?);
    Ok((listener, url))
}

/// Acts on what the models tell.
async fn happen(
    world: Arc<World>,
    machines: Arc<Machines>,
    webhooks: Arc<Webhooks>,
    mut told: mpsc::UnboundedReceiver<Happening>,
) {
    let mut deliveries = JoinSet::new();
    while let Some(happening) = told.recv().await {
        while deliveries.try_join_next().is_some() {}
        match happening {
            Happening::Ec2(ec2::Happening::Booted { instance }) => {
                if let Err(error) = machines.boot(&instance).await {
                    tracing::error!("machine {instance} does not boot: {error:#}");
                }
            }
            Happening::Ec2(ec2::Happening::PowerLost { instance }) => machines.power_lost(&instance),
            Happening::Ec2(ec2::Happening::SpotNotice { .. } | ec2::Happening::Terminated { .. }) => {}
            Happening::GitHub(github::Happening::Deliver(delivery)) => {
                let webhooks = webhooks.clone();
                deliveries.spawn(async move { webhooks.deliver(*delivery).await });
            }
            Happening::GitHub(github::Happening::Offered(offer)) => {
                let runner = offer.runner;
                world.look(|state| say(&state.sessions, runner, Told::Offered(offer)));
            }
            Happening::GitHub(github::Happening::CancelWanted { runner, .. }) => {
                world.look(|state| say(&state.sessions, runner, Told::CancelWanted));
            }
            Happening::GitHub(github::Happening::RunnerRemoved { runner }) => {
                world.look(|state| say(&state.sessions, runner, Told::Removed));
            }
        }
    }
}

/// To a runner that is gone, nothing can be said.
fn say(
    sessions: &std::collections::BTreeMap<github::RunnerId, mpsc::UnboundedSender<Told>>,
    runner: github::RunnerId,
    what: Told,
) {
    if let Some(session) = sessions.get(&runner) {
        let _ = session.send(what);
    }
}

async fn schedule(janitor: Arc<Function>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        if let Err(error) = janitor.invoke(json!({ "source": "aws.scheduler" })).await {
            tracing::warn!("{error}");
        }
    }
}
