//! What an operator asks for with `--history`.

use std::path::PathBuf;

use engine::ports::Clock;
use jiff::SignedDuration;
use platform::clock::SystemClock;
use platform::control::{self, github_api_url};
use platform::environment::optional;
use platform::github::History;
use whatif::trace::LONGEST_PERIOD;

use super::github::{self, Means, Subject};
use super::journal::Journal;
use super::log;
use super::recorded::{Names, Recorded};
use crate::output::Failure;
use crate::settings::aws;

/// The history that is to be recorded.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// How far to look back.
    pub history: SignedDuration,
    /// Whose history, from GitHub. None for that of the stack, from its event log.
    pub subject: Option<Subject>,
    /// The most calls of GitHub's API.
    pub calls: usize,
    /// The file for the trace.
    pub record: Option<PathBuf>,
    pub names: Names,
}

impl Wanted {
    /// Whether the stack's table is read.
    pub fn needs_stack(&self) -> bool {
        self.subject.is_none()
    }

    /// Reads the history, and writes the file if there is to be one. `progress` prints a line.
    ///
    /// # Errors
    /// GitHub or AWS cannot be reached or refuses a call, or the file cannot be written.
    pub async fn obtain(&self, progress: &(dyn Fn(&str) + Sync)) -> Result<Recorded, Failure> {
        if self.history > LONGEST_PERIOD {
            return Err(Failure::Usage("a history has at most 400 days -> a shorter --history".to_owned()));
        }
        match &self.subject {
            Some(subject) => self.read_github(subject, progress).await,
            None => self.save(self.read_log().await?),
        }
    }

    async fn read_github(&self, subject: &Subject, progress: &(dyn Fn(&str) + Sync)) -> Result<Recorded, Failure> {
        let history = History::new(token()?, github_api_url()?)?;
        let mut journal = Journal::open(self.record.as_deref(), &subject.name(), self.history, SystemClock.now())?;
        let means = Means { history: &history, clock: &SystemClock, progress, calls: self.calls };
        let recorded = self.save(github::record(&means, subject, &mut journal).await?)?;
        journal.finish();
        Ok(recorded)
    }

    async fn read_log(&self) -> Result<Recorded, Failure> {
        let aws = aws().await?;
        let region = aws.region().map(ToString::to_string).unwrap_or_default();
        let now = SystemClock.now();
        log::record(&control::table(&aws)?, &region, now - self.history, now).await
    }

    fn save(&self, recorded: Recorded) -> Result<Recorded, Failure> {
        match &self.record {
            Some(file) => recorded.save(file, self.names),
            None => Ok(recorded),
        }
    }
}

/// The user's token. It is never an argument: other users of a machine can list those.
fn token() -> Result<String, Failure> {
    let usage = |message: &str| Failure::Usage(format!("{message} -> docs/what-if.md says which permissions it needs"));
    let token = optional("GITHUB_TOKEN").ok_or_else(|| usage("GITHUB_TOKEN is not set"))?;
    let token = token.trim();
    // Any other character would be an error of the HTTP client, which might print it.
    match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(token.to_owned()),
        false => Err(usage("GITHUB_TOKEN is not a token")),
    }
}
