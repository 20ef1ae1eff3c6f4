//! Logs: one JSON object per line, described in `docs/LOGGING.md`.

use std::str::FromStr;

use tracing::{Level, Metadata, Span};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::environment;

/// The crates of this workspace that write log lines.
const OWN: [&str; 9] = ["agent", "cli", "domain", "engine", "ingest", "janitor", "platform", "scaler", "drover"];

/// Starts writing log lines to the standard output. `RUST_LOG` selects targets and levels, as in `info,scaler=debug`; the
/// default is `info`.
///
/// Below `info`, only lines of this workspace are written, whatever `RUST_LOG` says: libraries print requests there, with
/// bodies, signatures, tokens and JIT configs.
pub fn init() {
    let targets = environment::optional("RUST_LOG").and_then(|targets| Targets::from_str(&targets).ok());
    let targets = targets.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    // Every line has the fields of all open spans, the outermost first. The list includes the current span.
    let lines =
        tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(true);
    tracing_subscriber::registry().with(targets).with(lines.with_filter(filter_fn(may_be_written))).init();
}

fn may_be_written(metadata: &Metadata<'_>) -> bool {
    let crate_name = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO || OWN.contains(&crate_name)
}

/// The span of one invocation of a Lambda function. Its level is the highest, so that no `RUST_LOG` hides it while lines
/// are written.
pub fn invocation_span(request_id: &str) -> Span {
    tracing::error_span!("invocation", request_id)
}
