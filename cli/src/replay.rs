//! `drover replay`: the state of every record as the event log gives it, and a comparison with the table.

use std::collections::BTreeMap;

use domain::log::{Stream, fold, lifecycle};
use domain::state::{Item, KEEP_CLOSED, KEEP_DONE, Key};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use platform::table::Table;
use serde::Serialize;
use serde_json::{Value, json};

use crate::output::{Failure, Output, count, table};
use crate::read::pools;

/// A difference counts if this many comparisons in a row show it: the log is read before the items, and both may change in
/// between.
const COMPARISONS: usize = 3;

/// A record that differs between log and table.
#[derive(Debug, Clone, Serialize)]
struct Difference {
    key: String,
    table: Option<Value>,
    log: Option<Value>,
}

/// Lists every record as the log gives it.
///
/// # Errors
/// The table cannot be read.
pub async fn replay(store: &Table) -> Result<Output, Failure> {
    let (folded, events) = folded(store).await?;
    let rows = folded.iter().map(|(key, state)| vec![key.clone(), state.to_string()]);
    let total = format!("{} from {}", count(folded.len(), "record"), count(events, "event"));
    let text = format!("{}\n{total}\n", table(&["KEY", "STATE"], rows));
    Ok(Output { ok: true, text, json: json!(folded) })
}

/// Compares the log with the table. A record that may have expired is not compared.
///
/// # Errors
/// The table cannot be read.
pub async fn verify(store: &Table, now: Timestamp) -> Result<Output, Failure> {
    let (mut differences, mut compared, mut events) = compare(store, now).await?;
    for _ in 1..COMPARISONS {
        if differences.is_empty() {
            break;
        }
        let again;
        (again, compared, events) = compare(store, now).await?;
        differences.retain(|key, _| again.contains_key(key));
    }
    let differences: Vec<Difference> = differences.into_values().collect();
    let mut text = String::new();
    let shown = |state: &Option<Value>| state.as_ref().map_or("nothing".to_owned(), Value::to_string);
    for Difference { key, table, log } in &differences {
        text += &format!("{key}\n  table: {}\n  log:   {}\n", shown(table), shown(log));
    }
    let (records, in_log) = (count(compared, "record"), count(events, "event"));
    text += &match differences.len() {
        0 => format!("{records} match the {in_log} of the log\n"),
        different => format!("{different} of {records} do not match the {in_log} of the log\n"),
    };
    let json = json!({ "events": events, "compared": compared, "differences": differences });
    Ok(Output { ok: differences.is_empty(), text, json })
}

/// Every record as the log gives it, and the number of events.
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
        items.extend(store.partition(&pool.name).await?.items);
    }
    let mut compared = 0;
    let mut differences = BTreeMap::new();
    let mut differ = |key: String, table, log| drop(differences.insert(key.clone(), Difference { key, table, log }));
    for item in items {
        let Some(state) = lifecycle(&item) else { continue };
        compared += 1;
        let key = item.key().to_string();
        let log = folded.remove(&key);
        if log.as_ref() != Some(&state) && !is_expired(&item, now) {
            differ(key, Some(state), log);
        }
    }
    for (key, log) in folded.into_iter().filter(|(_, log)| !may_be_dropped(log, now)) {
        differ(key, None, Some(log));
    }
    Ok((differences, compared, events))
}

/// Whether DynamoDB may delete the item at any time; its events may be gone already.
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
        | Item::Runner(_)
        | Item::Config(_)
        | Item::Limit(_)
        | Item::Unrouted(_)
        | Item::Janitor(_)
        | Item::Function(_)
        | Item::Listing(_)
        | Item::Catalogue(_)
        | Item::SpotPrices(_) => None,
    };
    at.is_some_and(|at| at <= now.as_second())
}

/// Whether the record's item may have expired: it has been over for as long as such items are kept.
fn may_be_dropped(log: &Value, now: Timestamp) -> bool {
    let over = |field: &str, kept: SignedDuration| {
        let at: Option<Timestamp> = log[field].as_str().and_then(|at| at.parse().ok());
        at.is_some_and(|at| at + kept <= now)
    };
    over("completed_at", KEEP_DONE) || over("closed_at", KEEP_CLOSED)
}
