//! Runs functions as Lambda does: one process per execution environment, one invocation at a time in each, and new
//! environments on demand. A function URL and an event source mapping invoke them.

use std::ops::Deref;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lambda_simulator::{InvocationStatus, Simulator};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use world::sqs::Received;

use crate::calls::Calls;
use crate::door::Door;
use crate::state::{Reception, World, until};

/// The longest single wait for an answer. The Runtime API simulator can miss an answer that arrives just before it starts
/// to wait, and would then wait until the time-out.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// A function.
pub struct Function {
    pub name: &'static str,
    program: PathBuf,
    environment: Vec<(String, String)>,
    timeout: Duration,
    logs: PathBuf,
    idle: Mutex<Vec<Environment>>,
    concurrency: Semaphore,
    started: AtomicUsize,
    calls: Arc<Calls>,
}

/// How often an environment is used, unless its process is measured. The Runtime API's simulator keeps the events and the answers of
/// all its invocations.
const MOST_INVOCATIONS: u32 = 2000;

/// An execution environment: a process and its Runtime API.
struct Environment {
    runtime_api: RuntimeApi,
    process: Child,
    /// How often it may be used.
    left: u32,
}

/// The Runtime API of one process.
struct RuntimeApi(Option<Simulator>);

impl Deref for RuntimeApi {
    type Target = Simulator;

    fn deref(&self) -> &Simulator {
        self.0.as_ref().expect("only dropping takes it")
    }
}

impl Drop for RuntimeApi {
    /// The simulator serves until it is shut down.
    fn drop(&mut self) {
        if let (Some(simulator), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(simulator.shutdown());
        }
    }
}

