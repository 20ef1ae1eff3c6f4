//! Machines without a process, for runs with more machines than this one has room for processes. A task does what the agent and
//! GitHub's runner do, as far as the control plane can notice it: it reports the boot, polls the boot table and deletes its item,
//! connects the runner, runs one job if the machine may, and powers the machine off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::ids::Repository;
use domain::policy::admit::{AssignedJob, admit};
use domain::state::{BootItem, BootReport};
use engine::ports::Clock;
use platform::clock::SystemClock;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use world::ec2::InstanceId;
use world::github::{Conclusion, Offer, RunnerId, Visibility};

use crate::aws::{dynamodb_request, instance_access_key};
use crate::machine::Machines;
use crate::names::{BOOT_TABLE, REPORTS_TABLE, RUNNER_ROLE_ID};
use crate::state::Notification;

/// The agent's intervals.
const POLL: Duration = Duration::from_millis(500);
const PREPARES_AFTER: Duration = Duration::from_secs(5);

/// Which machines have processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Programs {
    /// All of them.
    OfAll,
    /// One in this many; 0 is none.
    OfOneIn(u32),
}

/// Which of the next machines are bare.
#[derive(Debug)]
pub(crate) struct Bare {
    one_in: u32,
    tables: Arc<Tables>,
    boots: AtomicU32,
}

impl Bare {
    pub(crate) fn new(one_in: u32, tables: Tables) -> Self {
        Self { one_in, tables: Arc::new(tables), boots: AtomicU32::new(0) }
    }

    /// Boots a machine.
    ///
    /// # Errors
    /// If it has a process, and that cannot be started.
    pub(crate) async fn boot(&self, machines: &Arc<Machines>, instance: &InstanceId) -> anyhow::Result<()> {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed);
        if self.one_in > 0 && boot.is_multiple_of(self.one_in) {
            return machines.boot(instance).await;
        }
        let task = tokio::spawn(live(machines.clone(), self.tables.clone(), instance.clone()));
        machines.add_bare(instance, task);
        Ok(())
    }
}

/// How a machine without a process reaches DynamoDB.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
}

impl Tables {
    /// A call of DynamoDB with the credentials of the machine. None if there is no answer, or it is a refusal.
    async fn call(&self, instance: &InstanceId, operation: &str, body: &Value) -> Option<Value> {
        let key = instance_access_key(instance.as_str());
        let request = dynamodb_request(&self.http, &self.url, &format!("DynamoDB_20120810.{operation}"), &key);
        let answer = request.timeout(Duration::from_secs(4)).body(body.to_string()).send().await.ok()?;
        let is_success = answer.status().is_success();
        let body = answer.bytes().await.ok()?;
        is_success.then(|| serde_json::from_slice(&body).ok()).flatten()
    }
}

/// From the boot to power off.
async fn live(machines: Arc<Machines>, tables: Arc<Tables>, instance: InstanceId) {
    let key = json!({ "pk": { "S": format!("{RUNNER_ROLE_ID}:{instance}") } });
    let item = boot_item(&tables, &instance, &key).await;
    let of_item = json!({ "TableName": BOOT_TABLE, "Key": key });
    while tables.call(&instance, "DeleteItem", &of_item).await.is_none() {
        sleep(POLL).await;
    }
    if let Some((runner, notifications)) = machines.connect(&instance, &item.jit_config) {
        run(&machines, runner, notifications, &item).await;
    }
    machines.world.act(|state, now| state.ec2.power_off(&instance, now));
}

async fn boot_item(tables: &Tables, instance: &InstanceId, key: &Value) -> BootItem {
    let began = Instant::now();
    let booted = BootReport { reported_at: SystemClock.now(), uptime_seconds: 1, prepared_at: None };
    let (mut is_reported, mut is_prepared) = (false, false);
    loop {
        let read = tables.call(instance, "GetItem", &json!({ "TableName": BOOT_TABLE, "Key": key })).await;
        if let Some(item) = read.and_then(|answer| parsed(&answer["Item"])) {
            return item;
        }
        is_reported = is_reported || tables.call(instance, "UpdateItem", &report(key, &booted)).await.is_some();
        if is_reported && !is_prepared && began.elapsed() >= PREPARES_AFTER {
            let prepared = BootReport { prepared_at: Some(SystemClock.now()), ..booted };
            is_prepared = tables.call(instance, "UpdateItem", &report(key, &prepared)).await.is_some();
        }
        sleep(POLL).await;
    }
}

fn parsed(item: &Value) -> Option<BootItem> {
    serde_dynamo::from_item(serde_json::from_value::<serde_dynamo::Item>(item.clone()).ok()?).ok()
}

fn report(key: &Value, report: &BootReport) -> Value {
    let stored = report.stored();
    let mut expression =
        "SET reported_at = :reported_at, uptime_seconds = :uptime, expires_at = :expires_at".to_owned();
    let mut values = json!({
        ":reported_at": { "S": stored.reported_at }, ":uptime": { "N": stored.uptime_seconds },
        ":expires_at": { "N": (report.reported_at.as_second() + 86_400).to_string() },
    });
    if let Some(prepared) = stored.prepared_at {
        expression += ", prepared_at = :prepared_at";
        values[":prepared_at"] = json!({ "S": prepared });
    }
    json!({
        "TableName": REPORTS_TABLE, "Key": key, "UpdateExpression": expression, "ExpressionAttributeValues": values,
    })
}

/// Runs one job. Ends without one if the registration is removed.
async fn run(
    machines: &Machines,
    runner: RunnerId,
    mut notifications: mpsc::UnboundedReceiver<Notification>,
    item: &BootItem,
) {
    while let Some(notification) = notifications.recv().await {
        match notification {
            Notification::Offered(offer) => {
                if machines.world.act(|state, now| state.github.acquire(runner, offer.job, now)).is_err() {
                    continue;
                }
                let conclusion = work(machines, &mut notifications, &offer, item).await;
                // Fails if GitHub has given the runner up.
                let _ = machines.world.act(|state, now| state.github.complete(runner, offer.job, conclusion, now));
                return;
            }
            Notification::Removed => return,
            Notification::CancelWanted | Notification::Finish => {}
        }
    }
}

async fn work(
    machines: &Machines,
    notifications: &mut mpsc::UnboundedReceiver<Notification>,
    offer: &Offer,
    item: &BootItem,
) -> Conclusion {
    if !may_run(item, offer) {
        return Conclusion::Failure;
    }
    let _ = machines.world.act(|state, _| state.github.begin_step(offer.runner, offer.job, "work"));
    tokio::select! {
        () = sleep(offer.runs_for) => offer.ends,
        Some(notification) = notifications.recv() => match notification {
            Notification::Finish => offer.ends,
            Notification::CancelWanted | Notification::Offered(_) | Notification::Removed => Conclusion::Cancelled,
        },
    }
}

/// What the agent's hook decides.
fn may_run(item: &BootItem, offer: &Offer) -> bool {
    let Ok(repository) = offer.repository.parse::<Repository>() else { return false };
    let job = AssignedJob { repository, public: Some(offer.visibility == Visibility::Public) };
    admit(&item.allowed_jobs(), &job).is_ok()
}
