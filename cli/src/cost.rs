//! `drover cost`: what machines cost, by pool, repository, workflow or instance type, and which smaller ones would be enough.

mod advice;
mod measured;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;
use domain::config::{Market, MicroUsd, Prices};
use domain::ids::{InstanceId, JobId};
use domain::log::{After, Event, Stream};
use domain::state::{Item, Key};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use platform::table::Table;
use serde::Serialize;
use serde_json::json;

pub use self::measured::{Question, advice};

use crate::aside::Aside;
use crate::output::{Failure, Output, age, count, period, table, usd};
use crate::read::{log_since, pools};

/// What costs are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// The pool that launched the machine
    Pool,
    /// The repository of the machine's job
    Repository,
    /// The workflow of the machine's job; Drover knows a job for a week after its end
    Workflow,
    /// Instance type and market
    Type,
}

/// The question to answer.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    pub by: By,
    pub since: SignedDuration,
    pub prices: &'a Prices,
    pub region: &'a str,
}

/// A machine, as the event log describes it.
#[derive(Debug, Clone, Default)]
struct Machine {
    /// Of the first event about the machine.
    launched_at: Option<Timestamp>,
    closed_at: Option<Timestamp>,
    /// For how long it was kept stopped. That time costs nothing, except for its volumes.
    aside: Aside,
    pool: Option<String>,
    job: Option<JobId>,
    repository: Option<String>,
    instance_type: Option<String>,
    market: Option<Market>,
    /// Recorded when its launch was decided, its volume included. Only in pools that need prices.
    price_per_hour: Option<MicroUsd>,
}

/// A line of the table.
#[derive(Debug, Clone, Default, Serialize)]
struct Row {
    what: String,
    machines: u64,
    seconds: i64,
    spot_seconds: i64,
    /// At the recorded price, or else at the on-demand list price.
    usd: f64,
    /// Machines without a known price.
    unpriced: u64,
    /// Machines with a recorded price.
    recorded: u64,
}

/// Adds up the machines that existed within the period.
///
/// # Errors
/// The table cannot be read.
pub async fn cost(store: &Table, query: &Query<'_>, now: Timestamp) -> Result<Output, Failure> {
    let begin = now - query.since;
    let machines = machines(store, begin, Timestamp::MIN).await?;
    let workflows = match query.by {
        By::Workflow => workflows(store, &machines).await?,
        By::Pool | By::Repository | By::Type => BTreeMap::new(),
    };
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for machine in &machines {
        let what = machine.group(query.by, &workflows);
        let row = rows.entry(what.clone()).or_insert(Row { what, ..Row::default() });
        machine.add_to(row, query, begin, now);
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    rows.sort_by_key(|row| Reverse(row.seconds));
    let Query { region, prices, .. } = query;
    Ok(Output {
        ok: true,
        text: text(&rows, query),
        json: json!({ "region": region, "prices": prices.read, "rows": rows }),
    })
}

fn text(rows: &[Row], query: &Query<'_>) -> String {
    let time = |seconds: i64| age(SignedDuration::from_secs(seconds));
    let lines = rows.iter().map(|row| {
        let usd = format!("{}{}", if row.unpriced > 0 { "more than " } else { "" }, usd(row.usd));
        vec![row.what.clone(), row.machines.to_string(), time(row.seconds), time(row.spot_seconds), usd]
    });
    let mut text = table(&["WHAT", "MACHINES", "TIME", "SPOT TIME", "USD"], lines);
    text += &format!(
        "\nThe last {}, at on-demand list prices in {} of {}. Not included: savings by spot and by agreements, volumes, \
         traffic, and pools that no longer exist.\n",
        period(query.since),
        query.region,
        query.prices.read
    );
    let recorded: u64 = rows.iter().map(|row| row.recorded).sum();
    if recorded > 0 {
        let machines = count(recorded as usize, "machine");
        text += &format!("For {machines}, the price at the launch is used instead, with spot prices and volumes.\n");
    }
    let unpriced: u64 = rows.iter().map(|row| row.unpriced).sum();
    if unpriced > 0 {
        let machines = count(unpriced as usize, "machine");
        text += &format!("no price is known for {machines} -> make prices, then drover cost --prices FILE\n");
    }
    text
}

/// What machines cost within a period.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Total {
    pub(crate) machines: u64,
    /// At the recorded price, or else at the on-demand list price.
    pub(crate) usd: f64,
    /// Machines without a known price.
    pub(crate) unpriced: u64,
}

