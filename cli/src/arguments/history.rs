//! The arguments that choose the jobs of `drover simulate`.

use std::path::{Path, PathBuf};

use clap::Args;
use domain::ids::{Owner, Repository};
use drover::history::github::Subject;
use drover::history::{Names, Wanted};
use jiff::SignedDuration;

#[derive(Debug, Args)]
pub(crate) struct History {
    /// The jobs of the last days or hours, such as 30d, from the stack's event log, or from GitHub with --repository or
    /// --organization
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    history: Option<SignedDuration>,
    /// Read the history of this repository from GitHub, with the token in the environment variable `GITHUB_TOKEN`
    #[arg(long = "repository", value_name = "OWNER/NAME", requires = "history", conflicts_with = "organization")]
    repositories: Vec<Repository>,
    /// The same for all repositories of an organisation
    #[arg(long, value_name = "NAME", requires = "history")]
    organization: Option<Owner>,
    /// The most calls of GitHub's API; only some days are read if the history takes more
    #[arg(long, value_name = "NUMBER", requires = "history", default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,
    /// Write the history into this file, a trace, compressed if its name ends with .gz
    #[arg(long, value_name = "FILE", requires = "history")]
    record: Option<PathBuf>,
    /// Replace the names of owners, repositories, workflows and jobs in the file
    #[arg(long, requires = "record")]
    anonymous: bool,
}

impl History {
    /// None if a trace is given instead.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let subject = match (&self.organization, &self.repositories[..]) {
            (Some(organization), _) => Some(Subject::Organization(organization.clone())),
            (None, []) => None,
            (None, repositories) => Some(Subject::Repositories(repositories.to_vec())),
        };
        Some(Wanted {
            history: self.history?,
            subject,
            calls: self.calls as usize,
            record: self.record.clone(),
            names: if self.anonymous { Names::Hidden } else { Names::Kept },
        })
    }

    pub(crate) fn record(&self) -> Option<&Path> {
        self.record.as_deref()
    }
}