/// Why an invocation has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The process ended.
    #[error("the process of {0} ended")]
    Died(&'static str),
    /// The invocation took too long.
    #[error("{0} timed out")]
    TimedOut(&'static str),
    /// The function returned an error.
    #[error("{0} failed: {1}")]
    Error(&'static str, String),
    /// The process could not be started.
    #[error("{0} cannot be started: {1:#}")]
    NotStarted(&'static str, anyhow::Error),
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Function {
    /// A function without environments.
    pub fn new(
        name: &'static str,
        program: PathBuf,
        environment: Vec<(String, String)>,
        timeout: Duration,
        concurrency: usize,
        logs: PathBuf,
        calls: Arc<Calls>,
    ) -> Self {
        Self {
            name,
            program,
            environment,
            timeout,
            logs,
            idle: Mutex::default(),
            concurrency: Semaphore::new(concurrency),
            started: AtomicUsize::new(0),
            calls,
        }
    }

    async fn start(&self) -> anyhow::Result<Environment> {
        let simulator = Simulator::builder()
            .function_name(self.name)
            .invocation_timeout(self.timeout)
            .build()
            .await
            .context("the Runtime API does not start")?;
        let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        let log = std::fs::File::create(self.logs.join(format!("{}-{number}.log", self.name)))?;
        // Identifies the process in its requests.
        let token = format!("{}-{number}", self.name);
        let process = Command::new(&self.program)
            .env_clear()
            .envs(simulator.lambda_env_vars())
            .envs(self.environment.iter().cloned())
            .env("AWS_SESSION_TOKEN", &token)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        if let Some(id) = process.id() {
            self.calls.started(token, id);
        }
        Ok(Environment { runtime_api: RuntimeApi(Some(simulator)), process, left: MOST_INVOCATIONS })
    }

    /// The number of processes started so far.
    pub fn started(&self) -> usize {
        self.started.load(Ordering::Relaxed)
    }

    /// Starts a process for the next invocations and returns its id, to measure it. Ends the idle processes.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn cold_start(&self) -> anyhow::Result<u32> {
        let environment = Environment { left: u32::MAX, ..self.start().await? };
        let id = environment.process.id().context("it has ended already")?;
        let mut idle = self.idle.lock().expect("nobody panics while holding it");
        idle.clear();
        idle.push(environment);
        Ok(id)
    }

    /// Runs the function once, in an idle environment or a new one.
    ///
    /// # Errors
    /// See [`Failed`]. Except after [`Failed::Error`], the environment is gone.
    pub async fn invoke(&self, event: Value) -> Result<Value, Failed> {
        let Ok(_permit) = self.concurrency.acquire().await else { return Err(Failed::Died(self.name)) };
        let idle = self.idle.lock().expect("nobody panics while holding it").pop();
        let mut environment = match idle {
            Some(environment) => environment,
            None => self.start().await.map_err(|error| Failed::NotStarted(self.name, error))?,
        };
        environment.left -= 1;
        let request = environment.runtime_api.enqueue_payload(event).await;
        let deadline = Instant::now() + self.timeout;
        let answer = loop {
            tokio::select! {
                state = environment.runtime_api.wait_for_invocation_complete(&request, CHECK_INTERVAL) => {
                    if let Ok(state) = state {
                        break state;
                    }
                    if Instant::now() >= deadline {
                        return Err(Failed::TimedOut(self.name));
                    }
                }
                _ = environment.process.wait() => return Err(Failed::Died(self.name)),
            }
        };
        if environment.left > 0 {
            self.idle.lock().expect("nobody panics while holding it").push(environment);
        }
        match (answer.status, answer.response, answer.error) {
            (InvocationStatus::Success, Some(response), _) => Ok(response.payload),
            (_, _, error) => {
                let what = error.map(|error| error.error_message).unwrap_or_default();
                Err(Failed::Error(self.name, what))
            }
        }
    }
}

/// A function URL in front of ingest.
pub fn function_url(ingest: Arc<Function>) -> Router {
    Router::new().fallback(receive).layer(axum::extract::DefaultBodyLimit::max(6 << 20)).with_state(ingest)
}

async fn receive(Shared(ingest): Shared<Arc<Function>>, headers: HeaderMap, body: Bytes) -> Response {
    let event = request_event(&headers, &body);
    // The function goes on although the caller hangs up.
    let invoked = tokio::spawn(async move { ingest.invoke(event).await }).await;
    match invoked.unwrap_or(Err(Failed::Died("ingest"))) {
        Ok(answer) => {
            let status = answer["statusCode"].as_u64().and_then(|status| u16::try_from(status).ok());
            let status = status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::BAD_GATEWAY);
            let body = answer["body"].as_str().unwrap_or_default().to_owned();
            (status, [("content-type", "application/json")], Body::from(body)).into_response()
        }
        // Lambda's answer if the function failed.
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// An event in payload format 2.0. Repeated headers are joined by commas, and a body that is not UTF-8 is base64.
pub fn request_event(headers: &HeaderMap, body: &[u8]) -> Value {
    let mut joined = serde_json::Map::new();
    for name in headers.keys() {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        joined.insert(name.to_string(), json!(values.join(",")));
    }
    let (body, is_base64) = match std::str::from_utf8(body) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (STANDARD.encode(body), true),
    };
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": "/", "rawQueryString": "", "headers": joined,
        "requestContext": { "http": { "method": "POST", "path": "/" } },
        "body": body, "isBase64Encoded": is_base64,
    })
}

/// The result of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Batch {
    /// Number of messages.
    pub messages: usize,
    /// Number of messages that return to the queue.
    pub failed: usize,
}

/// An event source mapping from the queue to the scaler, with partial batch responses.
#[derive(Debug)]
pub struct EventSource {
    pub world: Arc<World>,
    /// Name of the queue.
    pub queue: &'static str,
    pub scaler: Arc<Function>,
    /// `BatchSize`.
    pub batch_size: usize,
    /// When a message is received again after its invocation failed. With Lambda this is the queue's visibility timeout, which
    /// here is longer, so that no message of a slow invocation is received twice.
    pub retry_after: Duration,
    /// Without an open door, nothing is received and nothing deleted. None: the queue is always reached.
    pub door: Option<Arc<Door>>,
    /// `MaximumBatchingWindowInSeconds`: how long a batch that is not full waits for more.
    pub window: Duration,
}

