//! What an operator wants: pools, and which jobs go to which.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::boot::RepositoryPattern;
use crate::ids::{InstanceType, InvalidName, PoolName, Repository, Scope, SubnetId, TemplateId};

/// A runner label, lower-cased: GitHub compares labels without case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

impl Label {
    /// The label, lower-cased.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for Label {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let value = value.trim();
        if value.is_empty() || value.chars().count() > 256 || value.chars().any(|c| c.is_control() || c == ',') {
            return Err(InvalidName {
                kind: "label",
                value: value.to_owned(),
                rule: "must be 1 to 256 characters without commas and control characters",
            });
        }
        Ok(Self(value.to_lowercase()))
    }
}
impl TryFrom<String> for Label {
    type Error = InvalidName;
    fn try_from(value: String) -> Result<Self, InvalidName> {
        value.parse()
    }
}
impl From<Label> for String {
    fn from(label: Label) -> String {
        label.0
    }
}
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How EC2 is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Market {
    /// Never interrupted.
    OnDemand,
    /// Cheaper; EC2 may take it back with two minutes' notice.
    Spot,
}

/// What the operator allows, in order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarketChoice {
    /// On-demand only.
    #[default]
    OnDemand,
    /// Spot only.
    Spot,
    /// Spot; on-demand once every spot tuple refused.
    SpotThenOnDemand,
}

impl MarketChoice {
    /// The markets to try, first choice first.
    pub fn markets(self) -> &'static [Market] {
        match self {
            MarketChoice::OnDemand => &[Market::OnDemand],
            MarketChoice::Spot => &[Market::Spot],
            MarketChoice::SpotThenOnDemand => &[Market::Spot, Market::OnDemand],
        }
    }
}

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

/// How long things may take. Written in the pool file as `"90s"`, `"8m"`, `"12h"`; zero is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timings {
    /// An idle runner that no job needs is kept this long, for the next job.
    pub idle_grace: Span,
    /// A machine that was handed a registration must be online within this time, else it is a boot failure.
    pub boot_grace: Span,
    /// An instance of an open batch that is bound to no slot is bound after this time.
    pub unbound_grace: Span,
    /// An instance with our tag that nothing knows is removed after this time.
    pub orphan_grace: Span,
    /// An instance whose job is done powers itself off; after this time it is terminated.
    pub done_grace: Span,
    /// A registration without an instance is deleted after this time.
    pub stale_grace: Span,
    /// Two readings that must agree before something is destroyed are this far apart.
    pub confirm_gap: Span,
    /// No machine lives longer.
    pub max_life: Span,
    /// A launch is repeated by somebody else only this long after the deadline of the one who began it.
    pub lease_margin: Span,
    /// A waiting job is explained to its author after this time.
    pub notice_after: Span,
    /// A job that could not be served for this long is said to have failed.
    pub launch_deadline: Span,
    /// A job that is not over is asked about this often.
    pub job_check: Span,
    /// Repositories are searched for jobs whose webhook never came this often.
    pub poll_interval: Span,
    /// The first wait after a refusal; doubles.
    pub backoff_min: Span,
    /// The longest wait.
    pub backoff_max: Span,
    /// At most [`RELAUNCH_LIMIT`](crate::decide::RELAUNCH_LIMIT) machines are launched on one job's account within this time.
    pub relaunch_window: Span,
}

impl Default for Timings {
    fn default() -> Self {
        let seconds = |n| Span(SignedDuration::from_secs(n));
        Self {
            idle_grace: seconds(120),
            boot_grace: seconds(480),
            unbound_grace: seconds(180),
            orphan_grace: seconds(600),
            done_grace: seconds(90),
            stale_grace: seconds(300),
            confirm_gap: seconds(60),
            max_life: seconds(12 * 3600),
            lease_margin: seconds(30),
            notice_after: seconds(15 * 60),
            launch_deadline: seconds(60 * 60),
            job_check: seconds(300),
            poll_interval: seconds(600),
            backoff_min: seconds(30),
            backoff_max: seconds(30 * 60),
            relaunch_window: seconds(60 * 60),
        }
    }
}

/// A length of time that is not negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(SignedDuration);

impl Span {
    /// As a duration to reckon with.
    pub fn duration(self) -> SignedDuration {
        self.0
    }
}
impl From<Span> for SignedDuration {
    fn from(span: Span) -> SignedDuration {
        span.0
    }
}
impl FromStr for Span {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName {
            kind: "time",
            value: value.to_owned(),
            rule: "must be a length of time such as \"90s\", \"8m\" or \"12h\", at most 30 days",
        };
        let duration: SignedDuration = value.parse().map_err(|_| invalid())?;
        if duration.is_negative() || duration > SignedDuration::from_hours(30 * 24) {
            return Err(invalid());
        }
        Ok(Self(duration))
    }
}
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        match (seconds, millis) {
            (0, 1..) => write!(f, "{millis}ms"),
            (_, 1..) => write!(f, "{seconds}s {millis}ms"),
            (3600.., _) if seconds % 3600 == 0 => write!(f, "{}h", seconds / 3600),
            (60.., _) if seconds % 60 == 0 => write!(f, "{}m", seconds / 60),
            _ => write!(f, "{seconds}s"),
        }
    }
}
impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One way to launch: everything about an attempt that EC2 may refuse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tuple {
    /// The launch template's id.
    pub template: TemplateId,
    /// Its version.
    pub template_version: u64,
    /// The subnet, which is also the zone in which the client token counts.
    pub subnet: SubnetId,
    /// The instance type.
    pub instance_type: InstanceType,
    /// The market.
    pub market: Market,
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let market = match self.market {
            Market::OnDemand => "on-demand",
            Market::Spot => "spot",
        };
        write!(f, "{} {market} in {}", self.instance_type, self.subnet)
    }
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
    fn lists(&self, repository: &Repository) -> bool {
        self.repositories.is_empty() || self.repositories.contains(repository)
    }

    fn refuses(&self, repository: &Repository, public: bool, labels: &BTreeSet<Label>) -> Option<Unrouted> {
        if !self.owner.covers(repository) {
            Some(Unrouted::Owner)
        } else if !self.lists(repository) {
            Some(Unrouted::Repository)
        } else if !labels.is_subset(&self.labels) {
            Some(Unrouted::Labels)
        } else if self.draining {
            Some(Unrouted::Draining)
        } else if public && !self.allow_public {
            Some(Unrouted::Public)
        } else {
            None
        }
    }
}

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
        match pool.refuses(repository, public, &labels) {
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
