//! The results of checks, and how they are printed.

use platform::inspect::Unanswered;
use serde::Serialize;
use serde_json::json;

use crate::output::{Output, count};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Pass,
    /// Jobs run, but an operator should look at it.
    Warn,
    /// Jobs wait or will wait, or access is wider than it should be.
    Fail,
}

/// The result of one check.
#[derive(Debug, Serialize)]
struct Check {
    group: &'static str,
    name: &'static str,
    level: Level,
    #[serde(rename = "says")]
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// The results of related checks, in order.
pub(super) struct Group {
    title: &'static str,
    checks: Vec<Check>,
}

impl Group {
    pub(super) fn new(title: &'static str) -> Self {
        Self { title, checks: Vec::new() }
    }

    pub(super) fn add(&mut self, name: &'static str, level: Level, message: String, remedy: Option<String>) {
        self.checks.push(Check { group: self.title, name, level, message, remedy });
    }

    pub(super) fn pass(&mut self, name: &'static str, message: impl Into<String>) {
        self.add(name, Level::Pass, message.into(), None);
    }

    pub(super) fn warn(&mut self, name: &'static str, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(name, Level::Warn, message.into(), Some(remedy.into()));
    }

    pub(super) fn fail(&mut self, name: &'static str, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(name, Level::Fail, message.into(), Some(remedy.into()));
    }

    /// For a check that needs an answer which another check has already reported as missing.
    pub(super) fn skip(&mut self, name: &'static str, why: &str) {
        self.warn(name, format!("not checked: {why}"), "fix that first");
    }

    /// For a check whose call to AWS failed.
    pub(super) fn aws_error(&mut self, name: &'static str, error: &Unanswered) {
        let remedy = match error.is_refusal() {
            true => "use a role with this permission: the role deploy in terraform/iam_deploy.tf has every permission",
            false => "check the name and the region in the message, and whether AWS is available",
        };
        self.fail(name, error.to_string(), remedy);
    }

    /// Passes if there are no problems; otherwise lists them, one per line, at the given level.
    pub(super) fn conclude(
        &mut self,
        name: &'static str,
        level: Level,
        problems: &[String],
        fine: impl Into<String>,
        remedy: &str,
    ) {
        match problems.is_empty() {
            true => self.pass(name, fine),
            false => self.add(name, level, problems.join("\n"), Some(remedy.to_owned())),
        }
    }
}

/// The report for people and as JSON. The answer is no if a check failed.
pub(super) fn render(groups: &[Group]) -> Output {
    let checks: Vec<&Check> = groups.iter().flat_map(|group| &group.checks).collect();
    let of_level = |level| checks.iter().filter(|check| check.level == level).count();
    let (failed, warned) = (of_level(Level::Fail), of_level(Level::Warn));
    let mut text = String::new();
    for group in groups {
        text += &format!("{}\n", group.title);
        text.extend(group.checks.iter().map(lines));
        text.push('\n');
    }
    text += &format!("{}: {failed} failed, {}\n", count(checks.len(), "check"), count(warned, "warning"));
    Output { ok: failed == 0, text, json: json!({ "checks": checks, "failed": failed, "warned": warned }) }
}

fn lines(Check { name, level, message, remedy, .. }: &Check) -> String {
    let mark = match level {
        Level::Pass => "ok  ",
        Level::Warn => "warn",
        Level::Fail => "FAIL",
    };
    let message = message.trim_end().replace('\n', &format!("\n{:26}", ""));
    let mut text = format!("  {mark}  {name:<16}  {message}\n");
    if let Some(remedy) = remedy {
        text += &format!("{:26}-> {remedy}\n", "");
    }
    text
}
