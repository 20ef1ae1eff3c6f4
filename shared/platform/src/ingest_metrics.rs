//! Ingest's two metrics, as log lines in CloudWatch's Embedded Metric Format. The collector of the other functions would make
//! ingest's cold start longer.

use std::io::Write;

use domain::ids::StackName;
use engine::metrics::{DELIVERIES_UNUSABLE, Metric, SIGNATURES_REJECTED};
use engine::ports::Clock;
use serde_json::json;

use crate::clock::SystemClock;

/// Writes metrics in the namespace `Drover/<stack>`.
#[derive(Debug)]
pub struct IngestMetrics {
    namespace: String,
}

impl IngestMetrics {
    pub fn new(stack: &StackName) -> Self {
        Self { namespace: format!("Drover/{stack}") }
    }

    /// Signatures were rejected since the last call.
    pub fn signatures_rejected(&self, times: u64) {
        self.write(&SIGNATURES_REJECTED, times);
    }

    /// GitHub signed an event that Drover cannot use.
    pub fn delivery_unusable(&self) {
        self.write(&DELIVERIES_UNUSABLE, 1);
    }

    fn write(&self, metric: &Metric, value: u64) {
        let unit = metric.unit.map(|unit| format!("{unit:?}"));
        let line = json!({
            "_aws": {
                "Timestamp": SystemClock.now().as_millisecond(),
                "CloudWatchMetrics": [{
                    "Namespace": self.namespace, "Dimensions": [[]],
                    "Metrics": [{ "Name": metric.name, "Unit": unit }],
                }],
            },
            (metric.name): value,
        });
        if let Err(error) = writeln!(std::io::stdout().lock(), "{line}") {
            tracing::warn!("cannot write metrics: {error}");
        }
    }
}
