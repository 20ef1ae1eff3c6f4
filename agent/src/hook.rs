//! The job-started hook. GitHub may assign any job that the runner group allows, even one of a repository that the pool does
//! not serve. The hook makes such a job fail before its first step.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use domain::ids::{Repository, RepositoryPattern};
use platform::environment::optional;

/// The agent's subcommand that the hook calls.
pub(crate) const CHECK_REPOSITORY: &str = "check-repository";

/// The runner's environment variable with the path of the hook.
pub(crate) const JOB_STARTED: &str = "ACTIONS_RUNNER_HOOK_JOB_STARTED";

/// The hook's files.
pub(crate) struct Hook {
    folder: tempfile::TempDir,
}

impl Hook {
    /// Writes the hook for a list of repositories. A hook that the image sets runs after it.
    ///
    /// The script contains only text of the agent and the image; nothing that GitHub's users write reaches the script or any
    /// shell. It contains the paths themselves, because a workflow's `env:` could change a variable.
    pub(crate) fn write(repositories: &[RepositoryPattern]) -> anyhow::Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("drover-").tempdir().context("cannot create a temporary folder")?;
        // The runner's user must be able to read the folder.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let hook = Self { folder };
        write(&hook.repositories(), &serde_json::to_string(repositories)?, 0o644)?;
        let agent = std::env::current_exe().context("cannot find the agent's own path")?;
        let mut script =
            format!("#!/bin/sh\n{} {CHECK_REPOSITORY} {} || exit 1\n", quoted(&agent)?, quoted(&hook.repositories())?);
        if let Some(own) = optional(JOB_STARTED).filter(|own| !own.is_empty()) {
            script += &format!("exec {}\n", quoted(Path::new(&own))?);
        }
        write(&hook.script(), &script, 0o755)?;
        Ok(hook)
    }

    /// The value of [`JOB_STARTED`]. The runner requires the extension.
    pub(crate) fn script(&self) -> PathBuf {
        self.folder.path().join("job-started.sh")
    }

    fn repositories(&self) -> PathBuf {
        self.folder.path().join("repositories.json")
    }
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(())
}

/// Quotes a path for `sh`.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let path = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(format!("'{}'", path.replace('\'', r"'\''")))
}

/// Called by the hook. Succeeds if the file lists the repository in `GITHUB_REPOSITORY`, which the runner sets. The output
/// appears in the job's log.
pub(crate) fn check_repository(allowed: &OsStr) -> ExitCode {
    match refused(Path::new(allowed)) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(repository)) => {
            eprintln!("Drover: this machine's pool does not serve {repository:?}. Ask Drover's operator to add it.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("Drover: cannot check whether this machine's pool serves this repository: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn refused(allowed: &Path) -> anyhow::Result<Option<String>> {
    let text = std::fs::read_to_string(allowed).with_context(|| format!("cannot read {}", allowed.display()))?;
    let allowed: Vec<RepositoryPattern> = serde_json::from_str(&text)?;
    let name = optional("GITHUB_REPOSITORY").context("GITHUB_REPOSITORY is not set")?;
    let repository: Repository = name.parse()?;
    Ok((!allowed.iter().any(|pattern| pattern.allows(&repository))).then_some(name))
}
