//! Random inputs for every parser of data from outside or from an older version.
//!
//! An input is a file of the corpus (`tests/fuzz/<target>`; for deliveries, GitHub's examples) with a few changed bytes or
//! changed parts of its JSON. `cargo test` tries 2,000 inputs per target; with `DROVER_FUZZ_SECONDS` it continues for that many
//! seconds. An input that fails is reduced and written to the corpus. The unchanged corpus is tried first, so every failure
//! stays a test.
//!
//! Fuzzing is not guided by coverage, which needs a nightly compiler.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod fuzzing;

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::config::{Pool, Shape};
use domain::ids::{BatchTag, DeliveryId, PoolName, Repository, RunnerName, SlotId};
use domain::log::{Cause, Event, Turn, fold};
use domain::policy::PoolView;
use domain::policy::decide::decide;
use domain::policy::due::due;
use domain::policy::route::{Routable, route};
use domain::state::{BootItem, BootReport, Config, Item, Key, Meta, StoredReport, Usage};
use domain::wire::Message;
use drover::lint::{Form, Listing, Question, Unknowns, Verdict, WorkflowRepository, lint};
use drover::pool_file::{PoolEntry, PoolFile};
use fuzzing::{all_are_read, corpus, fuzz, text};
use ingest::{Checked, Delivered, Ingest, Request, Signature, Verified};
use jiff::{SignedDuration, Timestamp};
use platform::github::{ApiUrl, GitHubApp};
use platform::ingest_metrics::IngestMetrics;
use platform::queue::Queue;
use platform::secrets::{Secret, WebhookSecret};
use sandbox::deliveries::signature;
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox, WEBHOOK_SECRET};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use whatif::replay::{Assumptions, Scenario, replay};
use whatif::trace::{Compression, Trace};

const SECRET: &str = "It's a Secret to Everybody";

#[test]
fn a_signature_needs_githubs_format_and_matches_only_its_body() {
    fuzz("fuzz/signature", |input| {
        let Some(header) = text(input) else { return };
        let digits = header.strip_prefix("sha256=").unwrap_or_default();
        let written = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let read = Signature::parse(header);
        assert_eq!(read.is_some(), written);
        let signs = read.is_some_and(|read| read.signs(input, SECRET.as_bytes()));
        assert_eq!(signs, header.eq_ignore_ascii_case(&signature(SECRET, input)));
    });
}

#[test]
fn a_delivery_becomes_a_notice_or_is_ignored_and_only_what_is_not_json_is_refused() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let options = Options { driven: Driven::ByHand, ..Options::default() };
    let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
    let key = sandbox::aws::access_key("ingest").unwrap();
    let aws = runtime.block_on(platform::aws::emulator(&sandbox.aws_url, key));
    let secret = WebhookSecret::new(Secret::new(&aws, WEBHOOK_SECRET.to_owned()));
    let now: Timestamp = "2026-11-02T12:00:00Z".parse().unwrap();
    fuzz("data/workflow_job", |input| {
        let signed = Signature::parse(&signature(SECRET, input)).unwrap();
        let checked = runtime.block_on(Verified::check(&secret, input.to_vec(), &signed, now));
        let Checked::Signed(verified) = checked else { panic!("{checked:?}") };
        // JSON is UTF-8, which serde does not check where it ignores a text.
        let is_json = text(input).is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        match ingest::parse("workflow_job", &verified, DeliveryId::from("d-1"), now) {
            Ok(Delivered::Notice(notice)) => {
                assert!(is_plain(&notice.repository));
                let message = Message::WorkflowJob(notice);
                assert_eq!(Message::parse(&message.to_body()).unwrap(), message);
            }
            Ok(Delivered::Ignored(why)) => assert_eq!(why, "unknown action"),
            Ok(Delivered::Unusable(why)) => {
                assert!(is_json, "GitHub would not redeliver what is not JSON");
                assert!(why.to_string().len() < 150, "{why}");
            }
            Err(error) => {
                assert!(!is_json, "GitHub would redeliver JSON in vain: {error}");
                assert!(error.to_string().len() < 100, "{error}");
            }
        }
    });
}

