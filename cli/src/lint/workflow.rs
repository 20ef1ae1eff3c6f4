//! The runners that the jobs of a workflow request, also in the workflows that they call.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::Value;

use super::expression::{Refused, Scope, value_of};
use super::finding::Question;
use super::matrix::{combinations, fields};
use super::pattern::Pattern;
use super::value::{Alternatives, Inputs, Possible, Truth, as_text};
use super::yaml::{Content, Entry, Node, Position, parse};

/// GitHub's limit of levels of reusable workflows, with the one that a trigger starts.
const MAX_LEVELS: usize = 10;

/// The called workflows that are followed from one file: matrices of calls multiply.
const MAX_VISITS: usize = 1000;

/// The labels of a job with more choices of labels than this are unknown.
const MAX_CHOICES: usize = 256;

/// The folder that GitHub reads workflows from.
const FOLDER: &str = ".github/workflows";

/// A workflow file that was read.
pub(super) struct Workflow {
    pub(super) path: PathBuf,
    pub(super) root: Rc<Node>,
}

/// What a job requests.
#[derive(Debug, PartialEq)]
pub(super) enum Request {
    /// A runner with all of these labels, or without labels one of the group.
    Runner { labels: Vec<Pattern>, group: Option<Pattern> },
    /// Depends on something that is only known when the workflow runs.
    Unknown { labels: Vec<Pattern>, why: String },
    /// GitHub refuses the workflow.
    Invalid { why: String },
}

/// A request, and where it is written.
pub(super) struct Requested<'a> {
    /// `build`, or `build / test` in a called workflow.
    pub(super) job: String,
    pub(super) request: Request,
    file: &'a Path,
    at: Position,
    /// Where its labels may be written: files with the values in them, nearest first.
    sources: Vec<(&'a Path, &'a Node)>,
}

impl Requested<'_> {
    /// Where the label is written, or the key `runs-on`.
    pub(super) fn place(&self, label: Option<&str>) -> (&Path, Position) {
        let equal = |text: &str| label.is_some_and(|label| text.trim() == label);
        let part = |text: &str| label.is_some_and(|label| text.contains(label));
        let find = |matches: &dyn Fn(&str) -> bool| {
            self.sources.iter().find_map(|(file, node)| Some((*file, node.find(&matches)?)))
        };
        find(&equal).or_else(|| find(&part)).unwrap_or((self.file, self.at))
    }
}

/// The workflows of one run of lint.
pub(super) struct Workflows {
    files: BTreeMap<PathBuf, Workflow>,
    /// Called workflows that were visited for one file.
    visits: Cell<usize>,
}

impl Workflows {
    pub(super) fn new(files: Vec<Workflow>) -> Self {
        Self { files: files.into_iter().map(|file| (file.path.clone(), file)).collect(), visits: Cell::new(0) }
    }

    /// Reads the workflows that these call. A file that cannot be read is an error where it is called.
    pub(super) fn read_called(&mut self, read: &impl Fn(&Path) -> std::io::Result<String>) {
        let mut tried = BTreeSet::new();
        loop {
            let called = self.files.values().flat_map(called_paths);
            let new: BTreeSet<PathBuf> =
                called.filter(|path| !self.files.contains_key(path) && !tried.contains(path)).collect();
            if new.is_empty() {
                return;
            }
            for path in new {
                if let Ok(text) = read(&path)
                    && let Ok(root) = parse(&text)
                {
                    self.files.insert(path.clone(), Workflow { path: path.clone(), root });
                }
                tried.insert(path);
            }
        }
    }

    /// The workflows that only other workflows start, and that one of these calls. Their callers know their inputs.
    pub(super) fn only_called(&self) -> BTreeSet<&Path> {
        let called: BTreeSet<PathBuf> = self.files.values().flat_map(called_paths).collect();
        let only = |file: &&Workflow| triggers(&file.root) == ["workflow_call"] && called.contains(&file.path);
        self.files.values().filter(only).map(|file| file.path.as_path()).collect()
    }

    /// What the jobs of a file request.
    pub(super) fn requests<'a>(&'a self, path: &Path, question: &'a Question) -> Vec<Requested<'a>> {
        let mut all = Vec::new();
        if let Some(workflow) = self.files.get(path) {
            self.visits.set(0);
            let inputs = unset_inputs(&workflow.root);
            let visit = Visit { workflow, inputs: &inputs, prefix: "", callers: &[], sources: &[] };
            self.visit(&visit, question, &mut all);
        }
        all
    }

