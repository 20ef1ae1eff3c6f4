//! Checks of the stack in AWS: environment, credentials, table, queue, secrets and ingest.

use domain::state::{Config, FoundJobs, Item, Janitor, Key};
use engine::ports::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use platform::aws::ErrorKind;
use platform::environment::EnvironmentError;
use platform::inspect;

use super::clock::clock;
use super::prices::prices;
use super::report::{Group, Level};
use super::subject::Subject;
use crate::output::{Failure, SET_ENVIRONMENT, age, count, remedy};
use crate::read::Lateness;

/// Far more messages than a healthy scaler leaves in the queue.
const BACKLOG: u64 = 1000;

/// The groups of AWS and of the table.
pub(super) type Basis = [Group; 2];

/// Reads what every other check needs: also returns the configuration in force. An error contains the only cause that
/// matters, because with it no call to the stack succeeds.
pub(super) async fn basis(subject: &Subject<'_>) -> Result<(Basis, Option<Config>), Basis> {
    let mut group = Group::new("AWS", &["environment", "credentials", "clock"]);
    let Some(region) = subject.inspect.region() else {
        match subject.outputs {
            Some(_) => outputs(&mut group, subject),
            None => group.fail("environment", "no AWS region is set", NO_REGION),
        }
        return Err([group, no_table()]);
    };
    if subject.outputs.is_none() {
        environment(&mut group, subject);
    }
    let (identity, read) = tokio::join!(subject.inspect.identity(), read(subject));
    let table_error = match &read {
        Read::Failed(error) => Some(ErrorKind::of(error)),
        Read::NotNamed | Read::Items(_) => None,
    };
    match identity {
        Ok(identity) => {
            outputs(&mut group, subject);
            group.pass("credentials", format!("{} in {region}", identity.arn));
            match identity.clock_ahead {
                Some(ahead) => clock(&mut group, "AWS", ahead),
                None => group.skip("clock", "AWS answered without a date"),
            }
        }
        // The table answers, so this machine only cannot reach STS.
        Err(error) if matches!(read, Read::Items(_)) => {
            outputs(&mut group, subject);
            group.warn("credentials", error.to_string(), remedy(error.kind));
        }
        Err(error) => {
            // Then the settings are wrong, which may be why.
            if !matches!(subject.outputs, Some(Failure::Aws { .. })) {
                outputs(&mut group, subject);
            }
            let what = match error.kind {
                ErrorKind::Credentials => "AWS does not accept the credentials",
                ErrorKind::Unavailable => "AWS does not answer",
                ErrorKind::NotAllowed | ErrorKind::NotFound | ErrorKind::Unreadable => "AWS refuses the first call",
            };
            group.fail("credentials", format!("{what}: {error}"), remedy(error.kind));
            return Err([group, no_table()]);
        }
    }
    if table_error == Some(ErrorKind::NotFound) && !has_queue(subject).await {
        let mut table = no_table();
        let name = subject.table.as_ref().map_or("", |table| table.name());
        let message = format!("{region} has neither the table {name} nor the stack's queue");
        table.fail("pools", message, remedy(ErrorKind::NotFound));
        return Err([group, table]);
    }
    let (table, config) = table(subject, read);
    Ok(([group, table], config))
}

const NO_REGION: &str = "export AWS_REGION=REGION, with the stack's region";

/// Why the stack's outputs are not known. With AWS not answering, that is not a cause of its own.
fn outputs(group: &mut Group, subject: &Subject<'_>) {
    if let Some(why) = subject.outputs.map(ToString::to_string) {
        let (message, remedy) = why.split_once(" -> ").unwrap_or((&why, SET_ENVIRONMENT));
        group.fail("environment", message, remedy);
    }
}

fn environment(group: &mut Group, subject: &Subject<'_>) {
    let errors = [
        subject.table.as_ref().err(),
        subject.github.as_ref().err(),
        subject.queue_url.as_ref().err(),
        subject.webhook_url.as_ref().err(),
        subject.webhook_secret.as_ref().err(),
    ];
    let (mut missing, mut problems) = (Vec::new(), Vec::new());
    for error in errors.into_iter().flatten() {
        match error {
            EnvironmentError::Missing(name) => missing.push(*name),
            EnvironmentError::Invalid { .. } => problems.push(error.to_string()),
        }
    }
    if !missing.is_empty() {
        problems.insert(0, format!("not set: {}", missing.join(", ")));
    }
    group.conclude("environment", Level::Fail, &problems, "names table, queue, secrets and webhook", SET_ENVIRONMENT);
}