/// Any event of a function URL gets an answer. What GitHub did not sign reaches no queue.
#[test]
fn every_request_gets_an_answer_and_only_a_signed_one_is_enqueued() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let options = Options { driven: Driven::ByHand, ..Options::default() };
    let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
    let key = sandbox::aws::access_key("ingest").unwrap();
    let aws = runtime.block_on(platform::aws::emulator(&sandbox.aws_url, key));
    let secret = WebhookSecret::new(Secret::new(&aws, WEBHOOK_SECRET.to_owned()));
    let queue = Queue::new(&aws, format!("{}/123456789012/{QUEUE}", sandbox.aws_url));
    let ingest = Ingest::new(secret, queue, IngestMetrics::new(&"fuzz".parse().unwrap()));
    fuzz("fuzz/request", |input| {
        let Ok(request) = serde_json::from_slice::<Request>(input) else { return };
        // Parts that ingest ignores need not even be text.
        let event = serde_json::from_str::<Value>(&String::from_utf8_lossy(input));
        let is_signed = event.is_ok_and(|event| is_signed(&event));
        let answer = runtime.block_on(ingest.receive(request));
        match answer.status {
            200 | 202 => assert!(is_signed, "{answer:?}"),
            // A redelivery may succeed, so this must not be the answer to what will never be accepted.
            503 => panic!("queue and secret can be used: {answer:?}"),
            400 | 401 | 413 => {}
            _ => panic!("{answer:?}"),
        }
        assert!(answer.reason.len() < 150, "{answer:?}");
    });
}

/// Whether one of the event's headers is the signature of its body, as plain text or decoded.
fn is_signed(event: &Value) -> bool {
    let body = event["body"].as_str().unwrap_or_default();
    let bodies = [Some(body.as_bytes().to_vec()), STANDARD.decode(body).ok()];
    let right: Vec<String> = bodies.iter().flatten().map(|body| signature(SECRET, body)).collect();
    let headers = event["headers"].as_object().into_iter().flatten();
    headers.filter_map(|(_, value)| value.as_str()).any(|value| right.iter().any(|it| it.eq_ignore_ascii_case(value)))
}

/// An address that tokens may be sent to.
#[test]
fn an_api_url_is_https_or_this_machine() {
    fuzz("fuzz/api_url", |input| {
        let Some(url) = text(input).and_then(|text| text.parse::<ApiUrl>().ok()) else { return };
        let written = url.to_string();
        assert_eq!(written.parse::<ApiUrl>().as_ref(), Ok(&url));
        let rest = written.strip_prefix("http://");
        let is_local = |rest: &str| ["localhost", "127.", "[::1]"].iter().any(|host| rest.starts_with(host));
        assert!(written.starts_with("https://") || rest.is_some_and(is_local), "{written}");
        assert!(!written.contains(['?', '#', ' ', '\n']), "{written}");
        assert!(url.web_url().starts_with("http"));
    });
}

#[test]
fn an_unusable_app_secret_is_never_quoted() {
    fuzz("fuzz/app_secret", |input| {
        let Some(Err(error)) = text(input).map(|text| GitHubApp::of_text(text, None)) else { return };
        assert!(!error.to_string().contains("hunter"), "{error}");
    });
}

/// Whether the name may become part of a URL's path.
fn is_plain(repository: &Repository) -> bool {
    let plain = |part: &str| {
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(safe)
    };
    plain(repository.owner.as_str()) && plain(repository.name())
}

#[test]
fn a_message_of_any_version_is_understood_or_poison() {
    all_are_read("message", |input| text(input).is_some_and(|body| Message::parse(body).is_ok()));
    fuzz("fuzz/message", |input| {
        let Some(message) = text(input).and_then(|body| Message::parse(body).ok()) else { return };
        match &message {
            Message::WorkflowJob(_) | Message::Nudge { .. } => {
                assert_eq!(Message::parse(&message.to_body()).unwrap(), message);
            }
            // Written by EventBridge only.
            Message::Instance { .. } => {}
        }
    });
}

