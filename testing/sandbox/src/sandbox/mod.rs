//! Starts the sandbox: the models, the emulated services, and the functions.

mod actions;
mod environment;
mod happenings;
mod models;
mod operator;
mod options;
mod outcome;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use engine::ports::Clock;
use platform::clock::SystemClock;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use world::github::{App, HookConfig};
use world::sqs::{QueueConfig, Redrive};

use crate::aws::{self, Gateway};
use crate::bare::{Bare, Programs, Tables};
use crate::calls::Calls;
use crate::deliveries::Webhooks;
use crate::door::Doors;
use crate::github::{AcceptedKey, Api, AppKey};
use crate::lambda::{EventSource, Failed, Function, function_url};
use crate::machine::{self, Machines, SANDBOX_RUNNER_START, serve};
use crate::names::{ACCOUNT, BOOT_TABLE, TABLE};
pub use crate::names::{APP_SECRET, DEAD_LETTERS, FOREIGN_REPOSITORY, QUEUE, STACK, WEBHOOK_SECRET};
use crate::pace::slowness;
use crate::proxy::Proxy;
use crate::state::{Secret, World};
use environment::{behind, behind_doors, environment, machine_behind, machine_behind_doors};
pub use operator::Follower;
pub use options::{BATCH_SIZE, CONCURRENCY, Driven, Network, Options, RunnerGroup};

/// The queues' visibility timeout: that of the template, six times the longest time-out of the scaler.
const VISIBILITY: Duration = Duration::from_secs(360);

/// A running sandbox. Dropping it kills every process that it started.
#[derive(Debug)]
pub struct Sandbox {
    /// The models.
    pub world: Arc<World>,
    /// Counts of API calls.
    pub calls: Arc<Calls>,
    /// GitHub's sender of webhooks.
    pub webhooks: Arc<Webhooks>,
    pub ingest: Arc<Function>,
    pub scaler: Arc<Function>,
    pub janitor: Arc<Function>,
    pub source: Arc<EventSource>,
    pub aws_url: String,
    /// URL of GitHub's API.
    pub github_url: String,
    /// Between the functions, the machines and the models, with [`Network::BehindProxy`].
    pub proxy: Option<Arc<Proxy>>,
    /// Between the functions, the machines and the models, with [`Network::BehindDoors`].
    pub doors: Option<Doors>,
    dynamodb_url: String,
    app_key: Arc<AcceptedKey>,
    http: reqwest::Client,
    machines: Arc<Machines>,
    programs: PathBuf,
    folder: TempDir,
    scaler_concurrency: usize,
    sweep_every: Duration,
    tasks: JoinSet<()>,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.machines.end();
    }
}

/// The folder with the executables: that of this executable, or of a test the parent of it.
fn programs() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the path of this executable")?;
    let folder = own.parent().context("no folder")?;
    Ok(if folder.ends_with("deps") { folder.parent().context("no folder")?.to_owned() } else { folder.to_owned() })
}

/// What is stored as the app's secret.
fn app_secret(app: &App, key: &AppKey) -> String {
    json!({ "app_id": app.id, "private_key": key.private }).to_string()
}

impl Sandbox {
    /// Starts AWS, GitHub and the functions' runtimes, and creates queues, tables, secrets and launch templates. Applies no
    /// pools.
    ///
    /// # Errors
    /// If an executable is missing or no port is free.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let programs = programs()?;
        for name in ["ingest", "scaler", "janitor", "agent", "drover", "stand-in"] {
            ensure!(
                programs.join(name).exists(),
                "{name} is missing in {}; run: cargo build --workspace",
                programs.display()
            );
        }
        let folder = tempfile::Builder::new().prefix("drover-sandbox-").tempdir()?;
        let now = SystemClock.now();
        let ec2 = models::ec2(&options, now)?;
        let github = models::github(&options, now);
        let world = Arc::new(World::new(ec2, github));