/// Adds up the machines of the period, whatever they did. `longest` is the longest life of a machine: the log is read no
/// further back.
pub(crate) async fn total(
    store: &Table,
    query: &Query<'_>,
    longest: SignedDuration,
    now: Timestamp,
) -> Result<Total, Failure> {
    let begin = now - query.since;
    let mut row = Row::default();
    for machine in machines(store, begin, begin - longest).await? {
        machine.add_to(&mut row, query, begin, now);
    }
    Ok(Total { machines: row.machines, usd: row.usd, unpriced: row.unpriced })
}

/// The same, by pool.
pub(crate) async fn by_pool(
    store: &Table,
    query: &Query<'_>,
    longest: SignedDuration,
    now: Timestamp,
) -> Result<BTreeMap<String, Total>, Failure> {
    let begin = now - query.since;
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for machine in machines(store, begin, begin - longest).await? {
        let pool = machine.group(By::Pool, &BTreeMap::new());
        machine.add_to(rows.entry(pool).or_default(), query, begin, now);
    }
    let total = |row: Row| Total { machines: row.machines, usd: row.usd, unpriced: row.unpriced };
    Ok(rows.into_iter().map(|(pool, row)| (pool, total(row))).collect())
}

/// Every machine that existed after `begin`, from the log since `from`.
async fn machines(store: &Table, begin: Timestamp, from: Timestamp) -> Result<Vec<Machine>, Failure> {
    let mut machines: BTreeMap<String, Machine> = BTreeMap::new();
    let pools = pools(store, None).await?;
    let priced: BTreeSet<String> = pools.iter().filter(|it| it.needs_prices()).map(|it| it.name.to_string()).collect();
    for pool in pools {
        let mut events = log_since(store, &Stream::Pool(pool.name), from).await?;
        events.reverse();
        events.iter().for_each(|event| apply(&mut machines, event));
    }
    let existed = |machine: &Machine| machine.closed_at.is_none_or(|at| at > begin);
    let has_price = |machine: &Machine| machine.pool.as_ref().is_some_and(|pool| priced.contains(pool));
    let keys = machines.iter().filter(|(_, machine)| existed(machine) && has_price(machine));
    let keys: Vec<Key> = keys.map(|(id, _)| Key::Instance(InstanceId::from(id.as_str()))).collect();
    for item in store.get_many(&keys).await? {
        let Item::Instance(instance) = item else { continue };
        if let Some(machine) = machines.get_mut(instance.id.as_str()) {
            machine.price_per_hour = instance.price_per_hour;
        }
    }
    Ok(machines.into_values().filter(existed).collect())
}

/// Adds what an event says about machines.
fn apply(machines: &mut BTreeMap<String, Machine>, event: &Event) {
    for after in &event.after {
        let Some(id) = after.key.strip_prefix("INSTANCE#").and_then(|key| key.strip_suffix(" STATE")) else {
            apply_slot(machines, after, event);
            continue;
        };
        let text = |name: &str| after.fields.get(name).and_then(|it| it.as_str()).map(ToOwned::to_owned);
        let machine = machines.entry(id.to_owned()).or_default();
        machine.launched_at = machine.launched_at.or(Some(event.at));
        machine.closed_at = machine.closed_at.or_else(|| text("closed_at")?.parse().ok());
        machine.pool = text("pool").or(machine.pool.take());
        machine.repository = text("repository").or(machine.repository.take());
        machine.instance_type = text("instance_type").or(machine.instance_type.take());
        machine.job = after.fields.get("job").and_then(|it| it.as_u64()).map(JobId).or(machine.job);
        let market = after.fields.get("market").and_then(|it| serde_json::from_value(it.clone()).ok());
        machine.market = market.or(machine.market);
    }
}

