//! `make load`: a separate process posts signed deliveries to ingest at a fixed rate, without waiting for answers. Then each
//! delivery must be on the queue.
//!
//! With `--rate` it passes or fails. Without it, it finds the highest rate that ingest keeps up with.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use domain::wire::Message;
use drover::output::{printable, table};
use reqwest::{Client, RequestBuilder};
use sandbox::deliveries::{TEMPLATES, signature};
use sandbox::interruption::unless_interrupted;
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox};
use sandbox::short_timings::machine;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until};

/// Post deliveries to ingest at a fixed rate and check that each is on the queue.
#[derive(Debug, Parser)]
#[command(name = "make load ARGS=\"...\"")]
struct Arguments {
    /// Deliveries per second. Without it, find the highest rate that ingest keeps up with.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: Option<u32>,
    /// Duration at each rate, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Number of bad requests in addition.
    #[arg(long, default_value_t = 0)]
    bad: u32,
    /// Post deliveries as the JSON on standard input says. Used by the parent process.
    #[arg(long, hide = true)]
    post: bool,
}

/// Requests without an answer. On the slowest machine each of them is answered within [`ANSWER_TIMEOUT`].
const MAX_UNANSWERED: usize = 200;

/// How long GitHub waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The 99th percentile of the answer time above which ingest does not keep up with a rate.
const MAX_ANSWER_TIME: Duration = Duration::from_secs(1);

/// The first and the last rate of a search, in deliveries per second.
const RATES: (u32, u32) = (100, 10_000);

/// The instructions for the posting process.
#[derive(Debug, Serialize, Deserialize)]
struct Orders {
    url: String,
    secret: String,
    good: u32,
    bad: u32,
    seconds: u32,
}

/// The report of the posting process.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Answers {
    /// Good deliveries that were not answered with 202, with their answers.
    refused: BTreeMap<u32, String>,
    /// Bad requests with an unexpected answer.
    unexpected: Vec<String>,
    /// The time from when a good delivery was due until its answer, in milliseconds, sorted.
    took: Vec<f64>,
}

impl Answers {
    fn percentile(&self, percent: usize) -> f64 {
        self.took.get(self.took.len() * percent / 100).copied().unwrap_or(f64::NAN)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let work = async {
        match (arguments.post, arguments.rate) {
            (true, _) => post_all().await,
            (false, Some(rate)) => check_rate(&arguments, rate).await,
            (false, None) => find_highest_rate(&arguments).await,
        }
    };
    match unless_interrupted(work).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {}", printable(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn check_rate(arguments: &Arguments, rate: u32) -> anyhow::Result<()> {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await?;
    let answers = load(&sandbox, rate, arguments.seconds, arguments.bad).await?;
    println!(
        "{rate}/s for {} s, with {} bad requests: each good delivery is on the queue exactly once, and no bad one; \
         p50 {:.0} ms, p99 {:.0} ms",
        arguments.seconds,
        arguments.bad,
        answers.percentile(50),
        answers.percentile(99),
    );
    Ok(())
}

/// Raises the rate by a quarter until ingest does not keep up.
async fn find_highest_rate(arguments: &Arguments) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let (mut rate, mut highest) = (RATES.0, None);
    while rate <= RATES.1 {
        let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await?;
        let answers = match load(&sandbox, rate, arguments.seconds, arguments.bad).await {
            Ok(answers) => answers,
            Err(error) => {
                rows.push(vec![format!("{rate}/s"), printable(&format!("{error:#}")), String::new()]);
                break;
            }
        };
        rows.push(vec![
            format!("{rate}/s"),
            format!("{:.0} ms", answers.percentile(50)),
            format!("{:.0} ms", answers.percentile(99)),
        ]);
        if answers.percentile(99) > MAX_ANSWER_TIME.as_secs_f64() * 1000.0 {
            break;
        }
        highest = Some(rate);
        rate += rate / 4;
    }
    println!("\n{} s at each rate on {}\n", arguments.seconds, machine());
    print!("{}", table(&["DELIVERIES", "P50", "P99"], rows));
    println!(
        "\nHighest rate that ingest keeps up with: {}/s",
        highest.context("ingest does not keep up with the lowest rate")?
    );
    Ok(())
}

