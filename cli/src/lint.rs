//! `drover lint`: will each job of a workflow find a pool, and which?

use std::path::Path;

use domain::config::Pool;
use domain::ids::Repository;
use domain::policy::route::{Routable, Unrouted, route};
use serde::Serialize;
use serde_json::{Map, Value, json};

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
    let why = match route(pools, &Routable { repository, public: home.public, labels }) {
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
    let labels = match &job["runs-on"] {
        Value::Object(group) if !group.contains_key("labels") => {
            return vec![(Vec::new(), Some("it asks for a runner group and no labels".to_owned()))];
        }
        Value::Object(group) => &group["labels"],
        other => other,
    };
    let mut choices = Vec::new();
    for combination in combinations(&job["strategy"]["matrix"]) {
        let choice = match asked(labels, &combination) {
            Ok(set) => (set, None),
            Err(why) => (texts(labels), Some(why)),
        };
        if !choices.contains(&choice) {
            choices.push(choice);
        }
    }
    choices
}

/// A choice of each of a matrix's axes.
type Combination = Map<String, Value>;

/// GitHub makes no more jobs of one.
const COMBINATIONS: usize = 256;

/// What a matrix is multiplied out to, as GitHub does it ("Running variations of jobs in a workflow" in its docs): what
/// `exclude` matches in part is left out; an entry of `include` is added to the combinations whose own choices it leaves as
/// they are, and is one of its own if there is none. What is an expression is left out: it may be anything.
fn combinations(matrix: &Value) -> Vec<Combination> {
    let entries = |name: &str| matrix[name].as_array().into_iter().flatten().filter_map(Value::as_object);
    let own =
        matrix.as_object().into_iter().flatten().filter(|(key, _)| !matches!(key.as_str(), "include" | "exclude"));
    let axes: Vec<(&String, &Vec<Value>)> = own.filter_map(|(key, values)| Some((key, values.as_array()?))).collect();
    let mut original = if axes.is_empty() { Vec::new() } else { vec![Combination::new()] };
    for (key, values) in axes.into_iter().filter(|(_, values)| !values.is_empty()) {
        if original.len() * values.len() > COMBINATIONS {
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

/// The labels that a combination asks for.
fn asked(labels: &Value, combination: &Combination) -> Result<Vec<String>, String> {
    match labels {
        Value::String(text) => resolved(text, combination),
        Value::Array(all) => {
            let each = all.iter().flat_map(texts).map(|text| resolved(&text, combination));
            Ok(each.collect::<Result<Vec<_>, _>>()?.concat())
        }
        _ => Err("it has no runs-on".to_owned()),
    }
}

/// A text with the combination's choices in it; one that is nothing but a choice may be a whole list.
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