/// An item of the corpus, with its key.
#[derive(Deserialize)]
struct Kept {
    pk: String,
    sk: String,
    item: Value,
}

impl Kept {
    fn read(self) -> Option<Item> {
        let key = Key::parse(&self.pk, &self.sk).ok()?;
        assert_eq!((key.pk(), key.sk()), (self.pk, self.sk), "two spellings of one key");
        let item = Item::deserialize(&key, self.item).ok()?;
        let again = Item::deserialize(&key, serde_json::to_value(&item).unwrap()).unwrap();
        assert_eq!(again, item);
        Some(item)
    }
}

#[test]
fn an_item_that_can_be_read_can_be_decided_upon() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/item");
    let known = |(path, input): (PathBuf, Vec<u8>)| {
        let found = path.file_name().unwrap().to_string_lossy().starts_with("found-");
        let kept: Kept = serde_json::from_slice(&input).ok()?;
        let item = kept.read();
        assert!(found || item.is_some(), "{} cannot be read any more", path.display());
        item.filter(|_| !found)
    };
    let items: Vec<Item> = corpus(&folder).into_iter().filter_map(known).collect();
    let pools = items.iter().find_map(|item| if let Item::Config(config) = item { Some(config) } else { None });
    let Config { pools, .. } = pools.unwrap();
    let now: Timestamp = "2026-11-02T12:10:00Z".parse().unwrap();
    fuzz("fuzz/item", |input| {
        let Some(item) = serde_json::from_slice::<Kept>(input).ok().and_then(Kept::read) else { return };
        for pool in pools {
            let others = items.iter().filter(|other| other.key() != item.key()).cloned();
            let all: Vec<Item> = others.chain([item.clone()]).collect();
            let meta = all.iter().find_map(|item| match item {
                Item::Meta(meta) if meta.pool == pool.name => Some(Meta::clone(meta)),
                _ => None,
            });
            let Some(meta) = meta else { continue };
            let view = PoolView::new(meta, all.into_iter().filter(|item| item.key().pool() == Some(&pool.name)));
            let lease = now + SignedDuration::from_mins(1);
            let turn = Turn { now, lease, cause: Cause::Invocation("fuzz".to_owned()) };
            let decision = decide(pool, &view, &turn);
            let launched = decision.map_or(0, |decision| decision.slots.len());
            assert!(launched <= 48 + view.slots.len(), "{launched} slots in one decision");
            due(pool, &view, None, now);
        }
    });
}

#[test]
fn an_event_of_any_version_folds() {
    all_are_read("event", |input| serde_json::from_slice::<Event>(input).is_ok());
    fuzz("fuzz/event", |input| {
        // A stored item has no name twice, but JSON may: its last value counts.
        let Ok(stored) = serde_json::from_slice::<Value>(input) else { return };
        let Ok(event) = serde_json::from_value::<Event>(stored) else { return };
        let again: Event = serde_json::from_value(serde_json::to_value(&event).unwrap()).unwrap();
        assert_eq!(again, event);
        assert_eq!(fold([&event, &again]), fold([&event]));
    });
}

#[test]
fn a_pool_file_defines_pools_or_is_refused_with_a_reason() {
    fuzz("fuzz/pools", |input| {
        let Some(written) = text(input) else { return };
        let file = PoolFile::parse("pools.toml", written);
        for pool in file.pools.iter().filter(|_| file.errors.is_empty()) {
            assert!(!pool.labels.is_empty() && !pool.instance_types.is_empty(), "{pool:?}");
        }
        assert!(!file.pools.is_empty() || !file.errors.is_empty(), "the file has neither pools nor errors");
    });
}

