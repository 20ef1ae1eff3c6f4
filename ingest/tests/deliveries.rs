//! Ingest as a process behind a function URL: its answers, and what reaches the queue.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use domain::wire::{Action, Message};
use jiff::SignedDuration;
use reqwest::RequestBuilder;
use sandbox::deliveries::{TEMPLATES, signature};
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox};
use sandbox::state::Secret;

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

    fn queued(&self) -> Vec<Message> {
        self.sandbox
            .world
            .look(|state| state.sqs.bodies(QUEUE).into_iter().map(|body| Message::parse(body).unwrap()).collect())
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
async fn a_malformed_delivery_is_answered_with_the_reason() {
    let ingest = ingest().await;
    let deep = format!("{{\"action\":\"queued\",\"workflow_job\":{}", "[".repeat(200_000));
    let mut not_text = QUEUED.to_vec();
    not_text[30] = 0xff;
    let other_type = String::from_utf8_lossy(QUEUED).replacen("\"run_id\": 2202229078", "\"run_id\": \"many\"", 1);
    let no_path = String::from_utf8_lossy(QUEUED).replace("\"Codertocat/Hello-World\"", "\"Codertocat/../..\"");
    let malformed: [(&str, &[u8], u16, &str); 7] = [
        ("truncated", &QUEUED[..1000], 400, "ends too early"),
        ("deeply nested", deep.as_bytes(), 400, "not a workflow_job event"),
        ("not UTF-8", &not_text, 400, "not UTF-8"),
        ("another type", other_type.as_bytes(), 400, "a field is missing or of another type"),
        ("a repository that is a path", no_path.as_bytes(), 400, "full_name"),
        ("empty", b"", 400, "ends too early"),
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
            state.secrets.insert("drover/webhook".to_owned(), rotated);
        });
    };
    rotate(SignedDuration::from_hours(23));
    assert_eq!(status(with("new")).await, 202, "a mismatch reads again");
    assert_eq!(status(with(SECRET)).await, 202, "the previous one stays valid for 24 hours");
    let reads = ingest.calls("GetSecretValue");
    for _ in 0..20 {
        assert_eq!(status(with("forged")).await, 401);
    }
    assert_eq!(ingest.calls("GetSecretValue"), reads, "forged signatures cause at most one read in ten seconds");

    // A process that starts after that day.
    rotate(SignedDuration::from_hours(25));
    ingest.sandbox.ingest.cold_start().await.unwrap();
    assert_eq!(status(with("new")).await, 202);
    assert_eq!(status(with(SECRET)).await, 401);
}

#[tokio::test]
async fn a_temporary_failure_is_a_failed_delivery() {
    let ingest = ingest().await;
    let secret = ingest.sandbox.world.act(|state, _| state.secrets.remove("drover/webhook")).unwrap();
    assert_eq!(status(ingest.signed("workflow_job", QUEUED)).await, 503);
    ingest.sandbox.world.act(|state, _| state.secrets.insert("drover/webhook".to_owned(), secret));
    assert_eq!(status(ingest.signed("workflow_job", QUEUED)).await, 202, "the next request reads again");

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
