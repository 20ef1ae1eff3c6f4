//! Sends webhooks: GitHub's example deliveries with the values of the job, signed and posted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::ports::Clock;
use hmac::{Hmac, KeyInit, Mac};
use platform::clock::SystemClock;
use serde_json::{Value, json};
use sha2::Sha256;
use world::github::{Answer, Delivery, JobEvent, JobId, Visibility};

use crate::state::World;

/// How long GitHub waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// GitHub's examples, by action. `tests/data/README.md` has their origin and licence.
pub const TEMPLATES: [(&str, &str); 8] = [
    ("queued", include_str!("../tests/data/workflow_job/queued.json")),
    ("queued, waiting", include_str!("../tests/data/workflow_job/queued-status-waiting.json")),
    ("waiting", include_str!("../tests/data/workflow_job/waiting.json")),
    ("in_progress", include_str!("../tests/data/workflow_job/in_progress.json")),
    ("in_progress", include_str!("../tests/data/workflow_job/in_progress-2.json")),
    ("in_progress", include_str!("../tests/data/workflow_job/in_progress-3.json")),
    ("completed", include_str!("../tests/data/workflow_job/completed.json")),
    ("completed", include_str!("../tests/data/workflow_job/completed-2.json")),
];

/// The body of a delivery: an example of the same action in which only ids, labels, owner, repository, visibility, times,
/// status and runner fields are replaced.
pub fn body(event: &JobEvent) -> String {
    let (job, status) = (&event.job, event.job.state.status());
    let kind = if event.action == "queued" && status == "waiting" { "queued, waiting" } else { event.action };
    let fitting: Vec<&str> = TEMPLATES.iter().filter(|(action, _)| *action == kind).map(|(_, text)| *text).collect();
    let template = fitting[usize::try_from(job.id.0).unwrap_or_default() % fitting.len()];
    let mut body: Value = serde_json::from_str(template).expect("the examples are JSON");

    let (runner, owner, name) = (job.state.runner(), &event.repository.owner_login, &event.repository.name);
    let of_job = json!({
        "id": job.id.0, "run_id": job.run.0, "run_attempt": job.attempt, "labels": job.labels, "head_sha": event.head_sha,
        "status": status, "conclusion": job.state.conclusion().map(|how| how.as_str()),
        "created_at": job.created_at, "started_at": job.started_at.unwrap_or(job.created_at),
        "completed_at": job.completed_at,
        "runner_id": runner.map(|it| it.id.0), "runner_name": runner.map(|it| &it.name),
        "runner_group_id": runner.map(|it| it.group.0), "runner_group_name": runner.map(|it| &it.group_name),
    });
    let is_private = event.repository.visibility == Visibility::Private;
    let of_repository = json!({
        "id": event.repository.id.0, "name": name, "full_name": format!("{owner}/{name}"), "private": is_private,
        "visibility": if is_private { "private" } else { "public" },
    });
    let of_owner = json!({ "login": owner, "id": event.owner.id.0 });
    merge(&mut body["workflow_job"], of_job);
    merge(&mut body["repository"], of_repository);
    merge(&mut body["repository"]["owner"], of_owner.clone());
    if body.get("organization").is_some() {
        merge(&mut body["organization"], of_owner);
    }
    if let (Some(installation), Some(id)) = (body.get_mut("installation"), event.owner.installation) {
        installation["id"] = json!(id.0);
    }
    body.to_string()
}

fn merge(into: &mut Value, fields: Value) {
    if let (Value::Object(into), Value::Object(fields)) = (into, fields) {
        into.extend(fields);
    }
}

/// `X-Hub-Signature-256` of a body.
pub fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// Faults of deliveries. `Some(4)` affects the first of every four, `None` affects none.
#[derive(Debug, Clone, Copy, Default)]
pub struct WebhookFaults {
    /// Deliveries that are posted twice.
    pub duplicate_every: Option<usize>,
    /// Jobs whose `in_progress` is posted after their `completed`.
    pub reorder_every: Option<usize>,
    /// Deliveries that fail with 503 before they arrive. Redeliveries are not affected.
    pub lose_every: Option<usize>,
}

/// How often each fault happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Deliveries posted twice.
    pub duplicated: usize,
    /// Jobs whose `completed` was posted before their `in_progress`.
    pub reordered: usize,
    /// Deliveries that did not arrive.
    pub lost: usize,
}

/// A delivery that was not sent.
#[derive(Debug, Clone)]
pub struct Withheld {
    /// `X-GitHub-Delivery`.
    pub guid: String,
    /// The body.
    pub body: String,
    /// `X-Hub-Signature-256`.
    pub signature: String,
}

/// GitHub's sender of webhooks.
#[derive(Debug)]
pub struct Webhooks {
    pub world: Arc<World>,
    /// URL of ingest when the sandbox started. The model's hook has the current URL and secret.
    pub url: String,
    webhook_faults: Mutex<WebhookFaults>,
    pub http: reqwest::Client,
    sent: Mutex<Sent>,
    withheld: Mutex<BTreeSet<JobId>>,
}

#[derive(Debug, Default)]
struct Sent {
    deliveries: usize,
    started_jobs: usize,
    /// `in_progress` deliveries that are posted after the `completed` of their job.
    held: BTreeMap<JobId, Delivery>,
    done: Done,
}

