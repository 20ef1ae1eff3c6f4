//! A job or a run, as an operator names it: by its id, or by a URL that GitHub shows.

use std::str::FromStr;

use domain::ids::{JobId, Repository, RunId};

/// What an id means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A bare number. A job, or else a run.
    Number(u64),
    Job(JobId),
    Run(RunId),
}

/// Jobs to explain: one, or all of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub(super) subject: Subject,
    /// Known only from a URL.
    pub(super) repository: Option<Repository>,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobReference {
    id: JobId,
    /// Known only from a URL.
    repository: Option<Repository>,
}

impl JobReference {
    pub fn id(&self) -> JobId {
        self.id
    }

    /// The repository of the URL.
    pub fn repository(&self) -> Option<&Repository> {
        self.repository.as_ref()
    }
}

const FORMS: &str = "must be an id, or the URL of a job or a run on GitHub";

/// The path of a URL, without query, fragment and what GitHub's API puts before a repository.
fn path(text: &str) -> Option<&str> {
    let address = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let (_, path) = address.split(['?', '#']).next()?.trim_end_matches('/').split_once('/')?;
    let path = path.strip_prefix("api/v3/").unwrap_or(path);
    Some(path.strip_prefix("repos/").unwrap_or(path))
}

impl FromStr for Reference {
    type Err = &'static str;

    /// An id, or one of these on any host, with any query and fragment:
    /// - `/OWNER/REPOSITORY/actions/runs/RUN/job/JOB` and `/OWNER/REPOSITORY/actions/runs/RUN`, with `/attempts/N`
    /// - `/repos/OWNER/REPOSITORY/actions/jobs/JOB` and `/repos/OWNER/REPOSITORY/actions/runs/RUN` of the API
    fn from_str(text: &str) -> Result<Self, &'static str> {
        if let Ok(number) = text.parse() {
            return Ok(Self { subject: Subject::Number(number), repository: None });
        }
        let parts: Vec<&str> = path(text).ok_or(FORMS)?.split('/').collect();
        let number = |id: &str| id.parse().map_err(|_| "the URL does not end in the id of a job or a run");
        let (owner, name, subject) = match parts[..] {
            [owner, name, "actions", "runs", _, "job", id]
            | [owner, name, "actions", "jobs", id]
            | [owner, name, "actions", "runs", _, "attempts", _, "job", id] => {
                (owner, name, Subject::Job(JobId(number(id)?)))
            }
            [owner, name, "actions", "runs", id, ..] => (owner, name, Subject::Run(RunId(number(id)?))),
            _ => return Err(FORMS),
        };
        let repository = format!("{owner}/{name}");
        let repository = repository.parse().map_err(|_| "the URL does not contain a valid repository name")?;
        Ok(Self { subject, repository: Some(repository) })
    }
}

impl FromStr for JobReference {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let Reference { subject, repository } = text.parse()?;
        match subject {
            Subject::Number(id) => Ok(Self { id: JobId(id), repository }),
            Subject::Job(id) => Ok(Self { id, repository }),
            Subject::Run(_) => Err("this is the URL of a run: open the job and use the URL of its page"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_url_that_github_shows_for_a_job_or_a_run_is_understood() {
        let job = Ok(Subject::Job(JobId(12)));
        let run = Ok(Subject::Run(RunId(7)));
        for (text, expected) in [
            ("12", Ok(Subject::Number(12))),
            ("https://github.com/octo-org/widgets/actions/runs/7/job/12", job),
            ("https://github.com/octo-org/widgets/actions/runs/7/job/12?pr=3#step:4:1", job),
            ("https://github.com/octo-org/widgets/actions/runs/7/attempts/2/job/12/", job),
            ("https://api.github.com/repos/octo-org/widgets/actions/jobs/12", job),
            ("https://ghe.example.com/api/v3/repos/octo-org/widgets/actions/jobs/12", job),
            ("http://127.0.0.1:4781/repos/octo-org/widgets/actions/jobs/12", job),
            ("http://127.0.0.1:4781/octo-org/widgets/actions/runs/7/job/12", job),
            ("https://github.com/octo-org/widgets/actions/runs/7", run),
            ("https://github.com/octo-org/widgets/actions/runs/7/attempts/2", run),
            ("https://github.com/octo-org/widgets/actions/runs/7/workflow", run),
            ("https://api.github.com/repos/octo-org/widgets/actions/runs/7/jobs", run),
            (
                "https://github.com/octo-org/widgets/actions/runs/7/job/last",
                Err("the URL does not end in the id of a job or a run"),
            ),
            (
                "https://github.com/octo-org/wid%20gets/actions/runs/7",
                Err("the URL does not contain a valid repository name"),
            ),
            ("https://github.com/octo-org/widgets/pull/7", Err(FORMS)),
            ("banana", Err(FORMS)),
            ("-1", Err(FORMS)),
            ("", Err(FORMS)),
        ] {
            let reference = text.parse::<Reference>();
            assert_eq!(reference.clone().map(|it| it.subject), expected, "{text}");
            let of_url = reference.ok().filter(|_| text.contains('/')).map(|it| it.repository.unwrap().to_string());
            assert!(of_url.is_none_or(|repository| repository == "octo-org/widgets"), "{text}");
        }
        assert!("https://github.com/octo-org/widgets/actions/runs/7".parse::<JobReference>().is_err());
    }
}
