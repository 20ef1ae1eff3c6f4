//! What was recorded, and the file that it is written into.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use serde_json::json;
use whatif::trace::{Compression, Trace};

use crate::new_file::NewFile;
use crate::output::{Failure, Output, count};

/// The jobs of a period.
#[derive(Debug)]
pub struct Recorded {
    pub trace: Trace,
    /// What a reader of the trace must know, as sentences.
    pub notes: Vec<String>,
}

/// Which names a file contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    Kept,
    /// Owners, repositories, workflows and names of jobs are replaced.
    Hidden,
}

impl Recorded {
    /// Writes the trace into a file, compressed if its name ends with `.gz`. The file has its name once it is complete.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(self, file: &Path, names: Names) -> Result<Self, Failure> {
        let trace = match names {
            Names::Kept => self.trace,
            Names::Hidden => self.trace.anonymous(),
        };
        let compression = match file.extension() == Some(OsStr::new("gz")) {
            true => Compression::Gzip,
            false => Compression::None,
        };
        NewFile::create(file)?.finish(|new| trace.write(new, compression))?;
        Ok(Self { trace, ..self })
    }

    /// What `--record FILE` without a pool file prints.
    pub fn output(&self, file: &Path) -> Output {
        let Trace { header, jobs } = &self.trace;
        let repositories: BTreeSet<&str> = jobs.iter().map(|job| job.repository.as_str()).collect();
        let (file, from, until) = (file.display().to_string(), header.from, header.until);
        let mut text = format!(
            "{file}: {} of {}, queued from {from:.0} to {until:.0}\n",
            count(jobs.len(), "job"),
            match repositories.len() {
                1 => "1 repository".to_owned(),
                repositories => format!("{repositories} repositories"),
            },
        );
        self.notes.iter().for_each(|note| text += &format!("note: {note}\n"));
        let json = json!({
            "file": file, "header": header, "jobs": jobs.len(), "repositories": repositories.len(), "notes": self.notes,
        });
        Output { ok: !jobs.is_empty(), text, json }
    }
}
