//! Logs: one JSON object a line, which CloudWatch Logs Insights queries by field.

use std::str::FromStr;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::environment;

/// Writes what the process has to say to its standard output, as JSON. `RUST_LOG` chooses targets and levels, as in
/// `info,scaler=debug`; without it, `info`.
pub fn init() {
    let targets = environment::optional("RUST_LOG").and_then(|targets| Targets::from_str(&targets).ok());
    let targets = targets.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    let lines =
        tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
    tracing_subscriber::registry().with(targets).with(lines).init();
}
