//! The pool file: TOML. Unknown fields are errors, and all errors are reported at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use domain::config::{Label, LaunchTemplate, MarketChoice, Pool, Timings};
use domain::ids::{InstanceType, PoolName, Repository, Scope, SubnetId, TemplateId};
use serde::Deserialize;
use serde_json::json;
use toml::{Table, Value};

use crate::output::{Failure, Output, count};

/// The field names of [`Timings`], which a pool table contains next to its own.
const TIMINGS: [&str; 16] = [
    "idle_grace",
    "boot_grace",
    "unbound_grace",
    "orphan_grace",
    "done_grace",
    "stale_grace",
    "confirm_gap",
    "max_life",
    "lease_margin",
    "notice_after",
    "launch_deadline",
    "job_check",
    "poll_interval",
    "backoff_min",
    "backoff_max",
    "relaunch_window",
];

/// A pool as the file describes it: names are not resolved yet. [`domain::config::Pool`] documents the fields.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolEntry {
    pub name: PoolName,
    pub owner: Scope,
    pub labels: BTreeSet<Label>,
    /// Empty: every repository of the owner.
    #[serde(default)]
    pub repositories: Vec<Repository>,
    #[serde(default)]
    pub allow_public: bool,
    /// A name or an id.
    pub launch_template: String,
    /// None: the default version at the time of `drover pools apply`.
    pub launch_template_version: Option<u64>,
    /// Empty: every subnet with the stack's tag.
    #[serde(default)]
    pub subnets: Vec<SubnetId>,
    pub instance_types: Vec<InstanceType>,
    #[serde(default)]
    pub market: MarketChoice,
    pub max: u32,
    #[serde(default)]
    pub warm: u32,
    #[serde(default = "default_priority")]
    pub priority: i32,
    #[serde(default = "default_runner_group")]
    pub runner_group: u64,
    #[serde(default)]
    pub rerun_on_interruption: bool,
    #[serde(skip)]
    pub timings: Timings,
}

fn default_priority() -> i32 {
    100
}

fn default_runner_group() -> u64 {
    1
}

impl PoolEntry {
    /// The pool without the launch template's id and the tagged subnets, which only AWS knows. Nothing can be launched for it.
    pub fn unresolved(&self) -> Pool {
        let PoolEntry { name, owner, labels, repositories, allow_public, instance_types, market, .. } = self.clone();
        Pool {
            name,
            owner,
            labels,
            repositories,
            allow_public,
            launch_template: LaunchTemplate {
                id: TemplateId(String::new()),
                name: self.launch_template.clone(),
                version: self.launch_template_version.unwrap_or(0),
            },
            subnets: self.subnets.clone(),
            instance_types,
            market,
            max: self.max,
            warm: self.warm,
            priority: self.priority,
            runner_group: self.runner_group,
            rerun_on_interruption: self.rerun_on_interruption,
            timings: self.timings,
            draining: false,
        }
    }
}

/// A pool file, and what is wrong with it.
#[derive(Debug, Default)]
pub struct PoolFile {
    /// The valid pools, in the order of the file.
    pub pools: Vec<PoolEntry>,
    /// A file with errors is never applied.
    pub errors: Vec<String>,
    /// Allowed, but possibly a mistake.
    pub warnings: Vec<String>,
}

