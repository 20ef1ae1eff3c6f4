//! Random inputs for every parser of data from outside or from an older version.
//!
//! An input is a file of the corpus (`tests/fuzz/<target>`; for deliveries, GitHub's examples) with a few changed bytes or
//! changed parts of its JSON. `cargo test` tries 2,000 inputs per target; with `DROVER_FUZZ_SECONDS` it continues for that many
//! seconds. An input that fails is reduced and written to the corpus. The unchanged corpus is tried first, so every failure
//! stays a test.
//!
//! Fuzzing is not guided by coverage, which needs a nightly compiler.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::config::Pool;
use domain::ids::{BatchTag, DeliveryId, Repository, RunnerName, SlotId};
use domain::log::{Cause, Event, Turn, fold};
use domain::policy::PoolView;
use domain::policy::decide::decide;
use domain::policy::due::due;
use domain::policy::route::{Routable, route};
use domain::state::{BootItem, Config, Item, Key, Meta};
use domain::wire::Message;
use drover::lint::{Form, Listing, Question, Unknowns, Verdict, WorkflowRepository, lint};
use drover::pool_file::{PoolEntry, PoolFile};
use ingest::{Checked, Delivered, Ingest, Request, Signature, Verified};
use jiff::{SignedDuration, Timestamp};
use platform::environment::optional;
use platform::github::{ApiUrl, GitHubApp};
use platform::ingest_metrics::IngestMetrics;
use platform::queue::Queue;
use platform::secrets::{Secret, WebhookSecret};
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestError, TestRng, TestRunner};
use sandbox::deliveries::signature;
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox, WEBHOOK_SECRET};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Inputs per round. The time is checked after each round.
const INPUTS: u32 = 2000;

/// The largest number of changes to an input.
const MAX_CHANGES: usize = 6;

/// Texts that often break parsers.
const TEXTS: [&str; 24] = [
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "é",
    "\u{202e}",
    "\u{0}",
    "%2f",
    "..",
    "/",
    "null",
    "-0",
    "1e400",
    "[[[[",
    "{",
    ",",
    "sha256=",
    " ",
    "\r\n",
    ".",
    "#",
    "_",
    "999999999999999999999",
    "=",
];

/// Values at the limits of their types, and of other types than a field expects.
fn leaves() -> [Value; 16] {
    [
        Value::Null,
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(i32::MAX),
        json!(1_u64 << 32),
        json!(0.5),
        json!(""),
        json!("a/b"),
        json!("a/../b"),
        json!("x".repeat(300)),
        json!([]),
        json!({}),
        json!("2026-11-02T12:00:00Z"),
        json!("1969-12-31T23:59:59Z"),
    ]
}

/// One change: the position, the replacement and the kind of change.
type Change = (u16, u16, u8);

/// Tries the corpus, then changed inputs of it until the time is up. Without a time, the inputs are the same in each run.
fn fuzz(target: &str, holds: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(target);
    let corpus = corpus(&folder);
    for (path, input) in &corpus {
        eprintln!("{}", path.display());
        holds(input);
    }
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    let seconds = optional("DROVER_FUZZ_SECONDS").map_or(0, |seconds| seconds.parse().unwrap());
    let (began, mut tried) = (Instant::now(), 0);
    loop {
        let runs = Runs { cases: INPUTS, failure_persistence: None, ..Runs::default() };
        let mut runner = match seconds {
            0 => TestRunner::new_with_rng(runs, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
            _ => TestRunner::new(runs),
        };
        let changed = (0..inputs.len(), proptest::collection::vec(any::<Change>(), 0..MAX_CHANGES));
        let failed = runner.run(&changed, |(index, changes)| {
            holds(&change(&inputs, index, &changes));
            Ok(())
        });
        if let Err(TestError::Fail(why, (index, changes))) = failed {
            let input = change(&inputs, index, &changes);
            let path = folder.join(format!("found-{:08x}", hash(&input)));
            std::fs::write(&path, input).unwrap();
            panic!("{}: {why}", path.display());
        }
        failed.unwrap();
        tried += INPUTS;
        if began.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
    }
    eprintln!("{target}: {tried} inputs");
}

fn corpus(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// What earlier versions wrote must stay readable. A finding need not be.
fn all_are_read(kind: &str, is_read: impl Fn(&[u8]) -> bool) {
    for (path, input) in corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(kind)) {
        let is_finding = path.file_name().unwrap().to_string_lossy().starts_with("found-");
        assert!(is_finding || is_read(&input), "{} cannot be read any more", path.display());
    }
}

/// A hash that names an input (FNV-1a).
fn hash(input: &[u8]) -> u32 {
    input.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn change(inputs: &[Vec<u8>], index: usize, changes: &[Change]) -> Vec<u8> {
    let mut input = inputs[index].clone();
    for (at, with, how) in changes.iter().map(|(at, with, how)| (usize::from(*at), usize::from(*with), how % 10)) {
        if how >= 5
            && let Ok(mut json) = serde_json::from_slice::<Value>(&input)
        {
            change_json(&mut json, at, with, how);
            input = json.to_string().into_bytes();
            continue;
        }
        let at = at % (input.len() + 1);
        match how % 5 {
            0 if at < input.len() => input[at] ^= 1 << (with % 8),
            1 => drop(input.splice(at..input.len().min(at + 1 + with % 16), [])),
            2 => input.truncate(at),
            3 => {
                let other = &inputs[with % inputs.len()];
                let from = with % (other.len() + 1);
                drop(input.splice(at..at, other[from..other.len().min(from + 40)].iter().copied()));
            }
            _ => drop(input.splice(at..at, TEXTS[with % TEXTS.len()].bytes())),
        }
    }
    input
}

fn change_json(json: &mut Value, at: usize, with: usize, how: u8) {
    let mut all = Vec::new();
    pointers(json, String::new(), &mut all);
    let pointer = &all[at % all.len()];
    let other = json.pointer(&all[with % all.len()]).cloned().unwrap_or_default();
    if let Some((parent, name)) = pointer.rsplit_once('/')
        && how == 5
        && let Some(Value::Object(parent)) = json.pointer_mut(parent)
    {
        parent.remove(&name.replace("~1", "/").replace("~0", "~"));
        return;
    }
    let Some(node) = json.pointer_mut(pointer) else { return };
    match (how, node) {
        (6, node) => *node = other,
        (7, Value::Array(list)) => list.push(other),
        (7, Value::Object(fields)) => drop(fields.insert(TEXTS[with % TEXTS.len()].to_owned(), other)),
        (8, Value::String(text)) => text.push_str(TEXTS[with % TEXTS.len()]),
        (_, node) => *node = leaves()[with % leaves().len()].clone(),
    }
}

fn pointers(json: &Value, here: String, into: &mut Vec<String>) {
    match json {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            pointers(value, format!("{here}/{}", name.replace('~', "~0").replace('/', "~1")), into);
        }),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(number, value)| pointers(value, format!("{here}/{number}"), into));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    into.push(here);
}

/// An input that is text.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

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
