//! A pool, validated and with every name resolved.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::architecture::Architecture;
use crate::config::catalogue::Machines;
use crate::config::label::Label;
use crate::config::market::{MarketChoice, Order, RootVolume, Tuple};
use crate::config::price::MicroUsd;
use crate::config::schedule::{Period, Schedule, is_zero};
use crate::config::shape::{Shape, ShapePolicy};
use crate::config::timings::Timings;
use crate::ids::{InstanceType, PoolName, Repository, RepositoryPattern, Scope, SubnetId, TemplateId};

/// A launch template at a fixed version. `$Latest` could change between two calls with the same client token, and EC2
/// refuses a token with other parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTemplate {
    pub id: TemplateId,
    /// The name in the pool file. It is shown, and never sent to EC2.
    pub name: String,
    /// From 1.
    pub version: u64,
    /// The root volume of its machines. None in a pool without shapes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootVolume>,
}

/// What a pool with shapes has in addition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shapes {
    pub policy: ShapePolicy,
    /// One for each architecture that the policy allows.
    pub launch_templates: BTreeMap<Architecture, LaunchTemplate>,
}

/// A named class of runners, as `drover pools apply` stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub name: PoolName,
    /// The organisation or repository in which its runners are registered.
    pub owner: Scope,
    /// The labels of its runners. GitHub adds none.
    pub labels: BTreeSet<Label>,
    /// The repositories that it serves. Empty means all that `owner` covers.
    #[serde(default)]
    pub repositories: Vec<Repository>,
    /// Whether it serves public repositories. There, a pull request from a fork can run its own code on the machine.
    #[serde(default)]
    pub allow_public: bool,
    pub launch_template: LaunchTemplate,
    /// In order of preference; at least one.
    pub subnets: Vec<SubnetId>,
    /// In order of preference; at least one.
    pub instance_types: Vec<InstanceType>,
    #[serde(default)]
    pub market: MarketChoice,
    #[serde(default, skip_serializing_if = "is_listed")]
    pub order: Order,
    /// The largest number of instances at a time.
    pub max: u32,
    /// The number of instances that are kept booted and unregistered, ready for a job, while no schedule is in effect.
    #[serde(default)]
    pub warm: u32,
    /// The number of instances that are kept stopped, prepared for a job, while no schedule is in effect.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stopped: u32,
    /// Times at which another number is kept ready. No two are in effect at a time.
    #[serde(rename = "schedule", default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Schedule>,
    /// If several pools fit a job, the one with the lowest number gets it.
    pub priority: i32,
    /// GitHub's id of the runner group.
    pub runner_group: u64,
    /// Whether a job that failed because EC2 reclaimed its machine is re-run, once.
    #[serde(default)]
    pub rerun_on_interruption: bool,
    /// Whether its machines measure what their jobs use, and say so in the jobs' logs. If an older version loses this, nothing is
    /// measured.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub usage: bool,
    pub timings: Timings,
    /// It was removed from the pool file. It takes no new jobs, and is deleted once it is empty.
    #[serde(default)]
    pub draining: bool,
    /// An operator paused it: nothing is launched until the pool is resumed. It still takes jobs, and its machines stay. If an
    /// older `drover` loses this, the pool launches again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// What the labels of its jobs may ask for. None if jobs choose it by its labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shapes: Option<Shapes>,
    /// The most that its machines may cost per hour, together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_per_hour: Option<MicroUsd>,
    /// What is known of instance types and prices. None in pools that need none, and if the table has no catalogue.
    #[serde(skip)]
    pub machines: Option<Arc<Machines>>,
    /// The launch options of the class that a decision is about, or those with prices. None outside of decisions, and in pools
    /// that need no prices.
    #[serde(skip)]
    pub options: Option<Arc<[LaunchOption]>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_listed(order: &Order) -> bool {
    *order == Order::Listed
}

/// A tuple and what it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchOption {
    pub tuple: Tuple,
    /// Of the machine and its root volume, per hour. None if it is not known.
    pub price_per_hour: Option<MicroUsd>,
}

