//! What a command prints, and its exit code.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::ColorChoice;
use comfy_table::{ColumnConstraint, Row, Table, Width, presets};
use domain::state::{FORMAT, FunctionName};
use engine::ports::{CommitError, ComputeError, GitHubAnswer, GitHubError, QueueError, StoreError};
use jiff::{SignedDuration, Timestamp};
use platform::aws::{AwsError, ErrorKind};
use platform::environment::EnvironmentError;
use platform::inspect::Unanswered;
use serde_json::{Value, json};

use crate::style::paint;

/// The result of a command, as text and as JSON.
#[derive(Debug)]
pub struct Output {
    /// False if the answer is no: a check failed, nothing was found, or nothing was done. Exit code 1.
    pub ok: bool,
    pub text: String,
    pub json: Value,
}

/// A command that has no result. The message is one line and ends with a remedy.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Wrong arguments, or a wrong environment.
    #[error("{0}")]
    Usage(String),
    #[error("{error} -> {}", environment_remedy(error))]
    Environment { error: EnvironmentError },
    /// The output was printed, but it is not complete: a file could not be read.
    #[error("{0}")]
    Incomplete(String),
    /// AWS could not be reached, or another operator was faster. The message contains the remedy.
    #[error("{0}")]
    Unreachable(String),
    #[error("{error} -> {}", github_remedy(error))]
    GitHub { error: GitHubError },
    #[error("{message} -> {}", remedy(*.kind))]
    Aws { message: String, kind: ErrorKind },
    /// A newer version wrote the table.
    #[error("the table is in format {format}, but this drover supports {FORMAT} -> {}", remedy(ErrorKind::Unreadable))]
    Newer { format: u32 },
    /// The pool file needs a format of the table that a deployed function does not support.
    #[error(
        "the pool file needs a table in format {format}, which {} not support yet -> deploy the functions first (make deploy); a \
         deployed function reports its version within two minutes",
        subject(functions)
    )]
    OlderFunctions { format: u32, functions: Vec<FunctionName> },
}

/// The functions as the subject of a sentence, with its verb.
fn subject(functions: &[FunctionName]) -> String {
    let names: Vec<&str> = functions.iter().map(|name| name.as_str()).collect();
    format!("{} {}", names.join(" and "), if names.len() == 1 { "does" } else { "do" })
}

pub(crate) const SET_ENVIRONMENT: &str =
    "name the stack with --stack NAME or DROVER_STACK: its outputs have the rest (docs/environment.md)";

fn environment_remedy(error: &EnvironmentError) -> &'static str {
    match error {
        EnvironmentError::Missing(_) => SET_ENVIRONMENT,
        EnvironmentError::Invalid { .. } => "correct or unset it, or correct it in config.toml (docs/environment.md)",
    }
}

/// The operator's next step after an error of AWS.
pub(crate) fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Credentials => {
            "log in again (for example with aws sso login), or select other credentials with AWS_PROFILE"
        }
        ErrorKind::NotAllowed => {
            "use a role with this permission: the role deploy in terraform/iam_deploy.tf has every permission"
        }
        ErrorKind::NotFound => {
            "check that AWS_REGION is the stack's region and that the stack exists: --stack or DROVER_STACK names it"
        }
        ErrorKind::Unreadable => "a newer drover wrote it: install the version that is deployed",
        ErrorKind::Unavailable => "check the network and AWS_REGION, and try again",
    }
}

/// The operator's next step after an error of GitHub.
pub(crate) fn github_remedy(error: &GitHubError) -> &'static str {
    match error {
        GitHubError::SecretUnusable(_) => "drover secrets put app --app-id ID KEY-FILE",
        GitHubError::Denied(GitHubAnswer { code: Some(401), .. }) => {
            "check that the key belongs to this app and was not deleted on GitHub, and that this machine's clock is right"
        }
        GitHubError::Denied(_) | GitHubError::Refused(_) | GitHubError::NameTaken => {
            "the app must be installed, not suspended, and have its permissions: drover doctor checks that"
        }
        GitHubError::Limited { .. } => "wait until GitHub's rate limit allows calls again",
        GitHubError::SecretUnreadable { .. } => {
            "check that DROVER_APP_SECRET names the stack's secret and that it has a value"
        }
        GitHubError::Unavailable { .. } => {
            "check the network, that DROVER_GITHUB_API_URL is right, and https://www.githubstatus.com"
        }
    }
}

