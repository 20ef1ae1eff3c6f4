//! Which pool a job belongs to.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::{InvalidShape, Label, NotAllowed, Pool, Shape};
use crate::ids::Repository;
use crate::wire::Notice;

/// Why no pool serves a job. Later variants are nearer misses; the nearest miss of all pools is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unrouted {
    NoPools,
    /// The job has no labels, or one that no runner can have.
    Unlabelled,
    /// No pool's scope covers the repository.
    Owner,
    /// The pools whose scope covers the repository do not list it.
    Repository,
    /// No pool that serves the repository has all labels of the job.
    Labels,
    /// The job names a runner group and no labels. A pool serves its repository.
    Group,
    /// A label of the job begins with the name of a pool that serves the repository, and the pool does not have the label.
    PoolName,
    /// A label of the job is meant as a shape of a pool that serves the repository, and is none that the pool allows.
    Shape,
    /// The matching pool was removed from the pool file.
    Draining,
    /// The matching pool does not serve public repositories.
    Public,
}

impl Unrouted {
    /// The name in the metric `MessagesIgnored`.
    pub fn as_str(self) -> &'static str {
        match self {
            Unrouted::NoPools => "NoPools",
            Unrouted::Unlabelled => "Unlabelled",
            Unrouted::Owner => "Owner",
            Unrouted::Repository => "Repository",
            Unrouted::Labels => "Labels",
            Unrouted::Group => "Group",
            Unrouted::PoolName => "PoolName",
            Unrouted::Shape => "Shape",
            Unrouted::Draining => "Draining",
            Unrouted::Public => "Public",
        }
    }

    /// Whether a pool's owner and repository could have meant the job: its author must be able to see why it waits.
    pub fn is_near_miss(self) -> bool {
        match self {
            Unrouted::Group | Unrouted::PoolName | Unrouted::Shape | Unrouted::Draining | Unrouted::Public => true,
            Unrouted::NoPools | Unrouted::Unlabelled | Unrouted::Owner | Unrouted::Repository | Unrouted::Labels => {
                false
            }
        }
    }
}

/// The parts of a job that decide which pool it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Routable<'a> {
    pub repository: &'a Repository,
    /// Whether the repository is public.
    pub public: bool,
    /// `runs-on`, as written.
    pub labels: &'a [String],
}

impl<'a> Routable<'a> {
    pub fn of(notice: &'a Notice) -> Self {
        Self { repository: &notice.repository, public: notice.public, labels: &notice.job.labels }
    }
}

/// Finds the pool for a job: the first one, by priority and then by name, that accepts it.
///
/// # Errors
/// No pool accepts the job.
pub fn route<'a>(pools: &'a [Pool], job: &Routable<'_>) -> Result<&'a Pool, Unrouted> {
    let labels: BTreeSet<Label> =
        job.labels.iter().map(|label| label.parse()).collect::<Result<_, _>>().map_err(|_| Unrouted::Unlabelled)?;
    if labels.is_empty() {
        let is_meant = pools.iter().any(|pool| pool.serves(job.repository));
        return Err(if is_meant { Unrouted::Group } else { Unrouted::Unlabelled });
    }
    let mut nearest = Unrouted::NoPools;
    let mut found: Option<&Pool> = None;
    for pool in pools {
        match refusal(pool, job, &labels) {
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

/// Whether a label begins with the name of the pool, which does not have the label: the author may have meant the pool.
fn begins_with_name(pool: &Pool, labels: &BTreeSet<Label>) -> bool {
    labels.difference(&pool.labels).any(|label| label.as_str().starts_with(pool.name.as_str()))
}

/// What is wrong with a job's shape. The text is for the author of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongShape {
    #[error(transparent)]
    Invalid(#[from] InvalidShape),
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    #[error("{0:?} must be the job's only label: with another one, other jobs could take its machine")]
    NotAlone(String),
}

/// Whether the pool accepts the job's labels as a shape. None if no label is meant as one of this pool.
pub fn shape(pool: &Pool, labels: &[String]) -> Option<Result<Shape, WrongShape>> {
    let shapes = pool.shapes.as_ref()?;
    let label = labels.iter().find(|label| Shape::terms(&pool.name, label).is_some())?;
    if labels.len() > 1 {
        return Some(Err(WrongShape::NotAlone(label.clone())));
    }
    let shape = Shape::of_label(&pool.name, label)?;
    Some(shape.map_err(WrongShape::from).and_then(|shape| Ok(shapes.policy.check(&shape).map(|()| shape)?)))
}

/// The pool that the author may have meant by a shape, and what is wrong with it.
pub fn wrong_shape<'a>(pools: &'a [Pool], job: &Routable<'_>) -> Option<(&'a Pool, WrongShape)> {
    let serving = pools.iter().filter(|pool| pool.serves(job.repository));
    serving.filter_map(|pool| Some((pool, shape(pool, job.labels)?.err()?))).next()
}

/// The pool that the author may have meant by a label that no pool has.
pub fn meant<'a>(pools: &'a [Pool], job: &Routable<'_>) -> Option<&'a Pool> {
    let labels: BTreeSet<Label> = job.labels.iter().filter_map(|label| label.parse().ok()).collect();
    pools.iter().filter(|pool| pool.serves(job.repository)).find(|pool| begins_with_name(pool, &labels))
}

fn refusal(pool: &Pool, job: &Routable<'_>, labels: &BTreeSet<Label>) -> Option<Unrouted> {
    let shape = shape(pool, job.labels);
    if !pool.owner.covers(job.repository) {
        Some(Unrouted::Owner)
    } else if !pool.lists(job.repository) {
        Some(Unrouted::Repository)
    } else if shape.as_ref().is_some_and(Result::is_err) {
        // What a stranger wrote is not shown on a repository that the pool would not serve.
        Some(if job.public && !pool.allow_public { Unrouted::Public } else { Unrouted::Shape })
    } else if shape.is_none() && !labels.is_subset(&pool.labels) {
        Some(if begins_with_name(pool, labels) { Unrouted::PoolName } else { Unrouted::Labels })
    } else if pool.draining {
        Some(Unrouted::Draining)
    } else if job.public && !pool.allow_public {
        Some(Unrouted::Public)
    } else {
        None
    }
}