impl PoolFile {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read. Errors in its content are in `errors`.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
        Ok(Self::parse(&text))
    }

    pub fn parse(text: &str) -> Self {
        let mut file = PoolFile::default();
        let table: Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                file.errors.push(format!("not TOML: {}", error.to_string().trim_end()));
                return file;
            }
        };
        let mut defaults = Table::new();
        let mut pools = Vec::new();
        for (name, value) in table {
            match (name.as_str(), value) {
                ("defaults", Value::Table(fields)) => defaults = fields,
                ("pool", Value::Array(tables)) => pools = tables,
                _ => file.errors.push(format!("unknown field {name:?}: a pool file has [defaults] and [[pool]]")),
            }
        }
        for unique in ["name", "pool"] {
            if defaults.contains_key(unique) {
                file.errors.push(format!("[defaults] cannot contain {unique:?}"));
            }
        }
        if pools.is_empty() {
            file.errors.push("the file has no [[pool]]".to_owned());
        }
        for (index, pool) in pools.into_iter().enumerate() {
            file.add(index + 1, pool, &defaults);
        }
        file.compare();
        file
    }

    fn add(&mut self, number: usize, pool: Value, defaults: &Table) {
        let Value::Table(fields) = pool else {
            return self.errors.push(format!("pool number {number} is not a [[pool]]"));
        };
        let title = match fields.get("name") {
            Some(Value::String(name)) => format!("pool {name:?}"),
            _ => format!("pool number {number}"),
        };
        match entry(fields, defaults) {
            Ok(pool) => {
                self.errors.extend(pool.errors().into_iter().map(|error| format!("{title}: {error}")));
                self.pools.push(pool);
            }
            Err(error) => self.errors.push(format!("{title}: {error}")),
        }
    }

    /// Finds names that are used twice, and pools that match the same jobs.
    fn compare(&mut self) {
        let mut names = BTreeSet::new();
        for pool in &self.pools {
            if !names.insert(&pool.name) {
                self.errors.push(format!("pool {:?}: this name is used twice", pool.name.as_str()));
            }
        }
        for (index, a) in self.pools.iter().enumerate() {
            for b in self.pools[index + 1..].iter().filter(|b| b.name != a.name) {
                let common: Vec<&str> = a.labels.intersection(&b.labels).map(Label::as_str).collect();
                if common.is_empty() || !overlap(&a.owner, &b.owner) {
                    continue;
                }
                let both = format!("pools {:?} and {:?}", a.name.as_str(), b.name.as_str());
                let set = common.join(", ");
                if shared_repositories(a, b) && a.priority == b.priority {
                    self.errors.push(format!(
                        "{both}: a job with the labels [{set}] matches both: give them different priorities (the lower \
                         number goes first) or remove a label"
                    ));
                } else if shared_repositories(a, b) || a.runner_group == b.runner_group {
                    self.warnings.push(format!(
                        "{both}: GitHub may give a job with the labels [{set}] to a runner of either pool. Drover then \
                         launches another machine; separate runner groups prevent it"
                    ));
                }
            }
        }
    }

    /// The output of `drover pools check`.
    pub fn report(&self) -> Output {
        let mut text = String::new();
        for error in &self.errors {
            text += &format!("error: {error}\n");
        }
        for warning in &self.warnings {
            text += &format!("warning: {warning}\n");
        }
        if self.errors.is_empty() {
            text += &format!("{}, no errors\n", count(self.pools.len(), "pool"));
        }
        let names: Vec<&str> = self.pools.iter().map(|pool| pool.name.as_str()).collect();
        let json = json!({ "pools": names, "errors": self.errors, "warnings": self.warnings });
        Output { ok: self.errors.is_empty(), text, json }
    }
}

