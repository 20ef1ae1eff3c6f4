//! A pool, validated and with every name resolved.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::label::Label;
use crate::config::market::{MarketChoice, Tuple};
use crate::config::timings::Timings;
use crate::ids::{InstanceType, PoolName, Repository, RepositoryPattern, Scope, SubnetId, TemplateId};

/// A launch template at a version. Always a fixed version: a moving one could change an attempt between two tries of the
/// same client token, which EC2 refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTemplate {
    /// `lt-...`.
    pub id: TemplateId,
    /// As the operator names it; shown, never sent.
    pub name: String,
    /// A number from 1.
    pub version: u64,
}

/// A named class of runners, validated and with every name resolved: what `drover pools apply` writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Where its runners are registered.
    pub owner: Scope,
    /// What its runners are registered with: exactly these, GitHub adds none.
    pub labels: BTreeSet<Label>,
    /// The repositories it serves; empty means all that `owner` covers.
    #[serde(default)]
    pub repositories: Vec<Repository>,
    /// Whether jobs of public repositories are served. A fork's pull request runs its code there.
    #[serde(default)]
    pub allow_public: bool,
    /// What is launched.
    pub launch_template: LaunchTemplate,
    /// Where, in order of preference; at least one.
    pub subnets: Vec<SubnetId>,
    /// On what, in order of preference; at least one.
    pub instance_types: Vec<InstanceType>,
    /// How it is paid.
    #[serde(default)]
    pub market: MarketChoice,
    /// At most this many instances at a time.
    pub max: u32,
    /// Instances kept booted and unregistered, ready to be handed a job's runner.
    #[serde(default)]
    pub warm: u32,
    /// Lower is asked first.
    pub priority: i32,
    /// GitHub's id of the runner group.
    pub runner_group: u64,
    /// Whether a job that failed because EC2 took its machine is run again, once.
    #[serde(default)]
    pub rerun_on_interruption: bool,
    /// How long things may take.
    pub timings: Timings,
    /// Removed from the pool file: takes no new jobs, and is deleted once it is empty.
    #[serde(default)]
    pub draining: bool,
}

impl Pool {
    /// Every way to launch, first choice first: market, then type, then subnet, because another zone gives the same
    /// machine at the same price.
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

    /// Changes whenever anything about the pool changes that could make it work: what closes a circuit that a configuration
    /// refusal opened.
    pub fn config_hash(&self) -> String {
        let working = Pool { draining: false, ..self.clone() };
        let json = serde_json::to_vec(&working).expect("a pool has no map keys that could fail to serialise");
        hex::encode(&Sha256::digest(json)[..8])
    }

    /// Whether jobs of that repository can be its.
    pub fn serves(&self, repository: &Repository) -> bool {
        self.owner.covers(repository) && self.lists(repository)
    }

    /// Whether it is named, or no one is.
    pub(crate) fn lists(&self, repository: &Repository) -> bool {
        self.repositories.is_empty() || self.repositories.contains(repository)
    }
}