impl Output {
    /// Prints text or JSON to standard output.
    pub fn print(&self, format: Format) {
        match format {
            Format::Json => print_all(&printable(&format!("{:#}\n", self.json))),
            Format::JsonLines => print_all(&printable(&json_lines(&self.json))),
            Format::Text | Format::Wide => print_all(&paint(&printable(&self.text))),
        }
    }

    /// The outputs for several subjects of one command, as lines and as a list. One output stays as it is.
    pub fn joined(outputs: Vec<Output>) -> Output {
        Self::separated(outputs, "")
    }

    /// The same, with an empty line between them.
    pub(crate) fn blocks(outputs: Vec<Output>) -> Output {
        Self::separated(outputs, "\n")
    }

    fn separated(mut outputs: Vec<Output>, separator: &str) -> Output {
        if outputs.len() == 1 {
            return outputs.remove(0);
        }
        let texts: Vec<&str> = outputs.iter().map(|output| output.text.as_str()).collect();
        Output {
            ok: outputs.iter().all(|output| output.ok),
            text: texts.join(separator),
            json: outputs.iter().map(|output| output.json.clone()).collect(),
        }
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.ok { 0 } else { 1 })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    /// Text with more columns.
    Wide,
    Json,
    /// An object per line.
    JsonLines,
}

/// The columns of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    Usual,
    All,
}

impl Format {
    pub fn columns(self) -> Columns {
        match self {
            Format::Wide => Columns::All,
            Format::Text | Format::Json | Format::JsonLines => Columns::Usual,
        }
    }
}

/// Colours are printed on a terminal unless `NO_COLOR` is set, always, or never.
pub fn choose_colour(choice: ColorChoice) {
    match choice {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// A list as a line for each of its elements, anything else as one line.
fn json_lines(json: &Value) -> String {
    match json {
        Value::Array(elements) => elements.iter().map(|element| format!("{element}\n")).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => format!("{json}\n"),
    }
}

impl Failure {
    /// Prints text to standard error, or JSON to standard output.
    pub fn print(&self, format: Format) {
        match format {
            // A second object would not be JSON.
            Format::Json | Format::JsonLines if matches!(self, Failure::Incomplete(_)) => {}
            Format::Json => print_all(&printable(&format!("{:#}\n", json!({ "error": self.to_string() })))),
            Format::JsonLines => print_all(&printable(&json_lines(&json!({ "error": self.to_string() })))),
            Format::Text | Format::Wide => {
                let line = paint(&one_line(&format!("drover: {self}"))) + "\n";
                // Without a standard error there is nobody to tell.
                let _ = anstream::stderr().lock().write_all(line.as_bytes());
            }
        }
    }

    /// Whether something that the settings name does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Failure::Aws { kind: ErrorKind::NotFound, .. })
    }

    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) | Failure::Incomplete(_) | Failure::Environment { .. } => ExitCode::from(2),
            Failure::Unreachable(_)
            | Failure::GitHub { .. }
            | Failure::Aws { .. }
            | Failure::Newer { .. }
            | Failure::OlderFunctions { .. } => ExitCode::from(3),
        }
    }
}

impl From<EnvironmentError> for Failure {
    fn from(error: EnvironmentError) -> Self {
        Failure::Environment { error }
    }
}
impl From<AwsError> for Failure {
    fn from(error: AwsError) -> Self {
        Failure::Usage(error.to_string())
    }
}
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Aws { message: error.to_string(), kind: ErrorKind::of(&error) }
    }
}
impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Store(error) => error.into(),
            CommitError::Conflict(_) => Failure::Unreachable(format!("{error} -> nothing was written; try again")),
        }
    }
}
impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        Failure::Aws { message: error.to_string(), kind: ErrorKind::of(&error) }
    }
}
impl From<ComputeError> for Failure {
    fn from(error: ComputeError) -> Self {
        Failure::Aws { message: error.to_string(), kind: ErrorKind::of(&error) }
    }
}
impl From<GitHubError> for Failure {
    fn from(error: GitHubError) -> Self {
        Failure::GitHub { error }
    }
}
impl From<Unanswered> for Failure {
    fn from(error: Unanswered) -> Self {
        Failure::Aws { kind: error.kind, message: error.message }
    }
}

