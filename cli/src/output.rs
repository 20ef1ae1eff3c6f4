//! What is printed, and how the command ends.

use std::io::Write;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use domain::state::FORMAT;
use engine::ports::{CommitError, ComputeError, GitHubError, QueueError, StoreError};
use jiff::SignedDuration;
use platform::aws::{AwsError, ErrorKind};
use platform::environment::EnvironmentError;
use platform::inspect::Unanswered;
use serde_json::{Value, json};

/// An answer, for people and for programs.
#[derive(Debug)]
pub struct Output {
    /// Whether the answer is yes.
    pub yes: bool,
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Value,
}

/// No answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something was said wrong.
    #[error("{0}")]
    Usage(String),
    /// The environment does not say where the stack is.
    #[error("{0} -> {STACKS_ENVIRONMENT}")]
    Environment(EnvironmentError),
    /// AWS cannot be reached, or does not allow it.
    #[error("{0}")]
    Unreachable(String),
    /// AWS did not do it.
    #[error("{says} -> {}", remedy(*.kind))]
    Aws {
        /// What failed, and how.
        says: String,
        /// What is in the way.
        kind: ErrorKind,
    },
    /// The table is written as this version does not know.
    #[error("the table is in format {format}, and this drover knows {FORMAT} -> {}", remedy(ErrorKind::Unreadable))]
    Newer {
        /// The table's.
        format: u32,
    },
}

const STACKS_ENVIRONMENT: &str = "eval \"$(make --silent environment)\" names all parts of the stack";

/// What whoever sees an error does next.
fn remedy(trouble: ErrorKind) -> &'static str {
    match trouble {
        ErrorKind::Credentials => "log in again (aws sso login, say), or choose others with AWS_PROFILE",
        ErrorKind::NotAllowed => {
            "use a role that may: the role deploy of terraform/iam_people.tf may all that drover does"
        }
        ErrorKind::NotThere => {
            "is AWS_REGION the stack's, and does the stack exist? eval \"$(make --silent environment)\" names its parts"
        }
        ErrorKind::Unreadable => "a newer drover wrote it: install the version that is deployed",
        ErrorKind::Away => "look at the network and at AWS_REGION, and try again",
    }
}

impl Output {
    /// Prints it to the standard output.
    pub fn print(&self, as_json: bool) {
        let text = match as_json {
            true => format!("{:#}\n", self.json),
            false => self.text.clone(),
        };
        say(&text);
    }

    /// 0 or 1.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.yes { 0 } else { 1 })
    }
}

impl Failure {
    /// Prints it: as JSON to the standard output, as text to the standard error.
    pub fn print(&self, as_json: bool) {
        match as_json {
            true => say(&format!("{:#}\n", json!({ "error": self.to_string() }))),
            false => eprint!("{}", printable(&format!("drover: {self}\n"))),
        }
    }

    /// 2 or 3.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) | Failure::Environment(_) => ExitCode::from(2),
            Failure::Unreachable(_) | Failure::Aws { .. } | Failure::Newer { .. } => ExitCode::from(3),
        }
    }
}

impl From<EnvironmentError> for Failure {
    fn from(error: EnvironmentError) -> Self {
        Failure::Environment(error)
    }
}
impl From<AwsError> for Failure {
    fn from(error: AwsError) -> Self {
        Failure::Usage(error.to_string())
    }
}
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Aws { says: error.to_string(), kind: ErrorKind::of(&error) }
    }
}
impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Store(error) => error.into(),
            CommitError::Conflict(_) => Failure::Unreachable(format!("{error} -> nothing was done; try again")),
        }
    }
}
impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        Failure::Aws { says: error.to_string(), kind: ErrorKind::of(&error) }
    }
}
impl From<ComputeError> for Failure {
    fn from(error: ComputeError) -> Self {
        Failure::Aws { says: error.to_string(), kind: ErrorKind::of(&error) }
    }
}
impl From<GitHubError> for Failure {
    fn from(error: GitHubError) -> Self {
        Failure::Unreachable(error.to_string())
    }
}
impl From<Unanswered> for Failure {
    fn from(error: Unanswered) -> Self {
        Failure::Aws { kind: error.kind(), says: error.message }
    }
}

/// How a shell's tools end whose reader has gone: 128 and the number of SIGPIPE.
const READER_GONE: i32 = 141;

/// To the standard output. Whoever reads it may have had enough (`head`), and that is no error of ours.
fn say(text: &str) {
    let mut output = std::io::stdout().lock();
    if output.write_all(printable(text).as_bytes()).and_then(|()| output.flush()).is_err() {
        std::process::exit(READER_GONE);
    }
}

/// Without what could command a terminal: names of jobs are written by whoever can open a pull request. Control characters
/// go, and so do those that turn the direction of the text around.
pub fn printable(text: &str) -> String {
    let commands =
        |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|c| !commands(*c)).collect()
}

/// Rows under a header, in columns.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>());
    for row in rows {
        // Before the columns are measured; a cell has one line.
        table.add_row(row.iter().map(|cell| printable(cell).replace('\n', " ")).collect::<Vec<_>>());
    }
    let lines = table.to_string();
    lines.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A length of time in its two largest units: `3d 4h`, `5m 10s`.
pub fn age(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (1.., ..) => format!("{days}d {hours}h"),
        (_, 1.., _) => format!("{hours}h {minutes}m"),
        (_, _, 1..) => format!("{minutes}m {}s", seconds % 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_printed_can_command_a_terminal() {
        let name = "\u{1b}]0;owned\u{7}\u{1b}[2Jbuild\u{9b}31m \u{202e}gnp.exe\r\n";
        assert_eq!(printable(name), "]0;owned[2Jbuild31m gnp.exe\n");
        assert!(!table(&["job"], [vec![name.to_owned()]]).contains('\u{1b}'));
    }
}