fn entry(mut fields: Table, defaults: &Table) -> Result<PoolEntry, String> {
    for (name, value) in defaults {
        fields.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let timings: Table = fields.iter().filter(|(name, _)| TIMINGS.contains(&name.as_str())).map(owned).collect();
    let others: Table = fields.iter().filter(|(name, _)| !TIMINGS.contains(&name.as_str())).map(owned).collect();
    let pool: PoolEntry = others.try_into().map_err(one_line)?;
    Ok(PoolEntry { timings: timings.try_into().map_err(one_line)?, ..pool })
}

fn owned((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

/// toml puts the position on a line of its own.
fn one_line(error: toml::de::Error) -> String {
    error.to_string().trim().replace('\n', " ")
}

impl PoolEntry {
    fn errors(&self) -> Vec<String> {
        let mut errors = Vec::new();
        let mut check = |valid: bool, error: String| {
            if !valid {
                errors.push(error);
            }
        };
        check(!self.labels.is_empty(), "labels: at least one is required; GitHub adds none itself".to_owned());
        check(!self.instance_types.is_empty(), "instance_types: at least one is required".to_owned());
        check(!self.launch_template.is_empty(), "launch_template: must be a name or an id".to_owned());
        check(self.launch_template_version != Some(0), "launch_template_version: versions start at 1".to_owned());
        check(self.max > 0, "max: must be at least 1".to_owned());
        check(self.warm <= self.max, format!("warm: {} is more than max, {}", self.warm, self.max));
        let foreign = self.repositories.iter().filter(|repository| !self.owner.covers(repository));
        for repository in foreign {
            check(false, format!("repositories: {repository} does not belong to {}", self.owner));
        }
        let timings = &self.timings;
        check(
            timings.backoff_min <= timings.backoff_max,
            "backoff_min: must not be longer than backoff_max".to_owned(),
        );
        check(
            timings.launch_deadline >= timings.boot_grace,
            format!(
                "launch_deadline: {} is shorter than boot_grace, {}: a job would be reported as failed while its machine boots",
                timings.launch_deadline, timings.boot_grace
            ),
        );
        errors
    }
}

/// Whether runners registered with the one and runners registered with the other could serve the same repository.
fn overlap(a: &Scope, b: &Scope) -> bool {
    match (a, b) {
        (Scope::Repository(a), Scope::Repository(b)) => a == b,
        _ => a.owner() == b.owner(),
    }
}

/// Whether both pools serve the same repository.
fn shared_repositories(a: &PoolEntry, b: &PoolEntry) -> bool {
    let serves = |pool: &PoolEntry, repository: &Repository| {
        pool.owner.covers(repository) && (pool.repositories.is_empty() || pool.repositories.contains(repository))
    };
    let listed = |pool: &PoolEntry| -> Option<Vec<Repository>> {
        match &pool.owner {
            Scope::Repository(only) => Some(vec![only.clone()]),
            Scope::Organization(_) if pool.repositories.is_empty() => None,
            Scope::Organization(_) => Some(pool.repositories.clone()),
        }
    };
    match (listed(a), listed(b)) {
        (None, None) => true,
        (Some(listed), _) => listed.iter().any(|repository| serves(b, repository)),
        (None, Some(listed)) => listed.iter().any(|repository| serves(a, repository)),
    }
}

pub(crate) fn by_name(pools: &[PoolEntry]) -> BTreeMap<&PoolName, &PoolEntry> {
    pools.iter().map(|pool| (&pool.name, pool)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "[[pool]]\nname = \"linux\"\nowner = \"acme\"\nlabels = [\"drover\", \"linux\"]\n\
        launch_template = \"runner\"\ninstance_types = [\"m7i.large\"]\nmax = 10\n";

    /// The errors of a file made of [`POOL`] with a line replaced.
    fn errors(line: &str, instead: &str) -> Vec<String> {
        assert!(POOL.contains(line), "{line} is not a line of the pool");
        PoolFile::parse(&POOL.replace(line, instead)).errors
    }

    #[test]
    fn a_pool_has_the_documented_defaults() {
        let file = PoolFile::parse(POOL);
        assert_eq!(file.errors, [""; 0]);
        let pool = &file.pools[0];
        assert_eq!((pool.priority, pool.runner_group, pool.warm, pool.allow_public), (100, 1, 0, false));
        assert_eq!(pool.timings, Timings::default());
        assert_eq!(pool.market, MarketChoice::OnDemand);
    }

    #[test]
    fn every_timing_can_be_set_for_all_pools_and_for_one() {
        for name in TIMINGS {
            // backoff_max must not be shorter than backoff_min.
            let (all, one) = if name == "backoff_min" { ("1s", "0s") } else { ("40m", "41m") };
            let second = POOL.replace("linux\"\nowner", "other\"\npriority = 7\nowner");
            let file = PoolFile::parse(&format!("[defaults]\n{name} = \"{all}\"\n{POOL}{name} = \"{one}\"\n{second}"));
            assert_eq!(file.errors, [""; 0], "{name}");
            assert_ne!(file.pools[0].timings, file.pools[1].timings, "{name}");
            assert_ne!(file.pools[1].timings, Timings::default(), "{name}");
        }
    }

    #[test]
    fn each_mistake_is_named_with_its_pool() {
        let mistakes = [
            ("max = 10", "max = 10\nmaximum = 11", "pool \"linux\": unknown field `maximum`"),
            ("max = 10", "", "pool \"linux\": missing field `max`"),
            ("max = 10", "max = 0", "pool \"linux\": max: must be at least 1"),
            ("max = 10", "max = 2\nwarm = 3", "pool \"linux\": warm: 3 is more than max, 2"),
            ("max = 10", "max = 10\nlaunch_deadline = \"7m\"", "launch_deadline: 7m is shorter than boot_grace, 8m"),
            ("max = 10", "max = 10\nboot_grace = \"2h\"", "pool \"linux\": launch_deadline: 1h is shorter than"),
            ("max = 10", "max = 10\nboot_grace = \"soon\"", "must be a length of time"),
            ("max = 10", "max = 10\nmarket = \"free\"", "unknown variant `free`"),
            ("max = 10", "max = 10\nrepositories = [\"other/repo\"]", "other/repo does not belong to acme"),
            ("labels = [\"drover\", \"linux\"]", "labels = []", "pool \"linux\": labels: at least one"),
            ("labels = [\"drover\", \"linux\"]", "labels = [\"a,b\"]", "without commas"),
            ("name = \"linux\"", "name = \"a-name-of-17-char\"", "must be 1 to 16 characters"),
            ("name = \"linux\"", "name = \"Linux\"", "of a-z, 0-9 and -"),
            ("name = \"linux\"", "", "pool number 1: missing field `name`"),
            ("owner = \"acme\"", "owner = \"acme/a/b\"", "pool \"linux\""),
            ("[[pool]]", "[pools]", "unknown field \"pools\""),
            ("max = 10", "max = ", "not TOML"),
        ];
        for (line, instead, expected) in mistakes {
            let errors = errors(line, instead);
            assert!(errors.iter().any(|error| error.contains(expected)), "{instead}: {errors:?}");
        }
    }

    #[test]
    fn two_pools_that_match_the_same_job_need_different_priorities() {
        let second = POOL.replace("name = \"linux\"", "name = \"other\"").replace("\"linux\"]", "\"arm\"]");
        let file = PoolFile::parse(&format!("{POOL}{second}"));
        assert_eq!(file.errors.len(), 1, "{:?}", file.errors);
        for part in ["\"linux\"", "\"other\"", "[drover]"] {
            assert!(file.errors[0].contains(part), "{} lacks {part}", file.errors[0]);
        }
        let file = PoolFile::parse(&format!("{POOL}{second}priority = 200\n"));
        assert_eq!((file.errors.len(), file.warnings.len()), (0, 1));
        let elsewhere = second.replace("\"acme\"", "\"umbrella\"");
        let file = PoolFile::parse(&format!("{POOL}{elsewhere}"));
        assert_eq!((file.errors.len(), file.warnings.len()), (0, 0));
    }

    #[test]
    fn a_name_may_be_used_only_once() {
        let errors = PoolFile::parse(&format!("{POOL}{POOL}")).errors;
        assert_eq!(errors, ["pool \"linux\": this name is used twice"]);
    }
}
