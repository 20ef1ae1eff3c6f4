//! Checks of the stack in AWS: environment, credentials, table, queue, secrets and ingest.

use domain::state::{Config, Item, Janitor, Key};
use engine::ports::Store;
use jiff::SignedDuration;
use platform::inspect;

use super::clock::clock;
use super::report::{Group, Level};
use super::subject::Subject;
use crate::output::{age, count};

/// The janitor runs every minute.
const LONGEST_SINCE_SWEEP: SignedDuration = SignedDuration::from_mins(5);

/// Far more messages than a healthy scaler leaves in the queue.
const BACKLOG: u64 = 1000;

pub(super) async fn aws(subject: &Subject<'_>) -> Group {
    let mut group = Group::new("AWS");
    let errors = [
        subject.table.as_ref().err(),
        subject.github.as_ref().err(),
        subject.queue_url.as_ref().err(),
        subject.webhook_url.as_ref().err(),
        subject.webhook_secret.as_ref().err(),
    ];
    let problems: Vec<String> = errors.into_iter().flatten().map(ToString::to_string).collect();
    let remedy = "eval \"$(make --silent environment)\" sets every variable from the stack's outputs";
    group.conclude("environment", Level::Fail, &problems, "names table, queue, secrets and webhook", remedy);
    match subject.inspect.identity().await {
        Ok(identity) => {
            let region = subject.inspect.region().unwrap_or("no region");
            group.pass("credentials", format!("{} in {region}", identity.arn));
            match identity.clock_ahead {
                Some(ahead) => clock(&mut group, "AWS", ahead),
                None => group.skip("clock", "AWS answered without a date"),
            }
        }
        Err(error) => {
            let remedy = "log in again (for example with aws sso login), and set AWS_REGION to the stack's region";
            group.fail("credentials", error.to_string(), remedy);
            group.skip("clock", "AWS does not answer");
        }
    }
    group
}

/// The checks of the table, and the configuration in it.
pub(super) async fn table(subject: &Subject<'_>) -> (Group, Option<Config>) {
    let mut group = Group::new("table");
    let table = match &subject.table {
        Ok(table) => *table,
        Err(error) => {
            group.skip("pools", &error.to_string());
            group.skip("janitor", &error.to_string());
            group.skip("last sweep", &error.to_string());
            return (group, None);
        }
    };
    let remedy = "check that DROVER_TABLE is the stack's table and AWS_REGION its region; the role deploy in \
                  terraform/iam_deploy.tf has the needed permissions";
    let config = match table.get(&Key::Config).await {
        Ok(Some(Item::Config(config))) => {
            let names: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
            group.pass("pools", format!("in force: {}", names.join(", ")));
            Some(config)
        }
        Ok(_) => {
            group.fail("pools", "none are configured: no job is served", "drover pools apply pools.toml");
            None
        }
        Err(error) => {
            group.fail("pools", error.to_string(), remedy);
            None
        }
    };
    match table.get(&Key::Janitor).await {
        Ok(item) => janitor(&mut group, subject, item),
        Err(error) => group.fail("janitor", error.to_string(), remedy),
    }
    (group, config)
}

fn janitor(group: &mut Group, subject: &Subject<'_>, item: Option<Item>) {
    let Some(Item::Janitor(janitor)) = item else {
        let message = "it has never swept: leaked machines and lost webhooks are not repaired";
        let remedy = "if the stack is older than a minute, look at the log group of the function janitor";
        return group.warn("janitor", message, remedy);
    };
    let mut problems = Vec::new();
    let since = subject.now.duration_since(janitor.until);
    problems.extend((since > LONGEST_SINCE_SWEEP).then(|| format!("the last sweep was {} ago", age(since))));
    let unfinished = janitor.unfinished_since.map(|at| subject.now.duration_since(at));
    let unfinished = unfinished.filter(|since| *since > LONGEST_SINCE_SWEEP);
    problems.extend(unfinished.map(|since| format!("no sweep has ended for {}", age(since))));
    let fine = match janitor.undelivered.len() {
        0 => "sweeps every minute".to_owned(),
        events => format!("sweeps every minute; {} to redeliver", count(events, "webhook event")),
    };
    let remedy = "look at the log group of the function janitor, and check that its schedule is enabled";
    group.conclude("janitor", Level::Fail, &problems, fine, remedy);
    sweep(group, &janitor);
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

async fn queue(subject: &Subject<'_>) -> Group {
    let mut group = Group::new("queue");
    let url = match &subject.queue_url {
        Ok(url) => url,
        Err(error) => {
            group.skip("messages", &error.to_string());
            group.skip("dead letters", &error.to_string());
            return group;
        }
    };
    match subject.inspect.queue(url).await {
        Ok(depth) => {
            let message = format!("{} waiting, {} in progress", depth.waiting, depth.in_flight);
            let backlog = (depth.waiting > BACKLOG).then(|| message.clone());
            let remedy =
                "check whether the function scaler fails or is throttled; its reserved concurrency may be too low";
            group.conclude("messages", Level::Warn, backlog.as_slice(), message, remedy);
        }
        Err(error) => group.aws_error("messages", &error),
    }
    match subject.inspect.dead_letters(url).await {
        Ok(Some(depth)) => {
            let letters = depth.waiting + depth.in_flight;
            let problem = (letters > 0).then(|| format!("{letters} that the scaler could not process"));
            let remedy = "drover dead-letters list shows them; drover dead-letters redrive sends them again";
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
    let mut group = Group::new("secrets");
    let id = match &subject.webhook_secret {
        Ok(id) => id,
        Err(error) => {
            group.skip("webhook secret", &error.to_string());
            return group;
        }
    };
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
    let mut group = Group::new("ingest");
    let url = match &subject.webhook_url {
        Ok(url) => url,
        Err(error) => {
            group.skip("answers", &error.to_string());
            return group;
        }
    };
    let remedy = "look at the log group of the function ingest";
    match inspect::unsigned(url).await {
        Ok(401) => group.pass("answers", "rejects unsigned requests"),
        Ok(503) => group.fail("answers", "503: it cannot read its secret or reach its queue", remedy),
        Ok(status) => group.fail("answers", format!("{status} to an unsigned request; expected 401"), remedy),
        Err(error) => group.fail("answers", format!("{url} does not answer: {error}"), remedy),
    }
    group
}
