//! `drover status`: what the stack does and what is wrong, on one screen.

use std::cmp::Reverse;

use aws_config::SdkConfig;
use domain::config::{PRICES, Pool, Prices};
use domain::ids::{JobId, PoolName, Repository, StackName};
use domain::policy::PoolView;
use domain::policy::notify::{Reader, reasons};
use domain::state::{Function, FunctionName, Item, Janitor, Key};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use platform::table::Table;
use serde::Serialize;
use serde_json::json;

use crate::cost::{self, By, Total};
use crate::describe;
use crate::output::{Failure, Output, age, count, one_line, table, usd};
use crate::pools::{self, PoolRow, State};
use crate::read::{Lateness, config, view};

/// What the environment says about the stack.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub stack: StackName,
    pub region: String,
    /// CloudWatch's dashboard of the stack in AWS's console. None if AWS is emulated.
    pub metrics_url: Option<String>,
}

impl Surroundings {
    pub fn new(stack: StackName, aws: &SdkConfig) -> Self {
        let region = aws.region().map(ToString::to_string).unwrap_or_default();
        let metrics_url = aws.endpoint_url().is_none().then(|| {
            format!(
                "https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#dashboards/dashboard/{stack}"
            )
        });
        Self { stack, region, metrics_url }
    }
}

/// Failures that the screen has room for. `--json` has all.
const FAILURES_SHOWN: usize = 5;

/// A failure of the last hour.
#[derive(Debug, Serialize)]
struct RecentFailure {
    at: Timestamp,
    pool: PoolName,
    what: String,
}

/// The job that has waited longest of those that need a machine.
#[derive(Debug, Serialize)]
struct Oldest {
    job: JobId,
    repository: Repository,
    pool: PoolName,
    waits_since: Timestamp,
    why: String,
}

/// What the sweeps do.
#[derive(Debug, Serialize)]
struct Sweeps {
    ok: bool,
    #[serde(rename = "says")]
    message: String,
}

/// Shows the stack.
///
/// # Errors
/// The table cannot be read.
pub async fn status(store: &Table, surroundings: &Surroundings, now: Timestamp) -> Result<Output, Failure> {
    let config = config(store).await?;
    let (mut rows, mut failures, mut oldest): (Vec<PoolRow>, Vec<RecentFailure>, Option<Oldest>) = Default::default();
    for pool in &config.pools {
        let view = view(store, &pool.name).await?;
        if config.is_removed(&pool.name) && view.is_empty() {
            continue;
        }
        rows.push(pools::row(pool, &view, now));
        failures.extend(recent_failures(pool, &view, now));
        let here = oldest_of(pool, &view, now);
        oldest = oldest.into_iter().chain(here).min_by_key(|job| (job.waits_since, job.job));
    }
    failures.sort_by_key(|failure| Reverse(failure.at));
    let sweeps = sweeps(store, now).await?;
    let functions = functions(store).await?;
    let cost = cost_today(store, surroundings, &config.pools, now).await?;

    let mut text = head(surroundings, config.format, &functions);
    text += &format!("sweeps: {}\n\n", one_line(&sweeps.message));
    text += &table(&["POOL", "DEMAND", "SUPPLY", "BUSY", "LIVE/MAX", "STATE"], rows.iter().map(cells));
    text += "\n";
    text += &match &oldest {
        Some(job) => {
            let Oldest { job: id, repository, pool, waits_since, why } = job;
            let waited = age(now.duration_since(*waits_since));
            one_line(&format!("oldest waiting job: {id} of {repository} in {pool}, for {waited}: {why}")) + "\n"
        }
        None => "no job waits for a machine\n".to_owned(),
    };
    text += &failure_lines(&failures, now);
    text += &cost_line(&cost);
    let json = json!({
        "stack": surroundings.stack, "region": surroundings.region,
        "versions": { "drover": env!("CARGO_PKG_VERSION"), "table_format": config.format, "functions": functions },
        "sweeps": sweeps, "pools": rows, "oldest_waiting": oldest, "failures": failures, "cost_today": cost,
    });
    Ok(Output { ok: true, text, json })
}

fn head(surroundings: &Surroundings, format: u32, functions: &[Function]) -> String {
    let reported: Vec<String> =
        functions.iter().map(|function| format!("{} supports format {}", function.name, function.format)).collect();
    let functions = match reported.is_empty() {
        true => "no function has run yet".to_owned(),
        false => reported.join(", "),
    };
    let Surroundings { stack, region, .. } = surroundings;
    format!("stack {stack} in {region}; drover {}; table format {format}; {functions}\n", env!("CARGO_PKG_VERSION"))
}

