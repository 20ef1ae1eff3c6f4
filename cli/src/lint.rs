//! `drover lint`: which pool each job of a workflow matches.

use std::path::Path;

use domain::config::Pool;
use domain::ids::Repository;
use domain::policy::route::{Routable, Unrouted, route};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::output::{Failure, Output};

/// Prefixes of the labels of GitHub-hosted runners.
const HOSTED: [&str; 3] = ["ubuntu-", "windows-", "macos-"];

/// The repository that the workflows belong to.
#[derive(Debug, Clone)]
pub struct WorkflowRepository {
    pub repository: Repository,
    pub public: bool,
}

/// Where a job with certain labels runs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
enum Verdict {
    Pool {
        pool: String,
    },
    Hosted,
    NoPool {
        why: String,
    },
    /// The labels depend on something that is only known when the workflow runs.
    Unknown {
        why: String,
    },
}

/// The verdict for one job and one combination of its matrix.
#[derive(Debug, Serialize)]
struct Finding {
    file: String,
    job: String,
    labels: Vec<String>,
    #[serde(flatten)]
    verdict: Verdict,
}

/// Finds the pool of each job. The value of an expression is unknown, unless it is a value of the job's own matrix.
///
/// # Errors
/// A file cannot be read, or is not a workflow.
pub fn lint(files: &[impl AsRef<Path>], pools: &[Pool], source: &WorkflowRepository) -> Result<Output, Failure> {
    let mut findings = Vec::new();
    for file in files {
        let name = file.as_ref().display().to_string();
        let invalid = |why: String| Failure::Usage(format!("{name}: {why}"));
        let text = std::fs::read_to_string(file).map_err(|error| invalid(format!("cannot be read: {error}")))?;
        let workflow: Value = serde_saphyr::from_str(&text).map_err(|error| {
            invalid(format!("is not YAML: {}", error.to_string().lines().next().unwrap_or_default()))
        })?;
        let jobs =
            workflow["jobs"].as_object().ok_or_else(|| invalid("is not a workflow: it has no jobs".to_owned()))?;
        for (job, written) in jobs {
            for (labels, unknown) in choices(written) {
                let verdict = match unknown {
                    Some(why) => Verdict::Unknown { why },
                    None => verdict(pools, source, &labels),
                };
                findings.push(Finding { file: name.clone(), job: job.clone(), labels, verdict });
            }
        }
    }
    let text = findings.iter().map(line).collect();
    let ok = findings.iter().all(|finding| !matches!(finding.verdict, Verdict::NoPool { .. }));
    Ok(Output { ok, text, json: json!(findings) })
}

fn line(finding: &Finding) -> String {
    let Finding { file, job, labels, verdict } = finding;
    let result = match verdict {
        Verdict::Pool { pool } => format!("pool {pool}"),
        Verdict::Hosted => "GitHub-hosted runner".to_owned(),
        Verdict::NoPool { why } => format!("NO POOL: {why}"),
        Verdict::Unknown { why } => format!("unknown: {why}"),
    };
    format!("{file}: {job} [{}]: {result}\n", labels.join(", "))
}

fn verdict(pools: &[Pool], source: &WorkflowRepository, labels: &[String]) -> Verdict {
    if let [label] = labels
        && HOSTED.iter().any(|hosted| label.to_lowercase().starts_with(hosted))
    {
        return Verdict::Hosted;
    }
    let repository = &source.repository;
    let why = match route(pools, &Routable { repository, public: source.public, labels }) {
        Ok(pool) => return Verdict::Pool { pool: pool.name.to_string() },
        Err(Unrouted::NoPools) => "no pools are configured".to_owned(),
        Err(Unrouted::Unlabelled) => "the job has no labels, or one that no runner can have".to_owned(),
        Err(Unrouted::Group) => "the job names a runner group and no labels".to_owned(),
        Err(Unrouted::Owner) => format!("no pool is registered for {repository} or its owner"),
        Err(Unrouted::Repository) => format!("the pools of {} do not serve {repository}", repository.owner),
        Err(Unrouted::Labels | Unrouted::PoolName) => "no pool has all of these labels".to_owned(),
        Err(Unrouted::Draining) => "the matching pool is draining".to_owned(),
        Err(Unrouted::Public) => "the matching pool does not serve public repositories".to_owned(),
    };
    Verdict::NoPool { why }
}