impl EventSource {
    /// Polls forever.
    pub async fn run(&self) {
        loop {
            let batch = self.next().await;
            if let Err(error) = self.consume(batch).await {
                tracing::warn!("{error}");
            }
        }
    }

    /// Consumes the messages that are visible now in one invocation, if there are any.
    ///
    /// # Errors
    /// If the invocation fails. The messages become visible again after `retry_after`.
    pub async fn poll(&self) -> Result<Batch, Failed> {
        match self.receive() {
            Some(batch) => self.consume(batch).await,
            None => Ok(Batch::default()),
        }
    }

    fn reaches_queue(&self) -> bool {
        self.door.as_ref().is_none_or(|door| door.is_open())
    }

    fn receive(&self) -> Option<Vec<Received>> {
        if !self.reaches_queue() {
            return None;
        }
        let mut batch = Vec::new();
        self.world.attempt(|state, now| {
            while batch.len() < self.batch_size {
                let some = state.sqs.receive(self.queue, self.batch_size - batch.len(), now).unwrap_or_default();
                if some.is_empty() {
                    break;
                }
                state.receptions.extend(some.iter().map(|message| Reception::of(message, now)));
                batch.extend(some);
            }
            (!batch.is_empty()).then_some(())
        })?;
        Some(batch)
    }

    async fn next(&self) -> Vec<Received> {
        let mut changed = self.world.changed();
        loop {
            if let Some(door) = &self.door {
                door.opened().await;
            }
            changed.mark_unchanged();
            if let Some(mut batch) = self.receive() {
                if !self.window.is_zero() && batch.len() < self.batch_size {
                    sleep(self.window).await;
                    batch.extend(self.receive().unwrap_or_default());
                }
                return batch;
            }
            let next = self.world.look(|state| state.sqs.next_visible(self.queue));
            tokio::select! {
                _ = changed.changed() => {}
                () = until(next) => {}
            }
        }
    }

    async fn consume(&self, batch: Vec<Received>) -> Result<Batch, Failed> {
        let records: Vec<Value> = batch
            .iter()
            .map(|message| {
                json!({
                    "messageId": message.id, "receiptHandle": message.receipt, "body": message.body,
                    "attributes": { "ApproximateReceiveCount": message.receive_count.to_string() },
                    "messageAttributes": {}, "eventSource": "aws:sqs", "awsRegion": "eu-central-1",
                })
            })
            .collect();
        let answer = match self.scaler.invoke(json!({ "Records": records })).await {
            Ok(answer) => answer,
            Err(error) => {
                self.retry(batch.iter());
                return Err(error);
            }
        };
        if !self.reaches_queue() {
            // Nothing can be deleted, so everything is received again.
            self.retry(batch.iter());
            return Ok(Batch { messages: batch.len(), failed: 0 });
        }
        let failures = answer["batchItemFailures"].as_array().cloned().unwrap_or_default();
        let failed: Vec<&str> = failures.iter().filter_map(|failure| failure["itemIdentifier"].as_str()).collect();
        self.world.act(|state, _| {
            for message in batch.iter().filter(|message| !failed.contains(&message.id.as_str())) {
                // Cannot fail, because the queue exists.
                let _ = state.sqs.delete(self.queue, &message.receipt);
            }
        });
        self.retry(batch.iter().filter(|message| failed.contains(&message.id.as_str())));
        Ok(Batch { messages: batch.len(), failed: failed.len() })
    }

    fn retry<'a>(&self, messages: impl Iterator<Item = &'a Received>) {
        self.world.act(|state, now| {
            for message in messages {
                // Has no effect if another reception has a newer receipt.
                let _ = state.sqs.change_visibility(self.queue, &message.receipt, self.retry_after, now);
            }
        });
    }
}