        let key = AppKey::generate()?;
        let webhook_secret = "It's a Secret to Everybody".to_owned();
        let app_secret = app_secret(&models::app(now), &key);
        world.act(|state, now| {
            let visibility = VISIBILITY;
            state.sqs.create_queue(DEAD_LETTERS, QueueConfig { visibility, redrive: None });
            let redrive = Some(Redrive { to: DEAD_LETTERS.to_owned(), after: 5 });
            state.sqs.create_queue(QUEUE, QueueConfig { visibility, redrive });
            for (name, current) in [(WEBHOOK_SECRET, webhook_secret.clone()), (APP_SECRET, app_secret)] {
                state.secrets.insert(name.to_owned(), Secret { current, previous: None, created_at: now });
            }
        });

        let mut tasks = JoinSet::new();
        let calls = Arc::new(Calls::default());
        let http = reqwest::Client::builder().tls_certs_only([]).build()?;
        let (dynamodb, dynamodb_url) = listen().await?;
        let database = dynoxide::Database::memory().context("the DynamoDB emulator does not start")?;
        tasks.spawn(dynoxide::server::serve_on(dynamodb, database));
        aws::create_tables(&http, &dynamodb_url).await?;

        let (listener, aws_url) = listen().await?;
        let gateway = Gateway::new(world.clone(), calls.clone(), dynamodb_url.clone(), http.clone());
        tasks.spawn(serve(listener, aws::router(Arc::new(gateway))));
        let (listener, github_url) = listen().await?;
        let key = Arc::new(AcceptedKey::new(key));
        let registration = options.registration;
        let api = Api { world: world.clone(), calls: calls.clone(), key: key.clone(), registration };
        tasks.spawn(serve(listener, crate::github::router(Arc::new(api))));
        let proxy = match options.network {
            Network::Open | Network::BehindDoors => None,
            Network::BehindProxy => Some(Proxy::start(&aws_url, &github_url, &mut tasks).await?),
        };
        let doors = match options.network {
            Network::Open | Network::BehindProxy => None,
            Network::BehindDoors => Some(Doors::start(&aws_url, &github_url, &mut tasks).await?),
        };
        let (listener, machines_url) = listen().await?;
        let folder_of = |name: &str| -> anyhow::Result<PathBuf> {
            let path = folder.path().join(name);
            std::fs::create_dir(&path)?;
            Ok(path)
        };
        let mut of_machines = proxy.as_deref().map(machine_behind).unwrap_or_default();
        of_machines.extend(doors.as_ref().map(machine_behind_doors).unwrap_or_default());
        of_machines.push((SANDBOX_RUNNER_START.to_owned(), options.runner_start.as_millis().to_string()));
        let dynamodb_door = doors.as_ref().map_or_else(|| aws_url.clone(), |doors| doors.dynamodb.url.clone());
        let machines = Arc::new(Machines::new(
            world.clone(),
            options.agent.clone().unwrap_or_else(|| programs.join("agent")),
            options.runner.clone().unwrap_or_else(|| programs.join("stand-in")),
            folder_of("machines")?,
            aws_url.clone(),
            machines_url,
            of_machines,
        ));
        let tables = Tables { http: http.clone(), url: dynamodb_door };
        let bare = match options.programs {
            Programs::OfAll => None,
            Programs::OfOneIn(number) => Some(Bare::new(number, tables)),
        };
        tasks.spawn(serve(listener, machine::router(machines.clone())));