/// Every set of labels that a job may request, or why a set is unknown.
fn choices(job: &Value) -> Vec<(Vec<String>, Option<String>)> {
    if let Some(workflow) = job["uses"].as_str() {
        return vec![(Vec::new(), Some(format!("the job calls the workflow {workflow}")))];
    }
    let labels = match &job["runs-on"] {
        Value::Object(group) if !group.contains_key("labels") => {
            return vec![(Vec::new(), Some("the job requests a runner group without labels".to_owned()))];
        }
        Value::Object(group) => &group["labels"],
        other => other,
    };
    let mut choices = Vec::new();
    for combination in combinations(&job["strategy"]["matrix"]) {
        let choice = match requested(labels, &combination) {
            Ok(set) => (set, None),
            Err(why) => (texts(labels), Some(why)),
        };
        if !choices.contains(&choice) {
            choices.push(choice);
        }
    }
    choices
}

/// One value of each variable of a matrix.
type Combination = Map<String, Value>;

/// GitHub's limit of jobs per matrix.
const MAX_COMBINATIONS: usize = 256;

/// The combinations of a matrix, by GitHub's rules ("Running variations of jobs in a workflow" in its docs): a combination
/// that contains an entry of `exclude` is dropped; an entry of `include` extends the combinations whose own values it does not
/// change, and is a combination of its own if there is none. A variable that is an expression is ignored.
fn combinations(matrix: &Value) -> Vec<Combination> {
    let entries = |name: &str| matrix[name].as_array().into_iter().flatten().filter_map(Value::as_object);
    let own =
        matrix.as_object().into_iter().flatten().filter(|(key, _)| !matches!(key.as_str(), "include" | "exclude"));
    let axes: Vec<(&String, &Vec<Value>)> = own.filter_map(|(key, values)| Some((key, values.as_array()?))).collect();
    let mut original = if axes.is_empty() { Vec::new() } else { vec![Combination::new()] };
    for (key, values) in axes.into_iter().filter(|(_, values)| !values.is_empty()) {
        if original.len() * values.len() > MAX_COMBINATIONS {
            continue;
        }
        let with = |combination: &Combination, value: &Value| {
            let more = [(key.clone(), value.clone())];
            combination.clone().into_iter().chain(more).collect()
        };
        original = original.iter().flat_map(|it| values.iter().map(move |value| with(it, value))).collect();
    }
    original.retain(|it| !entries("exclude").any(|out| out.iter().all(|(key, value)| it.get(key) == Some(value))));
    let mut all = original.clone();
    for more in entries("include") {
        let mut fits = false;
        for (combination, own) in all.iter_mut().zip(&original) {
            if more.iter().all(|(key, value)| own.get(key).is_none_or(|own| own == value)) {
                combination.extend(more.clone());
                fits = true;
            }
        }
        if !fits {
            all.push(more.clone());
        }
    }
    if all.is_empty() { vec![Combination::new()] } else { all }
}

/// The labels that a combination requests.
fn requested(labels: &Value, combination: &Combination) -> Result<Vec<String>, String> {
    match labels {
        Value::String(text) => resolved(text, combination),
        Value::Array(all) => {
            let each = all.iter().flat_map(texts).map(|text| resolved(&text, combination));
            Ok(each.collect::<Result<Vec<_>, _>>()?.concat())
        }
        _ => Err("the job has no runs-on".to_owned()),
    }
}

/// The text with the combination's values filled in. A text that is a single `${{ matrix.x }}` may give a whole list.
fn resolved(text: &str, combination: &Combination) -> Result<Vec<String>, String> {
    let unknown = || format!("{} is an expression", text.trim());
    let choice = |expression: &str| {
        let texts = combination.get(expression.trim().strip_prefix("matrix.")?).map(texts)?;
        texts.iter().all(|text| !text.contains("${{")).then_some(texts)
    };
    let mut parts = text.split("${{");
    let mut whole = vec![parts.next().unwrap_or_default().to_owned()];
    for part in parts {
        let (expression, rest) = part.split_once("}}").ok_or_else(unknown)?;
        let texts = choice(expression).ok_or_else(unknown)?;
        match (&mut whole[..], &texts[..]) {
            ([so_far], [one]) => so_far.push_str(&format!("{one}{rest}")),
            ([so_far], _) if so_far.trim().is_empty() && rest.trim().is_empty() => whole = texts,
            _ => return Err(unknown()),
        }
    }
    Ok(whole)
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().flat_map(texts).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}
