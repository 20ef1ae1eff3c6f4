//! `drover lint`: which pool each job of a workflow matches.

mod expression;
mod finding;
mod hosted;
mod matrix;
mod pattern;
mod report;
mod shapes;
mod value;
mod workflow;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use domain::config::{Label, Pool, Shape};
use domain::policy::route::{Routable, Unrouted, route, wrong_shape};

pub use self::finding::{Asked, Candidate, Finding, Listing, Question, Unknowns, Verdict, WorkflowRepository};
use self::pattern::Pattern;
pub use self::report::{Form, Report};
use self::workflow::{Request, Requested, Workflow, Workflows};
use self::yaml::{Invalid, Position, parse};
use crate::output::{Failure, cannot_read};

/// Finds the pool of each job, by file and line. `read` reads a file, also one that a workflow calls.
///
/// # Errors
/// None of the files can be read. One that cannot be read among others is a finding.
pub fn lint(
    files: &[impl AsRef<Path>],
    question: &Question,
    read: impl Fn(&Path) -> std::io::Result<String>,
) -> Result<Report, Failure> {
    let (mut findings, mut workflows, mut unread) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let path = file.as_ref();
        let text = match read(path) {
            Ok(text) => text,
            Err(error) => {
                let (why, help) = (format!("the file cannot be read: {error}"), Some("check the path".to_owned()));
                findings.push(Finding { help, ..of_file(path, Invalid { at: Position::START, why }) });
                unread.push(cannot_read(path, &error));
                continue;
            }
        };
        match workflow(path, &text) {
            Ok(workflow) => workflows.push(workflow),
            Err(invalid) => findings.push(of_file(path, invalid)),
        }
    }
    let is_all_unread = unread.len() == files.len();
    let number_unread = unread.len();
    if let Some(first) = unread.into_iter().next().filter(|_| is_all_unread) {
        return Err(first);
    }
    let paths: BTreeSet<PathBuf> = workflows.iter().map(|workflow| workflow.path.clone()).collect();
    let mut workflows = Workflows::new(workflows);
    workflows.read_called(&read);
    let only_called = workflows.only_called();
    for path in paths.iter().filter(|path| !only_called.contains(path.as_path())) {
        let requests = workflows.requests(path, question);
        findings.extend(requests.iter().map(|requested| finding(path, requested, question)));
    }
    findings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    Ok(Report { findings, unknowns: question.unknowns, unread: number_unread })
}

/// A configuration variable, from `NAME=VALUE`. GitHub ignores the case of names.
pub fn variable(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim().to_uppercase();
    (!name.is_empty()).then(|| (name, value.to_owned()))
}

/// The configuration variables of a file: a `NAME=VALUE` per line, perhaps in quotes. Lines that begin with `#` are comments.
///
/// # Errors
/// A line is no variable. Its number.
pub fn variables(text: &str) -> Result<BTreeMap<String, String>, usize> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.trim().starts_with('#'));
    lines
        .map(|(number, line)| {
            let (name, value) = variable(line).ok_or(number + 1)?;
            let value = value.trim();
            let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
            Ok((name, quoted.unwrap_or(value).to_owned()))
        })
        .collect()
}

/// The finding about a whole file.
fn of_file(path: &Path, Invalid { at, why }: Invalid) -> Finding {
    Finding {
        workflow: path.display().to_string(),
        file: path.display().to_string(),
        line: at.line,
        column: at.column,
        job: None,
        labels: Vec::new(),
        verdict: Verdict::Invalid { why },
        asked: None,
        help: None,
    }
}

fn workflow(path: &Path, text: &str) -> Result<Workflow, Invalid> {
    let root = parse(text)?;
    if root.get("jobs").is_none_or(|jobs| jobs.entries().is_empty()) {
        return Err(Invalid { at: Position::START, why: "not a workflow: it has no jobs".to_owned() });
    }
    Ok(Workflow { path: path.to_owned(), root })
}

fn finding(path: &Path, requested: &Requested, question: &Question) -> Finding {
    let mut asked = None;
    let (verdict, labels, missed) = match &requested.request {
        Request::Invalid { why } => (Verdict::Invalid { why: why.clone() }, Vec::new(), None),
        Request::Unknown { labels, why } => (Verdict::Unknown { why: why.clone() }, written(labels), None),
        Request::Runner { labels, group } => {
            let (mut verdict, mut missed) = verdict(labels, group.as_ref(), question);
            if let Some(of_shape) = of_shape(&verdict, labels, question) {
                if let Verdict::NoPool { .. } = of_shape.verdict {
                    missed = Some(Missed { label: written(labels).concat(), help: of_shape.allowed });
                }
                (verdict, asked) = (of_shape.verdict, of_shape.asked);
            }
            (verdict, written(labels), missed)
        }
    };
    let (file, at) = requested.place(missed.as_ref().map(|missed| missed.label.as_str()));
    Finding {
        workflow: path.display().to_string(),
        file: file.display().to_string(),
        line: at.line,
        column: at.column,
        job: Some(requested.job.clone()),
        help: missed.and_then(|missed| missed.help).or_else(|| missing_variable(&verdict, &labels, question)),
        labels,
        verdict,
        asked,
    }
}