#[test]
fn a_workflow_of_any_content_is_judged_and_only_a_pool_with_all_labels_is_named() {
    let pools =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/pools/example.toml")).unwrap();
    let question = Question {
        listing: Listing::Partial,
        pools: PoolFile::parse("example.toml", &pools).pools.iter().map(PoolEntry::unresolved).collect(),
        source: WorkflowRepository { repository: "octo-org/widgets".parse().unwrap(), public: false },
        hosted: vec!["linux-*-core".to_owned()],
        variables: [("RUNNER".to_owned(), "linux".to_owned())].into(),
        unknowns: Unknowns::Counted,
    };
    fuzz("fuzz/workflow", |input| {
        let Some(written) = text(input) else { return };
        // The workflows that it calls have the same content.
        let report = lint(&[".github/workflows/ci.yml"], &question, |_| Ok(written.to_owned())).unwrap();
        for finding in &report.findings {
            assert!((1..=written.lines().count() + 1).contains(&finding.line), "{finding:?}");
            let Verdict::Pool { pool } = &finding.verdict else { continue };
            let pool = question.pools.iter().find(|it| it.name.as_str() == pool).unwrap();
            let has = |label: &String| pool.labels.iter().any(|own| own.as_str() == label.trim().to_lowercase());
            assert!(finding.labels.iter().all(has) && !finding.labels.is_empty(), "{finding:?}");
        }
        for form in [Form::Text, Form::Json, Form::Github, Form::Sarif] {
            report.output(form);
        }
    });
}

/// A job to be routed.
#[derive(Deserialize)]
struct RoutedJob {
    pools: Vec<Pool>,
    repository: Repository,
    public: bool,
    labels: Vec<String>,
}

#[test]
fn a_job_is_routed_to_a_pool_whose_runners_may_run_it() {
    fuzz("fuzz/route", |input| {
        let Ok(RoutedJob { pools, repository, public, labels }) = serde_json::from_slice(input) else { return };
        let job = Routable { repository: &repository, public, labels: &labels };
        let Ok(pool) = route(&pools, &job) else { return };
        // Assumes that GitHub ignores spaces around a label, which GitHub does not document.
        let has = |label: &String| pool.labels.iter().any(|own| own.as_str() == label.trim().to_lowercase());
        assert!(labels.iter().all(has) && !labels.is_empty(), "{labels:?} on {:?}", pool.labels);
        assert!(pool.owner.covers(&repository) && (pool.allow_public || !public) && !pool.draining);
        let mut reversed = pools.clone();
        reversed.reverse();
        let names = (&pool.name, route(&reversed, &job).map(|pool| &pool.name));
        assert_eq!(Ok(names.0), names.1, "the order of the pools does not matter");
    });
}

#[test]
fn a_parsed_name_is_printed_unchanged() {
    fuzz("fuzz/name", |input| {
        let Some(name) = text(input) else { return };
        if let Ok(read) = name.parse::<RunnerName>() {
            assert_eq!(read.to_string(), name);
            assert!(name.starts_with(&RunnerName::prefix(&read.stack)));
        }
        if let Ok(read) = name.parse::<BatchTag>() {
            assert_eq!(read.to_string(), name);
        }
        if let Ok(read) = name.parse::<SlotId>() {
            assert_eq!(read.to_string(), name);
        }
        if let Ok(read) = name.parse::<Repository>() {
            assert!(is_plain(&read), "{read}");
        }
    });
}