/// Adds what an event says about a machine that is kept stopped.
fn apply_slot(machines: &mut BTreeMap<String, Machine>, after: &After, event: &Event) {
    let Some(id) = after.fields["instance"].as_str().filter(|_| after.key.contains(" SLOT#")) else { return };
    let aside = Aside::default().with(after, event.at);
    if aside.started_at.is_some() {
        // The log may not have been read back to the launch. From here on it costs money again.
        let machine = machines.entry(id.to_owned()).or_default();
        machine.launched_at = machine.launched_at.or(Some(event.at));
    }
    if let Some(machine) = machines.get_mut(id) {
        machine.aside = machine.aside.with(after, event.at);
    }
}

impl Machine {
    fn is_spot(&self) -> bool {
        self.market == Some(Market::Spot)
    }

    /// The name of the row that the machine belongs to.
    fn group(&self, by: By, workflows: &BTreeMap<JobId, String>) -> String {
        let name = match by {
            By::Pool => self.pool.clone(),
            By::Repository => self.repository.clone(),
            By::Workflow => self.job.and_then(|job| workflows.get(&job).cloned()),
            By::Type => self.instance_type.clone().map(|it| if self.is_spot() { format!("{it} spot") } else { it }),
        };
        let unknown = if self.job.is_none() { "(no job)" } else { "(unknown)" };
        name.unwrap_or_else(|| unknown.to_owned())
    }

    fn add_to(&self, row: &mut Row, query: &Query<'_>, begin: Timestamp, now: Timestamp) {
        let from = self.launched_at.unwrap_or(now).max(begin);
        let until = self.closed_at.unwrap_or(now);
        let seconds = (until.duration_since(from) - self.aside.within(from, until)).as_secs();
        let time = SignedDuration::from_secs(seconds);
        let instance_type = self.instance_type.as_deref();
        let at_list_price = || instance_type.and_then(|it| query.prices.cost(&it.into(), query.region, time));
        let cost = self.price_per_hour.map(|price| price.during(time)).or_else(at_list_price);
        row.recorded += u64::from(self.price_per_hour.is_some());
        row.machines += 1;
        row.seconds += seconds;
        row.spot_seconds += if self.is_spot() { seconds } else { 0 };
        row.usd += cost.map_or(0.0, MicroUsd::usd);
        row.unpriced += u64::from(cost.is_none());
    }
}

/// The repository and workflow of each job, as far as Drover still knows the job.
async fn workflows(store: &Table, machines: &[Machine]) -> Result<BTreeMap<JobId, String>, Failure> {
    let keys: Vec<Key> = machines.iter().filter_map(|machine| machine.job).map(Key::Job).collect();
    let items = store.get_many(&keys).await?.into_iter();
    let named = items.filter_map(|item| match item {
        Item::Job(job) => Some((job.id, format!("{}: {}", job.repository, job.workflow.as_deref().unwrap_or("?")))),
        _ => None,
    });
    Ok(named.collect())
}

#[cfg(test)]
mod tests {
    use domain::config::PRICES;
    use domain::log::Event;

    use super::*;
    use crate::aside::fixtures::life;

    /// The seconds that the machine's rows have, of the hours before noon.
    fn seconds(events: &[Event], hours: i64) -> i64 {
        let mut machines = BTreeMap::new();
        events.iter().for_each(|event| apply(&mut machines, event));
        let now: Timestamp = "2026-11-02T12:00:00Z".parse().expect("a time");
        let prices = Prices::parse(PRICES).expect("prices");
        let since = SignedDuration::from_hours(hours);
        let query = Query { by: By::Pool, since, prices: &prices, region: "us-east-1" };
        let mut row = Row::default();
        machines.values().for_each(|machine| machine.add_to(&mut row, &query, now - since, now));
        row.seconds
    }

    #[test]
    fn the_time_for_which_a_machine_is_kept_stopped_costs_nothing() {
        let events = life();
        assert_eq!(seconds(&events, 24), 60 + 600, "until it was set aside, and from its start to its end");
        assert_eq!(seconds(&events, 1), 600);
        assert_eq!(seconds(&events[..3], 24), 60, "it is still stopped");
        assert_eq!(seconds(&events[..3], 1), 0);
        assert_eq!(seconds(&events[..5], 24), 60 + 3600, "it has not ended");
        assert_eq!(seconds(&events[3..], 24), 600, "the log was not read back to its launch");
    }
}
