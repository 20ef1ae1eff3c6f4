//! A pool, validated and with every name resolved.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::label::Label;
use crate::config::market::{MarketChoice, Tuple};
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
    /// The largest number of instances at a time.
    pub max: u32,
    /// The number of instances that are kept booted and unregistered, ready for a job.
    #[serde(default)]
    pub warm: u32,
    /// If several pools fit a job, the one with the lowest number gets it.
    pub priority: i32,
    /// GitHub's id of the runner group.
    pub runner_group: u64,
    /// Whether a job that failed because EC2 reclaimed its machine is re-run, once.
    #[serde(default)]
    pub rerun_on_interruption: bool,
    pub timings: Timings,
    /// It was removed from the pool file. It takes no new jobs, and is deleted once it is empty.
    #[serde(default)]
    pub draining: bool,
    /// An operator paused it: nothing is launched until the pool is resumed. It still takes jobs, and its machines stay. If an
    /// older `drover` loses this, the pool launches again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

impl Pool {
    /// Every way to launch, in order of preference: by market, then type, then subnet. Another zone comes before another
    /// type, because it has the same machine at the same price.
    pub fn tuples(&self) -> Vec<Tuple> {
        let mut tuples = Vec::new();
        for market in self.market.markets() {
            for instance_type in &self.instance_types {
                for subnet in &self.subnets {
                    tuples.push(Tuple {
                        template: self.launch_template.id.clone(),
                        template_version: self.launch_template.version,
                        subnet: subnet.clone(),
                        instance_type: instance_type.clone(),
                        market: *market,
                    });
                }
            }
        }
        tuples
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
        let working = Pool { draining: false, paused: false, ..self.clone() };
        let json = serde_json::to_vec(&working).expect("a pool has no map keys that could fail to serialise");
        hex::encode(&Sha256::digest(json)[..8])
    }

    /// The lowest format of the table that can hold this pool and what the functions write because of it.
    pub fn lowest_format(&self) -> u32 {
        1
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
