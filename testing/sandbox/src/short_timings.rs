//! Pool files with short time limits, for the demo and for tests.

use anyhow::Context;
use toml::{Table, Value};

/// The time limits that are shortened.
pub const SHORT_TIMINGS: [(&str, &str); 12] = [
    ("idle_grace", "2s"),
    ("unbound_grace", "2s"),
    ("orphan_grace", "5s"),
    ("done_grace", "3s"),
    ("stale_grace", "2s"),
    ("confirm_gap", "1s"),
    ("lease_margin", "2s"),
    ("job_check", "5s"),
    ("poll_interval", "3s"),
    ("backoff_min", "1s"),
    ("backoff_max", "5s"),
    ("relaunch_window", "20s"),
];

/// Adds [`SHORT_TIMINGS`] to the defaults of a pool file, except those that it sets itself.
///
/// # Errors
/// If it is not TOML.
pub fn with_short_timings(pools: &str) -> anyhow::Result<String> {
    let mut table: Table = pools.parse()?;
    let defaults = table.entry("defaults").or_insert_with(|| Value::Table(Table::new()));
    let defaults = defaults.as_table_mut().context("[defaults] is not a table")?;
    for (name, time) in SHORT_TIMINGS {
        defaults.entry(name).or_insert_with(|| Value::String(time.to_owned()));
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
    let max = if more.contains("max =") { "" } else { "max = 10\n" };
    with_short_timings(&format!("{pool}{max}{more}")).expect("the text is TOML")
}

/// Number and model of the processors, to print with measurements.
pub fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("model name\t: ")).collect();
    format!("{} x {}", models.len(), models.first().unwrap_or(&"unknown processor"))
}
