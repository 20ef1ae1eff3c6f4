//! Which pool a job belongs to.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::{Label, Pool};
use crate::ids::Repository;

/// Why a job is not ours. The order is how near it came: the nearest miss over all pools is the one to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unrouted {
    /// There is no pool at all.
    NoPools,
    /// The job has no labels, or one that no runner could have.
    Unlabelled,
    /// No pool is registered where the repository is.
    Owner,
    /// The pools there do not list the repository.
    Repository,
    /// No pool there has all the job's labels.
    Labels,
    /// The pool that fits was removed from the pool file.
    Draining,
    /// The pool that fits does not serve public repositories.
    Public,
}

/// Finds the pool for a job: the first, by priority and then name, that accepts it.
///
/// # Errors
/// [`Unrouted`], the nearest miss.
pub fn route<'a>(
    pools: &'a [Pool],
    repository: &Repository,
    public: bool,
    labels: &[String],
) -> Result<&'a Pool, Unrouted> {
    let labels: BTreeSet<Label> =
        labels.iter().map(|label| label.parse()).collect::<Result<_, _>>().map_err(|_| Unrouted::Unlabelled)?;
    if labels.is_empty() {
        return Err(Unrouted::Unlabelled);
    }
    let mut nearest = Unrouted::NoPools;
    let mut found: Option<&Pool> = None;
    for pool in pools {
        match refusal(pool, repository, public, &labels) {
            Some(why) => nearest = nearest.max(why),
            None => {
                let before = |other: &Pool| (pool.priority, &pool.name) < (other.priority, &other.name);
                if found.is_none_or(before) {
                    found = Some(pool);
                }
            }
        }
    }
    found.ok_or(nearest)
}

fn refusal(pool: &Pool, repository: &Repository, public: bool, labels: &BTreeSet<Label>) -> Option<Unrouted> {
    if !pool.owner.covers(repository) {
        Some(Unrouted::Owner)
    } else if !pool.lists(repository) {
        Some(Unrouted::Repository)
    } else if !labels.is_subset(&pool.labels) {
        Some(Unrouted::Labels)
    } else if pool.draining {
        Some(Unrouted::Draining)
    } else if public && !pool.allow_public {
        Some(Unrouted::Public)
    } else {
        None
    }
}