/// How to give the variable that the labels depend on, if labels must be known.
fn missing_variable(verdict: &Verdict, labels: &[String], question: &Question) -> Option<String> {
    let (Verdict::Unknown { why }, Unknowns::Refused) = (verdict, question.unknowns) else { return None };
    let names = labels.iter().chain([why]).flat_map(|text| text.split("vars.").skip(1)).map(|text| {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        text[..end].to_uppercase()
    });
    let missing = names.into_iter().find(|name| !name.is_empty() && !question.variables.contains_key(name))?;
    Some(format!("give its value with --var {missing}=..."))
}

/// More about a label that a pool accepts as a shape: the machines that it gets, or that there is none.
fn of_shape(verdict: &Verdict, labels: &[Pattern], question: &Question) -> Option<OfShape> {
    let Verdict::Pool { pool } = verdict else { return None };
    let pool = question.pools.iter().find(|it| it.name.as_str() == pool)?;
    let known: Option<Vec<String>> = labels.iter().map(|label| label.known().map(ToOwned::to_owned)).collect();
    let (verdict, asked) = shapes::verdict(pool, &known?)?;
    Some(OfShape { verdict, asked, allowed: shapes::allowed(pool) })
}

struct OfShape {
    verdict: Verdict,
    asked: Option<Asked>,
    /// What labels of the pool may ask for.
    allowed: Option<String>,
}

fn written(labels: &[Pattern]) -> Vec<String> {
    labels.iter().map(Pattern::written).collect()
}

/// The label because of which a job fits no pool.
struct Missed {
    /// As the workflow has it.
    label: String,
    help: Option<String>,
}

fn verdict(labels: &[Pattern], group: Option<&Pattern>, question: &Question) -> (Verdict, Option<Missed>) {
    let WorkflowRepository { repository, public } = &question.source;
    let is_hosted = hosted::may_be(labels, group, &question.hosted);
    if let ([], Some(group)) = (labels, group) {
        return (of_group(group, is_hosted, question.listing), None);
    }
    let known: Option<Vec<String>> = labels.iter().map(|label| label.known().map(ToOwned::to_owned)).collect();
    let Some(known) = known else { return partly_known(labels, is_hosted, question) };
    let refused = match route(&question.pools, &Routable { repository, public: *public, labels: &known }) {
        Ok(pool) => {
            let help = (known.len() == 1 && hosted::may_be(labels, group, &[]))
                .then(|| "GitHub's own runners have this label, too, and may take the job".to_owned());
            let missed = help.map(|help| Missed { label: known.concat(), help: Some(help) });
            return (Verdict::Pool { pool: pool.name.to_string() }, missed);
        }
        Err(_) if is_hosted => return (Verdict::Hosted, None),
        Err(refused) => refused,
    };
    let why = match refused {
        Unrouted::NoPools => "no pools are configured".to_owned(),
        Unrouted::Unlabelled if known.is_empty() => "the job has no labels".to_owned(),
        Unrouted::Unlabelled => {
            "a label is longer than 256 characters or has a comma, which no runner can have".to_owned()
        }
        Unrouted::Group => "the job names no labels, and Drover needs a label".to_owned(),
        Unrouted::Owner => format!("no pool is registered for {repository} or its owner"),
        Unrouted::Repository => format!("the pools of {} do not serve {repository}", repository.owner),
        Unrouted::Labels | Unrouted::PoolName => {
            let (why, missed) = unmatched(&known, question);
            return (Verdict::NoPool { why }, Some(missed));
        }
        Unrouted::Shape => {
            let wrong = wrong_shape(&question.pools, &Routable { repository, public: *public, labels: &known });
            let Some((pool, wrong)) = wrong else { return (Verdict::NoPool { why: String::new() }, None) };
            let is_meant = |label: &&String| Shape::terms(&pool.name, label.trim()).is_some();
            let label = known.iter().find(is_meant).cloned().unwrap_or_default();
            let why = format!("pool {} cannot serve it: {wrong}", pool.name);
            return (Verdict::NoPool { why }, Some(Missed { label, help: shapes::allowed(pool) }));
        }
        Unrouted::Draining => "the matching pool is draining".to_owned(),
        Unrouted::Public => "the matching pool does not serve public repositories".to_owned(),
    };
    (Verdict::NoPool { why }, None)
}

