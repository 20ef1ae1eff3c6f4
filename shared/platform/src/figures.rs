//! Where the figures of [`engine::metrics`] go: CloudWatch reads them from the log, in its Embedded Metric Format
//! ("Specification: Embedded metric format" in CloudWatch's user guide). They cost no call and no time.

use anyhow::anyhow;
use domain::ids::StackName;
use metrics_cloudwatch_embedded::{Builder, Collector};

use crate::github::GitHubApp;

/// The figures of this process, in the namespace `Drover/<stack>`.
#[expect(missing_debug_implementations, reason = "the collector has nothing to show")]
pub struct Figures<'a> {
    collector: &'static Collector,
    github: &'a GitHubApp,
}

impl<'a> Figures<'a> {
    /// Begins to collect.
    ///
    /// # Errors
    /// When this process does already.
    pub(crate) fn collect(stack: &StackName, github: &'a GitHubApp) -> anyhow::Result<Self> {
        let built = Builder::new().cloudwatch_namespace(format!("Drover/{stack}")).init();
        let collector = built.map_err(|error| anyhow!("figures cannot be collected: {error}"))?;
        for metric in engine::metrics::ALL {
            // Whatever a name is described as, its unit is kept.
            metrics::describe_histogram!(metric.name, metric.unit, "");
        }
        Ok(Self { collector, github })
    }

    /// Writes what was taken since the last time to the log: a line for each set of dimensions.
    pub fn tell(&self) {
        self.github.measure();
        if let Err(error) = self.collector.flush(std::io::stdout().lock()) {
            tracing::warn!("the figures cannot be written: {error}");
        }
    }
}
