//! A trace: the jobs of some days, as text.
//!
//! A trace is a file with one JSON object per line, the [`Header`] first and then the [`Job`]s by the time they were queued. It
//! may be compressed with gzip. A trace may come from anywhere, so it is read with limits, and its names are never trusted.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The version of the format.
pub const VERSION: u32 = 1;

/// The longest line, in bytes. The longest that Drover writes has about 4 KB.
pub const LONGEST_LINE: usize = 16 * 1024;

/// The most jobs in a trace.
pub const MOST_JOBS: usize = 2_000_000;

/// The most text, in bytes: a small compressed file can contain very much of it.
const MOST_TEXT: u64 = 4 << 30;

/// The most characters of a name or a label.
pub(crate) const LONGEST_NAME: usize = 256;

/// The most labels of a job.
pub(crate) const MOST_LABELS: usize = 64;

/// The longest time that a trace covers.
pub const LONGEST_PERIOD: SignedDuration = SignedDuration::from_hours(24 * 400);

/// The first line: what the trace contains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Always [`VERSION`].
    pub drover_trace: u32,
    pub source: Source,
    /// The period from which the jobs are.
    pub from: Timestamp,
    pub until: Timestamp,
    /// The UTC days that were read, if not all of the period was: `2026-11-02`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<jiff::civil::Date>,
    /// The AWS region of the stack, if the trace comes from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether [`hidden`] replaced owners, repositories, workflows and names of jobs.
    #[serde(default)]
    pub anonymous: bool,
    /// What a stack measured. Absent values have defaults.
    #[serde(default)]
    pub measured: Measured,
}

/// Where the jobs of a trace come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Drover's event log.
    Log,
    /// GitHub's API.
    GitHub,
    /// A program that made jobs up.
    Generated,
}

/// Times of a stack's own machines, medians in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// From the launch of a machine until its agent looks for its registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_seconds: Option<f64>,
    /// The same from the start of a stopped machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_seconds: Option<f64>,
    /// From the hand-over of a registration until the runner has a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_seconds: Option<f64>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// GitHub's id of the job.
    pub id: u64,
    /// GitHub's id of the run.
    pub run: u64,
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub attempt: u32,
    /// `owner/name`.
    pub repository: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `runs-on`, as written.
    pub labels: Vec<String>,
    pub queued_at: Timestamp,
    /// None if the job never ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the job ended, or was cancelled before it ran. None if neither is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// GitHub's conclusion: `success`, `failure`, `cancelled` and others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conclusion: Option<String>,
    /// The id of an earlier job of the trace whose end queued this one, because the workflow says `needs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

fn first() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_first(attempt: &u32) -> bool {
    *attempt == first()
}

/// A trace in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    pub header: Header,
    /// By the time they were queued.
    pub jobs: Vec<Job>,
}

/// Why a file is no trace.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Broken {
    /// The first line is 1.
    pub line: usize,
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("the file is empty; a trace begins with a header: {{\"drover_trace\":1,...}}")]
    Empty,
    #[error("this is not the header of a trace, which begins with {{\"drover_trace\":1,...}}: {0}")]
    NoHeader(String),
    #[error("the trace has version {0}; this drover reads version {VERSION}: use a newer drover")]
    Version(u32),
    #[error("this is not a job of a trace: {0}")]
    NoJob(String),
    #[error("the line is longer than {LONGEST_LINE} bytes")]
    LongLine,
    #[error("the trace has more than {MOST_JOBS} jobs: split it")]
    ManyJobs,
    #[error("the trace has more than {} GiB of text: split it", MOST_TEXT >> 30)]
    MuchText,
    #[error("the line does not end: the file is not complete")]
    Truncated,
    #[error("{0}")]
    Inconsistent(Inconsistent),
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
}

