//! Runner groups, held against the pools that use them.
//!
//! GitHub gives a job to any runner that the job's repository may use, and a runner's group is what says so: Drover's own
//! list of repositories only decides for whose jobs machines are launched, and makes others fail on them.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::Pool;
use domain::ids::{Owner, PoolName, Repository, Scope};
use engine::ports::GitHubError;
use platform::github::{GitHubApp, RunnerGroup};

use crate::pool_file::Written;

/// What is to be said about the groups of a pool file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// A group lets in what its pool does not serve.
    pub errors: Vec<String>,
    /// What could not be told, and what may not be meant.
    pub warnings: Vec<String>,
}

/// A pool, as far as a fence around it goes: written, or in force.
#[derive(Debug, Clone, Copy)]
pub struct Fenced<'a> {
    name: &'a PoolName,
    owner: &'a Scope,
    repositories: &'a [Repository],
    runner_group: u64,
    allow_public: bool,
}

impl<'a> From<&'a Written> for Fenced<'a> {
    fn from(pool: &'a Written) -> Self {
        let Written { name, owner, repositories, runner_group, allow_public, .. } = pool;
        Self { name, owner, repositories, runner_group: *runner_group, allow_public: *allow_public }
    }
}
impl<'a> From<&'a Pool> for Fenced<'a> {
    fn from(pool: &'a Pool) -> Self {
        let Pool { name, owner, repositories, runner_group, allow_public, .. } = pool;
        Self { name, owner, repositories, runner_group: *runner_group, allow_public: *allow_public }
    }
}

/// What GitHub says about an organisation's groups.
struct Groups {
    all: Vec<RunnerGroup>,
    /// By repository, the ids of the groups that it may use.
    open_to: BTreeMap<Repository, BTreeSet<u64>>,
}

/// Asks GitHub about the groups of all pools that are registered with an organisation; a repository's runners serve only
/// that repository, whatever their group. What GitHub does not tell is a warning: the app may lack the permission, and a
/// pool file must be applicable while GitHub is away.
pub async fn check(pools: &[Fenced<'_>], github: Result<&GitHubApp, String>) -> Fence {
    let mut fence = Fence::default();
    let mut by_owner: BTreeMap<&Owner, Vec<Fenced<'_>>> = BTreeMap::new();
    for pool in pools {
        match pool.owner {
            Scope::Organization(owner) => by_owner.entry(owner).or_default().push(*pool),
            Scope::Repository(_) => {}
        }
    }
    for (owner, pools) in by_owner {
        let asked = match &github {
            Ok(github) => ask(github, owner, &pools).await.map_err(|error| error.to_string()),
            Err(why) => Err(why.clone()),
        };
        match asked {
            Ok(groups) => pools.iter().for_each(|pool| groups.judge(pool, &mut fence)),
            Err(why) => fence.warnings.push(format!(
                "the runner groups of {owner} are not checked ({why}): see to it that they admit no other repositories \
                 than their pools serve"
            )),
        }
    }
    fence
}

/// One question, and one more for each repository that a pool of this organisation lists.
async fn ask(github: &GitHubApp, owner: &Owner, pools: &[Fenced<'_>]) -> Result<Groups, GitHubError> {
    let all = github.runner_groups(owner, None).await?;
    let listed: BTreeSet<&Repository> = pools.iter().flat_map(|pool| pool.repositories).collect();
    let mut open_to = BTreeMap::new();
    for repository in listed {
        let open = match github.runner_groups(owner, Some(repository)).await {
            Ok(open) => open.iter().map(|group| group.id).collect(),
            // There is no such repository (yet): it can use none.
            Err(GitHubError::Refused(_)) => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        open_to.insert(repository.clone(), open);
    }
    Ok(Groups { all, open_to })
}

impl Groups {
    fn judge(&self, pool: &Fenced<'_>, fence: &mut Fence) {
        let called = format!("pool {:?}: runner_group {}", pool.name.as_str(), pool.runner_group);
        let Some(group) = self.all.iter().find(|group| group.id == pool.runner_group) else {
            let known: Vec<String> = self.all.iter().map(|group| format!("{} ({})", group.id, group.name)).collect();
            fence.errors.push(format!("{called} does not exist: {} has {}", pool.owner, known.join(", ")));
            return;
        };
        let called = format!("{called} ({})", group.name);
        if group.allows_public && !pool.allow_public {
            fence.errors.push(format!(
                "{called} allows public repositories, and the pool does not (allow_public): anybody's pull request could \
                 run on its machines"
            ));
        }
        if pool.repositories.is_empty() {
            return;
        }
        if !group.selected {
            fence.errors.push(format!(
                "{called} admits more than the pool's repositories: select those in the group, or leave \
                 repositories out"
            ));
            return;
        }
        for (repository, open) in &self.open_to {
            match (open.contains(&group.id), pool.repositories.contains(repository)) {
                (true, false) => fence.errors.push(format!(
                    "{called} admits {repository}, which is none of the pool's repositories: give the pools that serve \
                     different repositories different groups"
                )),
                (false, true) => fence.warnings.push(format!(
                    "{called} does not admit {repository}: its jobs will wait for a runner that they may not use"
                )),
                (true, true) | (false, false) => {}
            }
        }
    }
}
