//! The pool file and what the sandbox needs for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, bail};
use domain::ids::{Owner, Repository, Scope};
use drover::pool_file::{PoolEntry, PoolFile};

use crate::sandbox::RunnerGroup;
use crate::short_timings::{with_fields, with_short_timings};

/// A parsed pool file.
pub(crate) struct Pools {
    /// The text, with short time limits.
    pub(crate) with_short_timings: String,
    pools: Vec<PoolEntry>,
    added: Vec<Added>,
}

/// A pool that the demo adds, with a repository and a runner group of its own. Otherwise it is like the first pool.
#[derive(Clone)]
pub(crate) struct Added {
    pub(crate) repository: Repository,
    pub(crate) label: &'static str,
    group: u64,
}

/// Settings of a pool that the demo adds.
struct Addition {
    name: &'static str,
    label: &'static str,
    group: u32,
    max: u32,
}

/// Its maximum is far below the number of the flood's jobs.
const FLOODED: Addition = Addition { name: "flooded", label: "drover-flooded", group: 1000, max: 4 };

const MEASURED: Addition = Addition { name: "measured", label: "drover-measured", group: 1001, max: 20 };

/// The pools of an attack, besides those of the file.
pub(crate) struct AttackPools {
    /// Only the flood of jobs uses it.
    pub(crate) flooded: Added,
    /// The attacker cannot reach it: its jobs show how long others wait.
    pub(crate) measured: Added,
}

/// Repository and labels of a job.
pub(crate) struct Target {
    pub(crate) repository: String,
    pub(crate) labels: Vec<String>,
    /// Whether the pool serves every repository of its owner.
    pub(crate) serves_all: bool,
}

/// The repositories that each runner group must allow, by organisation and group.
type Allowed = BTreeMap<(Owner, u64), Vec<Repository>>;

impl Pools {
    /// Reads a pool file. `fields` override those of every pool.
    pub(crate) fn read(path: &Path, fields: &[(&str, toml::Value)]) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = PoolFile::parse(&path.display().to_string(), &text);
        if !file.errors.is_empty() {
            bail!("{}", file.report().text);
        }
        let fixed = file.pools.iter().find(|pool| pool.launch_template.starts_with("lt-"));
        if let Some(pool) = fixed {
            bail!(
                "pool {}: the demo creates launch templates by name and cannot use the id {}",
                pool.name,
                pool.launch_template
            );
        }
        Ok(Self {
            with_short_timings: with_fields(&with_short_timings(&text)?, fields)?,
            pools: file.pools,
            added: Vec::new(),
        })
    }

    pub(crate) fn add_for_attack(&mut self) -> anyhow::Result<AttackPools> {
        Ok(AttackPools { flooded: self.add(&FLOODED)?, measured: self.add(&MEASURED)? })
    }

    fn add(&mut self, addition: &Addition) -> anyhow::Result<Added> {
        let first: Repository = Self::served_by(&self.pools[0]).parse()?;
        let repository: Repository = format!("{}/{}", first.owner, addition.name).parse()?;
        let mut file: toml::Table = self.with_short_timings.parse()?;
        let pools = file.get_mut("pool").and_then(toml::Value::as_array_mut).context("the file has no [[pool]]")?;
        let mut pool = pools.first().and_then(toml::Value::as_table).context("the file has no [[pool]]")?.clone();
        pool.insert("name".to_owned(), addition.name.into());
        pool.insert("labels".to_owned(), vec![addition.label].into());
        pool.insert("repositories".to_owned(), vec![repository.to_string()].into());
        pool.insert("runner_group".to_owned(), addition.group.into());
        pool.insert("max".to_owned(), addition.max.into());
        pools.push(pool.into());
        self.with_short_timings = file.to_string();
        let added = Added { repository, label: addition.label, group: addition.group.into() };
        self.added.push(added.clone());
        Ok(added)
    }

    fn served_by(pool: &PoolEntry) -> String {
        match (&pool.owner, pool.repositories.first()) {
            (Scope::Repository(repository), _) => repository.to_string(),
            (Scope::Organization(_), Some(repository)) => repository.to_string(),
            (Scope::Organization(owner), None) => format!("{owner}/widgets"),
        }
    }

    /// The target of a job, by its index. The pools take turns.
    pub(crate) fn target(&self, job: usize) -> Target {
        let pool = &self.pools[job % self.pools.len()];
        Target {
            repository: Self::served_by(pool),
            labels: pool.labels.iter().map(ToString::to_string).collect(),
            serves_all: pool.repositories.is_empty(),
        }
    }

    pub(crate) fn repositories(&self) -> Vec<Repository> {
        let served = self.pools.iter().filter_map(|pool| Self::served_by(pool).parse().ok());
        let listed = self.pools.iter().flat_map(|pool| pool.repositories.iter().cloned());
        let added = self.added.iter().map(|it| it.repository.clone());
        served.chain(listed).chain(added).collect::<BTreeSet<Repository>>().into_iter().collect()
    }

    /// Runner groups that allow exactly the repositories that their pools serve.
    pub(crate) fn groups(&self) -> Vec<RunnerGroup> {
        let mut allowed = Allowed::new();
        for pool in &self.pools {
            if let Scope::Organization(owner) = &pool.owner {
                let group = allowed.entry((owner.clone(), pool.runner_group)).or_default();
                group.extend(Self::served_by(pool).parse::<Repository>().ok());
                group.extend(pool.repositories.iter().cloned());
            }
        }
        for Added { repository, group, .. } in &self.added {
            allowed.insert((repository.owner.clone(), *group), vec![repository.clone()]);
        }
        let group = |((owner, group), repositories)| RunnerGroup { owner, group, repositories };
        allowed.into_iter().map(group).collect()
    }

    pub(crate) fn number(&self) -> usize {
        self.pools.len()
    }

    pub(crate) fn launch_templates(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.pools.iter().map(|pool| &pool.launch_template).collect();
        names.into_iter().cloned().collect()
    }

    pub(crate) fn subnets(&self) -> Vec<String> {
        let named: BTreeSet<String> =
            self.pools.iter().flat_map(|pool| &pool.subnets).map(ToString::to_string).collect();
        match named.is_empty() {
            true => vec!["subnet-a".to_owned(), "subnet-b".to_owned()],
            false => named.into_iter().collect(),
        }
    }
}
