//! `drover pools`: demand, supply and limits of each pool, and what keeps it from launching.

use domain::config::Pool;
use domain::ids::PoolName;
use domain::policy::PoolView;
use domain::policy::circuit::next_probe;
use domain::state::{Answer, Circuit, Slot, SlotState};
use engine::ports::Store;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::describe;
use crate::output::{Failure, Output, age, table};
use crate::read::{self, view};

/// Whether a pool can serve its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum State {
    #[serde(rename = "ok")]
    Ok,
    #[serde(rename = "draining")]
    Draining,
    /// Nothing is launched until an operator resumes it.
    #[serde(rename = "paused")]
    Paused,
    #[serde(rename = "circuit open")]
    CircuitOpen,
    /// Jobs wait, and EC2 has refused launches.
    #[serde(rename = "EC2 refuses")]
    Refused,
    /// Jobs wait, and the pool has as many machines as it may have.
    #[serde(rename = "at max")]
    AtMax,
}

impl State {
    fn of(pool: &Pool, view: &PoolView, now: Timestamp) -> Self {
        match (&view.meta.circuit, pool.draining) {
            (_, true) => return State::Draining,
            (Circuit::Open { .. }, false) if !pool.paused => return State::CircuitOpen,
            (Circuit::Open { .. }, false) => {}
            (Circuit::Closed, false) => {}
        }
        if pool.paused {
            return State::Paused;
        }
        let is_refused = view.meta.pauses.iter().any(|pause| pause.until > now)
            || view.meta.cooldowns.iter().any(|cooldown| cooldown.until > now);
        match view.is_short(now) {
            false => State::Ok,
            true if is_refused => State::Refused,
            true if view.live() >= pool.max as usize => State::AtMax,
            true if !view.latest_answers(now).is_empty() => State::Refused,
            true => State::Ok,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Draining => "draining",
            State::Paused => "paused",
            State::CircuitOpen => "circuit open",
            State::Refused => "EC2 refuses",
            State::AtMax => "at max",
        }
    }
}

/// A line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct PoolRow {
    pub(crate) pool: PoolName,
    pub(crate) demand: usize,
    pub(crate) supply: usize,
    /// Machines with a job.
    pub(crate) busy: usize,
    /// Warm machines that there are.
    pub(crate) warm: usize,
    /// Warm machines that the pool file asks for.
    pub(crate) warm_wanted: u32,
    pub(crate) live: usize,
    pub(crate) max: u32,
    pub(crate) state: State,
    pub(crate) obstacles: Vec<String>,
    circuit: Value,
    cooldowns: Value,
    pauses: Value,
}

/// Lists the pools.
///
/// # Errors
/// The table cannot be read.
pub async fn pools(table: &impl Store, now: Timestamp) -> Result<Output, Failure> {
    let rows = rows(table, now).await?;
    let mut text = self::table(&["POOL", "DEMAND", "SUPPLY", "WARM", "LIVE/MAX", "STATE"], rows.iter().map(cells));
    let obstacles: String =
        rows.iter().flat_map(|row| row.obstacles.iter().map(|it| format!("{}: {it}\n", row.pool))).collect();
    if !obstacles.is_empty() {
        text += &format!("\n{obstacles}");
    }
    Ok(Output { ok: true, text, json: json!(rows) })
}

fn cells(row: &PoolRow) -> Vec<String> {
    vec![
        row.pool.to_string(),
        row.demand.to_string(),
        row.supply.to_string(),
        format!("{}/{}", row.warm, row.warm_wanted),
        format!("{}/{}", row.live, row.max),
        row.state.as_str().to_owned(),
    ]
}

pub(crate) async fn rows(table: &impl Store, now: Timestamp) -> Result<Vec<PoolRow>, Failure> {
    let mut rows = Vec::new();
    let config = read::config(table).await?;
    for pool in &config.pools {
        let view = view(table, &pool.name).await?;
        if config.is_removed(&pool.name) && view.is_empty() {
            continue;
        }
        rows.push(row(pool, &view, now));
    }
    Ok(rows)
}

pub(crate) fn row(pool: &Pool, view: &PoolView, now: Timestamp) -> PoolRow {
    PoolRow {
        demand: view.demand(now),
        supply: view.supply(now).count(),
        busy: view.slots.values().filter(|slot| is_busy(slot)).count(),
        warm: view.supply(now).filter(|slot| !slot.wanted).count(),
        warm_wanted: pool.warm,
        live: view.live(),
        max: pool.max,
        state: State::of(pool, view, now),
        obstacles: obstacles(pool, view, now),
        circuit: json!(view.meta.circuit),
        cooldowns: json!(view.meta.cooldowns),
        pauses: json!(view.meta.pauses),
        pool: pool.name.clone(),
    }
}

/// A machine that is gone does not run its job any more, whatever GitHub has reported.
fn is_busy(slot: &Slot) -> bool {
    slot.gone_at.is_none() && matches!(slot.state, SlotState::Busy { .. })
}

/// What keeps the pool from launching the machines it needs.
fn obstacles(pool: &Pool, view: &PoolView, now: Timestamp) -> Vec<String> {
    let wait =
        |until: Timestamp| if until > now { format!("in {}", age(until.duration_since(now))) } else { "now".into() };
    let mut obstacles = Vec::new();
    if let Circuit::Open { since, cause, message, .. } = &view.meta.circuit
        && let Some(probe) = next_probe(pool, &view.meta, now)
    {
        let since = age(now.duration_since(*since));
        obstacles.push(format!("circuit open for {since}, next probe {}: {cause}: {message}", wait(probe)));
    }
    for pause in view.meta.pauses.iter().filter(|pause| pause.until > now) {
        let (market, until) = (pause.market, wait(pause.until));
        obstacles.push(format!("no {market} launches, next attempt {until}: {}: {}", pause.code, pause.message));
    }
    for cooldown in view.meta.cooldowns.iter().filter(|cooldown| cooldown.until > now) {
        let until = wait(cooldown.until);
        obstacles.push(format!("{} is cooling down, next attempt {until}: {}", cooldown.tuple, cooldown.code));
    }
    for Answer { at, tuple, code, message } in view.latest_answers(now) {
        obstacles.push(format!("EC2 answered {} ago for {tuple}: {code}: {message}", age(now.duration_since(*at))));
    }
    for failure in view.latest_failures(now) {
        let ago = age(now.duration_since(failure.at));
        obstacles.push(format!("a machine did not come online {ago} ago: {}", describe::failure(failure)));
    }
    for batch in view.batches.values().filter(|batch| batch.is_stuck()) {
        obstacles.push(format!("launch {} is stuck after {} attempts", batch.tag(), batch.lease.tries));
    }
    obstacles
}
