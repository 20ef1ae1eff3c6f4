//! The AWS side of the stack: who asks, the table, the queue, the secrets, ingest.

use domain::state::{Config, Item, Key};
use engine::ports::Store;
use jiff::SignedDuration;
use platform::inspect;

use super::{Group, Level, Subject};
use crate::output::age;

/// A clock that is further off is noticed by nobody yet, and on its way there.
const CLOCK_WARN: SignedDuration = SignedDuration::from_secs(30);

/// GitHub refuses a JWT of a clock that is more than so far ahead of its own: as far as ours are dated back.
const CLOCK_FAIL: SignedDuration = SignedDuration::from_secs(120);

/// The janitor is woken each minute.
const SWEPT_WITHIN: SignedDuration = SignedDuration::from_mins(5);

/// More than the scaler takes in one batch of a healthy deployment, by far.
const BACKLOG: u64 = 1000;

/// Who we are, and what time it is.
pub(super) async fn aws(subject: &Subject<'_>) -> Group {
    let mut group = Group::new("AWS");
    let errors = [
        subject.table.as_ref().err(),
        subject.github.as_ref().err(),
        subject.queue.as_ref().err(),
        subject.webhook_url.as_ref().err(),
        subject.webhook_secret.as_ref().err(),
    ];
    let wrong: Vec<String> = errors.into_iter().flatten().map(ToString::to_string).collect();
    let fine = "names table, queue, secrets and webhook";
    let remedy = "eval \"$(make --silent environment)\" names everything; it asks CloudFormation";
    group.judge("environment", Level::Fail, &wrong, fine, remedy);
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
            let remedy = "log in again (aws sso login, say), and set AWS_REGION to the stack's region";
            group.fail("credentials", error.to_string(), remedy);
            group.skip("clock", "AWS does not answer");
        }
    }
    group
}

/// How far a clock is ahead of ours.
pub(super) fn clock(group: &mut Group, whose: &str, ahead: SignedDuration) {
    let off = ahead.abs();
    let direction = if ahead.is_negative() { "behind" } else { "ahead of" };
    let says = format!("{whose}'s is {} {direction} the clock here", age(off));
    let remedy =
        "set the clock here (timedatectl); if it is right, the other one is wrong, and the functions know no better";
    let level = match off {
        off if off > CLOCK_FAIL => Level::Fail,
        off if off > CLOCK_WARN => Level::Warn,
        _ => Level::Pass,
    };
    group.add("clock", level, says, (level != Level::Pass).then(|| remedy.to_owned()));
}

/// The table, and the pools in it.
pub(super) async fn table(subject: &Subject<'_>) -> (Group, Option<Config>) {
    let mut group = Group::new("table");
    let table = match &subject.table {
        Ok(table) => *table,
        Err(error) => {
            group.skip("pools", &error.to_string());
            group.skip("janitor", &error.to_string());
            return (group, None);
        }
    };
    let away = "is DROVER_TABLE the stack's table, and AWS_REGION its region? The role needs what terraform/iam_people.tf \
                gives the role deploy";
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
            group.fail("pools", error.to_string(), away);
            None
        }
    };
    match table.get(&Key::Janitor).await {
        Ok(Some(Item::Janitor(janitor))) => {
            let since = subject.now.duration_since(janitor.until);
            let late = since > SWEPT_WITHIN;
            let wrong = late.then(|| format!("the last sweep was over {} ago", age(since)));
            let fine = match janitor.undelivered.len() {
                0 => "it sweeps".to_owned(),
                events => format!("it sweeps, and has {events} events delivered again"),
            };
            let remedy = "look at the log group of the function janitor, and whether its schedule is enabled";
            group.judge("janitor", Level::Fail, wrong.as_slice(), fine, remedy);
        }
        Ok(_) => group.warn(
            "janitor",
            "it never swept: leaks and lost webhooks would stay",
            "if the stack is older than a minute, look at the log group of the function janitor",
        ),
        Err(error) => group.fail("janitor", error.to_string(), away),
    }
    (group, config)
}

/// Queue, secrets, and ingest.
pub(super) async fn stack(subject: &Subject<'_>) -> Vec<Group> {
    let (queue, secrets, ingest) = tokio::join!(queue(subject), secrets(subject), ingest(subject));
    vec![ingest, queue, secrets]
}

async fn queue(subject: &Subject<'_>) -> Group {
    let mut group = Group::new("queue");
    let url = match &subject.queue {
        Ok(url) => url,
        Err(error) => {
            group.skip("messages", &error.to_string());
            group.skip("dead letters", &error.to_string());
            return group;
        }
    };
    match subject.inspect.queue(url).await {
        Ok(depth) => {
            let says = format!("{} wait, {} are being worked on", depth.waiting, depth.in_flight);
            let wrong = (depth.waiting > BACKLOG).then(|| says.clone());
            let remedy =
                "look whether the function scaler fails or is throttled; its reserved concurrency may be too small";
            group.judge("messages", Level::Warn, wrong.as_slice(), says, remedy);
        }
        Err(error) => group.unanswered("messages", &error),
    }
    match subject.inspect.dead_letters(url).await {
        Ok(Some(depth)) => {
            let letters = depth.waiting + depth.in_flight;
            let wrong = (letters > 0).then(|| format!("{letters} messages that the scaler could not use"));
            let remedy = "drover dead-letters list says what they are; then drover dead-letters redrive";
            group.judge("dead letters", Level::Fail, wrong.as_slice(), "none", remedy);
        }
        Ok(None) => group.fail(
            "dead letters",
            "the queue has no redrive policy: a message that cannot be used comes again for four days",
            "make deploy gives it one",
        ),
        Err(error) => group.unanswered("dead letters", &error),
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
    // Its value is ingest's alone: nobody here reads it.
    match subject.inspect.is_filled(id).await {
        Ok(filled) => {
            let wrong = (!filled).then(|| format!("{id} has no value: ingest can accept nothing"));
            let remedy = "drover doctor --fix makes one and tells it GitHub";
            group.judge("webhook secret", Level::Fail, wrong.as_slice(), "has a value", remedy);
        }
        Err(error) => group.unanswered("webhook secret", &error),
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
        Ok(401) => group.pass("answers", "refuses what is not signed"),
        Ok(503) => group.fail("answers", "503: it cannot read its secret, or not reach its queue", remedy),
        Ok(status) => {
            group.fail("answers", format!("{status} to a request that is not signed; it should be 401"), remedy)
        }
        Err(error) => group.fail("answers", format!("{url} does not answer: {error}"), remedy),
    }
    group
}
