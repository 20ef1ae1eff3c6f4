//! `drover doctor`: is it set up right, and does it work? Each check looks at one thing, says what it found, and what to do
//! about it. A reading that fails is the failure of the checks that rest on it, and of no other.

pub(crate) mod app;
mod pools;
mod stack;

use domain::state::Config;
use jiff::Timestamp;
use platform::environment::EnvironmentError;
use platform::github::GitHubApp;
use platform::inspect::{Inspect, Unanswered};
use platform::table::Table;
use serde::Serialize;
use serde_json::json;

use crate::output::Output;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Pass,
    /// It works, or may; somebody should look.
    Warn,
    /// Jobs wait or will, or somebody may do what he should not.
    Fail,
}

/// What one look found.
#[derive(Debug, Serialize)]
struct Check {
    group: &'static str,
    name: &'static str,
    level: Level,
    says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// The checks of one group, as they are made.
struct Group {
    title: &'static str,
    checks: Vec<Check>,
}

impl Group {
    fn new(title: &'static str) -> Self {
        Self { title, checks: Vec::new() }
    }

    fn add(&mut self, name: &'static str, level: Level, says: String, remedy: Option<String>) {
        self.checks.push(Check { group: self.title, name, level, says, remedy });
    }

    fn pass(&mut self, name: &'static str, says: impl Into<String>) {
        self.add(name, Level::Pass, says.into(), None);
    }

    fn warn(&mut self, name: &'static str, says: impl Into<String>, remedy: impl Into<String>) {
        self.add(name, Level::Warn, says.into(), Some(remedy.into()));
    }

    fn fail(&mut self, name: &'static str, says: impl Into<String>, remedy: impl Into<String>) {
        self.add(name, Level::Fail, says.into(), Some(remedy.into()));
    }

    /// What it rests on is not known, which another check has said already.
    fn skip(&mut self, name: &'static str, why: &str) {
        self.warn(name, format!("not looked at: {why}"), "see to that first");
    }

    /// AWS did not say.
    fn unanswered(&mut self, name: &'static str, error: &Unanswered) {
        let remedy = match error.is_refusal() {
            true => "use a role that may: terraform/iam_people.tf gives the role deploy all that drover calls",
            false => "look at the message: a name may be wrong, the region another, or AWS away",
        };
        self.fail(name, error.to_string(), remedy);
    }

    /// What is wrong, a line each; what is fine, if nothing is.
    fn judge(&mut self, name: &'static str, level: Level, wrong: &[String], fine: impl Into<String>, remedy: &str) {
        match wrong.is_empty() {
            true => self.pass(name, fine),
            false => self.add(name, level, wrong.join("\n"), Some(remedy.to_owned())),
        }
    }
}

/// What there is to look at. What the environment does not name is not looked at, and said to be missing.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// The AWS account.
    pub inspect: &'a Inspect,
    /// The table.
    pub table: Result<&'a Table, EnvironmentError>,
    /// The app.
    pub github: Result<&'a GitHubApp, EnvironmentError>,
    /// The queue's URL.
    pub queue: Result<String, EnvironmentError>,
    /// Where ingest is reached.
    pub webhook_url: Result<String, EnvironmentError>,
    /// The id of the webhook's secret.
    pub webhook_secret: Result<String, EnvironmentError>,
    /// Whether what is safe is to be put right.
    pub fix: bool,
    /// When all this happens.
    pub now: Timestamp,
}

/// Looks at everything.
pub async fn doctor(subject: &Subject<'_>) -> Output {
    let (aws, (table, config)) = tokio::join!(stack::aws(subject), stack::table(subject));
    let (app, stack, pools) = tokio::join!(
        app::app(subject, config.as_ref()),
        stack::stack(subject),
        pools::pools(subject, config.as_ref()),
    );
    let groups: Vec<Group> = [aws, table, app].into_iter().chain(stack).chain(pools).collect();
    report(&groups)
}

/// The pools in force, if they could be read.
type Pools<'a> = Option<&'a Config>;

fn report(groups: &[Group]) -> Output {
    let checks: Vec<&Check> = groups.iter().flat_map(|group| &group.checks).collect();
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let (failed, warned) = (count(Level::Fail), count(Level::Warn));
    let mut text = String::new();
    for group in groups {
        text += &format!("{}\n", group.title);
        for Check { name, level, says, remedy, .. } in &group.checks {
            let mark = match level {
                Level::Pass => "ok  ",
                Level::Warn => "warn",
                Level::Fail => "FAIL",
            };
            let says = says.trim_end().replace('\n', &format!("\n{:26}", ""));
            text += &format!("  {mark}  {name:<16}  {says}\n");
            if let Some(remedy) = remedy {
                text += &format!("{:26}-> {remedy}\n", "");
            }
        }
        text.push('\n');
    }
    text += &format!("{} checks: {failed} failed, {warned} to look at\n", checks.len());
    Output { yes: failed == 0, text, json: json!({ "checks": checks, "failed": failed, "warned": warned }) }
}
