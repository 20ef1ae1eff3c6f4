//! The launch templates and launch options of a pool, also of one with shapes, and dry runs of them.

use std::time::Duration;

use domain::config::{Architecture, Machines, Market, Pool, Shape, ShapePolicy, Tuple};
use domain::ids::StackName;
use domain::policy::offer::{Offer, offers};
use platform::inspect::{Inspect, Unanswered};

/// The machines of one architecture that jobs get which ask for nothing else, whatever they cost.
pub(crate) fn of_architecture(
    pool: &Pool,
    architecture: Architecture,
    market: Option<Market>,
    machines: &Machines,
) -> Vec<Offer> {
    let Some(shapes) = &pool.shapes else { return Vec::new() };
    let policy = ShapePolicy { price_per_hour: None, ..shapes.policy.clone() };
    let shape = Shape { architecture: Some(architecture), market, ..Shape::default() };
    offers(pool, &policy, &shape, machines, 0)
}

/// The launch options to try: those of the pool or, in a pool with shapes, one of each architecture and market.
pub(crate) fn examples(pool: &Pool) -> Vec<Tuple> {
    let Some(shapes) = &pool.shapes else { return pool.tuples() };
    let Some(machines) = &pool.machines else { return Vec::new() };
    let mut all = Vec::new();
    for (architecture, template) in &shapes.launch_templates {
        for market in &shapes.policy.markets {
            let found = of_architecture(pool, *architecture, Some(*market), machines);
            all.extend(found.into_iter().next().map(|Offer { instance_type, subnet, market, .. }| Tuple {
                template: template.id.clone(),
                template_version: template.version,
                subnet,
                instance_type,
                market,
                root: None,
            }));
        }
    }
    all
}

/// EC2 allows an account a burst of five RunInstances calls. One is left to the scaler.
const AT_ONCE: usize = 4;

/// Afterwards EC2 allows two calls per second.
const PACE: Duration = Duration::from_millis(600);

/// Dry runs of launches, one after the other.
pub(crate) struct DryRuns<'a> {
    inspect: &'a Inspect,
    stack: &'a StackName,
    calls: usize,
    /// EC2's answer once it throttles a dry run however often that is repeated. The others are not tried then.
    throttled: Option<Unanswered>,
}

impl<'a> DryRuns<'a> {
    pub(crate) fn new(inspect: &'a Inspect, stack: &'a StackName) -> Self {
        Self { inspect, stack, calls: 0, throttled: None }
    }

    /// The number of launches that were tried.
    pub(crate) fn calls(&self) -> usize {
        self.calls
    }

    /// See [`Inspect::try_launch`].
    pub(crate) async fn try_launch(&mut self, tuple: &Tuple) -> Result<(), Unanswered> {
        if let Some(error) = &self.throttled {
            return Err(error.clone());
        }
        if self.calls >= AT_ONCE {
            tokio::time::sleep(PACE).await;
        }
        self.calls += 1;
        let answer = self.inspect.try_launch(self.stack, tuple).await;
        self.throttled = answer.as_ref().err().filter(|error| error.is_throttled()).cloned();
        answer
    }
}
