//! `drover cost`: what machines were paid for, by whom they worked for.

use std::collections::BTreeMap;

use clap::ValueEnum;
use domain::config::{Market, MicroUsd, Prices};
use domain::ids::JobId;
use domain::log::{Event, Stream};
use domain::state::{Item, Key};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use platform::table::Table;
use serde::Serialize;
use serde_json::json;

use crate::output::{Failure, Output, age, table};
use crate::read::pools;

/// What machines are added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// The pool that launched them.
    Pool,
    /// The repository of the job that they ran.
    Repository,
    /// That job's workflow. Jobs are known for a week after their end.
    Workflow,
    /// Instance type and market.
    Type,
}

/// A machine's life, as the log tells it.
#[derive(Debug, Clone, Default)]
struct Life {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    pool: Option<String>,
    job: Option<JobId>,
    repository: Option<String>,
    instance_type: Option<String>,
    market: Option<Market>,
}

/// A line.
#[derive(Debug, Clone, Default, Serialize)]
struct Row {
    what: String,
    machines: u64,
    seconds: i64,
    /// Of which on the spot market.
    spot_seconds: i64,
    /// At the on-demand price.
    usd: f64,
    /// Machines whose price is not known.
    unpriced: u64,
}

/// Adds up the machines that were paid for in that time.
///
/// # Errors
/// When the table cannot be read.
pub async fn cost(
    store: &Table,
    by: By,
    since: SignedDuration,
    prices: &Prices,
    region: &str,
    now: Timestamp,
) -> Result<Output, Failure> {
    let begin = now - since;
    let mut lives: BTreeMap<String, Life> = BTreeMap::new();
    for pool in pools(store, None).await? {
        let mut events = store.events(&Stream::Pool(pool.name), usize::MAX).await?;
        events.reverse();
        events.iter().for_each(|event| follow(&mut lives, event));
    }
    lives.retain(|_, life| life.from.is_some() && life.to.is_none_or(|to| to > begin));
    let workflows = if by == By::Workflow { workflows(store, lives.values()).await? } else { BTreeMap::new() };
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for life in lives.values() {
        let Some(from) = life.from else { continue };
        let seconds = life.to.unwrap_or(now).duration_since(from.max(begin)).as_secs();
        let is_spot = life.market == Some(Market::Spot);
        let what = match by {
            By::Pool => life.pool.clone(),
            By::Repository => life.repository.clone(),
            By::Workflow => life.job.and_then(|job| workflows.get(&job).cloned()),
            By::Type => life.instance_type.clone().map(|it| if is_spot { format!("{it} spot") } else { it }),
        };
        let what = what.unwrap_or_else(|| if life.job.is_none() { "(no job)" } else { "(not known)" }.to_owned());
        let time = SignedDuration::from_secs(seconds);
        let cost = life.instance_type.as_deref().and_then(|it| prices.cost(&it.into(), region, time));
        let row = rows.entry(what.clone()).or_insert(Row { what, ..Row::default() });
        row.machines += 1;
        row.seconds += seconds;
        row.spot_seconds += if is_spot { seconds } else { 0 };
        row.usd += cost.map_or(0.0, MicroUsd::usd);
        row.unpriced += u64::from(cost.is_none());
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.seconds));
    let time = |seconds: i64| age(SignedDuration::from_secs(seconds));
    let lines = rows.iter().map(|row| {
        let usd = format!("{}{:.2}", if row.unpriced > 0 { "more than " } else { "" }, row.usd);
        vec![row.what.clone(), row.machines.to_string(), time(row.seconds), time(row.spot_seconds), usd]
    });
    let mut text = table(&["WHAT", "MACHINES", "TIME", "OF WHICH SPOT", "USD"], lines);
    text += &format!(
        "\nThe last {}, at the list price on demand in {region} of {}: what spot and agreements save is not in it, nor are \
         volumes and traffic.\n",
        age(since),
        prices.read
    );
    let unpriced: u64 = rows.iter().map(|row| row.unpriced).sum();
    if unpriced > 0 {
        text +=
            &format!("{unpriced} machines' types have no price here -> make prices, then drover cost --prices FILE\n");
    }
    Ok(Output { yes: true, text, json: json!({ "region": region, "prices": prices.read, "rows": rows }) })
}

/// What an event tells of machines.
fn follow(lives: &mut BTreeMap<String, Life>, event: &Event) {
    for after in &event.after {
        let Some(id) = after.key.strip_prefix("INSTANCE#").and_then(|key| key.strip_suffix(" STATE")) else { continue };
        let text = |name: &str| after.is.get(name).and_then(|it| it.as_str()).map(ToOwned::to_owned);
        let life = lives.entry(id.to_owned()).or_default();
        life.from = life.from.or(Some(event.at));
        life.to = life.to.or_else(|| text("closed_at")?.parse().ok());
        life.pool = text("pool").or(life.pool.take());
        life.repository = text("repository").or(life.repository.take());
        life.instance_type = text("instance_type").or(life.instance_type.take());
        life.job = after.is.get("job").and_then(|it| it.as_u64()).map(JobId).or(life.job);
        let market = after.is.get("market").and_then(|it| serde_json::from_value(it.clone()).ok());
        life.market = market.or(life.market);
    }
}

async fn workflows(store: &impl Store, lives: impl Iterator<Item = &Life>) -> Result<BTreeMap<JobId, String>, Failure> {
    let keys: Vec<Key> = lives.filter_map(|life| life.job).map(Key::Job).collect();
    let items = store.get_many(&keys).await?.into_iter();
    let named = items.filter_map(|item| match item {
        Item::Job(job) => Some((job.id, format!("{}: {}", job.repository, job.workflow.as_deref().unwrap_or("?")))),
        _ => None,
    });
    Ok(named.collect())
}