/// Which values of a line cannot be true.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistent {
    #[error("until is not later than from, or more than 400 days later")]
    Period,
    #[error("{0} must be a number of seconds from 0 to 86400")]
    Measured(&'static str),
    #[error("repository is not like owner/name")]
    Repository,
    #[error("{0} has more than {LONGEST_NAME} characters, or control characters")]
    Name(&'static str),
    #[error("the job has more than {MOST_LABELS} labels")]
    Labels,
    #[error("queued_at is outside the period of the trace")]
    QueuedAt,
    #[error("queued_at is before that of the job in the line before: sort the jobs by queued_at")]
    Order,
    #[error("{0} is before {1}, or more than 400 days later")]
    Times(&'static str, &'static str),
    #[error("the id is that of an earlier job")]
    Repeated,
    #[error("after is not the id of an earlier job")]
    After,
}

impl Trace {
    /// Reads a trace, compressed or not.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn read(file: impl Read) -> Result<Self, Broken> {
        let mut file = BufReader::new(file);
        let is_compressed = file.fill_buf().is_ok_and(|begin| begin.starts_with(&[0x1f, 0x8b]));
        match is_compressed {
            true => Self::read_text(flate2::bufread::MultiGzDecoder::new(file)),
            false => Self::read_text(file),
        }
    }

    fn read_text(text: impl Read) -> Result<Self, Broken> {
        let mut lines = Lines { text: BufReader::new(text), number: 0, read: 0 };
        let broken = |line, problem| Broken { line, problem };
        let header = lines.next_line()?.ok_or(broken(1, Problem::Empty))?;
        let header = Header::parse(&header).map_err(|problem| broken(1, problem))?;
        let mut reader = Reader::default();
        while let Some(line) = lines.next_line()? {
            reader.take(&header, &line).map_err(|problem| broken(lines.number, problem))?;
        }
        Ok(Trace { header, jobs: reader.jobs })
    }

    /// Writes the trace, compressed if asked.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: impl Write, compression: Compression) -> io::Result<()> {
        match compression {
            Compression::None => self.write_text(io::BufWriter::new(file)).map(drop),
            Compression::Gzip => {
                let gzip = flate2::write::GzEncoder::new(file, flate2::Compression::default());
                self.write_text(io::BufWriter::new(gzip))?.into_inner()?.finish()?.flush()
            }
        }
    }

    fn write_text<W: Write>(&self, mut text: io::BufWriter<W>) -> io::Result<io::BufWriter<W>> {
        let line = |text: &mut io::BufWriter<W>, json: Result<String, serde_json::Error>| writeln!(text, "{}", json?);
        line(&mut text, serde_json::to_string(&self.header))?;
        for job in &self.jobs {
            line(&mut text, serde_json::to_string(job))?;
        }
        text.flush()?;
        Ok(text)
    }

    /// Replaces the names of owners, repositories, workflows and jobs. Labels stay, because pools are chosen by them.
    #[must_use]
    pub fn anonymous(mut self) -> Self {
        if self.header.anonymous {
            return self;
        }
        self.header.anonymous = true;
        for job in &mut self.jobs {
            job.repository = hidden_repository(&job.repository);
            job.workflow = job.workflow.as_deref().map(hidden);
            job.name = job.name.as_deref().map(hidden);
        }
        self
    }
}

/// How a trace is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
}

/// The replacement of a name in an anonymous trace: the beginning of the SHA-256 of the name in lower case. It depends on the name only, so
/// the pools' owners and repositories can be replaced likewise. A guessed name can be checked.
pub fn hidden(name: &str) -> String {
    let digest = Sha256::digest(name.to_lowercase().as_bytes());
    hex::encode(&digest[..6])
}

/// [`hidden`] for both parts of `owner/name`.
pub fn hidden_repository(repository: &str) -> String {
    repository.split('/').map(hidden).collect::<Vec<_>>().join("/")
}

/// The lines of a text, none of them longer than [`LONGEST_LINE`].
struct Lines<R> {
    text: BufReader<R>,
    number: usize,
    /// In bytes.
    read: u64,
}

impl<R: Read> Lines<R> {
    /// The next line that is not empty.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        loop {
            self.number += 1;
            let broken = |problem| Broken { line: self.number, problem };
            let mut line = Vec::new();
            let bounded = self.text.by_ref().take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut line);
            bounded.map_err(|error| {
                let is_cut = error.kind() == io::ErrorKind::UnexpectedEof;
                broken(if is_cut { Problem::Truncated } else { Problem::Unreadable(error) })
            })?;
            self.read += line.len() as u64;
            if line.is_empty() {
                return Ok(None);
            }
            if self.read > MOST_TEXT {
                return Err(broken(Problem::MuchText));
            }
            if line.len() > LONGEST_LINE {
                return Err(broken(Problem::LongLine));
            }
            if line.pop_if(|end| *end == b'\n').is_none() {
                return Err(broken(Problem::Truncated));
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }
}