    fn visit<'a>(&'a self, visit: &Visit<'a, '_>, question: &'a Question, all: &mut Vec<Requested<'a>>) {
        for job in visit.workflow.root.get("jobs").map_or(&[][..], Node::entries) {
            let name = format!("{}{}", visit.prefix, job.key);
            let mut found: Vec<Requested<'a>> = Vec::new();
            if let Err(Refused(why)) = self.visit_job(visit, job, &name, question, &mut found) {
                found.push(visit.requested(job, &name, Request::Invalid { why }));
            }
            // Each choice of a job once: most variables of a matrix do not change the labels.
            for requested in found {
                if !all.iter().any(|it| it.job == requested.job && it.request == requested.request) {
                    all.push(requested);
                }
            }
        }
    }

    fn visit_job<'a>(
        &'a self,
        visit: &Visit<'a, '_>,
        job: &'a Entry,
        name: &str,
        question: &'a Question,
        all: &mut Vec<Requested<'a>>,
    ) -> Result<(), Refused> {
        let Question { source, variables, .. } = question;
        let scope = Scope { repository: &source.repository, variables, inputs: visit.inputs, matrix: None };
        let matrix = job.value.get("strategy").and_then(|strategy| strategy.get("matrix"));
        for combination in combinations(matrix, &scope)? {
            let scope = Scope { matrix: Some(&combination), ..scope };
            if let Some(called) = job.value.get("uses").and_then(Node::text) {
                self.visit_called(visit, job, called, &scope, (name, question), all)?;
                continue;
            }
            let requests = match job.value.get("runs-on") {
                Some(node) => requests(node, &scope)?,
                None => vec![Request::Invalid { why: "the job has neither runs-on nor uses".to_owned() }],
            };
            all.extend(requests.into_iter().map(|request| visit.requested(job, name, request)));
        }
        Ok(())
    }

    fn visit_called<'a>(
        &'a self,
        visit: &Visit<'a, '_>,
        job: &'a Entry,
        called: &str,
        scope: &Scope,
        (name, question): (&str, &'a Question),
        all: &mut Vec<Requested<'a>>,
    ) -> Result<(), Refused> {
        let one = |request| visit.requested(job, name, request);
        let unknown = |why: String| one(Request::Unknown { labels: Vec::new(), why });
        let Some(path) = called_path(&visit.workflow.path, called) else {
            all.push(match called.strip_prefix("./") {
                Some(_) => unknown(format!("calls {called}, which is not beside this file in {FOLDER}")),
                None => unknown(format!("calls a workflow of another repository, {called}")),
            });
            return Ok(());
        };
        let Some(workflow) = self.files.get(&path) else {
            let why = format!("calls {called}, which cannot be read as a workflow");
            all.push(one(Request::Invalid { why }));
            return Ok(());
        };
        if visit.callers.contains(&path.as_path()) || path == visit.workflow.path {
            all.push(one(Request::Invalid { why: format!("calls {called}, which leads to this workflow again") }));
            return Ok(());
        }
        let callers: Vec<&Path> = visit.callers.iter().copied().chain([visit.workflow.path.as_path()]).collect();
        if callers.len() >= MAX_LEVELS {
            let why = format!("calls {called} on level {}; GitHub allows {MAX_LEVELS} levels", callers.len() + 1);
            all.push(one(Request::Invalid { why }));
            return Ok(());
        }
        if self.visits.get() >= MAX_VISITS {
            all.push(unknown(format!("calls {called}; lint follows at most {MAX_VISITS} calls")));
            return Ok(());
        }
        self.visits.set(self.visits.get() + 1);
        let mut inputs = default_inputs(&workflow.root);
        for entry in job.value.get("with").map_or(&[][..], Node::entries) {
            inputs.insert(entry.key.to_lowercase(), value_of(&entry.value, scope)?);
        }
        let given = job.value.get("with").map(|with| (visit.workflow.path.as_path(), with));
        let matrix = job.value.get("strategy").map(|strategy| (visit.workflow.path.as_path(), strategy));
        let sources: Vec<_> = given.into_iter().chain(matrix).chain(visit.sources.iter().copied()).collect();
        let prefix = format!("{name} / ");
        let inner = Visit { workflow, inputs: &inputs, prefix: &prefix, callers: &callers, sources: &sources };
        self.visit(&inner, question, all);
        Ok(())
    }
}