/// The first reading of the table.
enum Read {
    /// The environment does not name it.
    NotNamed,
    Failed(StoreError),
    Items(Box<Items>),
}

struct Items {
    config: Option<Config>,
    janitor: Option<Janitor>,
}

async fn read(subject: &Subject<'_>) -> Read {
    let Ok(table) = &subject.table else { return Read::NotNamed };
    match table.get_many(&[Key::Config, Key::Janitor, Key::Catalogue, Key::SpotPrices]).await {
        Ok(items) => Read::Items(Box::new(Items::of(items))),
        Err(error) => Read::Failed(error),
    }
}

impl Items {
    fn of(items: Vec<Item>) -> Self {
        let (mut config, mut janitor, mut catalogue, mut spot) = (None, None, None, None);
        for item in items {
            match item {
                Item::Config(found) => config = Some(found),
                Item::Janitor(found) => janitor = Some(found),
                Item::Catalogue(found) => catalogue = Some(found),
                Item::SpotPrices(found) => spot = Some(found),
                _ => {}
            }
        }
        let config: Option<Config> = config;
        Self { config: config.map(|config| config.with_machines(catalogue, spot)), janitor }
    }
}

/// Whether the stack's queue exists, as far as is known.
async fn has_queue(subject: &Subject<'_>) -> bool {
    let Ok(url) = &subject.queue_url else { return false };
    !subject.inspect.queue(url).await.is_err_and(|error| error.kind == ErrorKind::NotFound)
}

const TABLE: &[&str] = &["pools", "janitor", "last sweep", "late webhooks"];

fn no_table() -> Group {
    Group::new("table", TABLE)
}

/// The checks of the table, and the configuration in it.
fn table(subject: &Subject<'_>, read: Read) -> (Group, Option<Config>) {
    let mut group = no_table();
    let (config, janitor) = match read {
        Read::NotNamed => return (group, None),
        Read::Failed(error) => {
            group.fail("pools", error.to_string(), remedy(ErrorKind::of(&error)));
            return (group, None);
        }
        Read::Items(items) => (items.config, items.janitor),
    };
    match &config {
        Some(config) => {
            let names: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
            group.pass("pools", format!("in force: {}", names.join(", ")));
        }
        None => group.fail("pools", "none are configured: no job is served", "drover pools apply pools.toml"),
    }
    check_janitor(&mut group, subject, janitor);
    if let Some(config) = &config {
        prices(&mut group, config, subject.now);
    }
    (group, config)
}

fn check_janitor(group: &mut Group, subject: &Subject<'_>, janitor: Option<Janitor>) {
    let Some(janitor) = janitor else {
        let message = "it has never swept: leaked machines and lost webhooks are not repaired";
        let remedy = "if the stack is older than a minute, look at the log group of the function janitor";
        return group.warn("janitor", message, remedy);
    };
    let mut problems = Vec::new();
    let Lateness { last, unfinished } = Lateness::of(&janitor, subject.now);
    problems.extend(last.map(|since| format!("the last sweep was {} ago", age(since))));
    problems.extend(unfinished.map(|since| format!("no sweep has ended for {}", age(since))));
    let fine = match janitor.undelivered.len() {
        0 => "sweeps every minute".to_owned(),
        events => format!("sweeps every minute; {} to redeliver", count(events, "webhook event")),
    };
    let remedy = "look at the log group of the function janitor, and check that its schedule is enabled";
    group.conclude("janitor", Level::Fail, &problems, fine, remedy);
    sweep(group, &janitor);
    found(group, &janitor, subject.now);
}

