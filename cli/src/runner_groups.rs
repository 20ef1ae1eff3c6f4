//! Compares runner groups with the pools that use them.
//!
//! GitHub gives a job to any runner that the job's repository may use, and the runner's group decides which repositories those
//! are. The pool's own list of repositories only decides for whose jobs Drover launches machines; a machine
//! that gets a job of another repository ends.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::Pool;
use domain::ids::{Owner, PoolName, Repository, Scope};
use engine::ports::GitHubError;
use platform::github::{GitHubApp, RepositorySelection, RunnerGroup};

use crate::pool_file::PoolEntry;

/// What is wrong with the runner groups of some pools.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// A group admits repositories that its pool does not serve.
    pub errors: Vec<Problem>,
    /// A group admits too few repositories, or could not be read.
    pub warnings: Vec<Problem>,
}

/// What is wrong with the group of a pool.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    pub pool: PoolName,
    /// Names the pool.
    pub message: String,
}

/// What a pool says about access: a pool of a file, or one in force.
#[derive(Debug, Clone, Copy)]
pub struct PoolAccess<'a> {
    name: &'a PoolName,
    owner: &'a Scope,
    repositories: &'a [Repository],
    runner_group: u64,
    allow_public: bool,
}

impl<'a> From<&'a PoolEntry> for PoolAccess<'a> {
    fn from(pool: &'a PoolEntry) -> Self {
        let PoolEntry { name, owner, repositories, runner_group, allow_public, .. } = pool;
        Self { name, owner, repositories, runner_group: *runner_group, allow_public: *allow_public }
    }
}
impl<'a> From<&'a Pool> for PoolAccess<'a> {
    fn from(pool: &'a Pool) -> Self {
        let Pool { name, owner, repositories, runner_group, allow_public, .. } = pool;
        Self { name, owner, repositories, runner_group: *runner_group, allow_public: *allow_public }
    }
}

/// The runner groups of an organisation.
struct Groups {
    all: Vec<RunnerGroup>,
    /// For each repository the ids of the groups that admit it.
    admitting: BTreeMap<Repository, BTreeSet<u64>>,
    /// The page of the app's installation, if the app sees only some repositories of the organisation. Not read unless a pool
    /// serves all of them.
    sees_some: Option<String>,
}

/// Checks the groups of all pools that are registered with an organisation; runners of a single repository serve only that
/// repository, whatever their group. If GitHub does not answer, that is a warning: the app may lack the permission, and a pool
/// file can be applied while GitHub is unavailable.
pub async fn check(pools: &[PoolAccess<'_>], github: Result<&GitHubApp, String>) -> Findings {
    let mut findings = Findings::default();
    let mut by_owner: BTreeMap<&Owner, Vec<PoolAccess<'_>>> = BTreeMap::new();
    for pool in pools {
        match pool.owner {
            Scope::Organization(owner) => by_owner.entry(owner).or_default().push(*pool),
            Scope::Repository(_) => {}
        }
    }
    for (owner, pools) in by_owner {
        let groups = match &github {
            Ok(github) => read(github, owner, &pools).await.map_err(|error| error.to_string()),
            Err(why) => Err(why.clone()),
        };
        match groups {
            Ok(groups) => pools.iter().for_each(|pool| groups.check(pool, &mut findings)),
            Err(why) => {
                let message = format!(
                    "the runner groups of {owner} were not checked ({why}): make sure that they admit only repositories \
                     that their pools serve"
                );
                findings.warnings.extend(pools.first().map(|pool| Problem { pool: pool.name.clone(), message }));
            }
        }
    }
    findings
}

/// One call, one more for each repository that a pool of this organisation lists, and one if a pool lists none.
async fn read(github: &GitHubApp, owner: &Owner, pools: &[PoolAccess<'_>]) -> Result<Groups, GitHubError> {
    let all = github.runner_groups(owner, None).await?;
    let listed: BTreeSet<&Repository> = pools.iter().flat_map(|pool| pool.repositories).collect();
    let mut admitting = BTreeMap::new();
    for repository in listed {
        let groups = match github.runner_groups(owner, Some(repository)).await {
            Ok(groups) => groups.iter().map(|group| group.id).collect(),
            // The repository does not exist yet, so no group admits it.
            Err(GitHubError::Refused(_)) => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        admitting.insert(repository.clone(), groups);
    }
    let installed = match pools.iter().any(|pool| pool.repositories.is_empty()) {
        true => github.installed(&Scope::Organization(owner.clone())).await?,
        false => None,
    };
    let sees_some =
        installed.filter(|it| it.repository_selection == RepositorySelection::Selected).map(|it| it.html_url);
    Ok(Groups { all, admitting, sees_some })
}

impl Groups {
    fn check(&self, pool: &PoolAccess<'_>, findings: &mut Findings) {
        let problem = |message: String| Problem { pool: pool.name.clone(), message };
        let title = format!("pool {:?}: runner_group {}", pool.name.as_str(), pool.runner_group);
        let Some(group) = self.all.iter().find(|group| group.id == pool.runner_group) else {
            let known: Vec<String> = self.all.iter().map(|group| format!("{} ({})", group.id, group.name)).collect();
            let message = format!("{title} does not exist: {} has {}", pool.owner, known.join(", "));
            findings.errors.push(problem(message));
            return;
        };
        let title = format!("{title} ({})", group.name);
        if group.allows_public && !pool.allow_public {
            findings.errors.push(problem(format!(
                "{title} allows public repositories, and the pool does not (allow_public): anyone's pull request could \
                 run on its machines"
            )));
        }
        if pool.repositories.is_empty() {
            if let (false, Some(page)) = (group.selected, &self.sees_some) {
                findings.warnings.push(problem(format!(
                    "{title} admits every repository, but the app sees only some of {}: jobs of the others can take the \
                     pool's machines, and GitHub sends Drover no webhooks about them -> select the same repositories in the \
                     group, or all for the app: {page}",
                    pool.owner
                )));
            }
            return;
        }
        if !group.selected {
            findings.errors.push(problem(format!(
                "{title} admits more than the pool's repositories: select only those in the group, or remove \
                 `repositories` from the pool"
            )));
            return;
        }
        for (repository, groups) in &self.admitting {
            match (groups.contains(&group.id), pool.repositories.contains(repository)) {
                (true, false) => findings.errors.push(problem(format!(
                    "{title} admits {repository}, which the pool does not serve: use a separate group for each set of \
                     repositories"
                ))),
                (false, true) => findings.warnings.push(problem(format!(
                    "{title} does not admit {repository}: its jobs will wait for a runner that they cannot use"
                ))),
                (true, true) | (false, false) => {}
            }
        }
    }
}