/// The exit code of a program that SIGPIPE ended, as a shell reports it: 128 + 13.
const BROKEN_PIPE: i32 = 141;

/// The exit code if the output cannot be written.
const CANNOT_WRITE: i32 = 3;

/// Prints to standard output. A reader that stops reading, such as `head`, is not an error.
fn print_all(text: &str) {
    let mut output = anstream::stdout().lock();
    let Err(error) = output.write_all(text.as_bytes()).and_then(|()| output.flush()) else { return };
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(BROKEN_PIPE);
    }
    let line = format!(
        "drover: cannot write to standard output: {error} -> check the file or device that the output goes to\n"
    );
    // Without a standard error there is nobody to tell.
    let _ = anstream::stderr().lock().write_all(paint(&line).as_bytes());
    std::process::exit(CANNOT_WRITE);
}

/// Removes control characters and bidirectional overrides: anyone who can open a pull request chooses the names of jobs, and
/// a name must not control the operator's terminal.
pub fn printable(text: &str) -> String {
    let is_control =
        |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|c| !is_control(*c)).collect()
}

/// The same on one line: a name with a line break must not look like a line of Drover's own.
pub fn one_line(text: &str) -> String {
    printable(&text.replace(['\n', '\r', '\u{2028}', '\u{2029}'], " "))
}

/// When something is due.
pub(crate) fn when(at: Timestamp, now: Timestamp) -> String {
    match at > now {
        true => format!("at {at:.0}, in {}", age(at.duration_since(now))),
        false => format!("overdue since {at:.0}"),
    }
}

/// Columns of ids, which an operator copies into other commands. They are never cut.
const IDS: [&str; 4] = ["INSTANCE", "JOB", "ID", "RUN"];

/// Columns that are cut before others.
const CUT_FIRST: [&str; 9] = ["ZONE", "REPOSITORY", "NAME", "TYPE", "WORKFLOW", "LABELS", "RUNNER", "CLASS", "WHAT"];

/// The other columns are cut to no less than this.
const NARROWEST: usize = 4;

/// A table with a header line. On a terminal it is cut to the terminal's width, as far as its ids allow.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let terminal = Table::new();
    // Some terminals say that they are 0 columns wide. Without a terminal, or without a width, nothing is cut.
    let width = if terminal.is_tty() { terminal.width().filter(|width| *width > 0) } else { None };
    table_within(width.map(usize::from), header, rows)
}

fn table_within(width: Option<usize>, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    let mut titles = Row::from(header.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>());
    titles.max_height(1);
    table.load_style(presets::NOTHING).set_header(titles);
    // The advice about costs has names of jobs, with spaces.
    let mut is_id: Vec<bool> = header.iter().map(|title| IDS.contains(title)).collect();
    for row in rows {
        // Clean each cell before the columns are measured, and keep it on one line.
        let cells: Vec<String> = row.iter().map(|cell| one_line(cell)).collect();
        is_id.iter_mut().zip(&cells).for_each(|(is_id, cell)| *is_id &= !cell.contains(' '));
        let mut row = Row::from(cells);
        row.max_height(1);
        table.add_row(row);
    }
    if let Some(width) = width {
        narrow(&mut table, width, header, &is_id);
    }
    let lines = table.to_string();
    lines.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Cuts columns until the table is no wider than the terminal, or until only ids are left to cut.
fn narrow(table: &mut Table, terminal: usize, header: &[&str], is_id: &[bool]) {
    let mut widths: Vec<usize> = table.column_max_content_widths().into_iter().map(usize::from).collect();
    // Each column has a space on both sides, and the last one is trimmed.
    if widths.iter().map(|width| width + 2).sum::<usize>() <= terminal + 1 {
        return;
    }
    // One space between columns, and one before the first.
    let room = terminal.saturating_sub(widths.len());
    let is_first = |column: &usize| !is_id[*column] && CUT_FIRST.contains(&header[*column]);
    let is_other = |column: &usize| !is_id[*column] && !CUT_FIRST.contains(&header[*column]);
    let columns = 0..widths.len();
    let (first, other): (Vec<usize>, Vec<usize>) =
        (columns.clone().filter(is_first).collect(), columns.filter(is_other).collect());
    for (columns, least) in [(first, 1), (other, NARROWEST)] {
        while widths.iter().sum::<usize>() > room
            && let Some(widest) = columns.iter().copied().max_by_key(|column| widths[*column])
            && widths[widest] > least
        {
            widths[widest] -= 1;
        }
    }
    for (index, (column, width)) in table.column_iter_mut().zip(widths).enumerate() {
        let before = u16::from(index == 0);
        column.set_padding((before, 1));
        let width = u16::try_from(width).unwrap_or(u16::MAX).saturating_add(before + 1);
        column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width)));
    }
}