/// A workflow with its inputs.
struct Visit<'a, 'b> {
    workflow: &'a Workflow,
    inputs: &'b Inputs,
    prefix: &'b str,
    /// The workflows that lead to this one.
    callers: &'b [&'a Path],
    /// The places of the values that its callers gave it.
    sources: &'b [(&'a Path, &'a Node)],
}

impl<'a> Visit<'a, '_> {
    fn requested(&self, job: &'a Entry, name: &str, request: Request) -> Requested<'a> {
        let file = self.workflow.path.as_path();
        let own = ["runs-on", "strategy"].iter().filter_map(|key| job.value.get(key));
        let inputs = self.workflow.root.get("on");
        let sources = own.map(|node| (file, node)).chain(self.sources.iter().copied());
        let at = ["runs-on", "uses"].iter().find_map(|key| job.value.entry(key)).map_or(job.at, |entry| entry.at);
        let sources = sources.chain(inputs.map(|node| (file, node))).collect();
        Requested { job: name.to_owned(), request, file, at, sources }
    }
}

/// The file of a workflow that is called as `./.github/workflows/NAME`.
fn called_path(caller: &Path, called: &str) -> Option<PathBuf> {
    let name = called.strip_prefix("./")?.strip_prefix(FOLDER)?.strip_prefix('/')?;
    let folder = caller.parent()?;
    (folder.ends_with(FOLDER) && !name.contains('/')).then(|| folder.join(name))
}

fn called_paths(workflow: &Workflow) -> Vec<PathBuf> {
    let jobs = workflow.root.get("jobs").map_or(&[][..], Node::entries);
    let called = jobs.iter().filter_map(|job| job.value.get("uses")?.text());
    called.filter_map(|called| called_path(&workflow.path, called)).collect()
}

fn triggers(root: &Node) -> Vec<&str> {
    let Some(on) = root.get("on") else { return Vec::new() };
    let listed = on.items().iter().filter_map(|item| item.text());
    on.text().into_iter().chain(listed).chain(on.entries().iter().map(|entry| entry.key.as_str())).collect()
}

fn declared<'a>(root: &'a Node, trigger: &str) -> &'a [Entry] {
    root.get("on").and_then(|on| on.get(trigger)?.get("inputs")).map_or(&[], Node::entries)
}

/// The value of an input that has no expression in its default.
fn default_value(input: &Node) -> Option<Possible> {
    let is_boolean = input.get("type").and_then(Node::text) == Some("boolean");
    let default = input.get("default")?;
    match &default.content {
        Content::Text(text) if is_boolean => Some(Possible::Known(Value::Bool(text == "true"))),
        Content::Text(text) if text.contains("${{") => None,
        Content::Text(text) => Some(Possible::Known(Value::String(text.clone()))),
        Content::Bool(value) => Some(Possible::Known(Value::Bool(*value))),
        Content::Number(number) => Some(Possible::Known(Value::from(*number))),
        Content::Null | Content::List(_) | Content::Map(_) => None,
    }
}

fn unknown_input(name: &str) -> Possible {
    Possible::Unknown { expression: format!("inputs.{name}"), truth: Truth::Any }
}

/// The inputs of a called workflow that its caller leaves out.
fn default_inputs(root: &Node) -> Inputs {
    let none = Possible::Known(Value::String(String::new()));
    let input = |entry: &Entry| (entry.key.to_lowercase(), vec![default_value(&entry.value).unwrap_or(none.clone())]);
    declared(root, "workflow_call").iter().map(input).collect()
}

/// The inputs of a workflow whose start is unknown: every trigger gives an alternative.
fn unset_inputs(root: &Node) -> Inputs {
    let triggers = triggers(root);
    let mut inputs = Inputs::new();
    for trigger in ["workflow_dispatch", "workflow_call"].iter().filter(|trigger| triggers.contains(trigger)) {
        for entry in declared(root, trigger) {
            let kind = entry.value.get("type").and_then(Node::text);
            let options = entry.value.get("options").map_or(&[][..], Node::items);
            let values: Alternatives = match kind {
                Some("choice") => {
                    let options = options.iter().filter_map(|option| option.text());
                    options.map(|option| Possible::Known(Value::from(option))).collect()
                }
                Some("boolean") => [true, false].map(|value| Possible::Known(Value::Bool(value))).into(),
                _ => default_value(&entry.value).into_iter().chain([unknown_input(&entry.key)]).collect(),
            };
            inputs.entry(entry.key.to_lowercase()).or_default().extend(values);
        }
    }
    let others = triggers.iter().any(|trigger| !matches!(*trigger, "workflow_dispatch" | "workflow_call"));
    for values in inputs.values_mut() {
        if others || values.is_empty() {
            values.push(Possible::Known(Value::Null));
        }
    }
    inputs
}