/// Starts a process that posts deliveries, and checks that each arrives.
async fn load(sandbox: &Sandbox, rate: u32, seconds: u32, bad: u32) -> anyhow::Result<Answers> {
    let secret = sandbox.world.look(|state| state.github.hook().secret.clone()).context("the hook has no secret")?;
    let good = rate * seconds;
    let orders = Orders { url: sandbox.webhooks.url.clone(), secret, good, bad, seconds };
    let mut poster = tokio::process::Command::new(std::env::current_exe()?)
        .arg("--post")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    poster.stdin.take().context("no standard input")?.write_all(&serde_json::to_vec(&orders)?).await?;
    let mut arrived = BTreeMap::new();
    let mut ended = pin!(poster.wait_with_output());
    let mut ticks = interval(Duration::from_millis(100));
    let output = loop {
        tokio::select! {
            output = &mut ended => break output?,
            // A long queue would be measured, too.
            _ = ticks.tick() => count_messages(sandbox, &mut arrived)?,
        }
    };
    count_messages(sandbox, &mut arrived)?;
    ensure!(output.status.success(), "the posting process failed");
    let answers: Answers =
        serde_json::from_slice(&output.stdout).context("the report of the posting process is not valid")?;
    judge(&arrived, &answers, good)?;
    Ok(answers)
}

/// Removes the messages from the queue and counts them by delivery.
fn count_messages(sandbox: &Sandbox, arrived: &mut BTreeMap<String, u32>) -> anyhow::Result<()> {
    sandbox.world.act(|state, _| {
        for body in state.sqs.bodies(QUEUE) {
            let Message::WorkflowJob(notice) = Message::parse(body)? else {
                anyhow::bail!("not the message of a job: {body}")
            };
            *arrived.entry(notice.delivery.to_string()).or_default() += 1;
        }
        state.sqs.purge_queue(QUEUE);
        Ok(())
    })
}

fn judge(arrived: &BTreeMap<String, u32>, answers: &Answers, good: u32) -> anyhow::Result<()> {
    let sent: BTreeSet<String> = (0..good).map(good_guid).collect();
    let lost = sent.iter().filter(|guid| !arrived.contains_key(*guid)).count();
    let twice = arrived.values().filter(|times| **times > 1).count();
    let others: Vec<&String> = arrived.keys().filter(|guid| !sent.contains(*guid)).collect();
    ensure!(others.is_empty(), "bad requests reached the queue: {others:?}");
    let (unexpected, example) = (answers.unexpected.len(), answers.unexpected.first());
    ensure!(unexpected == 0, "{unexpected} of the bad requests had an unexpected answer: {example:?}");
    let example = answers.refused.values().next();
    ensure!(
        answers.refused.is_empty(),
        "{} of {good} deliveries were not accepted: {example:?}",
        answers.refused.len()
    );
    ensure!(lost == 0, "{lost} of {good} deliveries were accepted but are not on the queue");
    ensure!(twice == 0, "{twice} of {good} deliveries are on the queue more than once");
    Ok(())
}

fn good_guid(number: u32) -> String {
    format!("good-{number}")
}

/// Posts each delivery when it is due and does not wait for earlier answers, as GitHub does not. If very many are missing,
/// the machine is too slow for the rate: the next delivery is late then, which counts as part of its time.
async fn post_all() -> anyhow::Result<()> {
    let mut text = Vec::new();
    tokio::io::stdin().read_to_end(&mut text).await?;
    let orders: Orders = serde_json::from_slice(&text)?;
    let signed = TEMPLATES.map(|(_, body)| (body, signature(&orders.secret, body.as_bytes())));
    let http = Client::builder().timeout(ANSWER_TIMEOUT).build()?;
    let total = u64::from(orders.good + orders.bad);
    let (mut good, mut bad) = (0, 0);
    let mut answers = Answers::default();
    let mut posted = JoinSet::new();
    let began = Instant::now();
    for number in 0..total {
        let due = began + Duration::from_secs(u64::from(orders.seconds)).mul_f64(number as f64 / total as f64);
        sleep_until(due).await;
        let share = |number: u64| number * u64::from(orders.bad) / total;
        let post = if share(number) == share(number + 1) {
            let (body, signature) = &signed[good as usize % signed.len()];
            let request = delivery(&http, &orders.url, &good_guid(good), "workflow_job", *body);
            good += 1;
            Post { bad: None, number: good - 1, request: request.header("x-hub-signature-256", signature) }
        } else {
            bad += 1;
            let (kind, request) = bad_request(&http, &orders, bad - 1);
            Post { bad: Some(kind), number: bad - 1, request }
        };
        posted.spawn(post.send(due));
        while let Some(answer) = posted.try_join_next() {
            record(&mut answers, answer?);
        }
        while posted.len() >= MAX_UNANSWERED
            && let Some(answer) = posted.join_next().await
        {
            record(&mut answers, answer?);
        }
    }
    while let Some(answer) = posted.join_next().await {
        record(&mut answers, answer?);
    }
    answers.took.sort_by(f64::total_cmp);
    println!("{}", serde_json::to_string(&answers)?);
    Ok(())
}

