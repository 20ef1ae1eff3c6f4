//! Ingest as a process behind a function URL: its answers, and what reaches the queue.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::time::Duration;

use domain::wire::{Action, Message};
use jiff::SignedDuration;
use reqwest::RequestBuilder;
use sandbox::deliveries::{TEMPLATES, signature};
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox, WEBHOOK_SECRET};
use sandbox::state::Secret;
use serde_json::{Value, json};
use tokio::time::Instant;

const SECRET: &str = "It's a Secret to Everybody";
const QUEUED: &[u8] = include_bytes!("../../testing/sandbox/tests/data/workflow_job/queued.json");

struct Ingest {
    sandbox: Sandbox,
    http: reqwest::Client,
}

async fn ingest() -> Ingest {
    let options = Options { driven: Driven::ByHand, ..Options::default() };
    Ingest { sandbox: Sandbox::start(options).await.unwrap(), http: reqwest::Client::new() }
}

impl Ingest {
    fn delivery(&self, event: &str, body: impl Into<Vec<u8>>) -> RequestBuilder {
        let request = self.http.post(&self.sandbox.webhooks.url).header("content-type", "application/json");
        request.header("x-github-event", event).header("x-github-delivery", "d-1").body(body.into())
    }

    fn signed(&self, event: &str, body: &[u8]) -> RequestBuilder {
        self.delivery(event, body).header("x-hub-signature-256", signature(SECRET, body))
    }

    /// Delivers until ingest accepts: it reads its secret again when the last read is ten seconds old.
    async fn wait_for_202(&self, delivery: impl Fn() -> RequestBuilder) {
        let began = Instant::now();
        while status(delivery()).await != 202 {
            assert!(began.elapsed() < Duration::from_secs(60), "the secret is not read again");
        }
    }

    fn queued(&self) -> Vec<Message> {
        self.sandbox
            .world
            .look(|state| state.sqs.bodies(QUEUE).into_iter().map(|body| Message::parse(body).unwrap()).collect())
    }

    /// The lines of ingest's log that are JSON.
    fn log(&self) -> Vec<Value> {
        let folder = self.sandbox.folder().join("functions");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let logs = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("ingest"));
        logs.flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Value>>()
        })
        .collect()
    }

    /// The sum of a metric so far.
    fn sum(&self, metric: &str) -> u64 {
        let log = self.log();
        log.iter().filter(|line| line["_aws"].is_object()).filter_map(|line| line[metric].as_u64()).sum()
    }

    fn calls(&self, operation: &str) -> u64 {
        let counts = self.sandbox.calls.counts();
        counts.iter().filter(|((_, called), _)| called == operation).map(|(_, times)| times).sum()
    }
}

/// The status and the body.
async fn answer(request: RequestBuilder) -> (u16, String) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn status(request: RequestBuilder) -> u16 {
    answer(request).await.0
}

