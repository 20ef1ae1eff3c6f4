//! Pool files with short time limits, for the demo and for tests.

use anyhow::Context;
use toml::{Table, Value};

use crate::pace::slowness;

/// The time limits that are shortened, in seconds on an unloaded machine.
const SHORT_TIMINGS: [(&str, u32); 12] = [
    ("idle_grace", 2),
    ("unbound_grace", 2),
    ("orphan_grace", 5),
    ("done_grace", 3),
    ("stale_grace", 2),
    ("confirm_gap", 1),
    ("lease_margin", 2),
    ("job_check", 5),
    ("poll_interval", 3),
    ("backoff_min", 1),
    ("backoff_max", 5),
    ("relaunch_window", 20),
];

/// The time limits that wait for a process of this machine, and are longer if the machine is slow.
const SCALED: [&str; 6] = ["idle_grace", "unbound_grace", "orphan_grace", "done_grace", "stale_grace", "lease_margin"];

/// The shortened time limits on this machine, each with its name in a pool file.
pub fn short_timings() -> Vec<(&'static str, String)> {
    let slowness = slowness();
    let limit = |(name, seconds): (&'static str, u32)| {
        let seconds = if SCALED.contains(&name) { seconds * slowness } else { seconds };
        (name, format!("{seconds}s"))
    };
    SHORT_TIMINGS.into_iter().map(limit).collect()
}

/// Adds [`short_timings`] to the defaults of a pool file, except those that it sets itself.
///
/// # Errors
/// If it is not TOML.
pub fn with_short_timings(pools: &str) -> anyhow::Result<String> {
    let mut table: Table = pools.parse()?;
    let defaults = table.entry("defaults").or_insert_with(|| Value::Table(Table::new()));
    let defaults = defaults.as_table_mut().context("[defaults] is not a table")?;
    for (name, time) in short_timings() {
        defaults.entry(name).or_insert_with(|| Value::String(time));
    }
    Ok(table.to_string())
}

/// Sets these fields in every pool of a pool file.
///
/// # Errors
/// If it is not TOML or has no pools.
pub fn with_fields(pools: &str, fields: &[(&str, Value)]) -> anyhow::Result<String> {
    let mut table: Table = pools.parse()?;
    let pools = table.get_mut("pool").and_then(Value::as_array_mut).context("the file has no [[pool]]")?;
    for pool in pools.iter_mut().filter_map(Value::as_table_mut) {
        pool.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    }
    Ok(table.to_string())
}

/// A pool file with short time limits and one pool, `linux`, which serves `octo-org/widgets` with the label `drover` and at
/// most ten machines. `more` has additional fields of the pool.
pub fn one_pool(more: &str) -> String {
    let pool = "[[pool]]\nname = \"linux\"\nowner = \"octo-org\"\nlabels = [\"drover\"]\n\
                repositories = [\"octo-org/widgets\"]\nlaunch_template = \"drover-runner\"\n\
                instance_types = [\"m7i.large\"]\n";
    let has_max = more.lines().any(|line| line.starts_with("max ="));
    let max = if has_max { "" } else { "max = 10\n" };
    with_short_timings(&format!("{pool}{max}{more}")).expect("the text is TOML")
}

/// Number and model of the processors, to print with measurements.
pub fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("model name\t: ")).collect();
    format!("{} x {}", models.len(), models.first().unwrap_or(&"unknown processor"))
}
