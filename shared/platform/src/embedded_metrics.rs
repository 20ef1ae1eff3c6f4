//! Publishes the metrics of [`engine::metrics`] as log lines in CloudWatch's Embedded Metric Format ("Specification:
//! Embedded metric format" in CloudWatch's user guide). CloudWatch reads them from the log, so they need no call.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use anyhow::anyhow;
use domain::config::{LaunchTemplate, Pool};
use domain::ids::StackName;
use domain::state::{Item, Key};
use engine::metrics::{ALL, IMAGE_AGE, RUNNER_AGE};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use metrics_cloudwatch_embedded::{Builder, Collector};

use crate::ec2::Ec2;
use crate::github::GitHubApp;
use crate::table::Table;

/// How often the ages of images are recorded.
const IMAGE_AGES_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// Also written to in the middle of an invocation, by [`engine::metrics::publish_with`].
static COLLECTOR: OnceLock<&'static Collector> = OnceLock::new();

/// The metrics of this process, in the namespace `Drover/<stack>`.
#[derive(Debug)]
pub struct EmbeddedMetrics<'a> {
    table: &'a Table,
    ec2: &'a Ec2,
    github: &'a GitHubApp,
    image_ages_at: Mutex<Option<Timestamp>>,
}

impl<'a> EmbeddedMetrics<'a> {
    /// Starts collecting.
    ///
    /// # Errors
    /// If this process collects metrics already.
    pub(crate) fn collect(
        stack: &StackName,
        table: &'a Table,
        ec2: &'a Ec2,
        github: &'a GitHubApp,
    ) -> anyhow::Result<Self> {
        let built = Builder::new().cloudwatch_namespace(format!("Drover/{stack}")).init();
        let collector = built.map_err(|error| anyhow!("cannot collect metrics: {error}"))?;
        for metric in ALL {
            // Only the unit is used; the description is not published.
            if let Some(unit) = metric.unit {
                metrics::describe_histogram!(metric.name, unit, "");
            }
        }
        // A second collector would have been refused above.
        let _ = COLLECTOR.set(collector);
        engine::metrics::publish_with(publish);
        Ok(Self { table, ec2, github, image_ages_at: Mutex::default() })
    }

    /// Records, once an hour, the age of the oldest image that a pool launches and of the oldest runner in such an image.
    pub async fn record_image_ages(&self, now: Timestamp) {
        let last = *self.image_ages_at.lock().expect("no thread panics while it holds the lock");
        if last.is_some_and(|at| now.duration_since(at) < IMAGE_AGES_EVERY) {
            return;
        }
        let Ok(Some(Item::Config(config))) = self.table.get(&Key::Config).await else { return };
        let (mut oldest, mut oldest_runner) = (None, None);
        let used = config.pools.iter().flat_map(Pool::templates);
        let used: BTreeMap<(&str, u64), &LaunchTemplate> = used.map(|it| ((it.id.as_str(), it.version), it)).collect();
        for template in used.into_values() {
            match self.ec2.image_dates(template).await {
                Ok((created_at, released_at)) => {
                    oldest = [oldest, created_at].into_iter().flatten().min();
                    oldest_runner = [oldest_runner, released_at].into_iter().flatten().min();
                }
                Err(error) => tracing::warn!("cannot find the image of launch template {}: {error}", template.name),
            }
        }
        if let Some(created_at) = oldest {
            *self.image_ages_at.lock().expect("no thread panics while it holds the lock") = Some(now);
            IMAGE_AGE.record(now.duration_since(created_at).max(SignedDuration::ZERO).as_secs_f64(), &[]);
        }
        if let Some(released_at) = oldest_runner {
            RUNNER_AGE.record(now.duration_since(released_at).max(SignedDuration::ZERO).as_secs_f64(), &[]);
        }
    }

    /// Writes the metrics recorded since the last call to the log: one line per set of dimensions.
    pub fn flush(&self) {
        self.github.record_budgets();
        publish();
    }
}

fn publish() {
    if let Some(collector) = COLLECTOR.get()
        && let Err(error) = collector.flush(std::io::stdout().lock())
    {
        tracing::warn!("cannot write metrics: {error}");
    }
}
