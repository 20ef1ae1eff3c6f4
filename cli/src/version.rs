//! `drover version`: the versions of this program, of the functions, of the agent in the images, and of the table.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::Pool;
use domain::state::{FORMAT, Function};
use platform::inspect::{ImageFacts, Inspect};
use platform::table::Table;
use serde::Serialize;
use serde_json::json;

use crate::output::{Failure, Output};
use crate::read::config_if_any;
use crate::status::functions;

/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The image of some pools.
#[derive(Debug, Serialize)]
struct Image {
    image: String,
    pools: Vec<String>,
    agent: Option<String>,
    runner: Option<String>,
}

/// The stack, or why it is not known.
pub type Stack<'a> = Result<(&'a Table, &'a Inspect), Failure>;

/// Lists the versions. This program's is known without a stack; then the answer is no.
pub async fn version(stack: Stack<'_>) -> Output {
    let own = format!("drover   {VERSION}, supports table formats up to {FORMAT}\n");
    let drover = json!({ "version": VERSION, "supports_format": FORMAT });
    let read = match stack {
        Ok((table, inspect)) => read(table, inspect).await,
        Err(failure) => Err(failure),
    };
    match read {
        Ok(Versions { table_format, functions, images }) => {
            let mut text = own;
            text += &match table_format {
                Some(format) => format!("table    format {format}\n"),
                None => "table    no pools yet -> drover pools apply FILE\n".to_owned(),
            };
            text.extend(functions.iter().map(function_line));
            text.extend(images.iter().map(image_line));
            text.extend(differing(&functions, &images));
            let json =
                json!({ "drover": drover, "table_format": table_format, "functions": functions, "images": images });
            Output { ok: true, text, json }
        }
        Err(failure) => {
            let text = format!("{own}stack    not read: {failure}\n");
            Output { ok: false, text, json: json!({ "drover": drover, "error": failure.to_string() }) }
        }
    }
}

struct Versions {
    table_format: Option<u32>,
    functions: Vec<Function>,
    images: Vec<Image>,
}

async fn read(table: &Table, inspect: &Inspect) -> Result<Versions, Failure> {
    let config = config_if_any(table).await?;
    let pools = config.as_ref().map(|config| config.pools.as_slice()).unwrap_or_default();
    Ok(Versions {
        table_format: config.as_ref().map(|config| config.format),
        functions: functions(table).await?,
        images: images(pools, inspect).await?,
    })
}

async fn images(pools: &[Pool], inspect: &Inspect) -> Result<Vec<Image>, Failure> {
    let mut by_image: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for pool in pools {
        for template in pool.templates() {
            if let Some(image) = inspect.template(template).await?.image {
                by_image.entry(image).or_default().insert(pool.name.to_string());
            }
        }
    }
    let mut images = Vec::new();
    for (image, pools) in by_image {
        let facts = inspect.image(&image).await?;
        let (agent, runner) = match facts {
            Some(ImageFacts { agent, runner, .. }) => (agent, runner),
            None => (None, None),
        };
        images.push(Image { image, pools: pools.into_iter().collect(), agent, runner });
    }
    Ok(images)
}

fn function_line(function: &Function) -> String {
    let Function { name, format, version, recorded_at, .. } = function;
    let version = version.as_deref().unwrap_or("unknown version");
    format!(
        "{name:<7}  {version}, supports table formats up to {format}, since {recorded_at:.0}\n",
        name = name.as_str()
    )
}

fn image_line(Image { image, pools, agent, runner }: &Image) -> String {
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "of unknown version".to_owned());
    format!("agent    {}, runner {}, in {image} of {}\n", version(agent), version(runner), pools.join(", "))
}

/// What does not have this program's version.
fn differing(functions: &[Function], images: &[Image]) -> Option<String> {
    let is_other = |version: &Option<String>| version.as_deref().is_some_and(|version| version != VERSION);
    let functions = functions.iter().filter(|function| is_other(&function.version)).map(|it| it.name.to_string());
    let images = images.iter().filter(|image| is_other(&image.agent)).map(|_| "agent".to_owned());
    let mut others: Vec<String> = functions.chain(images).collect();
    others.dedup();
    (!others.is_empty()).then(|| {
        format!(
            "{}: another version than this drover -> docs/upgrade.md has the order of an upgrade\n",
            others.join(", ")
        )
    })
}