        let logs = folder_of("functions")?;
        let function = |name: &'static str, timeout: Duration, concurrency: usize| {
            let mut environment = environment(name, &aws_url, &github_url);
            let of_doors = doors.as_ref().map(behind_doors).unwrap_or_default();
            for (name, value) in proxy.as_deref().map(behind).unwrap_or_default().into_iter().chain(of_doors) {
                environment.retain(|(other, _)| *other != name);
                environment.push((name, value));
            }
            environment.extend(options.log_level.clone().map(|level| ("RUST_LOG".to_owned(), level)));
            let (program, logs, calls) = (programs.join(name), logs.clone(), calls.clone());
            Arc::new(Function::new(name, program, environment, timeout, concurrency, logs, calls))
        };
        let ingest = function("ingest", Duration::from_secs(10) * slowness(), 4);
        let scaler = function("scaler", options.scaler_timeout, options.scaler_concurrency);
        let janitor = function("janitor", options.janitor_timeout, 1);
        let (listener, hook_url) = listen().await?;
        tasks.spawn(serve(listener, function_url(ingest.clone())));
        let hook = HookConfig { url: hook_url.clone(), secret: Some(webhook_secret), ..HookConfig::default() };
        let outputs = [
            ("Table", TABLE.to_owned()),
            ("BootTable", BOOT_TABLE.to_owned()),
            ("QueueUrl", format!("{aws_url}/{ACCOUNT}/{QUEUE}")),
            ("WebhookUrl", hook_url.clone()),
        ];
        world.act(|state, _| {
            state.github.set_hook(hook);
            state.outputs = outputs.into();
        });
        let webhooks = Arc::new(Webhooks::new(world.clone(), hook_url, options.webhook_faults, http.clone()));

        let source = Arc::new(EventSource {
            world: world.clone(),
            queue: QUEUE,
            scaler: scaler.clone(),
            batch_size: options.batch_size,
            retry_after: options.retry_after,
            door: doors.as_ref().map(|doors| doors.sqs.clone()),
            window: options.window,
        });
        let (happenings, received) = mpsc::unbounded_channel();
        let advancing = world.clone();
        let rules = options.rules;
        tasks.spawn(async move { advancing.run(happenings, rules, QUEUE).await });
        tasks.spawn(happenings::act_on(world.clone(), machines.clone(), bare, webhooks.clone(), received));
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
            proxy,
            doors,
            dynamodb_url,
            app_key: key,
            http,
            machines,
            programs,
            folder,
            scaler_concurrency: options.scaler_concurrency,
            sweep_every: options.sweep_every,
            tasks,
        };
        if driven == Driven::Live {
            sandbox.go_live();
        }
        Ok(sandbox)
    }

    /// Starts the event source mapping and the schedule, which run the functions.
    pub fn go_live(&mut self) {
        for _ in 0..self.scaler_concurrency {
            let source = self.source.clone();
            self.tasks.spawn(async move { source.run().await });
        }
        self.tasks.spawn(schedule(self.janitor.clone(), self.sweep_every));
    }

    /// Replaces the app's private key, as `drover secrets put app` and a click on GitHub do: the secret has the new key, and
    /// GitHub no longer accepts the old one.
    ///
    /// # Errors
    /// If the machine has no randomness.
    pub fn rotate_app_key(&self) -> anyhow::Result<()> {
        let key = AppKey::generate()?;
        self.app_key.replace(key.clone());
        self.world.act(|state, now| {
            let secret = app_secret(state.github.app(), &key);
            let Some(stored) = state.secrets.get_mut(APP_SECRET) else { return };
            let before = std::mem::replace(&mut stored.current, secret);
            (stored.previous, stored.created_at) = (Some(before), now);
        });
        Ok(())
    }

    /// GitHub accepts another private key of the app, which nobody stores: someone deleted the stored one on GitHub.
    ///
    /// # Errors
    /// If the machine has no randomness.
    pub fn revoke_app_key(&self) -> anyhow::Result<()> {
        self.app_key.replace(AppKey::generate()?);
        Ok(())
    }

    /// The folder of the logs, in `functions/` and `machines/`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the logs when the sandbox ends, and returns their folder.
    pub fn keep_logs(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// Runs the scaler once, with the messages that are on the queue.
    ///
    /// # Errors
    /// If the invocation fails.
    pub async fn scale(&self) -> Result<crate::lambda::Batch, Failed> {
        self.source.poll().await
    }

    /// Runs the janitor once.
    ///
    /// # Errors
    /// If the invocation fails.
    pub async fn sweep(&self) -> Result<Value, Failed> {
        self.janitor.invoke(json!({ "source": "aws.scheduler" })).await
    }
}

async fn listen() -> anyhow::Result<(TcpListener, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on a port")?;
    let url = format!("http://{}", listener.local_addr()?);
    Ok((listener, url))
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
