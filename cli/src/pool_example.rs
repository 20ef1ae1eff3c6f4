//! `drover pools init` and `drover pools show`: an example of a pool file, and the pools in force as a pool file.

use std::io::{ErrorKind, Write};
use std::path::Path;

use domain::config::{Pool, ShapePolicy, Timings};
use domain::ids::{PoolName, Scope};
use engine::ports::Store;
use serde_json::{Map, Value, json};
use toml::Table;

use crate::output::{Failure, Output, cannot_write};
use crate::read::{config, select};

/// The example in the repository.
const EXAMPLE: &str = include_str!("../../pools.toml");

/// The organisation in the example.
const EXAMPLE_OWNER: &str = "octo-org";

/// The fields of a pool that are no settings of the pool file.
const NOT_IN_THE_FILE: [&str; 6] = ["timings", "launch_template", "draining", "paused", "shapes", "price_per_hour"];

/// Writes the example into a new file, for an owner if there is one.
///
/// # Errors
/// The file exists, or cannot be written.
pub fn write(owner: Option<&Scope>, path: &Path) -> Result<Output, Failure> {
    let failed = |error: std::io::Error| cannot_write(path, &error);
    let mut file = std::fs::File::create_new(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::Usage(format!("{} exists already -> --file NEW-FILE", path.display())),
        _ => failed(error),
    })?;
    let example = match owner {
        Some(owner) => EXAMPLE.replace(&line(EXAMPLE_OWNER), &line(&owner.to_string())),
        None => EXAMPLE.to_owned(),
    };
    file.write_all(example.as_bytes()).map_err(failed)?;
    let name = path.display().to_string();
    let text = format!("wrote {name}: edit it, then -> drover pools check {name}\n");
    Ok(Output { ok: true, text, json: json!({ "file": name }) })
}

fn line(owner: &str) -> String {
    format!("owner = \"{owner}\"")
}

/// Prints the pools in force as a pool file, with what `drover pools apply` pinned. The text only mentions a pool that was removed
/// from the file and is not empty yet: whoever applies the text must not add it again.
///
/// # Errors
/// The table cannot be read, or there is no such pool.
pub async fn show(table: &impl Store, only: Option<&PoolName>) -> Result<Output, Failure> {
    let config = config(table).await?;
    let pools = select(&config, only)?;
    let json = json!(pools);
    let (removed, kept): (Vec<Pool>, Vec<Pool>) = pools.into_iter().partition(|pool| config.is_removed(&pool.name));
    let mut text = as_file(&kept);
    text.extend(
        removed.iter().map(|it| format!("# {} was removed from the pool file and is not empty yet\n", it.name)),
    );
    Ok(Output { ok: true, text, json })
}

fn as_file(pools: &[Pool]) -> String {
    let mut text = String::new();
    for pool in pools {
        if pool.draining {
            text += &format!("# {} is draining: drover drain {} --undo ends that\n", pool.name, pool.name);
        }
        if pool.paused {
            text += &format!("# {} is paused: drover resume {} ends that\n", pool.name, pool.name);
        }
        let file = Table::from_iter([("pool".to_owned(), toml::Value::Array(vec![fields(pool).into()]))]);
        text += &format!("{file}\n");
    }
    text.trim_end().to_owned() + "\n"
}

/// The fields as the pool file names them, without times that are the defaults.
fn fields(pool: &Pool) -> Table {
    let object = |value: Value| if let Value::Object(fields) = value { fields } else { Map::new() };
    let all = object(json!(pool)).into_iter().filter(|(name, _)| !NOT_IN_THE_FILE.contains(&name.as_str()));
    let mut fields: Vec<(String, Value)> = all.collect();
    match &pool.shapes {
        Some(shapes) => {
            // The labels of jobs choose the types.
            fields.retain(|(name, _)| name != "instance_types" && name != "order");
            let names = shapes.launch_templates.iter().map(|(it, template)| (it.to_string(), json!(template.name)));
            fields.push(("launch_templates".to_owned(), Value::Object(names.collect())));
            fields.push(("order".to_owned(), json!(pool.order)));
            fields.push(("shapes".to_owned(), policy(&shapes.policy)));
        }
        None => {
            fields.push(("launch_template".to_owned(), json!(pool.launch_template.name)));
            fields.push(("launch_template_version".to_owned(), json!(pool.launch_template.version)));
        }
    }
    fields.extend(pool.price_per_hour.map(|cap| ("usd_per_hour".to_owned(), json!(cap.usd()))));
    if pool.stopped > 0 {
        // A schedule that keeps none says so: the file's reader takes a missing number from the pool.
        let schedules = fields.iter_mut().filter(|(name, _)| name == "schedule");
        let tables = schedules.filter_map(|(_, value)| value.as_array_mut()).flatten().filter_map(Value::as_object_mut);
        for table in tables {
            table.entry("stopped").or_insert_with(|| json!(0));
        }
    }
    let defaults = object(json!(Timings::default()));
    fields.extend(object(json!(pool.timings)).into_iter().filter(|(name, time)| defaults.get(name) != Some(time)));
    fields.into_iter().filter_map(|(name, value)| Some((name, toml::Value::try_from(value).ok()?))).collect()
}

/// `[pool.shapes]`.
pub(crate) fn policy(policy: &ShapePolicy) -> Value {
    let ShapePolicy { cpu, ram, architectures, families, disk, markets, price_per_hour } = policy;
    let mut fields = Map::from_iter([
        ("cpu".to_owned(), json!(cpu)),
        ("ram".to_owned(), json!(ram)),
        ("arch".to_owned(), json!(architectures)),
        ("families".to_owned(), json!(families)),
        ("market".to_owned(), json!(markets)),
    ]);
    fields.extend(disk.map(|disk| ("disk".to_owned(), json!(disk))));
    fields.extend(price_per_hour.map(|cap| ("usd_per_hour".to_owned(), json!(cap.usd()))));
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool_file::PoolFile;

    #[test]
    fn what_is_shown_keeps_as_many_machines_at_each_time() {
        let schedule = |day: &str, numbers: &str| {
            format!(
                "[[pool.schedule]]\ndays = [\"{day}\"]\nfrom = \"08:00\"\nto = \"18:00\"\ntime_zone = \"UTC\"\n{numbers}\n"
            )
        };
        let text = format!(
            "[[pool]]\nname = \"linux\"\nowner = \"acme\"\nlabels = [\"linux\"]\nlaunch_template = \"runner\"\n\
             instance_types = [\"m7i.large\"]\nmax = 9\nwarm = 1\nstopped = 2\n{}{}",
            schedule("mon", "warm = 0\nstopped = 0"),
            schedule("tue", "stopped = 3"),
        );
        let pools = |text: &str| {
            let file = PoolFile::parse("pools.toml", text);
            assert!(file.errors.is_empty(), "{:?}\n{text}", file.errors);
            (file.pools[0].stopped, file.pools[0].schedules.clone())
        };
        let pool = PoolFile::parse("pools.toml", &text).pools[0].unresolved();
        let shown = as_file(&[Pool { launch_template: template(), ..pool }]);
        assert_eq!(pools(&shown), pools(&text), "{shown}");
        assert_eq!(pools(&text).1.iter().map(|it| (it.warm, it.stopped)).collect::<Vec<_>>(), [(0, 0), (1, 3)]);
    }

    fn template() -> domain::config::LaunchTemplate {
        domain::config::LaunchTemplate { id: "lt-0".into(), name: "runner".to_owned(), version: 1, root: None }
    }
}