fn cells(row: &PoolRow) -> Vec<String> {
    // The reason is the first obstacle; drover pools has all.
    let state = match (row.state, row.obstacles.first()) {
        // This obstacle names the state.
        (State::CircuitOpen | State::ClassCircuitOpen, Some(reason)) => reason.clone(),
        (State::Refused | State::NoType, Some(reason)) => format!("{}: {reason}", row.state.as_str()),
        (State::Ok | State::Draining | State::Paused | State::AtMax | State::AtCap, _)
        | (State::CircuitOpen | State::ClassCircuitOpen | State::Refused | State::NoType, None) => {
            row.state_text().to_owned()
        }
    };
    vec![
        row.pool.to_string(),
        row.demand.to_string(),
        row.supply.to_string(),
        row.busy.to_string(),
        format!("{}/{}", row.live, row.max),
        state,
    ]
}

fn recent_failures(pool: &Pool, view: &PoolView, now: Timestamp) -> Vec<RecentFailure> {
    let failure = |at, what| RecentFailure { at, pool: pool.name.clone(), what };
    let refusals = view
        .latest_answers(now)
        .into_iter()
        .map(|answer| failure(answer.at, format!("EC2 refused {}: {}: {}", answer.tuple, answer.code, answer.message)));
    let machines =
        view.latest_failures(now).map(|it| failure(it.at, format!("did not come online: {}", describe::failure(it))));
    refusals.chain(machines).collect()
}

fn oldest_of(pool: &Pool, view: &PoolView, now: Timestamp) -> Option<Oldest> {
    let waiting = view.waiting.values().filter(|job| job.open && job.given_up(now).is_none());
    let job = waiting.min_by_key(|job| (job.waits_since(), job.id))?;
    let why = reasons(pool, view, job, Reader::Operator, now);
    Some(Oldest {
        job: job.id,
        repository: job.repository.clone(),
        pool: pool.name.clone(),
        waits_since: job.waits_since(),
        why: why.into_iter().next().unwrap_or_default(),
    })
}

async fn sweeps(store: &Table, now: Timestamp) -> Result<Sweeps, Failure> {
    let failed = |message| Sweeps { ok: false, message };
    let Some(Item::Janitor(janitor)) = store.get(&Key::Janitor).await? else {
        return Ok(failed("none yet -> drover doctor, if the stack is older than a minute".to_owned()));
    };
    let Janitor { failed: failures, failures: reasons, .. } = &janitor;
    let Lateness { last, unfinished } = Lateness::of(&janitor, now);
    Ok(match (unfinished, last, reasons.first()) {
        (Some(since), _, _) => failed(format!("none has ended for {} -> drover doctor", age(since))),
        (None, Some(since), _) => failed(format!("the last was {} ago -> drover doctor", age(since))),
        (None, None, Some(reason)) => failed(format!("the last had {}: {reason}", count(*failures, "failure"))),
        (None, None, None) if *failures > 0 => failed(format!("the last had {}", count(*failures, "failure"))),
        (None, None, None) => Sweeps { ok: true, message: "the last one read and repaired everything".to_owned() },
    })
}

pub(crate) async fn functions(store: &Table) -> Result<Vec<Function>, Failure> {
    let keys: Vec<Key> = FunctionName::ALL.into_iter().map(Key::Function).collect();
    let items = store.get_many(&keys).await?.into_iter();
    let mut functions: Vec<Function> =
        items.filter_map(|item| if let Item::Function(function) = item { Some(function) } else { None }).collect();
    functions.sort_by_key(|function| function.name);
    Ok(functions)
}

/// What machines cost since midnight, UTC.
async fn cost_today(
    store: &Table,
    surroundings: &Surroundings,
    pools: &[Pool],
    now: Timestamp,
) -> Result<Total, Failure> {
    let prices = Prices::parse(PRICES).map_err(|error| Failure::Usage(format!("the built-in prices: {error}")))?;
    let since = SignedDuration::from_secs(now.as_second().rem_euclid(24 * 3600));
    let query = cost::Query { by: By::Pool, since, prices: &prices, region: &surroundings.region };
    let longest = pools.iter().map(|pool| pool.timings.max_life.duration()).max().unwrap_or_default();
    cost::total(store, &query, longest, now).await
}

fn failure_lines(failures: &[RecentFailure], now: Timestamp) -> String {
    if failures.is_empty() {
        return "no failures in the last hour\n".to_owned();
    }
    let mut text = "failures of the last hour:\n".to_owned();
    for RecentFailure { at, pool, what } in failures.iter().take(FAILURES_SHOWN) {
        text += &format!("  {} ago, {pool}: {}\n", age(now.duration_since(*at)), one_line(what));
    }
    if failures.len() > FAILURES_SHOWN {
        text += &format!("  and {} more -> drover pools\n", failures.len() - FAILURES_SHOWN);
    }
    text
}

fn cost_line(Total { machines, usd: amount, unpriced }: &Total) -> String {
    let machines = count(*machines as usize, "machine");
    match unpriced {
        0 => format!("cost today: {} USD for {machines}\n", usd(*amount)),
        more => format!("cost today: more than {} USD for {machines}; no price is known for {more}\n", usd(*amount)),
    }
}