#[test]
fn a_boot_item_allows_only_the_repositories_in_its_list() {
    let ours: Repository = "octo-org/widgets".parse().unwrap();
    let theirs: Repository = "octo-org-2/widgets".parse().unwrap();
    fuzz("fuzz/boot", |input| {
        let Ok(item) = serde_json::from_slice::<BootItem>(input) else { return };
        let again: BootItem = serde_json::from_value(serde_json::to_value(&item).unwrap()).unwrap();
        assert_eq!(again, item);
        assert!(format!("{item:?}").starts_with(r#"BootItem { jit_config: "<secret>","#), "the secret is not printed");
        for pattern in &item.repositories {
            let says = |repository: &Repository| {
                let pattern = serde_json::to_value(pattern).unwrap();
                let (pattern, repository) = (pattern.as_str().unwrap().to_lowercase(), repository.to_string());
                let all =
                    pattern.strip_suffix('*').is_some_and(|owner| repository.strip_prefix(owner) == Some("widgets"));
                pattern == repository || all
            };
            assert_eq!((pattern.allows(&ours), pattern.allows(&theirs)), (says(&ours), says(&theirs)), "{pattern:?}");
        }
    });
}

#[test]
fn a_shape_is_printed_as_a_label_that_asks_for_the_same() {
    let pool: PoolName = "any".parse().unwrap();
    fuzz("fuzz/label", |input| {
        let Some(label) = text(input) else { return };
        let Some(Ok(shape)) = Shape::of_label(&pool, label) else { return };
        assert!(label.is_ascii() && label.len() <= 100, "{label:?}");
        let of_label = |label: &str| Shape::of_label(&pool, label).and_then(Result::ok);
        let printed = format!("{pool}/{shape}");
        assert_eq!(of_label(&printed), Some(shape), "{label:?} is printed as {printed:?}");
        let mut reversed: Vec<&str> = label.split_once('/').unwrap().1.split('/').collect();
        reversed.reverse();
        let other = format!("{}/{}", "ANY", reversed.join("/").to_uppercase());
        assert_eq!(of_label(&other), Some(shape), "neither the order nor the case of {label:?} matters");
    });
}

#[test]
fn a_boot_report_is_read_only_as_an_agent_writes_it() {
    let (launched_at, now): (Timestamp, Timestamp) =
        ("2026-11-02T12:00:00Z".parse().unwrap(), "2026-11-02T13:00:00Z".parse().unwrap());
    fuzz("fuzz/report", |input| {
        let Ok(attributes) = serde_json::from_slice::<Value>(input) else { return };
        // As the table's client reads them.
        let attribute = |name: &str| attributes.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
        let stored = StoredReport {
            reported_at: attribute("reported_at"),
            uptime_seconds: attribute("uptime_seconds"),
            prepared_at: attribute("prepared_at"),
            usage: attribute("job_usage"),
        };
        if let Some(Ok(usage)) = stored.usage.as_ref().map(|text| Usage::parse(text, now.duration_since(launched_at))) {
            assert_eq!(Some(usage.text()), stored.usage, "it is read as what it says");
            let (cpu, memory) = usage.shares();
            assert!((0.0..=100.0).contains(&cpu) && (0.0..=100.0).contains(&memory), "{cpu} {memory}");
            assert!((1..=usage.vcpus).all(|vcpus| usage.slowdown(vcpus) >= 1.0));
            assert!(usage.lines().iter().all(|line| line.text.len() < 100));
        }
        let Ok(report) = BootReport::parse(&stored, launched_at, now) else { return };
        let minute = SignedDuration::from_mins(1);
        let times = [Some(report.reported_at), report.prepared_at];
        assert!(times.into_iter().flatten().all(|time| (launched_at - minute..=now + minute).contains(&time)));
        let again = report.stored();
        assert_eq!((&again.reported_at, &again.prepared_at), (&stored.reported_at, &stored.prepared_at));
        let seconds = |stored: &StoredReport| stored.uptime_seconds.as_ref().and_then(|it| it.parse::<u32>().ok());
        assert_eq!(seconds(&again), seconds(&stored));
    });
}

#[test]
fn a_trace_that_can_be_read_is_written_unchanged_and_can_be_simulated() {
    let scenario = Scenario {
        pools: vec![simulator::pool("linux", 3)],
        region: "eu-central-1".to_owned(),
        types: Vec::new(),
        labels: Vec::new(),
        assumptions: Assumptions::default(),
    };
    fuzz("fuzz/trace", |input| {
        let trace = match Trace::read(input) {
            Ok(trace) => trace,
            Err(broken) => {
                assert!(broken.line >= 1 && broken.to_string().len() < 500, "{broken}");
                return;
            }
        };
        let mut written = Vec::new();
        trace.write(&mut written, Compression::None).unwrap();
        assert_eq!(Trace::read(written.as_slice()).unwrap(), trace);
        // Each minute of the period costs time.
        if trace.header.until.duration_since(trace.header.from) > SignedDuration::from_hours(48) {
            return;
        }
        let outcome = replay(&trace, &scenario, &|_| {});
        let refused: u64 = outcome.refused.values().sum();
        assert_eq!(outcome.started + outcome.never_started + refused, outcome.jobs, "no job is lost");
    });
}
