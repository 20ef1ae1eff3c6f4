//! `make load`: signed deliveries from a process of their own, at a rate that does not wait for answers, to ingest as Lambda
//! runs it; then every message is looked for on the queue.
//!
//! At a given rate it passes or fails. Without one it finds the highest that is kept up with, which passes or fails nothing.

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
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox};
use sandbox::short_timings::machine;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until};

/// Posts deliveries to ingest and looks for each on the queue; finds the highest rate that is kept up with.
#[derive(Debug, Parser)]
#[command(name = "make load ARGS=\"...\"")]
struct Arguments {
    /// Deliveries a second; finds the most if absent.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: Option<u32>,
    /// How long at each rate.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Bad requests of all kinds among them.
    #[arg(long, default_value_t = 0)]
    bad: u32,
    /// The process that posts: reads its orders from standard input.
    #[arg(long, hide = true)]
    post: bool,
}

/// GitHub waits so long for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Slower than that, a rate is not kept up with: what waits only grows.
const SLOW: Duration = Duration::from_secs(1);

/// The first rate tried for the most, and the last.
const RATES: (u32, u32) = (100, 10_000);

/// What is to be posted.
#[derive(Debug, Serialize, Deserialize)]
struct Orders {
    url: String,
    secret: String,
    good: u32,
    bad: u32,
    seconds: u32,
}

/// What was answered.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Answers {
    /// Good deliveries that were not answered with 202, each with what it was answered.
    refused: BTreeMap<u32, String>,
    /// Bad requests that were answered otherwise than they should have been.
    mistaken: Vec<String>,
    /// From when a good delivery was due until it was answered, in milliseconds, sorted.
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
    let done = match (arguments.post, arguments.rate) {
        (true, _) => post_all().await,
        (false, Some(rate)) => hold(&arguments, rate).await,
        (false, None) => find(&arguments).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {}", printable(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn hold(arguments: &Arguments, rate: u32) -> anyhow::Result<()> {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await?;
    let answers = load(&sandbox, rate, arguments.seconds, arguments.bad).await?;
    println!(
        "{rate}/s for {} s and {} bad requests: each delivery on the queue, once, and nothing else; p50 {:.0} ms, p99 {:.0} ms",
        arguments.seconds,
        arguments.bad,
        answers.percentile(50),
        answers.percentile(99),
    );
    Ok(())
}

/// Raises the rate by a quarter until it is not kept up with.
async fn find(arguments: &Arguments) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let (mut rate, mut most) = (RATES.0, None);
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
        if answers.percentile(99) > SLOW.as_secs_f64() * 1000.0 {
            break;
        }
        most = Some(rate);
        rate += rate / 4;
    }
    println!("\n{} s at each rate, {}\n", arguments.seconds, machine());
    print!("{}", table(&["DELIVERIES", "P50", "P99"], rows));
    println!("\nthe most that is kept up with: {}/s", most.context("not even the lowest rate")?);
    Ok(())
}

/// Has deliveries posted, and looks for each of them.
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
            // A long queue would measure the queue.
            _ = ticks.tick() => take(sandbox, &mut arrived)?,
        }
    };
    take(sandbox, &mut arrived)?;
    ensure!(output.status.success(), "the process that posts failed");
    let answers: Answers = serde_json::from_slice(&output.stdout).context("its report")?;
    judge(&arrived, &answers, good)?;
    Ok(answers)
}

/// Takes what is on the queue, and counts it by delivery.
fn take(sandbox: &Sandbox, arrived: &mut BTreeMap<String, u32>) -> anyhow::Result<()> {
    sandbox.world.act(|state, _| {
        for body in state.sqs.bodies(QUEUE) {
            let Message::WorkflowJob(notice) = Message::parse(body)? else { anyhow::bail!("no notice: {body}") };
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
    let (mistaken, example) = (answers.mistaken.len(), answers.mistaken.first());
    ensure!(mistaken == 0, "{mistaken} bad requests were answered otherwise than they should be: {example:?}");
    let example = answers.refused.values().next();
    ensure!(answers.refused.is_empty(), "{} of {good} were not accepted: {example:?}", answers.refused.len());
    ensure!(lost == 0, "{lost} of {good} were accepted and are not on the queue");
    ensure!(twice == 0, "{twice} of {good} are on the queue more than once");
    Ok(())
}

fn good_guid(number: u32) -> String {
    format!("good-{number}")
}

/// Posts when each is due, whether or not those before were answered: GitHub does not wait either.
async fn post_all() -> anyhow::Result<()> {
    let mut text = Vec::new();
    tokio::io::stdin().read_to_end(&mut text).await?;
    let orders: Orders = serde_json::from_slice(&text)?;
    let signed = TEMPLATES.map(|(_, body)| (body, signature(&orders.secret, body.as_bytes())));
    let http = Client::builder().timeout(PATIENCE).build()?;
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
            let (kind, request) = webhook_faults(&http, &orders, bad - 1);
            Post { bad: Some(kind), number: bad - 1, request }
        };
        posted.spawn(post.send(due));
        while let Some(answer) = posted.try_join_next() {
            hear(&mut answers, answer?);
        }
    }
    while let Some(answer) = posted.join_next().await {
        hear(&mut answers, answer?);
    }
    answers.took.sort_by(f64::total_cmp);
    println!("{}", serde_json::to_string(&answers)?);
    Ok(())
}

/// What a bad request is, and how it must be answered.
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

fn hear(answers: &mut Answers, answer: Answered) {
    match answer.bad {
        None => {
            answers.took.push(answer.took.as_secs_f64() * 1000.0);
            if answer.status != Ok(202) {
                answers.refused.insert(answer.number, format!("{:?}", answer.status));
            }
        }
        Some((what, expected)) if answer.status != Ok(expected) => {
            answers.mistaken.push(format!("{what}: {:?} instead of {expected}", answer.status));
        }
        Some(_) => {}
    }
}

fn delivery(http: &Client, url: &str, guid: &str, event: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    let request = http.post(url).header("content-type", "application/json").body(body);
    request.header("x-github-event", event).header("x-github-delivery", guid)
}

/// One of the many ways to be wrong, in turn.
fn webhook_faults(http: &Client, orders: &Orders, number: u32) -> (Kind, RequestBuilder) {
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
        // Rare, or it would measure a megabyte's way through the sandbox.
        return (("more than 1 MiB", 413), signed("workflow_job", " ".repeat((1 << 20) + 1)));
    }
    match number % 10 {
        0 => (("no signature", 401), plain()),
        1 => (("another secret's", 401), plain().header("x-hub-signature-256", signature("x", body.as_bytes()))),
        2 => (("of another body", 401), made("workflow_job", "{}".to_owned()).header("x-hub-signature-256", right)),
        3 => {
            let twice = plain().header("x-hub-signature-256", &right).header("x-hub-signature-256", &right);
            (("two signatures", 401), twice)
        }
        4 => (("the old kind of signature", 401), plain().header("x-hub-signature", right)),
        5 => (("truncated", 400), signed("workflow_job", body.chars().take(1000).collect())),
        6 => {
            let (_, body) = TEMPLATES[0];
            let elsewhere = body.replace("\"Codertocat/Hello-World\"", "\"Codertocat/../..\"");
            (("a repository that is a path", 400), signed("workflow_job", elsewhere))
        }
        7 => (("a ping", 200), signed("ping", r#"{"zen":"Design for failure."}"#.to_owned())),
        8 => (("another event", 200), signed("push", "{}".to_owned())),
        _ => (("an unknown action", 200), signed("workflow_job", r#"{"action":"exploded"}"#.to_owned())),
    }
}
