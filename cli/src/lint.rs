//! `drover lint`: will each job of a workflow find a pool, and which?

use std::path::Path;

use domain::ids::Repository;
use domain::pool::{Pool, Unrouted, route};
use serde::Serialize;
use serde_json::{Value, json};

use crate::output::{Failure, Output};

/// What the labels of GitHub's own runners begin with.
const HOSTED: [&str; 3] = ["ubuntu-", "windows-", "macos-"];

/// The repository that a workflow is of.
#[derive(Debug, Clone)]
pub struct Home {
    /// Which.
    pub repository: Repository,
    /// Whether everybody sees it.
    pub public: bool,
}

/// What becomes of a job with some labels.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
enum Verdict {
    Pool { pool: String },
    Hosted,
    NoPool { why: String },
    Unknown { why: String },
}

/// One job with one choice of its matrix.
#[derive(Debug, Serialize)]
struct Finding {
    file: String,
    job: String,
    labels: Vec<String>,
    #[serde(flatten)]
    verdict: Verdict,
}

/// Says for each job of these workflows which pool it finds. What an expression will be is not known here, unless it is a
/// choice of the job's own matrix.
///
/// # Errors
/// When a file cannot be read, or is no workflow.
pub fn lint(files: &[impl AsRef<Path>], pools: &[Pool], home: &Home) -> Result<Output, Failure> {
    let mut findings = Vec::new();
    for file in files {
        let name = file.as_ref().display().to_string();
        let wrong = |why: String| Failure::Usage(format!("{name}: {why}"));
        let text = std::fs::read_to_string(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let workflow: Value = serde_saphyr::from_str(&text)
            .map_err(|error| wrong(format!("is no YAML: {}", error.to_string().lines().next().unwrap_or_default())))?;
        let jobs = workflow["jobs"].as_object().ok_or_else(|| wrong("is no workflow: it has no jobs".to_owned()))?;
        for (job, written) in jobs {
            for (labels, unknown) in choices(written) {
                let verdict = match unknown {
                    Some(why) => Verdict::Unknown { why },
                    None => verdict(pools, home, &labels),
                };
                findings.push(Finding { file: name.clone(), job: job.clone(), labels, verdict });
            }
        }
    }
    let text = findings.iter().map(line).collect();
    let yes = findings.iter().all(|finding| !matches!(finding.verdict, Verdict::NoPool { .. }));
    Ok(Output { yes, text, json: json!(findings) })
}

fn line(finding: &Finding) -> String {
    let Finding { file, job, labels, verdict } = finding;
    let says = match verdict {
        Verdict::Pool { pool } => format!("pool {pool}"),
        Verdict::Hosted => "GitHub's own runners".to_owned(),
        Verdict::NoPool { why } => format!("NO POOL: {why}"),
        Verdict::Unknown { why } => format!("not known here: {why}"),
    };
    format!("{file}: {job} [{}]: {says}\n", labels.join(", "))
}

fn verdict(pools: &[Pool], home: &Home, labels: &[String]) -> Verdict {
    if let [label] = labels
        && HOSTED.iter().any(|hosted| label.to_lowercase().starts_with(hosted))
    {
        return Verdict::Hosted;
    }
    let repository = &home.repository;
    let why = match route(pools, repository, home.public, labels) {
        Ok(pool) => return Verdict::Pool { pool: pool.name.to_string() },
        Err(Unrouted::NoPools) => "there are no pools".to_owned(),
        Err(Unrouted::Unlabelled) => "it has no labels, or one that no runner can have".to_owned(),
        Err(Unrouted::Owner) => format!("no pool is registered where {repository} is"),
        Err(Unrouted::Repository) => format!("the pools there do not serve {repository}"),
        Err(Unrouted::Labels) => "no pool has all of these labels".to_owned(),
        Err(Unrouted::Draining) => "the pool that fits takes no new jobs".to_owned(),
        Err(Unrouted::Public) => "the pool that fits does not serve public repositories".to_owned(),
    };
    Verdict::NoPool { why }
}

/// Every set of labels that a job may ask for, and why one of them cannot be known.
fn choices(job: &Value) -> Vec<(Vec<String>, Option<String>)> {
    if let Some(workflow) = job["uses"].as_str() {
        return vec![(Vec::new(), Some(format!("its jobs are those of {workflow}")))];
    }
    let runs_on = &job["runs-on"];
    let labels = match runs_on {
        Value::Object(group) if !group.contains_key("labels") => {
            return vec![(Vec::new(), Some("it asks for a runner group and no labels".to_owned()))];
        }
        Value::Object(group) => &group["labels"],
        other => other,
    };
    // A single expression may stand for a whole list.
    let whole = match labels {
        Value::String(text) => alternatives(job, text),
        Value::Array(_) => Ok(vec![labels.clone()]),
        _ => Err("it has no runs-on".to_owned()),
    };
    let whole = match whole {
        Ok(whole) => whole,
        Err(why) => return vec![(texts(labels), Some(why))],
    };
    whole.iter().flat_map(|labels| sets(job, &texts(labels))).collect()
}

/// Every set that a list of labels may become.
fn sets(job: &Value, labels: &[String]) -> Vec<(Vec<String>, Option<String>)> {
    let mut sets = vec![Vec::new()];
    for label in labels {
        let choices = match alternatives(job, label) {
            Ok(choices) => choices.iter().flat_map(texts).collect::<Vec<_>>(),
            Err(why) => return vec![(labels.to_vec(), Some(why))],
        };
        sets = sets
            .iter()
            .flat_map(|set| choices.iter().map(move |choice| [set.as_slice(), std::slice::from_ref(choice)].concat()))
            .collect();
    }
    sets.into_iter().map(|set| (set, None)).collect()
}

/// What a text becomes: itself, or each value of the matrix that it names.
fn alternatives(job: &Value, text: &str) -> Result<Vec<Value>, String> {
    if !text.contains("${{") {
        return Ok(vec![json!(text)]);
    }
    let inside = text.trim().strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}")).unwrap_or_default().trim();
    let matrix = &job["strategy"]["matrix"];
    let key = inside
        .strip_prefix("matrix.")
        .filter(|key| !key.contains(|c: char| !c.is_alphanumeric() && c != '_' && c != '-'));
    let found: Vec<Value> = key.map_or(Vec::new(), |key| {
        let own = matrix[key].as_array().into_iter().flatten();
        let included = matrix["include"].as_array().into_iter().flatten().filter_map(|more| more.get(key));
        own.chain(included).cloned().collect()
    });
    let known = |value: &Value| texts(value).iter().all(|text| !text.contains("${{"));
    match !found.is_empty() && found.iter().all(known) {
        true => Ok(found),
        false => Err(format!("{} is an expression", text.trim())),
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().flat_map(texts).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}