impl Header {
    fn parse(line: &[u8]) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Any {
            drover_trace: u32,
        }
        let no_header = |error: serde_json::Error| Problem::NoHeader(error.to_string());
        let Any { drover_trace } = serde_json::from_slice(line).map_err(no_header)?;
        if drover_trace != VERSION {
            return Err(Problem::Version(drover_trace));
        }
        let header: Self = serde_json::from_slice(line).map_err(no_header)?;
        header.check().map_err(Problem::Inconsistent)?;
        Ok(header)
    }

    fn check(&self) -> Result<(), Inconsistent> {
        if !is_within(self.from, self.until) || self.from == self.until {
            return Err(Inconsistent::Period);
        }
        if let Some(region) = &self.region {
            check_name("region", region)?;
        }
        let Measured { boot_seconds, start_seconds, runner_seconds } = self.measured;
        let measured =
            [("boot_seconds", boot_seconds), ("start_seconds", start_seconds), ("runner_seconds", runner_seconds)];
        let wrong = measured.iter().find(|(_, time)| time.is_some_and(|time| !(0.0..=86_400.0).contains(&time)));
        wrong.map_or(Ok(()), |(name, _)| Err(Inconsistent::Measured(name)))
    }
}

/// Whether the second time is not before the first, nor very long after it.
fn is_within(first: Timestamp, second: Timestamp) -> bool {
    first <= second && second.duration_since(first) <= LONGEST_PERIOD
}

fn check_name(field: &'static str, name: &str) -> Result<(), Inconsistent> {
    let is_fine = name.chars().count() <= LONGEST_NAME && !name.chars().any(char::is_control);
    if is_fine { Ok(()) } else { Err(Inconsistent::Name(field)) }
}

/// The jobs that were read.
#[derive(Debug, Default)]
struct Reader {
    jobs: Vec<Job>,
    ids: std::collections::HashSet<u64>,
}

impl Reader {
    fn take(&mut self, header: &Header, line: &[u8]) -> Result<(), Problem> {
        if self.jobs.len() == MOST_JOBS {
            return Err(Problem::ManyJobs);
        }
        let job: Job = serde_json::from_slice(line).map_err(|error| Problem::NoJob(error.to_string()))?;
        self.check(header, &job).map_err(Problem::Inconsistent)?;
        self.ids.insert(job.id);
        self.jobs.push(job);
        Ok(())
    }

