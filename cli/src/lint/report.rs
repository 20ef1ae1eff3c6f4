//! The findings of lint as text, JSON, GitHub's annotations or SARIF.

use std::collections::BTreeSet;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::finding::{Finding, Unknowns, Verdict};
use crate::output::{Output, count, one_line, printable};

/// How findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A line per job
    Text,
    /// The list that --output json prints
    Json,
    /// Annotations of a pull request, from a job of GitHub Actions
    Github,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

#[derive(Debug)]
pub struct Report {
    /// By file and line.
    pub findings: Vec<Finding>,
    pub(super) unknowns: Unknowns,
    /// Files that could not be read.
    pub unread: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Fine,
    Note,
    Error,
}

impl Report {
    pub fn output(&self, form: Form) -> Output {
        let json = json!(self.findings);
        let text = match form {
            Form::Text => self.lines(),
            Form::Json => format!("{json:#}\n"),
            Form::Github => self.annotations(),
            Form::Sarif => format!("{:#}\n", self.sarif()),
        };
        let ok = self.findings.iter().all(|finding| self.level(finding) != Level::Error);
        Output { ok, text, json }
    }

    fn level(&self, finding: &Finding) -> Level {
        match (&finding.verdict, self.unknowns) {
            (Verdict::Pool { .. } | Verdict::Hosted, _) => Level::Fine,
            (Verdict::Unknown { .. }, Unknowns::Counted) => Level::Note,
            (Verdict::Unknown { .. }, Unknowns::Refused) | (Verdict::NoPool { .. } | Verdict::Invalid { .. }, _) => {
                Level::Error
            }
        }
    }

    fn lines(&self) -> String {
        self.findings.iter().map(|finding| self.line(finding) + "\n").collect::<String>() + &self.summary() + "\n"
    }

    fn line(&self, finding: &Finding) -> String {
        let Finding { file, line, column, .. } = finding;
        let level = match self.level(finding) {
            Level::Fine => "",
            Level::Note => "unknown: ",
            Level::Error => "error: ",
        };
        one_line(&format!("{file}:{line}:{column}: {level}{}", message(finding)))
    }

    /// How many choices of labels there are of each kind.
    fn summary(&self) -> String {
        let number = |is: fn(&Verdict) -> bool| self.findings.iter().filter(|it| is(&it.verdict)).count();
        let of_level = |level: Level| self.findings.iter().filter(|it| self.level(it) == level).count();
        let files: BTreeSet<&String> = self.findings.iter().map(|finding| &finding.workflow).collect();
        let jobs: BTreeSet<_> = self.findings.iter().filter_map(|it| Some((&it.workflow, it.job.as_ref()?))).collect();
        format!(
            "{} in {}: {} for pools, {} GitHub-hosted, {}, {}",
            count(jobs.len(), "job"),
            count(files.len(), "file"),
            number(|verdict| matches!(verdict, Verdict::Pool { .. })),
            number(|verdict| matches!(verdict, Verdict::Hosted)),
            count(of_level(Level::Error), "error"),
            count(of_level(Level::Note), "unknown"),
        )
    }

    /// GitHub's workflow commands. A runner turns each into an annotation of its line.
    fn annotations(&self) -> String {
        let data = |text: &str| one_line(text).replace('%', "%25");
        let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
        let mut text = String::new();
        for finding in &self.findings {
            let kind = match self.level(finding) {
                Level::Fine => continue,
                Level::Note => "notice",
                Level::Error => "error",
            };
            let Finding { file, line, column, .. } = finding;
            text += &format!(
                "::{kind} file={},line={line},col={column},title=drover lint::{}\n",
                property(file),
                data(&message(finding))
            );
        }
        // A line that begins with :: would be a command.
        text + &self.summary() + "\n"
    }

    fn sarif(&self) -> Value {
        let results: Vec<Value> = self.findings.iter().filter_map(|finding| self.result(finding)).collect();
        let rule = |(id, text): (&str, &str)| json!({ "id": id, "shortDescription": { "text": text } });
        let rules: Vec<Value> = RULES.into_iter().map(rule).collect();
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": { "name": "drover", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
                "results": results,
            }],
        })
    }

    fn result(&self, finding: &Finding) -> Option<Value> {
        let level = match self.level(finding) {
            Level::Fine => return None,
            Level::Note => "note",
            Level::Error => "error",
        };
        let id = match finding.verdict {
            Verdict::NoPool { .. } => "no-pool",
            Verdict::Invalid { .. } => "invalid-workflow",
            Verdict::Unknown { .. } => "unknown-labels",
            Verdict::Pool { .. } | Verdict::Hosted => return None,
        };
        let region = json!({ "startLine": finding.line, "startColumn": finding.column });
        let uri = finding.file.trim_start_matches("./").replace('\\', "/");
        Some(json!({
            "ruleId": id,
            "level": level,
            "message": { "text": one_line(&message(finding)) },
            "locations": [{ "physicalLocation": { "artifactLocation": { "uri": encoded(&uri) }, "region": region } }],
        }))
    }
}

const RULES: [(&str, &str); 3] = [
    ("no-pool", "The job fits no pool."),
    ("invalid-workflow", "GitHub refuses the workflow."),
    ("unknown-labels", "The labels of the job are known only when the workflow runs."),
];

/// A path as a URI reference.
fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The verdict, with the job and its labels.
fn message(finding: &Finding) -> String {
    let verdict = match &finding.verdict {
        Verdict::Pool { pool } => {
            let asked = finding.asked.as_ref().map(|asked| format!(": {}", asked.text)).unwrap_or_default();
            format!("pool {pool}{asked}")
        }
        Verdict::Hosted => "GitHub-hosted runner".to_owned(),
        Verdict::NoPool { why } | Verdict::Unknown { why } | Verdict::Invalid { why } => why.clone(),
    };
    let help = finding.help.as_ref().map(|help| format!(" -> {help}")).unwrap_or_default();
    let Some(job) = &finding.job else { return printable(&format!("{verdict}{help}")) };
    let labels = if finding.labels.is_empty() { String::new() } else { format!(" [{}]", finding.labels.join(", ")) };
    printable(&format!("{job}{labels}: {verdict}{help}"))
}
