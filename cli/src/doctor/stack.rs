//! The AWS side of the stack: who asks, the table, the queue, the secrets, ingest.

use domain::state::{Config, Item, Key};
use engine::ports::Store;
use jiff::SignedDuration;
use platform::survey;

use super::{Group, Level, Patient};
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
pub(super) async fn aws(patient: &Patient<'_>) -> Group {
    let mut group = Group::new("AWS");
    let errors = [
        patient.table.as_ref().err(),
        patient.github.as_ref().err(),
        patient.queue.as_ref().err(),
        patient.webhook_url.as_ref().err(),
        patient.webhook_secret.as_ref().err(),
    ];
    let wrong: Vec<String> = errors.into_iter().flatten().map(ToString::to_string).collect();
    let fine = "names table, queue, secrets and webhook";
    let to_do = "eval \"$(make --silent environment)\" names everything; it asks CloudFormation";
    group.judge("environment", Level::Fail, &wrong, fine, to_do);
    match patient.survey.identity().await {
        Ok(identity) => {
            let region = patient.survey.region().unwrap_or("no region");
            group.pass("credentials", format!("{} in {region}", identity.arn));
            match identity.clock_ahead {
                Some(ahead) => clock(&mut group, "AWS", ahead),
                None => group.skip("clock", "AWS answered without a date"),
            }
        }
        Err(error) => {
            let to_do = "log in again (aws sso login, say), and set AWS_REGION to the stack's region";
            group.fail("credentials", error.to_string(), to_do);
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
    let to_do =
        "set the clock here (timedatectl); if it is right, the other one is wrong, and the functions know no better";
    let level = match off {
        off if off > CLOCK_FAIL => Level::Fail,
        off if off > CLOCK_WARN => Level::Warn,
        _ => Level::Pass,
    };
    group.add("clock", level, says, (level != Level::Pass).then(|| to_do.to_owned()));
}

/// The table, and the pools in it.
pub(super) async fn table(patient: &Patient<'_>) -> (Group, Option<Config>) {
    let mut group = Group::new("table");
    let table = match &patient.table {
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
            let since = patient.now.duration_since(janitor.until);
            let late = since > SWEPT_WITHIN;
            let wrong = late.then(|| format!("the last sweep was over {} ago", age(since)));
            let fine = match janitor.undelivered.len() {
                0 => "it sweeps".to_owned(),
                events => format!("it sweeps, and has {events} events delivered again"),
            };
            let to_do = "look at the log group of the function janitor, and whether its schedule is enabled";
            group.judge("janitor", Level::Fail, wrong.as_slice(), fine, to_do);
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
pub(super) async fn stack(patient: &Patient<'_>) -> Vec<Group> {
    let (queue, secrets, ingest) = tokio::join!(queue(patient), secrets(patient), ingest(patient));
    vec![ingest, queue, secrets]
}

async fn queue(patient: &Patient<'_>) -> Group {
    let mut group = Group::new("queue");
    let url = match &patient.queue {
        Ok(url) => url,
        Err(error) => {
            group.skip("messages", &error.to_string());
            group.skip("dead letters", &error.to_string());
            return group;
        }
    };
    match patient.survey.queue(url).await {
        Ok(depth) => {
            let says = format!("{} wait, {} are being worked on", depth.waiting, depth.in_flight);
            let wrong = (depth.waiting > BACKLOG).then(|| says.clone());
            let to_do =
                "look whether the function scaler fails or is throttled; its reserved concurrency may be too small";
            group.judge("messages", Level::Warn, wrong.as_slice(), says, to_do);
        }
        Err(error) => group.unanswered("messages", &error),
    }
    match patient.survey.dead_letters(url).await {
        Ok(Some(depth)) => {
            let letters = depth.waiting + depth.in_flight;
            let wrong = (letters > 0).then(|| format!("{letters} messages that the scaler could not use"));
            let to_do = "drover dead-letters list says what they are; then drover dead-letters redrive";
            group.judge("dead letters", Level::Fail, wrong.as_slice(), "none", to_do);
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

async fn secrets(patient: &Patient<'_>) -> Group {
    let mut group = Group::new("secrets");
    let id = match &patient.webhook_secret {
        Ok(id) => id,
        Err(error) => {
            group.skip("webhook secret", &error.to_string());
            return group;
        }
    };
    // Its value is ingest's alone: nobody here reads it.
    match patient.survey.is_filled(id).await {
        Ok(filled) => {
            let wrong = (!filled).then(|| format!("{id} has no value: ingest can accept nothing"));
            let to_do = "drover doctor --fix makes one and tells it GitHub";
            group.judge("webhook secret", Level::Fail, wrong.as_slice(), "has a value", to_do);
        }
        Err(error) => group.unanswered("webhook secret", &error),
    }
    group
}

async fn ingest(patient: &Patient<'_>) -> Group {
    let mut group = Group::new("ingest");
    let url = match &patient.webhook_url {
        Ok(url) => url,
        Err(error) => {
            group.skip("answers", &error.to_string());
            return group;
        }
    };
    let to_do = "look at the log group of the function ingest";
    match survey::unsigned(url).await {
        Ok(401) => group.pass("answers", "refuses what is not signed"),
        Ok(503) => group.fail("answers", "503: it cannot read its secret, or not reach its queue", to_do),
        Ok(status) => {
            group.fail("answers", format!("{status} to a request that is not signed; it should be 401"), to_do)
        }
        Err(error) => group.fail("answers", format!("{url} does not answer: {error}"), to_do),
    }
    group
}
