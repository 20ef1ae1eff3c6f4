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
    flooded: Option<Flooded>,
}

/// A pool that only the flood of an attacker uses, with a repository and a runner group of its own.
#[derive(Clone)]
pub(crate) struct Flooded {
    pub(crate) repository: Repository,
}

impl Flooded {
    pub(crate) const LABEL: &str = "drover-flooded";
    const GROUP: u32 = 1000;
    /// Far fewer than the jobs of the flood.
    const MAX: u32 = 4;
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
            flooded: None,
        })
    }

    /// Adds the pool of the flood, which otherwise is like the first pool.
    pub(crate) fn add_flooded(&mut self) -> anyhow::Result<Flooded> {
        let first: Repository = Self::served_by(&self.pools[0]).parse()?;
        let repository: Repository = format!("{}/flood", first.owner).parse()?;
        let mut file: toml::Table = self.with_short_timings.parse()?;
        let pools = file.get_mut("pool").and_then(toml::Value::as_array_mut).context("the file has no [[pool]]")?;
        let mut pool = pools.first().and_then(toml::Value::as_table).context("the file has no [[pool]]")?.clone();
        pool.insert("name".to_owned(), "flooded".into());
        pool.insert("labels".to_owned(), vec![Flooded::LABEL].into());
        pool.insert("repositories".to_owned(), vec![repository.to_string()].into());
        pool.insert("runner_group".to_owned(), Flooded::GROUP.into());
        pool.insert("max".to_owned(), Flooded::MAX.into());
        pools.push(pool.into());
        self.with_short_timings = file.to_string();
        Ok(self.flooded.insert(Flooded { repository }).clone())
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
        let flooded = self.flooded.iter().map(|it| it.repository.clone());
        served.chain(listed).chain(flooded).collect::<BTreeSet<Repository>>().into_iter().collect()
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
        if let Some(Flooded { repository }) = &self.flooded {
            allowed.insert((repository.owner.clone(), Flooded::GROUP.into()), vec![repository.clone()]);
        }
        let group = |((owner, group), repositories)| RunnerGroup { owner, group, repositories };
        allowed.into_iter().map(group).collect()
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