#[tokio::test]
async fn githubs_own_examples_are_understood_unmodified() {
    let ingest = ingest().await;
    for (kind, body) in TEMPLATES {
        let (status, said) = answer(ingest.signed("workflow_job", body.as_bytes())).await;
        assert_eq!((status, said.as_str()), (202, r#"{"result":"enqueued","reason":""}"#), "{kind}");
    }
    let queued = ingest.queued();
    assert_eq!(queued.len(), TEMPLATES.len(), "one message per delivery");
    for ((kind, body), message) in TEMPLATES.iter().zip(queued) {
        let Message::WorkflowJob(notice) = message else { panic!("{message:?}") };
        let expected = match *kind {
            "queued" | "queued, waiting" => Action::Queued,
            "waiting" => Action::Waiting,
            "in_progress" => Action::InProgress,
            _ => Action::Completed,
        };
        assert_eq!(notice.action, expected);
        assert_eq!(notice.delivery.as_str(), "d-1");
        for part in [notice.job.id.to_string(), notice.repository.to_string(), notice.job.head_sha.clone()] {
            assert!(body.contains(&part), "{kind}: {part}");
        }
        assert_eq!(notice.job.status == "waiting", kind.contains("waiting"), "{kind}");
    }
    let groups: Vec<Option<String>> = ingest
        .sandbox
        .world
        .look(|state| state.sqs.groups(QUEUE).into_iter().map(|it| it.map(str::to_owned)).collect());
    for ((kind, body), group) in TEMPLATES.iter().zip(groups) {
        let event: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            group,
            Some(event["repository"]["id"].to_string()),
            "{kind}: the queue is fair between repositories"
        );
    }
    assert_eq!(ingest.calls("SendMessage"), TEMPLATES.len() as u64);
    assert_eq!(ingest.calls("GetSecretValue"), 1, "the secret is read once");
}

#[tokio::test]
async fn a_forged_delivery_gets_no_reason_and_reaches_no_queue() {
    let ingest = ingest().await;
    let right = signature(SECRET, QUEUED);
    let wrong = [
        ("missing", ingest.delivery("workflow_job", QUEUED)),
        (
            "another secret's",
            ingest.delivery("workflow_job", QUEUED).header("x-hub-signature-256", signature("x", QUEUED)),
        ),
        ("of another body", ingest.delivery("workflow_job", b"{}").header("x-hub-signature-256", &right)),
        (
            "twice",
            ingest
                .delivery("workflow_job", QUEUED)
                .header("x-hub-signature-256", &right)
                .header("x-hub-signature-256", &right),
        ),
        (
            "oversized",
            ingest
                .delivery("workflow_job", QUEUED)
                .header("x-hub-signature-256", format!("{right}{}", "0".repeat(8000))),
        ),
        ("sha1", ingest.delivery("workflow_job", QUEUED).header("x-hub-signature", &right)),
        ("empty", ingest.delivery("workflow_job", QUEUED).header("x-hub-signature-256", "")),
        (
            "for a body that is not even JSON",
            ingest.delivery("workflow_job", b"}{").header("x-hub-signature-256", &right),
        ),
    ];
    for (what, request) in wrong {
        let said = answer(request).await;
        assert_eq!(said, (401, r#"{"result":"rejected","reason":"signature"}"#.to_owned()), "{what}");
    }
    assert!(ingest.queued().is_empty());
}

#[tokio::test]
async fn what_is_not_json_is_answered_with_the_reason() {
    let ingest = ingest().await;
    let deep = format!("{{\"action\":\"queued\",\"workflow_job\":{}", "[".repeat(200_000));
    let mut not_text = QUEUED.to_vec();
    not_text[30] = 0xff;
    let malformed: [(&str, &[u8], u16, &str); 5] = [
        ("truncated", &QUEUED[..1000], 400, "not JSON"),
        ("deeply nested", deep.as_bytes(), 400, "not JSON"),
        ("not UTF-8", &not_text, 400, "not UTF-8"),
        ("empty", b"", 400, "not JSON"),
        ("2 MiB", &vec![b' '; 2 << 20], 413, "larger than 1 MiB"),
    ];
    for (what, body, expected, reason) in malformed {
        let (status, said) = answer(ingest.signed("workflow_job", body)).await;
        assert_eq!(status, expected, "{what}: {said}");
        assert!(said.contains(reason), "{what}: {said}");
    }
    let form = [b"payload=".as_slice(), QUEUED].concat();
    let request = ingest.http.post(&ingest.sandbox.webhooks.url).header("x-github-event", "workflow_job");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let (status, said) = answer(request.header("x-hub-signature-256", signature(SECRET, &form)).body(form)).await;
    assert_eq!(status, 400);
    assert!(said.contains("application/json"), "{said}");
    assert!(ingest.queued().is_empty());
    assert_eq!(answer(ingest.signed("workflow_job", QUEUED)).await.0, 202, "ingest still works");
}

/// The example delivery after a change.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut event = serde_json::from_slice(QUEUED).unwrap();
    change(&mut event);
    serde_json::to_vec(&event).unwrap()
}

/// Removes a field, or sets it to null.
fn without(pointer: &str) -> [Vec<u8>; 2] {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let missing = changed(|event| {
        event.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
    });
    [missing, changed(|event| *event.pointer_mut(pointer).unwrap() = Value::Null)]
}

/// GitHub would send the same again, so a redelivery is in vain.
#[tokio::test]
async fn json_that_is_no_usable_event_is_ignored_with_a_reason_and_counted() {
    let ingest = ingest().await;
    let mut unusable: Vec<Vec<u8>> =
        ["/workflow_job", "/workflow_job/id", "/workflow_job/run_id", "/workflow_job/status"]
            .iter()
            .chain(["/repository", "/repository/full_name", "/action"].iter())
            .flat_map(|pointer| without(pointer))
            .collect();
    unusable.push(changed(|event| event["workflow_job"]["run_id"] = json!("many")));
    unusable.push(changed(|event| event["repository"]["full_name"] = json!("Codertocat/../..")));
    unusable.extend([b"null".to_vec(), b"[]".to_vec(), b"1".to_vec(), b"{}".to_vec()]);
    let nested = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    unusable.push(nested);
    for body in &unusable {
        let (status, said) = answer(ingest.signed("workflow_job", body)).await;
        let said: Value = serde_json::from_str(&said).unwrap();
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        assert_eq!((status, &said["result"]), (200, &json!("ignored")), "{shown}: {said}");
        assert!(said["reason"].as_str().unwrap().starts_with("not a usable workflow_job"), "{shown}: {said}");
    }
    assert!(ingest.queued().is_empty());
    assert_eq!(ingest.sum("DeliveriesUnusable"), unusable.len() as u64);
    assert_eq!(answer(ingest.signed("workflow_job", QUEUED)).await.0, 202, "ingest still works");
}

#[tokio::test]
async fn an_event_needs_only_what_drover_uses() {
    let ingest = ingest().await;
    let pointers = [
        "/workflow_job/started_at",
        "/workflow_job/created_at",
        "/workflow_job/run_attempt",
        "/workflow_job/name",
        "/workflow_job/labels",
        "/workflow_job/head_sha",
        "/workflow_job/html_url",
        "/workflow_job/conclusion",
        "/workflow_job/runner_id",
        "/workflow_job/runner_name",
        "/repository/private",
    ];
    let mut expected = 0;
    for pointer in pointers {
        for body in without(pointer) {
            assert_eq!(answer(ingest.signed("workflow_job", &body)).await.0, 202, "{pointer}");
            expected += 1;
        }
    }
    let bare = changed(|event| {
        let job = &event["workflow_job"];
        *event = json!({
            "action": "queued", "repository": { "full_name": "octo-org/widgets" },
            "workflow_job": { "id": job["id"], "run_id": job["run_id"], "status": "queued", "labels": ["drover"] },
        });
    });
    assert_eq!(answer(ingest.signed("workflow_job", &bare)).await.0, 202);
    let queued = ingest.queued();
    assert_eq!(queued.len(), expected + 1);
    let Some(Message::WorkflowJob(notice)) = queued.last() else { panic!("{queued:?}") };
    assert!(notice.public, "a repository that does not say what it is counts as public");
    assert_eq!(notice.job.created_at, notice.received_at, "the job is as old as its first event");
    assert_eq!(ingest.sum("DeliveriesUnusable"), 0);
}

/// Forms of deliveries that users of such systems have reported, made from the example.
#[tokio::test]
async fn unusual_deliveries_that_github_sends_are_accepted() {
    let ingest = ingest().await;
    let group_only = changed(|event| event["workflow_job"]["labels"] = json!([]));
    let foreign_installation = changed(|event| event["installation"] = json!({ "id": 999_999 }));
    let skipped = changed(|event| {
        event["action"] = json!("completed");
        let job = event["workflow_job"].as_object_mut().unwrap();
        job.extend([("status".to_owned(), json!("completed")), ("conclusion".to_owned(), json!("skipped"))]);
        job.extend([("runner_id".to_owned(), json!(0)), ("runner_name".to_owned(), json!(""))]);
    });
    // GitHub Enterprise Server before 3.5.
    let old_server = changed(|event| {
        let job = event["workflow_job"].as_object_mut().unwrap();
        for name in ["created_at", "run_attempt", "head_branch", "workflow_name", "runner_group_id"] {
            job.remove(name);
        }
        job.insert("runner_id".to_owned(), Value::Null);
    });
    for body in [&group_only, &foreign_installation, &skipped, &old_server] {
        let (status, said) = answer(ingest.signed("workflow_job", body)).await;
        assert_eq!(status, 202, "{said}");
    }
    let queued = ingest.queued();
    let notices: Vec<_> = queued
        .iter()
        .map(|message| match message {
            Message::WorkflowJob(notice) => notice,
            Message::Nudge { .. } | Message::Instance { .. } => panic!("{message:?}"),
        })
        .collect();
    assert!(notices[0].job.labels.is_empty());
    assert_eq!(notices[1].installation, Some(999_999));
    assert_eq!((notices[2].action, notices[2].job.runner.is_none()), (Action::Completed, true));
    assert_eq!((notices[3].job.run_attempt, Some(notices[3].job.created_at)), (1, notices[3].job.started_at));
}

#[tokio::test]
async fn a_signature_without_githubs_form_is_refused_before_anything_is_decoded_or_read() {
    let ingest = ingest().await;
    let event = |signature: &str, body: &str| {
        json!({
            "headers": { "x-github-event": "workflow_job", "x-hub-signature-256": signature },
            "body": body, "isBase64Encoded": true,
        })
    };
    let right = signature(SECRET, QUEUED);
    for header in
        ["", "sha256=", "sha1=0123", &right[..70], &format!("{right}0"), &right.replace("sha256=", "sha256: ")]
    {
        for body in ["%%%", &"A".repeat(3 << 20)] {
            let answer = ingest.sandbox.ingest.invoke(event(header, body)).await.unwrap();
            assert_eq!(answer["statusCode"], 401, "{header}");
        }
    }
    assert_eq!(ingest.calls("GetSecretValue"), 0);
    let huge = ingest.sandbox.ingest.invoke(event(&right, &"A".repeat(3 << 20))).await.unwrap();
    assert_eq!(huge["statusCode"], 413);
    let undecodable = ingest.sandbox.ingest.invoke(event(&right, "%%%")).await.unwrap();
    assert_eq!(undecodable["statusCode"], 400);
    assert_eq!(ingest.calls("GetSecretValue"), 0, "a body that is refused anyway is not verified");
}

#[tokio::test]
async fn a_flood_of_forged_deliveries_is_counted_and_neither_read_for_nor_logged_one_by_one() {
    let ingest = ingest().await;
    let began = Instant::now();
    let forged = signature("forged", QUEUED);
    for _ in 0..200 {
        let request = ingest.delivery("workflow_job", QUEUED).header("x-hub-signature-256", &forged);
        assert_eq!(status(request).await, 401);
    }
    // One for each ten seconds that have begun.
    let periods = began.elapsed().as_secs() / 10 + 1;
    let reads = ingest.calls("GetSecretValue");
    assert!(reads <= 2 * periods, "{reads} reads: the current and the previous version, once in ten seconds");
    let log = ingest.log();
    let lines: Vec<&Value> = log.iter().filter(|line| line["status"] == 401).collect();
    assert!(lines.len() as u64 <= periods, "{} lines", lines.len());
    let counted: u64 = lines.iter().filter_map(|line| line["rejected"].as_u64()).sum();
    assert_eq!(counted, ingest.sum("SignaturesRejected"));
    // The rest is counted with the next line.
    assert!((1..=200).contains(&counted), "{counted}");
}

#[tokio::test]
async fn an_event_without_use_is_ignored_and_the_answer_says_so() {
    let ingest = ingest().await;
    for (event, body, reason) in [
        ("ping", br#"{"zen":"Design for failure."}"#.as_slice(), "ping"),
        ("push", b"{}", "another event"),
        ("workflow_job", br#"{"action":"exploded"}"#, "unknown action"),
    ] {
        let (status, said) = answer(ingest.signed(event, body)).await;
        assert_eq!(status, 200);
        assert_eq!(said, format!(r#"{{"result":"ignored","reason":"{reason}"}}"#));
    }
    assert!(ingest.queued().is_empty());
}

#[tokio::test]
async fn a_rotated_secret_is_found_and_the_old_one_stays_valid_for_a_day() {
    let ingest = ingest().await;
    let with = |secret: &str| {
        let request = ingest.delivery("workflow_job", QUEUED);
        request.header("x-hub-signature-256", signature(secret, QUEUED))
    };
    assert_eq!(status(with(SECRET)).await, 202);
    let rotate = |age: SignedDuration| {
        ingest.sandbox.world.act(|state, now| {
            let rotated =
                Secret { current: "new".to_owned(), previous: Some(SECRET.to_owned()), created_at: now - age };
            state.secrets.insert(WEBHOOK_SECRET.to_owned(), rotated);
        });
    };
    rotate(SignedDuration::from_hours(23));
    ingest.wait_for_202(|| with("new")).await;
    assert_eq!(status(with(SECRET)).await, 202, "the previous one stays valid for 24 hours");
    // A process that starts after that day.
    rotate(SignedDuration::from_hours(25));
    ingest.sandbox.ingest.cold_start().await.unwrap();
    assert_eq!(status(with("new")).await, 202);
    assert_eq!(status(with(SECRET)).await, 401);
}

#[tokio::test]
async fn a_temporary_failure_is_a_failed_delivery() {
    let ingest = ingest().await;
    let secret = ingest.sandbox.world.act(|state, _| state.secrets.remove(WEBHOOK_SECRET)).unwrap();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(status(ingest.signed("workflow_job", QUEUED)).await, 503);
    }
    let reads = ingest.calls("GetSecretValue");
    assert!(reads <= began.elapsed().as_secs() / 10 + 1, "{reads} reads, with one allowed in ten seconds");
    ingest.sandbox.world.act(|state, _| state.secrets.insert(WEBHOOK_SECRET.to_owned(), secret));
    ingest.wait_for_202(|| ingest.signed("workflow_job", QUEUED)).await;

    ingest.sandbox.world.act(|state, _| state.sqs.delete_queue(QUEUE));
    let (status, said) = answer(ingest.signed("workflow_job", QUEUED)).await;
    assert_eq!(status, 503, "{said}");
}

#[tokio::test]
async fn a_body_in_base64_is_decoded_before_it_is_verified() {
    let ingest = ingest().await;
    let headers = [
        ("x-github-event", "workflow_job".to_owned()),
        ("X-GitHub-Delivery", "d-2".to_owned()),
        ("X-Hub-Signature-256", signature(SECRET, QUEUED)),
    ];
    let event = |body: String| serde_json::json!({ "headers": headers.clone().into_iter().collect::<std::collections::BTreeMap<_, _>>(), "body": body, "isBase64Encoded": true });
    use base64::Engine;
    let good = base64::engine::general_purpose::STANDARD.encode(QUEUED);
    assert_eq!(ingest.sandbox.ingest.invoke(event(good)).await.unwrap()["statusCode"], 202);
    assert_eq!(ingest.sandbox.ingest.invoke(event("%%%".to_owned())).await.unwrap()["statusCode"], 400);
    assert_eq!(ingest.queued().len(), 1);
}

#[tokio::test]
async fn a_delivery_without_a_usual_id_counts_as_a_webhook() {
    let ingest = ingest().await;
    for id in [None, Some(""), Some("with a space")] {
        let request = ingest.http.post(&ingest.sandbox.webhooks.url).header("content-type", "application/json");
        let request = request.header("x-github-event", "workflow_job").body(QUEUED);
        let request = request.header("x-hub-signature-256", signature(SECRET, QUEUED));
        let request = id.into_iter().fold(request, |request, id| request.header("x-github-delivery", id));
        assert_eq!(status(request).await, 202, "{id:?}");
    }
    let queued = ingest.queued();
    let is_webhook = |message: &Message| matches!(message, Message::WorkflowJob(notice) if notice.is_webhook());
    assert_eq!((queued.len(), queued.iter().filter(|it| is_webhook(it)).count()), (3, 3), "{queued:?}");
}
