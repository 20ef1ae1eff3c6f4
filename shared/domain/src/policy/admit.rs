//! Which jobs a machine may run. GitHub assigns any job that the runner group allows, so the machine checks each job before
//! its first step.

use std::fmt;

use crate::ids::Repository;
use crate::state::AllowedJobs;

/// A job as the runner describes it on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedJob {
    pub repository: Repository,
    /// Whether the repository is public, if the event that triggered the workflow says so.
    pub public: Option<bool>,
}

/// Why a machine may not run a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAllowed {
    /// The pool does not serve the repository.
    Repository(Repository),
    /// The repository is public, and the pool does not serve public repositories.
    Public(Repository),
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotAllowed::Repository(repository) => {
                write!(f, "this machine's pool does not serve {repository}. Ask Drover's operator to add it")
            }
            NotAllowed::Public(repository) => {
                write!(f, "this machine's pool does not serve public repositories, and {repository} is public")
            }
        }
    }
}

/// Checks a job that GitHub has assigned to this machine.
///
/// # Errors
/// The machine may not run it. An event without a repository does not count as public: schedules, say, have none, and nobody
/// outside the repository can trigger them.
pub fn admit(allowed: &AllowedJobs, job: &AssignedJob) -> Result<(), NotAllowed> {
    if !allowed.repositories.iter().any(|pattern| pattern.allows(&job.repository)) {
        return Err(NotAllowed::Repository(job.repository.clone()));
    }
    match (allowed.allow_public, job.public) {
        (Some(false), Some(true)) => Err(NotAllowed::Public(job.repository.clone())),
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RepositoryPattern;

    fn admitted(allow_public: Option<bool>, name: &str, public: Option<bool>) -> Result<(), NotAllowed> {
        let only = RepositoryPattern::only(&"acme/app".parse().expect("a repository"));
        let job = AssignedJob { repository: name.parse().expect("a repository"), public };
        admit(&AllowedJobs { repositories: vec![only], allow_public }, &job)
    }

    #[test]
    fn a_repository_must_be_listed_and_a_public_one_allowed() {
        for public in [None, Some(false)] {
            assert_eq!(admitted(Some(false), "ACME/App", public), Ok(()));
        }
        assert_eq!(admitted(Some(true), "acme/app", Some(true)), Ok(()));
        assert!(matches!(admitted(Some(false), "acme/app", Some(true)), Err(NotAllowed::Public(_))));
        assert!(matches!(admitted(Some(true), "acme/other", Some(true)), Err(NotAllowed::Repository(_))));
    }

    #[test]
    fn a_refusal_names_the_repository_and_says_what_to_do() {
        let why =
            |public| admitted(Some(false), if public { "acme/app" } else { "acme/other" }, Some(public)).unwrap_err();
        assert_eq!(
            why(false).to_string(),
            "this machine's pool does not serve acme/other. Ask Drover's operator to add it"
        );
        assert_eq!(
            why(true).to_string(),
            "this machine's pool does not serve public repositories, and acme/app is public"
        );
    }

    #[test]
    fn a_boot_item_of_an_older_version_allows_public_repositories_as_before() {
        assert_eq!(admitted(None, "acme/app", Some(true)), Ok(()));
    }
}
