//! The answers that GitHub has given, kept in a file until the recording is complete. A second run does not ask again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::output::{Failure, cannot_read, cannot_write};

/// The version of the file. A file of another version is not continued.
const VERSION: u32 = 1;

/// The file's first line: what is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Beginning {
    drover_recording: u32,
    /// Whose history, as text.
    subject: String,
    from: Timestamp,
    until: Timestamp,
}

/// Every further line: an answer.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    call: String,
    answer: Value,
}

/// The answers of a recording.
#[derive(Debug)]
pub struct Journal {
    beginning: Beginning,
    answers: HashMap<String, Value>,
    /// None if the recording has no file.
    file: Option<(PathBuf, File)>,
}

impl Journal {
    /// The answers of an unfinished recording of the same history, whose period is kept, or none. `record` is the file of the
    /// finished trace. Without one, the answers are in memory only.
    ///
    /// # Errors
    /// The file cannot be read or written, or belongs to another recording.
    pub fn open(
        record: Option<&Path>,
        subject: &str,
        history: SignedDuration,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        // GitHub compares whole seconds.
        let until = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let beginning =
            Beginning { drover_recording: VERSION, subject: subject.to_owned(), from: until - history, until };
        let Some(record) = record else { return Ok(Self { beginning, answers: HashMap::new(), file: None }) };
        let path = partial(record);
        let read = match std::fs::read(&path) {
            Ok(text) => continued(&path, &text, &beginning)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(cannot_read(&path, &error)),
        };
        let is_new = read.is_none();
        let (beginning, answers, length) = read.unwrap_or((beginning, HashMap::new(), 0));
        let open = OpenOptions::new().append(true).create(true).open(&path);
        // An unfinished line at the end is of a run that was interrupted.
        let file = open.and_then(|file| file.set_len(length).map(|()| file));
        let file = file.map_err(|error| cannot_write(&path, &error))?;
        let mut journal = Self { beginning, answers, file: Some((path, file)) };
        if is_new {
            journal.write(&journal.beginning.clone())?;
        }
        Ok(journal)
    }

    /// The period that is recorded.
    pub(super) fn period(&self) -> (Timestamp, Timestamp) {
        (self.beginning.from, self.beginning.until)
    }

    /// The number of answers.
    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    /// The file, if there is one.
    pub(super) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }

    pub(super) fn get<T: DeserializeOwned>(&self, call: &str) -> Option<T> {
        serde_json::from_value(self.answers.get(call)?.clone()).ok()
    }

    pub(super) fn put<T: Serialize>(&mut self, call: String, answer: &T) -> Result<(), Failure> {
        let invalid = |error| Failure::Usage(format!("an answer cannot be kept: {error}"));
        let answer = serde_json::to_value(answer).map_err(invalid)?;
        self.write(&Line { call: call.clone(), answer: answer.clone() })?;
        self.answers.insert(call, answer);
        Ok(())
    }

    fn write<T: Serialize>(&mut self, line: &T) -> Result<(), Failure> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let text = serde_json::to_string(line).map_err(io::Error::from);
        let written = text.and_then(|text| file.write_all(format!("{text}\n").as_bytes()));
        written.map_err(|error| cannot_write(path, &error))
    }

    /// Deletes the file: the trace is complete.
    pub fn finish(self) {
        if let Some((path, _)) = self.file {
            // If it stays, the next recording says so.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// `FILE.partial`.
fn partial(record: &Path) -> PathBuf {
    let mut name = record.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

type Continued = (Beginning, HashMap<String, Value>, u64);

/// The beginning, the answers, and the length of the complete lines. None if not even the first line is complete.
fn continued(path: &Path, text: &[u8], wanted: &Beginning) -> Result<Option<Continued>, Failure> {
    let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else { return Ok(None) };
    let mut lines = text[..end].split(|byte| *byte == b'\n');
    let shown = path.display();
    let other = |what: String| Failure::Usage(format!("{shown} {what} -> delete it, or record into another file"));
    let first = lines.next().unwrap_or_default();
    let found: Beginning = serde_json::from_slice(first)
        .map_err(|_| other("is not an unfinished recording of this version of drover".to_owned()))?;
    let Beginning { drover_recording, subject, from, until } = &found;
    let is_same = (*drover_recording, subject, until.duration_since(*from))
        == (wanted.drover_recording, &wanted.subject, wanted.until.duration_since(wanted.from));
    if !is_same {
        return Err(other(format!("is an unfinished recording of {subject} from {from:.0} to {until:.0}")));
    }
    let read = lines.map(|line| serde_json::from_slice(line).map(|Line { call, answer }| (call, answer)));
    let answers = read.collect::<Result<_, _>>().map_err(|error| other(format!("is damaged: {error}")))?;
    Ok(Some((found, answers, end as u64 + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-27T08:00:00.7Z".parse().unwrap()
    }

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    #[test]
    fn a_recording_is_continued_with_its_answers_and_its_period() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trace.gz");
        let open = |subject: &str, history, now| Journal::open(Some(&file), subject, history, now);
        let mut first = open("octo-org", DAY, now()).unwrap();
        first.put("one".to_owned(), &vec![1, 2]).unwrap();
        let period = first.period();
        assert_eq!(period.1, "2026-11-27T08:00:00Z".parse().unwrap());
        drop(first);
        // It was interrupted while it wrote.
        let partial = folder.path().join("trace.gz.partial");
        let mut text = std::fs::read_to_string(&partial).unwrap();
        text.push_str("{\"call\":\"two\",\"ans");
        std::fs::write(&partial, text).unwrap();

        let mut second = open("octo-org", DAY, now() + DAY).unwrap();
        assert_eq!((second.period(), second.get("one"), second.len()), (period, Some(vec![1, 2]), 1));
        second.put("two".to_owned(), &3).unwrap();
        let third = open("octo-org", DAY, now() + DAY).unwrap();
        assert_eq!((third.get("two"), third.len()), (Some(3), 2));

        for (subject, history) in [("acme", DAY), ("octo-org", 2 * DAY)] {
            let error = open(subject, history, now()).unwrap_err().to_string();
            assert!(error.contains("is an unfinished recording of octo-org from 2026-11-26T08:00:00Z"), "{error}");
        }
        third.finish();
        assert!(!partial.exists());
    }

    #[test]
    fn a_file_that_is_no_recording_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("trace.partial"), "precious\n").unwrap();
        let error = Journal::open(Some(&folder.path().join("trace")), "acme", DAY, now()).unwrap_err().to_string();
        assert!(error.contains("is not an unfinished recording") && error.contains("-> delete it"), "{error}");
        assert_eq!(std::fs::read_to_string(folder.path().join("trace.partial")).unwrap(), "precious\n");
    }
}
