//! `drover pools`: what each pool needs, has and may have, and what keeps it from launching.

use domain::config::{Market, Pool};
use domain::policy::PoolView;
use domain::state::Circuit;
use engine::ports::Store;
use jiff::Timestamp;
use serde_json::json;

use crate::output::{Failure, Output, age, table};
use crate::read::{self, view};

/// Lists them.
///
/// # Errors
/// When the table cannot be read.
pub async fn pools(table: &impl Store, now: Timestamp) -> Result<Output, Failure> {
    let mut rows = Vec::new();
    let mut details = String::new();
    let mut all = Vec::new();
    for pool in read::pools(table, None).await? {
        let view = view(table, &pool.name).await?;
        let obstacles = obstacles(&view, now);
        details.extend(obstacles.iter().map(|obstacle| format!("{}: {obstacle}\n", pool.name)));
        let warm = view.supply(now).filter(|slot| !slot.wanted).count();
        let state = state(&pool, &view);
        rows.push(vec![
            pool.name.to_string(),
            view.demand(now).to_string(),
            view.supply(now).count().to_string(),
            format!("{warm}/{}", pool.warm),
            format!("{}/{}", view.live(), pool.max),
            state.to_owned(),
        ]);
        all.push(json!({
            "pool": pool.name, "demand": view.demand(now), "supply": view.supply(now).count(), "warm": warm,
            "warm_wanted": pool.warm, "live": view.live(), "max": pool.max, "state": state, "obstacles": obstacles,
            "circuit": view.meta.circuit, "cooldowns": view.meta.cooldowns, "pauses": view.meta.pauses,
        }));
    }
    let mut text = self::table(&["POOL", "DEMAND", "SUPPLY", "WARM", "LIVE/MAX", "STATE"], rows);
    if !details.is_empty() {
        text += &format!("\n{details}");
    }
    Ok(Output { yes: true, text, json: json!(all) })
}

fn state(pool: &Pool, view: &PoolView) -> &'static str {
    match (&view.meta.circuit, pool.draining) {
        (_, true) => "draining",
        (Circuit::Open { .. }, false) => "circuit open",
        (Circuit::Closed, false) => "ok",
    }
}

/// What keeps it from launching what it needs, in sentences.
fn obstacles(view: &PoolView, now: Timestamp) -> Vec<String> {
    let wait =
        |until: Timestamp| if until > now { format!("in {}", age(until.duration_since(now))) } else { "now".into() };
    let mut obstacles = Vec::new();
    if let Circuit::Open { until, since, cause: code, message, .. } = &view.meta.circuit {
        let since = age(now.duration_since(*since));
        obstacles.push(format!("circuit open for {since}, next probe {}: {code}: {message}", wait(*until)));
    }
    for pause in view.meta.pauses.iter().filter(|pause| pause.until > now) {
        let market = match pause.market {
            Market::OnDemand => "on-demand",
            Market::Spot => "spot",
        };
        obstacles.push(format!("{market} is tried again {}: {}: {}", wait(pause.until), pause.code, pause.message));
    }
    for cooldown in view.meta.cooldowns.iter().filter(|cooldown| cooldown.until > now) {
        obstacles.push(format!("{} is tried again {}: {}", cooldown.tuple, wait(cooldown.until), cooldown.code));
    }
    for batch in view.batches.values().filter(|batch| batch.is_stuck()) {
        obstacles.push(format!("launch {} is stuck after {} tries", batch.tag(), batch.lease.tries));
    }
    obstacles
}