    fn check(&self, header: &Header, job: &Job) -> Result<(), Inconsistent> {
        check_name("repository", &job.repository)?;
        let is_repository = |text: &str| {
            text.split_once('/')
                .is_some_and(|(owner, name)| !owner.is_empty() && !name.is_empty() && !name.contains('/'))
        };
        if !is_repository(&job.repository) {
            return Err(Inconsistent::Repository);
        }
        let named = [("workflow", &job.workflow), ("name", &job.name), ("conclusion", &job.conclusion)];
        named.iter().try_for_each(|(field, name)| name.as_ref().map_or(Ok(()), |name| check_name(field, name)))?;
        if job.labels.len() > MOST_LABELS {
            return Err(Inconsistent::Labels);
        }
        job.labels.iter().try_for_each(|label| check_name("a label", label))?;
        if !(header.from..=header.until).contains(&job.queued_at) {
            return Err(Inconsistent::QueuedAt);
        }
        if self.jobs.last().is_some_and(|last| job.queued_at < last.queued_at) {
            return Err(Inconsistent::Order);
        }
        if job.started_at.is_some_and(|at| !is_within(job.queued_at, at)) {
            return Err(Inconsistent::Times("started_at", "queued_at"));
        }
        let (begin, name) = job.started_at.map_or((job.queued_at, "queued_at"), |at| (at, "started_at"));
        if job.ended_at.is_some_and(|at| !is_within(begin, at)) {
            return Err(Inconsistent::Times("ended_at", name));
        }
        if self.ids.contains(&job.id) {
            return Err(Inconsistent::Repeated);
        }
        if job.after.is_some_and(|after| !self.ids.contains(&after)) {
            return Err(Inconsistent::After);
        }
        Ok(())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Log => "Drover's log",
            Source::GitHub => "GitHub's API",
            Source::Generated => "generated",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        r#"{"drover_trace":1,"source":"generated","from":"2026-11-02T00:00:00Z","until":"2026-11-09T00:00:00Z"}"#;

    fn line(change: &[(&str, &str)]) -> String {
        let mut line = r#"{"id":1,"run":1,"repository":"octo-org/widgets","labels":["linux"],"queued_at":"2026-11-02T08:00:00Z","started_at":"2026-11-02T08:00:30Z","ended_at":"2026-11-02T08:05:00Z","conclusion":"success"}"#.to_owned();
        for (old, new) in change {
            assert!(line.contains(old), "{old}");
            line = line.replace(old, new);
        }
        line
    }

    fn read(lines: &[&str]) -> Result<Trace, String> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        Trace::read(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_trace_is_read_as_it_was_written() {
        let second = line(&[("\"id\":1", "\"id\":2,\"after\":1"), ("08:", "09:")]);
        let trace = read(&[HEADER, &line(&[]), "", &second]).unwrap();
        assert_eq!((trace.jobs.len(), trace.jobs[1].after, trace.jobs[0].attempt), (2, Some(1), 1));
        for compression in [Compression::None, Compression::Gzip] {
            let mut file = Vec::new();
            trace.write(&mut file, compression).unwrap();
            assert_eq!(Trace::read(file.as_slice()).unwrap(), trace);
        }
    }

    #[test]
    fn names_can_be_hidden_once() {
        let job = line(&[("\"labels\"", "\"workflow\":\"Secret\",\"name\":\"secret\",\"labels\"")]);
        let hidden = read(&[HEADER, &job]).unwrap().anonymous();
        let mut file = Vec::new();
        hidden.write(&mut file, Compression::None).unwrap();
        let text = String::from_utf8(file).unwrap().to_lowercase();
        assert!(!["secret", "octo-org", "widgets"].iter().any(|name| text.contains(name)), "{text}");
        assert_eq!(hidden.jobs[0].repository, hidden_repository("Octo-Org/widgets"));
        assert_eq!(hidden.clone().anonymous(), hidden);
    }

    #[test]
    fn a_mistake_is_reported_with_its_line() {
        let long = "x".repeat(300);
        let jobs = [
            ("{", "line 2: this is not a job of a trace: EOF while parsing an object at line 1 column 1"),
            (
                &line(&[("\"run\"", "\"extra\":1,\"run\"")]),
                "line 2: this is not a job of a trace: unknown field `extra`",
            ),
            (&line(&[("octo-org/widgets", "widgets")]), "line 2: repository is not like owner/name"),
            (&line(&[("octo-org/widgets", "a/b/c")]), "line 2: repository is not like owner/name"),
            (&line(&[("linux", &long)]), "line 2: a label has more than 256 characters, or control characters"),
            (&line(&[("success", "\\u001b[31m")]), "line 2: conclusion has more than 256 characters"),
            (&line(&[("2026-11-02T08:00:00Z", "2026-10-02T08:00:00Z")]), "line 2: queued_at is outside the period"),
            (&line(&[("T08:00:30Z", "T07:00:30Z")]), "line 2: started_at is before queued_at"),
            (&line(&[("T08:05:00Z", "T07:05:00Z")]), "line 2: ended_at is before started_at"),
            (&line(&[("\"run\"", "\"after\":1,\"run\"")]), "line 2: after is not the id of an earlier job"),
            (&"x".repeat(LONGEST_LINE + 1), "line 2: the line is longer than 16384 bytes"),
        ];
        for (job, expected) in jobs {
            let error = read(&[HEADER, job]).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let twice = read(&[HEADER, &line(&[]), &line(&[])]).unwrap_err();
        assert_eq!(twice, "line 3: the id is that of an earlier job");
        let earlier = line(&[("\"id\":1", "\"id\":2"), ("T08:00:00Z", "T07:00:00Z")]);
        let unsorted = read(&[HEADER, &line(&[]), &earlier]).unwrap_err();
        assert!(unsorted.starts_with("line 3: queued_at is before that of the job in the line before"), "{unsorted}");
    }

    #[test]
    fn a_header_must_be_one() {
        let headers = [
            ("[]", "line 1: this is not the header of a trace"),
            (r#"{"id":1}"#, "line 1: this is not the header of a trace"),
            (&HEADER.replace("trace\":1", "trace\":2"), "line 1: the trace has version 2; this drover reads version 1"),
            (&HEADER.replace("11-09", "11-01"), "line 1: until is not later than from"),
            (
                &HEADER.replace("2026-11-09", "2028-11-09"),
                "line 1: until is not later than from, or more than 400 days",
            ),
            (
                &HEADER.replace("\"from\"", "\"measured\":{\"boot_seconds\":-1.0},\"from\""),
                "line 1: boot_seconds must be a number of seconds from 0 to 86400",
            ),
        ];
        for (header, expected) in headers {
            let error = read(&[header]).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let empty = Trace::read(&b""[..]).unwrap_err().to_string();
        assert!(empty.starts_with("line 1: the file is empty"), "{empty}");
    }

    #[test]
    fn a_trace_that_was_cut_off_is_not_read() {
        let text = format!("{HEADER}\n{}", line(&[]));
        let cut = Trace::read(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(cut, "line 2: the line does not end: the file is not complete");
        let mut file = Vec::new();
        read(&[HEADER, &line(&[])]).unwrap().write(&mut file, Compression::Gzip).unwrap();
        for length in 3..file.len() {
            assert!(Trace::read(&file[..length]).is_err(), "{length} bytes");
        }
    }
}