impl Webhooks {
    /// A sender that has sent nothing.
    pub fn new(world: Arc<World>, url: String, webhook_faults: WebhookFaults, http: reqwest::Client) -> Self {
        let webhook_faults = Mutex::new(webhook_faults);
        Self { world, url, webhook_faults, http, sent: Mutex::default(), withheld: Mutex::default() }
    }

    fn hook(&self) -> (String, String) {
        self.world.look(|state| {
            let hook = state.github.hook();
            (hook.url.clone(), hook.secret.clone().unwrap_or_default())
        })
    }

    /// Withholds the `queued` delivery of a job and returns it, so that somebody else can post it.
    pub fn withhold(&self, job: JobId) -> Option<Withheld> {
        self.withheld.lock().expect("nobody panics while holding it").insert(job);
        let delivery = self.world.look(|state| state.github.deliveries().find(|it| it.event.job.id == job).cloned())?;
        let body = body(&delivery.event);
        let signature = signature(&self.hook().1, body.as_bytes());
        Some(Withheld { guid: delivery.guid, body, signature })
    }

    /// Changes the faults of the deliveries from now on.
    pub fn set_faults(&self, faults: WebhookFaults) {
        *self.webhook_faults.lock().expect("nobody panics while holding it") = faults;
    }

    /// The counts so far.
    pub fn done(&self) -> Done {
        self.sent.lock().expect("nobody panics while holding it").done
    }

    /// Sends one delivery, with the faults.
    pub async fn deliver(&self, delivery: Delivery) {
        let (job, action) = (delivery.event.job.id, delivery.event.action);
        if action == "queued" && self.withheld.lock().expect("nobody panics while holding it").remove(&job) {
            return;
        }
        let faults = *self.webhook_faults.lock().expect("nobody panics while holding it");
        let (lost, twice, after) = {
            let mut sent = self.sent.lock().expect("nobody panics while holding it");
            let number = sent.deliveries;
            sent.deliveries += 1;
            let affects = |every: Option<usize>, number: usize| every.is_some_and(|every| number.is_multiple_of(every));
            // Only jobs that have started and not ended are counted, because only they can be reordered.
            let ended = |job: &JobId| {
                self.world.look(|state| state.github.job(*job).is_some_and(|job| job.completed_at.is_some()))
            };
            if action == "in_progress" && faults.reorder_every.is_some() && !ended(&job) {
                // A held job may end without a delivery, for example while the app is uninstalled. Then another one is held.
                let none_yet = sent.done.reordered == 0 && sent.held.keys().all(ended);
                let reorder = none_yet || affects(faults.reorder_every, sent.started_jobs);
                sent.started_jobs += 1;
                if reorder {
                    sent.held.insert(job, delivery);
                    return;
                }
            }
            let after = if action == "completed" { sent.held.remove(&job) } else { None };
            let lost = !delivery.redelivery && affects(faults.lose_every, number);
            // Starts with the second delivery: with the same share for both, all others would be lost.
            let twice = !lost && faults.duplicate_every.is_some_and(|every| number % every == 1 % every);
            sent.done.lost += usize::from(lost);
            sent.done.duplicated += usize::from(twice);
            sent.done.reordered += usize::from(after.is_some());
            (lost, twice, after)
        };
        if lost {
            self.world.act(|state, now| {
                state.github.record_answer(delivery.id, Answer::Status(503), Duration::ZERO, now);
            });
        } else {
            self.post(&delivery).await;
        }
        if twice {
            self.post(&delivery).await;
        }
        if let Some(held) = after {
            self.post(&held).await;
        }
    }

    /// Posts the deliveries that are still held because their job had no `completed` delivery.
    pub async fn release(&self) {
        let held = std::mem::take(&mut self.sent.lock().expect("nobody panics while holding it").held);
        for delivery in held.values() {
            self.post(delivery).await;
        }
    }

    /// Posts an event of which the model knows nothing, signed as GitHub signs it.
    pub async fn post_forged(&self, event: &JobEvent) -> Answer {
        self.send(event, &format!("forged-{}-{}", event.action, event.job.id)).await
    }

    async fn post(&self, delivery: &Delivery) {
        let began = SystemClock.now();
        let answer = self.send(&delivery.event, &delivery.guid).await;
        self.world.act(|state, now| {
            let took = Duration::try_from(now.duration_since(began)).unwrap_or_default();
            state.github.record_answer(delivery.id, answer, took, now);
        });
    }

    async fn send(&self, event: &JobEvent, guid: &str) -> Answer {
        let body = body(event);
        let (url, secret) = self.hook();
        let answer = self
            .http
            .post(url)
            .timeout(ANSWER_TIMEOUT)
            .header("content-type", "application/json")
            .header("user-agent", "GitHub-Hookshot/sandbox")
            .header("x-github-event", "workflow_job")
            .header("x-github-delivery", guid)
            .header("x-hub-signature-256", signature(&secret, body.as_bytes()))
            .body(body)
            .send()
            .await;
        match answer {
            Ok(answer) => Answer::Status(answer.status().as_u16()),
            Err(error) if error.is_timeout() => Answer::TimedOut,
            Err(_) => Answer::Unreachable,
        }
    }
}
