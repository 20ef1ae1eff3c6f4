//! A pool of the pool file, before its names are resolved.

use std::collections::BTreeMap;

use domain::config::{
    Architecture, Bounds, FamilyPattern, Label, LaunchTemplate, Market, MarketChoice, MicroUsd, Order, Pool, Schedule,
    ShapePolicy, Shapes, Span, Timings,
};
use domain::ids::{InstanceType, PoolName, Repository, Scope, SubnetId, TemplateId};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::fields::Reader;
use super::schedules::{self, Kept};

/// The field names of [`Timings`], which a pool table contains next to its own.
pub(super) const TIMINGS: [&str; 16] = [
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolEntry {
    pub name: PoolName,
    pub owner: Scope,
    pub labels: Vec<Label>,
    /// Empty: every repository of the owner.
    pub repositories: Vec<Repository>,
    pub allow_public: bool,
    /// A name or an id.
    pub launch_template: String,
    /// None: the default version at the time of `drover pools apply`.
    pub launch_template_version: Option<u64>,
    /// By architecture, in a pool with shapes.
    pub launch_templates: BTreeMap<Architecture, String>,
    /// What labels may ask for. None in a pool without shapes.
    pub shapes: Option<ShapesEntry>,
    /// The most that the pool's machines may cost per hour, together.
    pub usd_per_hour: Option<Usd>,
    /// Empty: every subnet with the stack's tag.
    pub subnets: Vec<SubnetId>,
    pub instance_types: Vec<InstanceType>,
    pub market: MarketChoice,
    /// By price in a pool with shapes, unless the file says something else.
    pub order: Order,
    pub max: u32,
    pub warm: u32,
    pub stopped: u32,
    /// Times with other numbers of warm and stopped machines.
    pub schedules: Vec<Schedule>,
    pub priority: i32,
    pub runner_group: u64,
    pub rerun_on_interruption: bool,
    pub usage: bool,
    pub timings: Timings,
}

/// `[pool.shapes]`. [`ShapePolicy`] documents the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapesEntry {
    pub cpu: Bounds,
    pub ram: Bounds,
    pub arch: Vec<Architecture>,
    pub families: Vec<FamilyPattern>,
    pub disk: Option<Bounds>,
    /// None: the markets of the pool.
    pub market: Option<Vec<Market>>,
    pub usd_per_hour: Option<Usd>,
}

/// An amount of money, as a number of USD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Usd(pub MicroUsd);

impl TryFrom<f64> for Usd {
    type Error = &'static str;

    fn try_from(usd: f64) -> Result<Self, Self::Error> {
        match (0.0001..=1_000_000.0).contains(&usd) {
            true => Ok(Self(MicroUsd((usd * 1e6).round() as u64))),
            false => Err("must be an amount of USD from 0.0001 to 1000000"),
        }
    }
}

/// The fields of `[pool.shapes]`, after the name of the table.
const SHAPES_FIELDS: [&str; 7] = [
    "shapes.cpu",
    "shapes.ram",
    "shapes.arch",
    "shapes.families",
    "shapes.disk",
    "shapes.market",
    "shapes.usd_per_hour",
];

/// The fields of a pool that are not timings.
const OWN_FIELDS: [&str; 22] = [
    "name",
    "owner",
    "labels",
    "repositories",
    "allow_public",
    "launch_template",
    "launch_template_version",
    "launch_templates",
    "shapes",
    "usd_per_hour",
    "subnets",
    "instance_types",
    "market",
    "order",
    "max",
    "warm",
    "stopped",
    "schedule",
    "priority",
    "runner_group",
    "rerun_on_interruption",
    "usage",
];

const DEFAULT_PRIORITY: i32 = 100;

/// GitHub's default group.
const DEFAULT_RUNNER_GROUP: u64 = 1;

/// Whether a pool has this field of `[defaults]`. In a pool with shapes, jobs choose the machines, and each architecture has a launch
/// template; other pools have no use for several.
pub(super) fn is_inherited(name: &str, has_shapes: bool) -> bool {
    match name {
        "instance_types" | "launch_template" | "launch_template_version" => !has_shapes,
        "launch_templates" => has_shapes,
        _ => true,
    }
}

/// Every field of a `[[pool]]`.
pub(super) fn field_names() -> Vec<&'static str> {
    OWN_FIELDS.into_iter().chain(SHAPES_FIELDS).chain(TIMINGS).collect()
}