/// The kind of a bad request, and the expected status.
type Kind = (&'static str, u16);

struct Post {
    bad: Option<Kind>,
    number: u32,
    request: RequestBuilder,
}

struct Answered {
    bad: Option<Kind>,
    number: u32,
    status: Result<u16, String>,
    took: Duration,
}

impl Post {
    async fn send(self, due: Instant) -> Answered {
        let status = self.request.send().await.map(|answer| answer.status().as_u16());
        let status = status.map_err(|error| error.to_string());
        Answered { bad: self.bad, number: self.number, status, took: due.elapsed() }
    }
}

fn record(answers: &mut Answers, answer: Answered) {
    match answer.bad {
        None => {
            answers.took.push(answer.took.as_secs_f64() * 1000.0);
            if answer.status != Ok(202) {
                answers.refused.insert(answer.number, format!("{:?}", answer.status));
            }
        }
        Some((what, expected)) if answer.status != Ok(expected) => {
            answers.unexpected.push(format!("{what}: {:?} instead of {expected}", answer.status));
        }
        Some(_) => {}
    }
}

fn delivery(http: &Client, url: &str, guid: &str, event: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    let request = http.post(url).header("content-type", "application/json").body(body);
    request.header("x-github-event", event).header("x-github-delivery", guid)
}

/// A bad request. The kinds take turns.
fn bad_request(http: &Client, orders: &Orders, number: u32) -> (Kind, RequestBuilder) {
    let (_, body) = TEMPLATES[number as usize % TEMPLATES.len()];
    let guid = format!("bad-{number}");
    let made = |event: &str, body: String| delivery(http, &orders.url, &guid, event, body);
    let signed = |event: &str, body: String| {
        let signature = signature(&orders.secret, body.as_bytes());
        made(event, body).header("x-hub-signature-256", signature)
    };
    let right = signature(&orders.secret, body.as_bytes());
    let plain = || made("workflow_job", body.to_owned());
    if number % 50 == 49 {
        // Rare, because the sandbox needs long for a megabyte.
        return (("more than 1 MiB", 413), signed("workflow_job", " ".repeat((1 << 20) + 1)));
    }
    match number % 10 {
        0 => (("no signature", 401), plain()),
        1 => (
            ("signed with another secret", 401),
            plain().header("x-hub-signature-256", signature("x", body.as_bytes())),
        ),
        2 => (
            ("signature of another body", 401),
            made("workflow_job", "{}".to_owned()).header("x-hub-signature-256", right),
        ),
        3 => {
            let twice = plain().header("x-hub-signature-256", &right).header("x-hub-signature-256", &right);
            (("two signatures", 401), twice)
        }
        4 => (("the old kind of signature", 401), plain().header("x-hub-signature", right)),
        5 => (("truncated", 400), signed("workflow_job", body.chars().take(1000).collect())),
        6 => {
            let (_, body) = TEMPLATES[0];
            let elsewhere = body.replace("\"Codertocat/Hello-World\"", "\"Codertocat/../..\"");
            (("a repository that is a path", 200), signed("workflow_job", elsewhere))
        }
        7 => (("a ping", 200), signed("ping", r#"{"zen":"Design for failure."}"#.to_owned())),
        8 => (("another event", 200), signed("push", "{}".to_owned())),
        _ => (("an unknown action", 200), signed("workflow_job", r#"{"action":"exploded"}"#.to_owned())),
    }
}