/// A cell of a table that may have no value.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

/// A file that cannot be read.
pub fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::Usage(format!("cannot read {}: {error} -> check the path", path.display()))
}

/// A file that cannot be written.
pub fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::Usage(format!("cannot write {}: {error} -> check the path, and that you may write there", path.display()))
}

/// A number with its noun: `1 pool`, `2 pools`.
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// An amount of US dollars: cents, or four decimals if it is small, rounded up to the last of them.
pub(crate) fn usd(amount: f64) -> String {
    match amount {
        0.0 => "0.00".to_owned(),
        ..1.0 => format!("{:.4}", amount.max(0.0001)),
        _ => format!("{amount:.2}"),
    }
}

/// A duration in its two largest units: `3d 4h`, `5m 10s`.
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

/// The length of a period, without units of which there are none: `7d`, `1d 12h`.
pub(crate) fn period(time: SignedDuration) -> String {
    let age = age(time);
    match age.split_once(' ') {
        Some((first, second)) if second.starts_with('0') => first.to_owned(),
        _ => age,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_no_unit_of_which_there_is_none() {
        let shown = [(7 * 86_400, "7d"), (36 * 3600, "1d 12h"), (3600, "1h"), (90, "1m 30s"), (1, "1s")];
        for (seconds, text) in shown {
            assert_eq!(period(SignedDuration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_small_cost_is_not_shown_as_nothing() {
        let shown = [0.0, 0.000_001, 0.0123, 0.99, 1.0, 12.345].map(usd);
        assert_eq!(shown, ["0.00", "0.0001", "0.0123", "0.9900", "1.00", "12.35"]);
    }

    #[test]
    fn ids_are_whole_at_every_width_and_columns_without_ids_are_cut_first() {
        let header = ["INSTANCE", "POOL", "STATE", "TYPE", "MARKET", "ZONE", "JOB", "REPOSITORY", "AGE"];
        let cells = [
            "i-0123456789abcdef0",
            "linux",
            "busy",
            "m7i.2xlarge",
            "on-demand",
            "eu-central-1a",
            "40000000101",
            "octo-org/a-repository-with-a-long-name",
            "12m 10s",
        ];
        let at = |width: Option<usize>| {
            let text = table_within(width, &header, [cells.map(ToOwned::to_owned).to_vec()]);
            assert_eq!(text.lines().count(), 2, "a row stays one line: {text}");
            assert!(text.contains("i-0123456789abcdef0") && text.contains("40000000101"), "{width:?}: {text}");
            let widest = text.lines().map(|line| line.chars().count()).max().expect("lines");
            assert!(width.is_none_or(|width| widest <= width.max(65)), "{width:?}: {text}");
            text
        };
        let whole = at(None);
        assert!(cells.iter().all(|cell| whole.contains(cell)), "{whole}");
        assert_eq!(at(Some(200)), whole);
        for width in [1, 40, 60, 80, 100] {
            assert!(at(Some(width)).contains('…'), "{width}");
        }
        let usual = at(Some(80));
        assert!(usual.contains("linux") && usual.contains("on-demand") && usual.contains("12m 10s"), "{usual}");
    }

    #[test]
    fn printed_text_cannot_control_the_terminal() {
        let name = "\u{1b}]0;owned\u{7}\u{1b}[2Jbuild\u{9b}31m \u{202e}gnp.exe\r\n";
        assert_eq!(printable(name), "]0;owned[2Jbuild31m gnp.exe\n");
        assert!(!table(&["job"], [vec![name.to_owned()]]).contains('\u{1b}'));
    }
}
