//! What a job used of its machine, as lines of text.

use domain::state::{Usage, UsageLine};

/// A line for each of CPU, memory, disk and network, with the charts below each other.
pub(crate) fn lines(usage: &Usage) -> Vec<String> {
    let lines = usage.lines();
    let width = lines.iter().filter(|line| line.chart.is_some()).map(|line| line.text.len()).max().unwrap_or_default();
    let line = |UsageLine { what, text, chart }| match chart {
        Some(chart) => format!("{what:<9}  {text:<width$}  {chart}"),
        None => format!("{what:<9}  {text}"),
    };
    lines.into_iter().map(line).collect()
}
