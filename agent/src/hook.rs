//! The job-started hook. GitHub may give our runner any job that its group allows, also one of a repository that the pool
//! does not serve; this is where such a job fails, before its first step.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use domain::ids::{Repository, RepositoryPattern};
use platform::environment::optional;

/// The agent's own subcommand, which the hook calls.
pub(crate) const CHECK_REPOSITORY: &str = "check-repository";

/// The runner's variable that names the hook.
pub(crate) const JOB_STARTED: &str = "ACTIONS_RUNNER_HOOK_JOB_STARTED";

/// The hook's files: gone with the machine.
pub(crate) struct Hook {
    folder: tempfile::TempDir,
}

impl Hook {
    /// Writes the hook for these repositories. A hook that the image brought runs after it.
    ///
    /// Everything in the script is the image's or ours: what GitHub's users write reaches neither it nor any shell. The
    /// paths stand in it literally, because a workflow's `env:` could change a variable.
    pub(crate) fn write(repositories: &[RepositoryPattern]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("drover-").tempdir().context("cannot make a folder")?;
        // The runner's user must get in.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let hook = Self { folder };
        write(&hook.repositories(), &serde_json::to_string(repositories)?, 0o644)?;
        let agent = std::env::current_exe().context("cannot find the agent itself")?;
        let mut script =
            format!("#!/bin/sh\n{} {CHECK_REPOSITORY} {} || exit 1\n", quoted(&agent)?, quoted(&hook.repositories())?);
        if let Some(own) = optional(JOB_STARTED).filter(|own| !own.is_empty()) {
            script += &format!("exec {}\n", quoted(Path::new(&own))?);
        }
        write(&hook.script(), &script, 0o755)?;
        Ok(hook)
    }

    /// What [`JOB_STARTED`] must name. The runner wants the ending.
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

/// A path as one word of `sh`.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let path = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(format!("'{}'", path.replace('\'', r"'\''")))
}

/// Called by the hook: whether `GITHUB_REPOSITORY`, which the runner sets, is one of those in the file. What it prints is
/// in the job's log.
pub(crate) fn check_repository(allowed: &OsStr) -> ExitCode {
    match refused(Path::new(allowed)) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(repository)) => {
            eprintln!("Drover: this machine's pool does not serve {repository:?}. Ask whoever runs Drover to add it.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("Drover: cannot tell whether this machine's pool serves this repository: {error:#}");
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
