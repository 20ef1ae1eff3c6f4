//! `drover replay`: the log folded, and compared with what the table says.

use std::collections::BTreeMap;

use domain::log::{Stream, fold, lifecycle};
use domain::state::{Item, KEEP_CLOSED, KEEP_DONE, Key};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use platform::table::Table;
use serde::Serialize;
use serde_json::{Value, json};

use crate::output::{Failure, Output, table};
use crate::read::pools;

/// Readings that must agree on a difference: log and items are read one after the other, and the system goes on meanwhile.
const READINGS: usize = 3;

/// An entity of which log and table say different things.
#[derive(Debug, Clone, Serialize)]
struct Difference {
    key: String,
    table: Option<Value>,
    log: Option<Value>,
}

/// Shows what the log says everything looks like.
///
/// # Errors
/// When the table cannot be read.
pub async fn replay(store: &Table) -> Result<Output, Failure> {
    let (folded, events) = folded(store).await?;
    let rows = folded.iter().map(|(key, is)| vec![key.clone(), is.to_string()]);
    let text = format!("{}\n{} things of {events} events\n", table(&["KEY", "IS"], rows), folded.len());
    Ok(Output { yes: true, text, json: json!(folded) })
}

/// Compares. Whatever the log no longer tells of, because it is older than the log, is compared with nothing.
///
/// # Errors
/// When the table cannot be read.
pub async fn verify(store: &Table, now: Timestamp) -> Result<Output, Failure> {
    let (mut differences, mut compared, mut events) = compare(store, now).await?;
    for _ in 1..READINGS {
        if differences.is_empty() {
            break;
        }
        let again;
        (again, compared, events) = compare(store, now).await?;
        differences.retain(|key, _| again.contains_key(key));
    }
    let differences: Vec<Difference> = differences.into_values().collect();
    let mut text = String::new();
    let say = |is: &Option<Value>| is.as_ref().map_or("nothing".to_owned(), Value::to_string);
    for Difference { key, table, log } in &differences {
        text += &format!("{key}\n  the table says {}\n  the log says   {}\n", say(table), say(log));
    }
    text += &match differences.len() {
        0 => format!("{compared} things are as the log's {events} events say\n"),
        differences => format!("{differences} of {compared} things are not as the log's {events} events say\n"),
    };
    let json = json!({ "events": events, "compared": compared, "differences": differences });
    Ok(Output { yes: differences.is_empty(), text, json })
}

/// What the log says there is, and how many events it has.
async fn folded(store: &Table) -> Result<(BTreeMap<String, Value>, usize), Failure> {
    let mut events = Vec::new();
    let streams = pools(store, None).await?.into_iter().map(|pool| Stream::Pool(pool.name));
    for stream in streams.chain([Stream::Stack]) {
        events.extend(store.events(&stream, usize::MAX).await?);
    }
    Ok((fold(&events), events.len()))
}

async fn compare(store: &Table, now: Timestamp) -> Result<(BTreeMap<String, Difference>, usize, usize), Failure> {
    let (mut folded, events) = folded(store).await?;
    let keys: Vec<Key> = folded
        .keys()
        .filter_map(|key| key.split_once(' '))
        .filter_map(|(pk, sk)| Key::parse(pk, sk).ok())
        .filter(|key| !matches!(key, Key::Slot(..)))
        .collect();
    let mut items = store.get_many(&keys).await?;
    for pool in pools(store, None).await? {
        items.extend(store.partition(&pool.name).await?);
    }
    let mut compared = 0;
    let mut differences = BTreeMap::new();
    let mut differ = |key: String, table, log| drop(differences.insert(key.clone(), Difference { key, table, log }));
    for item in items {
        let Some(is) = lifecycle(&item) else { continue };
        compared += 1;
        let key = item.key().to_string();
        let log = folded.remove(&key);
        if log.as_ref() != Some(&is) && !is_expired(&item, now) {
            differ(key, Some(is), log);
        }
    }
    for (key, log) in folded.into_iter().filter(|(_, log)| !may_be_dropped(log, now)) {
        differ(key, None, Some(log));
    }
    Ok((differences, compared, events))
}

/// DynamoDB drops it any day, as it may have dropped its events.
fn is_expired(item: &Item, now: Timestamp) -> bool {
    let at = match item {
        Item::Job(job) => job.expires_at,
        Item::Instance(instance) => instance.expires_at,
        Item::Meta(_)
        | Item::Waiting(_)
        | Item::Batch(_)
        | Item::Slot(_)
        | Item::Nudge(_)
        | Item::CheckRun(_)
        | Item::Rerun(_)
        | Item::Config(_)
        | Item::Limit(_)
        | Item::Janitor(_) => None,
    };
    at.is_some_and(|at| at <= now.as_second())
}

/// Whether what the log tells of has been over for as long as its item is kept.
fn may_be_dropped(log: &Value, now: Timestamp) -> bool {
    let over = |field: &str, kept: SignedDuration| {
        let at: Option<Timestamp> = log[field].as_str().and_then(|at| at.parse().ok());
        at.is_some_and(|at| at + kept <= now)
    };
    over("completed_at", KEEP_DONE) || over("closed_at", KEEP_CLOSED)
}