/// What `runs-on` may request.
fn requests(node: &Node, scope: &Scope) -> Result<Vec<Request>, Refused> {
    let alternatives = value_of(node, scope)?;
    let mut all = Vec::new();
    for value in &alternatives {
        match fields(value) {
            Ok(fields) if !fields.is_empty() => {
                let part = |name| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice());
                let groups: Vec<Option<Pattern>> = match part("group") {
                    Some(groups) => groups.iter().map(|group| Some(as_text(group))).collect(),
                    None => vec![None],
                };
                for group in groups {
                    let empty = [Possible::Known(Value::Array(Vec::new()))];
                    for labels in part("labels").unwrap_or(&empty) {
                        all.extend(runners(labels, group.as_ref()));
                    }
                }
            }
            Ok(_) | Err(_) => all.extend(runners(value, None)),
        }
    }
    // A value that is empty in the file is a mistake, and one that an expression gave depends on the run.
    if let [Request::Runner { labels, group: None }] = &all[..]
        && labels.is_empty()
        && !node.text().is_some_and(|text| text.contains("${{"))
    {
        return Ok(vec![Request::Invalid { why: "runs-on is empty".to_owned() }]);
    }
    Ok(all.into_iter().map(|request| or_empty(request, node)).collect())
}

/// An expression whose value may be empty gives no labels then.
fn or_empty(request: Request, node: &Node) -> Request {
    match request {
        Request::Runner { labels, group: None } if labels.is_empty() => {
            let written = node.text().map(Pattern::from);
            Request::Unknown {
                labels: written.into_iter().collect(),
                why: "the expression may give nothing".to_owned(),
            }
        }
        other => other,
    }
}

/// The labels that one value of `runs-on` or `labels` requests.
fn runners(value: &Possible, group: Option<&Pattern>) -> Vec<Request> {
    let runner = |labels: Vec<Pattern>| {
        let labels: Vec<Pattern> = labels.into_iter().filter(|label| !label.is_empty()).collect();
        // Which pools are in a group is GitHub's matter: with labels, the labels decide.
        let group = if labels.is_empty() { group.cloned() } else { None };
        Request::Runner { labels, group }
    };
    match value {
        Possible::Known(Value::Array(items)) => {
            vec![runner(items.iter().flat_map(|item| flat(&Possible::Known(item.clone()))).collect())]
        }
        Possible::List(items) => {
            let mut choices: Vec<Vec<Pattern>> = vec![Vec::new()];
            for alternatives in items {
                let with = |choice: &Vec<Pattern>, item: &Possible| choice.iter().cloned().chain(flat(item)).collect();
                choices =
                    choices.iter().flat_map(|choice| alternatives.iter().map(|item| with(choice, item))).collect();
                if choices.len() > MAX_CHOICES {
                    let why = "has too many possible labels".to_owned();
                    return vec![Request::Unknown { labels: Vec::new(), why }];
                }
            }
            choices.into_iter().map(runner).collect()
        }
        Possible::Unknown { expression, truth } => {
            let why = match truth {
                Truth::Any => format!("{expression} is known only when the workflow runs"),
                Truth::False => "the expression may give nothing".to_owned(),
            };
            vec![Request::Unknown { labels: vec![as_text(value)], why }]
        }
        Possible::Known(Value::Bool(false)) => vec![runner(Vec::new())],
        Possible::Known(_) | Possible::Text(_) | Possible::Map(_) => vec![runner(flat(value))],
    }
}

/// A list in a list of labels is part of it.
fn flat(value: &Possible) -> Vec<Pattern> {
    match value {
        Possible::Known(Value::Array(items)) => {
            items.iter().flat_map(|item| flat(&Possible::Known(item.clone()))).collect()
        }
        Possible::Known(_) | Possible::Text(_) | Possible::List(_) | Possible::Map(_) | Possible::Unknown { .. } => {
            vec![as_text(value)]
        }
    }
}
