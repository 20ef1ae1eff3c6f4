//! Where the figures of [`engine::metrics`] go: CloudWatch reads them from the log, in its Embedded Metric Format
//! ("Specification: Embedded metric format" in CloudWatch's user guide). They cost no call and no time.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::anyhow;
use domain::config::LaunchTemplate;
use domain::ids::StackName;
use domain::state::{Item, Key};
use engine::metrics::{ALL, IMAGE_AGE, RUNNER_AGE};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use metrics_cloudwatch_embedded::{Builder, Collector};

use crate::ec2::Ec2;
use crate::github::GitHubApp;
use crate::table::Table;

/// Images age slowly.
const IMAGES_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// The figures of this process, in the namespace `Drover/<stack>`.
#[expect(missing_debug_implementations, reason = "the collector has nothing to show")]
pub struct Figures<'a> {
    collector: &'static Collector,
    table: &'a Table,
    ec2: &'a Ec2,
    github: &'a GitHubApp,
    images_at: Mutex<Option<Timestamp>>,
}

impl<'a> Figures<'a> {
    /// Begins to collect.
    ///
    /// # Errors
    /// When this process does already.
    pub(crate) fn collect(
        stack: &StackName,
        table: &'a Table,
        ec2: &'a Ec2,
        github: &'a GitHubApp,
    ) -> anyhow::Result<Self> {
        let built = Builder::new().cloudwatch_namespace(format!("Drover/{stack}")).init();
        let collector = built.map_err(|error| anyhow!("figures cannot be collected: {error}"))?;
        for metric in ALL {
            // Whatever a name is described as, its unit is kept.
            if let Some(unit) = metric.unit {
                metrics::describe_histogram!(metric.name, unit, "");
            }
        }
        Ok(Self { collector, table, ec2, github, images_at: Mutex::default() })
    }

    /// Takes the ages of the oldest image that the pools launch and of the oldest runner in one, once an hour.
    pub async fn look_at_images(&self, now: Timestamp) {
        let last = *self.images_at.lock().expect("nobody panics while holding it");
        if last.is_some_and(|at| now.duration_since(at) < IMAGES_EVERY) {
            return;
        }
        let Ok(Some(Item::Config(config))) = self.table.get(&Key::Config).await else { return };
        let (mut oldest, mut oldest_runner) = (None, None);
        let used = config.pools.iter().map(|pool| &pool.launch_template);
        let used: BTreeMap<(&str, u64), &LaunchTemplate> = used.map(|it| ((it.id.as_str(), it.version), it)).collect();
        for template in used.into_values() {
            match self.ec2.image_dates(template).await {
                Ok((made_at, released_at)) => {
                    oldest = [oldest, made_at].into_iter().flatten().min();
                    oldest_runner = [oldest_runner, released_at].into_iter().flatten().min();
                }
                Err(error) => tracing::warn!("the image of launch template {}: {error}", template.name),
            }
        }
        if let Some(made_at) = oldest {
            *self.images_at.lock().expect("nobody panics while holding it") = Some(now);
            IMAGE_AGE.record(now.duration_since(made_at).max(SignedDuration::ZERO).as_secs_f64(), &[]);
        }
        if let Some(released_at) = oldest_runner {
            RUNNER_AGE.record(now.duration_since(released_at).max(SignedDuration::ZERO).as_secs_f64(), &[]);
        }
    }

    /// Writes what was taken since the last time to the log: a line for each set of dimensions.
    pub fn tell(&self) {
        self.github.measure();
        if let Err(error) = self.collector.flush(std::io::stdout().lock()) {
            tracing::warn!("the figures cannot be written: {error}");
        }
    }
}