/// The pool, without what is invalid in it. A field that is required and invalid has a value that no rule looks at.
pub(super) fn entry(reader: &mut Reader<'_>) -> PoolEntry {
    let shapes = shapes(reader);
    // The labels of its jobs choose the machines of a pool with shapes.
    if shapes.is_none() && !reader.written.invalid.contains("shapes") {
        reader.require("labels");
        reader.require("instance_types");
        reader.require("launch_template");
    }
    let order = if shapes.is_some() { Order::Price } else { Order::Listed };
    let kept = Kept {
        warm: reader.optional("warm").unwrap_or_default(),
        stopped: reader.optional("stopped").unwrap_or_default(),
    };
    let pool = PoolEntry {
        name: reader.required("name").unwrap_or_else(|| "unnamed".parse().expect("a valid name")),
        owner: reader.required("owner").unwrap_or_else(|| "unnamed".parse().expect("a valid owner")),
        labels: reader.list("labels"),
        repositories: reader.list("repositories"),
        allow_public: reader.optional("allow_public").unwrap_or_default(),
        launch_template: reader.optional("launch_template").unwrap_or_default(),
        launch_template_version: reader.optional("launch_template_version"),
        launch_templates: reader.optional("launch_templates").unwrap_or_default(),
        shapes,
        usd_per_hour: reader.optional("usd_per_hour"),
        subnets: reader.list("subnets"),
        instance_types: reader.list("instance_types"),
        market: reader.optional("market").unwrap_or_default(),
        order: reader.optional("order").unwrap_or(order),
        max: reader.required("max").unwrap_or_default(),
        warm: kept.warm,
        stopped: kept.stopped,
        schedules: schedules::read(reader, kept, &field_names()),
        priority: reader.optional("priority").unwrap_or(DEFAULT_PRIORITY),
        runner_group: reader.optional("runner_group").unwrap_or(DEFAULT_RUNNER_GROUP),
        rerun_on_interruption: reader.optional("rerun_on_interruption").unwrap_or_default(),
        usage: reader.optional("usage").unwrap_or_default(),
        timings: timings(reader),
    };
    reader.finish(&field_names());
    pool
}

/// What labels may ask for. None in a pool without the table.
fn shapes(reader: &mut Reader<'_>) -> Option<ShapesEntry> {
    if !reader.table("shapes") {
        return None;
    }
    for (name, example) in [
        ("shapes.cpu", "cpu = \"1..32\", the vCPUs that a label may ask for"),
        ("shapes.ram", "ram = \"2..128\", the GiB of memory that a label may ask for"),
        ("shapes.arch", "arch = [\"x64\"], the architectures that a label may ask for"),
    ] {
        reader.require_like(name, &format!(": write {example}"));
    }
    let one = || "1".parse().expect("a range");
    let has_markets = reader.has("shapes.market");
    let markets = reader.list("shapes.market");
    Some(ShapesEntry {
        cpu: reader.optional("shapes.cpu").unwrap_or_else(one),
        ram: reader.optional("shapes.ram").unwrap_or_else(one),
        arch: reader.list("shapes.arch"),
        families: reader.list("shapes.families"),
        disk: reader.optional("shapes.disk"),
        market: has_markets.then_some(markets),
        usd_per_hour: reader.optional("shapes.usd_per_hour"),
    })
}

/// The durations that the pool sets, and the defaults of the others.
fn timings(reader: &mut Reader<'_>) -> Timings {
    let set = TIMINGS.iter().filter_map(|name| Some(((*name).to_owned(), reader.optional::<Span>(name)?)));
    let set: Map<String, Value> = set.map(|(name, span)| (name, Value::String(span.to_string()))).collect();
    serde_json::from_value(Value::Object(set)).expect("each name is a field and each value a duration")
}

impl PoolEntry {
    /// The pool without the launch template's id and the tagged subnets, which only AWS knows. Nothing can be launched for it.
    pub fn unresolved(&self) -> Pool {
        let PoolEntry { name, owner, labels, repositories, allow_public, instance_types, market, .. } = self.clone();
        Pool {
            name,
            owner,
            labels: labels.into_iter().collect(),
            repositories,
            allow_public,
            launch_template: LaunchTemplate {
                id: TemplateId::from(""),
                name: self.launch_template.clone(),
                version: self.launch_template_version.unwrap_or(0),
                root: None,
            },
            subnets: self.subnets.clone(),
            instance_types,
            market,
            order: self.order,
            max: self.max,
            warm: self.warm,
            stopped: self.stopped,
            schedules: self.schedules.clone(),
            priority: self.priority,
            runner_group: self.runner_group,
            rerun_on_interruption: self.rerun_on_interruption,
            usage: self.usage,
            timings: self.timings,
            draining: false,
            paused: false,
            shapes: self.unresolved_shapes(),
            price_per_hour: self.usd_per_hour.map(|usd| usd.0),
            machines: None,
            options: None,
        }
    }

    fn unresolved_shapes(&self) -> Option<Shapes> {
        let ShapesEntry { cpu, ram, arch, families, disk, market, usd_per_hour } = self.shapes.clone()?;
        let policy = ShapePolicy {
            cpu,
            ram,
            architectures: arch,
            families,
            disk,
            markets: market.unwrap_or_else(|| self.market.markets().to_vec()),
            price_per_hour: usd_per_hour.map(|usd| usd.0),
        };
        let unresolved =
            |name: &String| LaunchTemplate { id: TemplateId::from(""), name: name.clone(), version: 0, root: None };
        let launch_templates =
            self.launch_templates.iter().map(|(architecture, name)| (*architecture, unresolved(name)));
        Some(Shapes { policy, launch_templates: launch_templates.collect() })
    }
}