/// Jobs that only a search found. The scaler may fail although every delivery arrives.
fn found(group: &mut Group, janitor: &Janitor, now: Timestamp) {
    let recent = janitor.found.filter(|found| now.duration_since(found.at) < SignedDuration::from_hours(1));
    let problem = recent.map(|FoundJobs { at, jobs, example }| {
        let (ago, jobs) = (age(now.duration_since(at)), count(jobs, "job"));
        format!("{ago} ago, a search found {jobs} without a recorded webhook, for example {example}")
    });
    let remedy =
        "if deliveries arrive, the scaler fails or is late: look at its log group; otherwise fix the deliveries";
    group.conclude(
        "late webhooks",
        Level::Warn,
        problem.as_slice(),
        "no search had to find a job in the last hour",
        remedy,
    );
}

/// What the last sweep could not do.
fn sweep(group: &mut Group, janitor: &Janitor) {
    let mut problems = janitor.failures.clone();
    let more = janitor.failed.saturating_sub(problems.len());
    problems.extend((more > 0).then(|| format!("and {} more", count(more, "failure"))));
    let remedy = "the next sweep tries again; if this stays, fix what the message says: docs/troubleshooting.md";
    group.conclude("last sweep", Level::Fail, &problems, "read and repaired everything", remedy);
}

/// The checks of ingest, queue and secrets.
pub(super) async fn stack(subject: &Subject<'_>) -> Vec<Group> {
    let (queue, secrets, ingest) = tokio::join!(queue(subject), secrets(subject), ingest(subject));
    vec![ingest, queue, secrets]
}

const INGEST: &[&str] = &["answers"];
const QUEUE: &[&str] = &["messages", "dead letters"];
const SECRETS: &[&str] = &["webhook secret"];

pub(super) fn none() -> [Group; 3] {
    [Group::new("ingest", INGEST), Group::new("queue", QUEUE), Group::new("secrets", SECRETS)]
}

async fn queue(subject: &Subject<'_>) -> Group {
    let mut group = Group::new("queue", QUEUE);
    let Ok(url) = &subject.queue_url else { return group };
    match subject.inspect.queue(url).await {
        Ok(depth) => {
            let message = format!("{} waiting, {} in progress", depth.waiting, depth.in_flight);
            let backlog = (depth.waiting > BACKLOG).then(|| message.clone());
            let remedy =
                "check whether the function scaler fails or is throttled; its reserved concurrency may be too low";
            group.conclude("messages", Level::Warn, backlog.as_slice(), message, remedy);
        }
        Err(error) => {
            group.aws_error("messages", &error);
            return group;
        }
    }
    match subject.inspect.dead_letters(url).await {
        Ok(Some(depth)) => {
            let letters = depth.waiting + depth.in_flight;
            let problem = (letters > 0).then(|| format!("{letters} that the scaler could not process"));
            let remedy = "drover dead-letters list shows them; drover dead-letters redrive --all sends them again";
            group.conclude("dead letters", Level::Fail, problem.as_slice(), "none", remedy);
        }
        Ok(None) => group.fail(
            "dead letters",
            "the queue has no redrive policy: a message that cannot be processed is retried for four days",
            "make deploy sets one",
        ),
        Err(error) => group.aws_error("dead letters", &error),
    }
    group
}

async fn secrets(subject: &Subject<'_>) -> Group {
    let mut group = Group::new("secrets", SECRETS);
    let Ok(id) = &subject.webhook_secret else { return group };
    // Only ingest may read the value, so this looks at the secret's versions.
    match subject.inspect.is_filled(id).await {
        Ok(filled) => {
            let problem = (!filled).then(|| format!("{id} has no value: ingest rejects every delivery"));
            let remedy = "drover doctor --fix generates one and sends it to GitHub";
            group.conclude("webhook secret", Level::Fail, problem.as_slice(), "has a value", remedy);
        }
        Err(error) => group.aws_error("webhook secret", &error),
    }
    group
}

async fn ingest(subject: &Subject<'_>) -> Group {
    let mut group = Group::new("ingest", INGEST);
    let Ok(url) = &subject.webhook_url else { return group };
    let remedy = "look at the log group of the function ingest";
    match inspect::unsigned(url).await {
        Ok(401) => group.pass("answers", "rejects unsigned requests"),
        Ok(503) => group.fail("answers", "503: it cannot read its secret or reach its queue", remedy),
        Ok(status) => group.fail("answers", format!("{status} to an unsigned request; expected 401"), remedy),
        Err(error) => group.fail("answers", format!("{url} does not answer: {error}"), remedy),
    }
    group
}
