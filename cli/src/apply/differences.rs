//! How a pool differs from the one in force, field by field.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::{LaunchTemplate, Pool, Shapes};
use serde::Serialize;
use serde_json::{Value, json};

use crate::pool_example::policy;

/// A field that changes. None: the pool has no such value before or afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    pub(super) field: String,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

impl Difference {
    /// A line for each value: `-` before, `+` afterwards.
    pub(super) fn lines(&self) -> String {
        let line = |mark: char, value: &Option<Value>| {
            value.as_ref().map(|value| format!("  {mark} {} = {value}\n", self.field)).unwrap_or_default()
        };
        line('-', &self.before) + &line('+', &self.after)
    }
}

/// The fields that differ, by name.
pub(super) fn differences(before: &Pool, after: &Pool) -> Vec<Difference> {
    let (before, after) = (fields(before), fields(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differing = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    let value = |fields: &BTreeMap<String, Value>, name: &String| fields.get(name).cloned();
    differing
        .map(|name| Difference { field: name.clone(), before: value(&before, name), after: value(&after, name) })
        .collect()
}

/// The fields as the pool file names them. Timings are fields of their own, and the launch template is one text.
fn fields(pool: &Pool) -> BTreeMap<String, Value> {
    let all = serde_json::to_value(pool).unwrap_or_default();
    let mut fields = BTreeMap::new();
    for (name, value) in all.as_object().into_iter().flatten() {
        match (name.as_str(), value.as_object()) {
            ("timings", Some(timings)) => fields.extend(timings.clone()),
            // Those of a pool with shapes are listed by architecture.
            ("launch_template" | "instance_types", _) if pool.shapes.is_some() => {}
            ("launch_template", _) => {
                fields.insert(name.clone(), Value::String(pinned(&pool.launch_template)));
            }
            ("price_per_hour", _) => {
                fields.extend(pool.price_per_hour.map(|cap| ("usd_per_hour".to_owned(), json!(cap.usd()))));
            }
            ("schedule", _) => {
                fields.extend(pool.schedules.iter().map(|it| (format!("schedule {it}: warm"), json!(it.warm))));
                if pool.has_stopped() {
                    let stopped =
                        pool.schedules.iter().map(|it| (format!("schedule {it}: stopped"), json!(it.stopped)));
                    fields.extend(stopped);
                }
            }
            ("shapes", _) => fields.extend(pool.shapes.iter().flat_map(fields_of_shapes)),
            _ => drop(fields.insert(name.clone(), value.clone())),
        }
    }
    fields
}

fn pinned(template: &LaunchTemplate) -> String {
    format!("{} version {} ({})", template.name, template.version, template.id)
}

fn fields_of_shapes(shapes: &Shapes) -> BTreeMap<String, Value> {
    let policy = policy(&shapes.policy);
    let own = policy.as_object().into_iter().flatten().map(|(name, value)| (format!("shapes.{name}"), value.clone()));
    let templates = shapes.launch_templates.iter();
    own.chain(templates.map(|(it, template)| (format!("launch_templates.{it}"), Value::String(pinned(template)))))
        .collect()
}
