//! `drover pools`: demand, supply and limits of each pool, and what keeps it from launching.

use std::collections::BTreeMap;

use domain::config::{Label, MicroUsd, Pool};
use domain::ids::PoolName;
use domain::policy::PoolView;
use domain::policy::circuit::next_probe;
use domain::policy::stopped;
use domain::policy::tuple::{Budget, next_free};
use domain::state::{Answer, Circuit, Slot, SlotState};
use engine::ports::Store;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::classes::{Part, parts};
use crate::describe;
use crate::output::{Failure, Output, age, or_dash, table, usd};
use crate::read::{self, view};
use crate::schedule::InEffect;

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
    /// The circuit of a class is open.
    #[serde(rename = "class circuit open")]
    ClassCircuitOpen,
    /// Jobs wait, and the pool has as many machines as it may have.
    #[serde(rename = "at max")]
    AtMax,
    /// Jobs wait, and one more machine would cost more per hour than the pool's cap allows.
    #[serde(rename = "at cap")]
    AtCap,
    /// A job waits for which the pool allows no instance type.
    #[serde(rename = "no type fits")]
    NoType,
}

impl State {
    fn of(pool: &Pool, view: &PoolView, parts: &[Part], now: Timestamp) -> Self {
        match (&view.meta.circuit, pool.draining) {
            (_, true) => return State::Draining,
            (Circuit::Open { .. }, false) if !pool.paused => return State::CircuitOpen,
            (Circuit::Open { .. }, false) => {}
            (Circuit::Closed, false) => {}
        }
        if pool.paused {
            return State::Paused;
        }
        if parts.iter().any(|part| part.view.meta.circuit != Circuit::Closed) {
            return State::ClassCircuitOpen;
        }
        let is_refused = view.meta.pauses.iter().any(|pause| pause.until > now)
            || view.meta.cooldowns.iter().any(|cooldown| cooldown.until > now);
        match parts.iter().any(|part| part.view.is_short(now)) {
            false => State::Ok,
            true if is_refused => State::Refused,
            true if view.live() >= pool.max as usize => State::AtMax,
            true if parts.iter().any(|part| part.is_at_cap(now)) => State::AtCap,
            true if parts.iter().any(|part| part.is_unsatisfied(now)) => State::NoType,
            true if parts.iter().any(|part| !part.view.latest_answers(now).is_empty()) => State::Refused,
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
            State::ClassCircuitOpen => "class circuit open",
            State::AtMax => "at max",
            State::AtCap => "at cap",
            State::NoType => "no type fits",
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
    /// Warm machines that the pool file asks for now.
    pub(crate) warm_wanted: u32,
    /// Stopped machines that are ready to be started. None in a pool that keeps and has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stopped: Option<usize>,
    /// Stopped machines that the pool file asks for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stopped_wanted: Option<u32>,
    /// The schedule that says so. None if it is the pool's own number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) schedule: Option<InEffect>,
    pub(crate) live: usize,
    pub(crate) max: u32,
    pub(crate) state: State,
    /// A pool can be paused and draining at once.
    paused: bool,
    pub(crate) obstacles: Vec<String>,
    /// What its machines cost per hour, as recorded when their launches were decided. None in a pool that needs no prices, like
    /// the caps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usd_per_hour: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_usd_per_hour: Option<f64>,
    /// The cap of one machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    machine_usd_per_hour: Option<f64>,
    /// The open circuits of classes, by label.
    #[serde(skip_serializing_if = "Option::is_none")]
    class_circuits: Option<Value>,
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
    let mut header = vec!["POOL", "DEMAND", "SUPPLY", "WARM", "LIVE/MAX", "STATE"];
    let has_prices = rows.iter().any(|row| row.usd_per_hour.is_some());
    if has_prices {
        header.push("USD/HOUR");
    }
    let cells = |row| {
        let mut cells = cells(row);
        cells.extend(has_prices.then(|| or_dash(row.price())));
        cells
    };
    let mut text = self::table(&header, rows.iter().map(cells));
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
        row.kept(),
        format!("{}/{}", row.live, row.max),
        row.state_text().to_owned(),
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

impl PoolRow {
    /// Warm and stopped machines, of those that the pool file asks for, such as `1/1, stopped 3/5 until 18:00 Europe/Berlin`.
    fn kept(&self) -> String {
        let mut kept = format!("{}/{}", self.warm, self.warm_wanted);
        kept += &self.stopped().map(|stopped| format!(", stopped {stopped}")).unwrap_or_default();
        kept += &self.schedule.as_ref().map(|schedule| format!(" {schedule}")).unwrap_or_default();
        kept
    }

    /// The state, and that the pool is also paused.
    pub(crate) fn state_text(&self) -> &'static str {
        match (self.state, self.paused) {
            (State::Draining, true) => "draining, paused",
            (state, _) => state.as_str(),
        }
    }

    /// Stopped machines, of those that the pool file asks for.
    pub(crate) fn stopped(&self) -> Option<String> {
        Some(format!("{}/{}", self.stopped?, self.stopped_wanted?))
    }

    /// What the machines cost per hour, of the cap.
    pub(crate) fn price(&self) -> Option<String> {
        let price = usd(self.usd_per_hour?);
        Some(self.max_usd_per_hour.map_or(price.clone(), |cap| format!("{price}/{}", usd(cap))))
    }
}

pub(crate) fn row(pool: &Pool, view: &PoolView, now: Timestamp) -> PoolRow {
    let parts = parts(pool, view);
    let open: BTreeMap<&Label, &Circuit> = view
        .meta
        .classes
        .iter()
        .filter(|(_, it)| it.circuit != Circuit::Closed)
        .map(|(it, of)| (it, &of.circuit))
        .collect();
    let keeps_stopped = stopped::keeps_stopped(pool, view);
    PoolRow {
        usd_per_hour: pool.needs_prices().then(|| view.price_per_hour().usd()),
        max_usd_per_hour: pool.price_per_hour.map(MicroUsd::usd),
        machine_usd_per_hour: pool.shapes.as_ref().and_then(|it| it.policy.price_per_hour).map(MicroUsd::usd),
        class_circuits: pool.shapes.as_ref().map(|_| json!(open)),
        demand: view.demand(now),
        supply: view.supply(now).count(),
        busy: view.slots.values().filter(|slot| is_busy(slot)).count(),
        warm: view.supply(now).filter(|slot| !slot.wanted).count(),
        warm_wanted: pool.warm_at(now),
        stopped: keeps_stopped.then(|| stopped::ready(view).count()),
        stopped_wanted: keeps_stopped.then(|| pool.stopped_at(now)),
        schedule: InEffect::of(pool, now),
        live: view.live(),
        max: pool.max,
        state: State::of(pool, view, &parts, now),
        paused: pool.paused,
        obstacles: obstacles(view, &parts, now),
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

/// What keeps the pool from launching the machines it needs. The first one is the reason of the pool's state.
fn obstacles(view: &PoolView, parts: &[Part], now: Timestamp) -> Vec<String> {
    let wait =
        |until: Timestamp| if until > now { format!("in {}", age(until.duration_since(now))) } else { "now".into() };
    let mut obstacles = Vec::new();
    for part in parts {
        if let Circuit::Open { since, cause, message, .. } = &part.view.meta.circuit
            && let Some(probe) = next_probe(&part.pool, &part.view.meta, now)
        {
            let (own, since) = (prefix(part), age(now.duration_since(*since)));
            obstacles.push(format!("{own}circuit open for {since}, next probe {}: {cause}: {message}", wait(probe)));
        }
    }
    for pause in view.meta.pauses.iter().filter(|pause| pause.until > now) {
        let (market, until) = (pause.market, wait(pause.until));
        obstacles.push(format!("no {market} launches, next attempt {until}: {}: {}", pause.code, pause.message));
    }
    for cooldown in view.meta.cooldowns.iter().filter(|cooldown| cooldown.until > now) {
        let rest = age(cooldown.until.duration_since(now));
        obstacles.push(format!("{} is cooling down for {rest}: {}", cooldown.tuple, cooldown.code));
    }
    for part in parts {
        // It can be earlier than the end of a cool-down. With an open circuit, a probe is next.
        if part.view.meta.circuit == Circuit::Closed
            && let Some(free) =
                next_free(&part.pool, &part.view.meta, Budget::of(&part.pool, part.view.price_per_hour()), now)
            && free > now
        {
            obstacles.push(format!("{}no launch option is free, next attempt {}", prefix(part), wait(free)));
        }
    }
    for part in parts.iter().filter(|part| part.is_at_cap(now)) {
        let cap = usd(part.pool.price_per_hour.unwrap_or_default().usd());
        obstacles.push(format!("{}one more machine would cost more than the cap of {cap} USD per hour", prefix(part)));
    }
    for class in parts.iter().filter(|part| part.is_unsatisfied(now)).filter_map(|part| part.class.as_ref()) {
        obstacles.push(format!(
            "{class}: no instance type that the pool allows satisfies it -> drover shapes {class} says why"
        ));
    }
    for part in parts {
        let own = prefix(part);
        for Answer { at, tuple, code, message } in part.view.latest_answers(now) {
            let ago = age(now.duration_since(*at));
            obstacles.push(format!("{own}EC2 answered {ago} ago for {tuple}: {code}: {message}"));
        }
        for failure in part.view.latest_failures(now) {
            let ago = age(now.duration_since(failure.at));
            obstacles.push(format!("{own}a machine did not come online {ago} ago: {}", describe::failure(failure)));
        }
    }
    for batch in view.batches.values().filter(|batch| batch.is_stuck()) {
        obstacles.push(format!("launch {} is stuck after {} attempts", batch.tag(), batch.lease.tries));
    }
    obstacles
}

/// Before an obstacle of a class.
fn prefix(part: &Part) -> String {
    part.class.as_ref().map(|class| format!("{class}: ")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::aside::fixtures::{noon, pool, slot, view};

    #[test]
    fn stopped_machines_are_shown_next_to_warm_ones_and_only_in_pools_that_have_any() {
        let none = json!({});
        let slots = || {
            let ending = json!({ "stop": { "why": "surplus", "at": "2026-11-02T11:59:00Z" } });
            [
                slot(1, "launched", &none),
                slot(2, "prepared", &none),
                slot(3, "stopped", &none),
                slot(4, "stopped", &none),
                slot(5, "stopped", &ending),
                slot(6, "busy", &none),
            ]
        };
        let shown = |more: &str, slots: &[Slot]| row(&pool(more), &view(slots.to_vec()), noon()).kept();
        assert_eq!(shown("warm = 1\nstopped = 5", &slots()), "1/1, stopped 2/5");
        let schedule = "warm = 1\n[[pool.schedule]]\ndays = [\"mon\"]\nfrom = \"08:00\"\nto = \"18:00\"\n\
                        time_zone = \"UTC\"\nstopped = 3";
        assert_eq!(shown(schedule, &slots()), "1/1, stopped 2/3 until 18:00 UTC");
        assert_eq!(shown("warm = 1", &slots()), "1/1, stopped 2/0", "until they have ended");
        assert_eq!(shown("warm = 1", &slots()[..1]), "1/1");
        let plain = json!(row(&pool("warm = 1"), &view(slots()[..1].to_vec()), noon()));
        assert!(plain.get("stopped").is_none() && plain.get("stopped_wanted").is_none(), "{plain}");
        let kept = json!(row(&pool("stopped = 5"), &view(slots()), noon()));
        assert_eq!((&kept["stopped"], &kept["stopped_wanted"], &kept["live"]), (&json!(2), &json!(5), &json!(6)));
    }
}
