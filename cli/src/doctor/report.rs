//! The results of checks, and how they are printed: problems first, then what passed.

use std::collections::BTreeSet;

use platform::inspect::Unanswered;
use serde::Serialize;
use serde_json::json;

use crate::output::{Output, count, remedy};

/// Lines that a check takes of the problems. `--json` has all.
const LINES_PER_CHECK: usize = 5;

/// The text of a check that needs what another check did not get. It is counted, and not listed.
const BLOCKED: &str = "not checked: it needs an answer that another check did not get";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Pass,
    /// Not checked.
    Skip,
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
    /// Every check of the group. One without a result needs an answer that another check did not get.
    names: &'static [&'static str],
    checks: Vec<Check>,
}

impl Group {
    pub(super) fn new(title: &'static str, names: &'static [&'static str]) -> Self {
        Self { title, names, checks: Vec::new() }
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

    /// For a check that nothing prevents but that has nothing to look at. A check that needs an answer which another check
    /// did not get has no result instead.
    pub(super) fn skip(&mut self, name: &'static str, why: &str) {
        self.add(name, Level::Skip, format!("not checked: {why}"), None);
    }

    /// For a check whose call to AWS failed.
    pub(super) fn aws_error(&mut self, name: &'static str, error: &Unanswered) {
        self.fail(name, error.to_string(), remedy(error.kind));
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

    /// Adds a result for each check that has none.
    fn complete(mut self) -> Self {
        let done: BTreeSet<&str> = self.checks.iter().map(|check| check.name).collect();
        let missing: Vec<&'static str> = self.names.iter().copied().filter(|name| !done.contains(name)).collect();
        let title = self.title;
        let skipped =
            |name| Check { group: title, name, level: Level::Skip, message: BLOCKED.to_owned(), remedy: None };
        self.checks.extend(missing.into_iter().map(skipped));
        self
    }
}

/// The report for people and as JSON. The answer is no if a check failed.
pub(super) fn render(groups: Vec<Group>) -> Output {
    let groups: Vec<Group> = groups.into_iter().map(Group::complete).collect();
    let checks: Vec<&Check> = groups.iter().flat_map(|group| &group.checks).collect();
    let of_level = |level| checks.iter().filter(|check| check.level == level).count();
    let (failed, warned, skipped) = (of_level(Level::Fail), of_level(Level::Warn), of_level(Level::Skip));
    let mut text = String::new();
    for level in [Level::Fail, Level::Warn] {
        text.extend(checks.iter().filter(|check| check.level == level).map(|check| problem(check)));
    }
    if skipped > 0 && !text.is_empty() {
        text += &format!("{} skipped\n", count(skipped, "check"));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    for group in &groups {
        let lines: String = group.checks.iter().filter_map(line).collect();
        if !lines.is_empty() {
            text += &format!("{}\n{lines}\n", group.title);
        }
    }
    text += &format!("{}: {failed} failed, {}\n", count(checks.len(), "check"), count(warned, "warning"));
    let json = json!({ "checks": checks, "failed": failed, "warned": warned, "skipped": skipped });
    Output { ok: failed == 0, text, json }
}

/// One line with the remedy, or a title with a line for each problem.
fn problem(Check { name, level, message, remedy, .. }: &Check) -> String {
    let mark = if *level == Level::Fail { "FAIL" } else { "warn" };
    let remedy = remedy.as_deref().map(|remedy| format!(" -> {remedy}")).unwrap_or_default();
    let lines: Vec<&str> = message.trim_end().lines().collect();
    if let [line] = lines[..] {
        return format!("{mark}  {name}: {line}{remedy}\n");
    }
    let shown = if lines.len() > LINES_PER_CHECK { LINES_PER_CHECK - 1 } else { lines.len() };
    let mut text = format!("{mark}  {name}: {}{remedy}\n", count(lines.len(), "problem"));
    text.extend(lines[..shown].iter().map(|line| format!("        {line}\n")));
    if lines.len() > shown {
        text += &format!("        and {} more\n", lines.len() - shown);
    }
    text
}

/// A check that passed, or that has nothing to look at.
fn line(Check { name, level, message, .. }: &Check) -> Option<String> {
    let mark = match level {
        Level::Pass => "ok  ",
        Level::Skip => "skip",
        Level::Warn | Level::Fail => return None,
    };
    let message = message.trim_end().replace('\n', &format!("\n{:26}", ""));
    (message != BLOCKED).then(|| format!("  {mark}  {name:<16}  {message}\n"))
}