/// The verdict for a job that names a runner group and no labels. No pool serves it: its webhook does not name the group. The
/// group may be one of GitHub's larger runners, and only its owner knows that.
fn of_group(group: &Pattern, is_hosted: bool, listing: Listing) -> Verdict {
    let group = group.written();
    match (is_hosted, listing) {
        (true, _) => Verdict::Hosted,
        (false, Listing::Complete) => Verdict::NoPool {
            why: format!(
                "the job names the runner group {group} and no labels, Drover needs a label, and the pool file does not list \
                 the group as hosted"
            ),
        },
        (false, Listing::Partial) => Verdict::Unknown {
            why: format!(
                "the job names the runner group {group} and no labels, so no pool serves it; if other runners do, declare the \
                 group with --hosted"
            ),
        },
    }
}

/// Labels of which some have unknown parts: no pool, if none could match whatever the parts are.
fn partly_known(labels: &[Pattern], is_hosted: bool, question: &Question) -> (Verdict, Option<Missed>) {
    let pools = serving(question);
    match pools.iter().find_map(|pool| Some((*pool, shapes::may_be(pool, labels)?))) {
        Some((pool, Err(wrong))) => {
            let why = format!("pool {} cannot serve it: {wrong}", pool.name);
            let help = Some("keep only the label of the shape".to_owned());
            return (Verdict::NoPool { why }, Some(Missed { label: String::new(), help }));
        }
        Some((pool, Ok(()))) => {
            let why =
                format!("a part of its shape is known only when the workflow runs, pool {} checks it then", pool.name);
            return (Verdict::Unknown { why }, None);
        }
        None => {}
    }
    let may_match = |pool: &&Pool| labels.iter().all(|label| pool.labels.iter().any(|own| label.may_be(own.as_str())));
    let fits = pools.iter().any(may_match);
    let unknown = labels.iter().find(|label| label.unknown().is_some());
    let expression = unknown.and_then(Pattern::unknown).unwrap_or_default();
    if fits || is_hosted {
        return (Verdict::Unknown { why: format!("{expression} is known only when the workflow runs") }, None);
    }
    let matches_none =
        |label: &&Pattern| !pools.iter().any(|pool| pool.labels.iter().any(|own| label.may_be(own.as_str())));
    let label = labels.iter().find(matches_none);
    let why = match label {
        Some(label) => format!("no pool has a label like {}", label.written()),
        None => "no pool has all of these labels".to_owned(),
    };
    // The text before the first expression is what the file contains.
    let label = label.map(|label| label.beginning().trim().to_owned()).filter(|label| !label.is_empty());
    (Verdict::NoPool { why }, label.map(|label| Missed { label, help: None }))
}

/// The pools that serve the repository.
fn serving(question: &Question) -> Vec<&Pool> {
    question.pools.iter().filter(|pool| pool.serves(&question.source.repository)).collect()
}

/// Why labels match no pool, and which label is at fault.
fn unmatched(labels: &[String], question: &Question) -> (String, Missed) {
    let pools = serving(question);
    let has = |pool: &Pool, label: &String| label.parse().is_ok_and(|label: Label| pool.labels.contains(&label));
    if let Some(label) = labels.iter().find(|label| !pools.iter().any(|pool| has(pool, label))) {
        let own = pools.iter().flat_map(|pool| pool.labels.iter().map(Label::as_str));
        let nearest = crate::pool_file::nearest(&label.trim().to_lowercase(), own);
        // The name of a pool with shapes is misspelt.
        let shaped = || {
            let (name, terms) = label.split_once('/')?;
            let names = pools.iter().filter(|pool| pool.shapes.is_some()).map(|pool| pool.name.as_str());
            let near = crate::pool_file::nearest(&name.trim().to_lowercase(), names)?;
            Some(format!("did you mean {near}/{terms}?"))
        };
        let declare = || "if its runner is not one of Drover's, declare the label with --hosted".to_owned();
        let help = nearest.map(|nearest| format!("did you mean {nearest}?"));
        let help = help.or_else(shaped).or_else(|| (labels.len() == 1).then(declare));
        return (format!("no pool has the label {}", label.trim()), Missed { label: label.clone(), help });
    }
    let lacking = |pool: &Pool| labels.iter().filter(|label| !has(pool, label)).collect::<Vec<_>>();
    let nearest = pools.into_iter().min_by_key(|pool| (lacking(pool).len(), pool.priority, pool.name.clone()));
    let lacked: Vec<&String> = nearest.map(lacking).unwrap_or_default();
    let names: Vec<&str> = lacked.iter().map(|label| label.as_str()).collect();
    let help = nearest.map(|pool| format!("pool {} lacks {}", pool.name, names.join(", ")));
    let label = lacked.first().map(|label| (*label).clone()).unwrap_or_default();
    ("no pool has all of these labels".to_owned(), Missed { label, help })
}