impl Pool {
    /// Every way to launch, in the order in which they are tried. Without shapes: by market, then type, then subnet. Another
    /// zone comes before another type, because it has the same machine at the same price.
    pub fn launch_options(&self) -> Vec<LaunchOption> {
        if let Some(options) = &self.options {
            return options.to_vec();
        }
        let mut options = Vec::new();
        for market in self.market.markets() {
            for instance_type in &self.instance_types {
                for subnet in &self.subnets {
                    let tuple = Tuple {
                        template: self.launch_template.id.clone(),
                        template_version: self.launch_template.version,
                        subnet: subnet.clone(),
                        instance_type: instance_type.clone(),
                        market: *market,
                        root: None,
                    };
                    options.push(LaunchOption { tuple, price_per_hour: None });
                }
            }
        }
        options
    }

    /// The launch templates that it uses: with shapes, one for each architecture.
    pub fn templates(&self) -> Vec<&LaunchTemplate> {
        match &self.shapes {
            Some(shapes) => shapes.launch_templates.values().collect(),
            None => vec![&self.launch_template],
        }
    }

    /// The tuples of [`Pool::launch_options`].
    pub fn tuples(&self) -> Vec<Tuple> {
        self.launch_options().into_iter().map(|option| option.tuple).collect()
    }

    /// The class of a job with these labels, in lower case. None if it asks for no shape.
    pub fn class_of(&self, labels: &[String]) -> Option<Label> {
        let ([label], Some(_)) = (labels, &self.shapes) else { return None };
        Shape::terms(&self.name, label)?;
        label.parse().ok()
    }

    /// The repositories whose jobs a machine of this pool may run.
    pub fn repository_patterns(&self) -> Vec<RepositoryPattern> {
        if self.repositories.is_empty() {
            vec![RepositoryPattern::all_of(&self.owner)]
        } else {
            self.repositories.iter().map(RepositoryPattern::only).collect()
        }
    }

    /// Changes with every setting that could make a failing pool work again. A change closes the pool's circuit.
    pub fn config_hash(&self) -> String {
        let has_others = self.usage || self.draining || self.paused;
        let without = || Cow::Owned(Self { usage: false, draining: false, paused: false, ..self.clone() });
        let working = if has_others { without() } else { Cow::Borrowed(self) };
        let json = serde_json::to_vec(&working).expect("a pool has no map keys that could fail to serialise");
        hex::encode(&Sha256::digest(json)[..8])
    }

    /// The lowest format of the table that can hold this pool and what the functions write because of it.
    pub fn lowest_format(&self) -> u32 {
        match (self.has_stopped(), self.schedules.is_empty(), self.needs_prices()) {
            (true, ..) => 5,
            (false, false, _) => 4,
            (false, true, true) => 3,
            (false, true, false) => 1,
        }
    }

    /// The number of instances that are kept booted and unregistered at a moment.
    pub fn warm_at(&self, at: Timestamp) -> u32 {
        self.schedule_at(at).map_or(self.warm, |(schedule, _)| schedule.warm)
    }

    /// The number of instances that are kept stopped at a moment.
    pub fn stopped_at(&self, at: Timestamp) -> u32 {
        self.schedule_at(at).map_or(self.stopped, |(schedule, _)| schedule.stopped)
    }

    /// Whether it keeps machines stopped at any time.
    pub fn has_stopped(&self) -> bool {
        self.stopped > 0 || self.schedules.iter().any(|schedule| schedule.stopped > 0)
    }

    /// The schedule in effect at a moment, and from when to when it is. None: the pool's own numbers count.
    pub fn schedule_at(&self, at: Timestamp) -> Option<(&Schedule, Period)> {
        self.schedules.iter().find_map(|schedule| Some((schedule, schedule.period_at(at)?)))
    }

    /// Whether launches depend on the catalogue of instance types and prices.
    pub fn needs_prices(&self) -> bool {
        let is_by_price = match self.order {
            Order::Listed => false,
            Order::Price => true,
        };
        is_by_price || self.shapes.is_some() || self.price_per_hour.is_some()
    }

    /// Whether jobs of that repository can belong to this pool.
    pub fn serves(&self, repository: &Repository) -> bool {
        self.owner.covers(repository) && self.lists(repository)
    }

    /// Whether the pool's list of repositories has it or is empty.
    pub(crate) fn lists(&self, repository: &Repository) -> bool {
        self.repositories.is_empty() || self.repositories.contains(repository)
    }
}
