//! The job-started hook. GitHub may assign any job that the runner group allows, even one that the pool does not serve. The
//! hook asks the agent to end the machine before such a job runs a step.
//!
//! A hook that fails is not enough: steps with `if: always()` and actions' `pre` steps run after a failed hook, too. So the
//! hook never returns after a refusal, and the agent kills the runner while it waits for the hook.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use domain::ids::Repository;
use domain::policy::admit::{AssignedJob, admit};
use domain::state::AllowedJobs;
use platform::environment::optional;
use serde::Deserialize;
use tokio::net::UnixDatagram;

/// The agent's subcommand that the hook calls, with [`Hook`]'s folder as its argument.
pub(crate) const CHECK_JOB: &str = "check-job";

/// The runner's environment variable with the path of the hook.
pub(crate) const JOB_STARTED: &str = "ACTIONS_RUNNER_HOOK_JOB_STARTED";

/// How often a refusal is repeated if the agent does not end the machine.
const REPEAT: Duration = Duration::from_secs(1);

/// The longest refusal that the agent reads, in bytes. Any process of the job can write to the socket.
const LONGEST: usize = 1024;

const STARTED: &[u8] = b"started";
const REFUSED: &[u8] = b"refused ";

/// The hook's files and the agent's end of its socket.
///
/// Folder and files belong to the agent's user. The runner's user can write to the socket but cannot replace anything.
pub(crate) struct Hook {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
}

/// What the hook reports.
pub(crate) enum Report {
    /// The runner has started a job that it may run.
    Started,
    /// The runner has started a job that it may not run, with the reason.
    Refused(String),
}

impl Hook {
    /// Writes the hook for the jobs that this machine may run. A hook that the image sets runs after it.
    ///
    /// The script contains only text of the agent and the image; nothing that GitHub's users write reaches the script or any
    /// shell.
    pub(crate) fn write(allowed: &AllowedJobs) -> anyhow::Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("drover-").tempdir().context("cannot create a temporary folder")?;
        // The runner's user must be able to read the folder.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let path = socket_in(folder.path());
        let socket = UnixDatagram::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        write(&allowed_in(folder.path()), &serde_json::to_string(allowed)?, 0o644)?;
        let agent = std::env::current_exe().context("cannot find the agent's own path")?;
        let mut script = format!("#!/bin/sh\n{} {CHECK_JOB} {} || exit 1\n", quoted(&agent)?, quoted(folder.path())?);
        if let Some(own) = optional(JOB_STARTED).filter(|own| !own.is_empty()) {
            script += &format!("exec {}\n", quoted(Path::new(&own))?);
        }
        let hook = Self { folder, socket };
        write(&hook.script(), &script, 0o755)?;
        Ok(hook)
    }

    /// The value of [`JOB_STARTED`]. The runner requires the extension.
    pub(crate) fn script(&self) -> PathBuf {
        self.folder.path().join("job-started.sh")
    }

    /// Waits for the next report. Can be cancelled and called again.
    pub(crate) async fn report(&self) -> std::io::Result<Report> {
        let mut message = [0; LONGEST];
        loop {
            let length = self.socket.recv(&mut message).await?;
            match &message[..length] {
                STARTED => return Ok(Report::Started),
                message => {
                    if let Some(reason) = message.strip_prefix(REFUSED) {
                        return Ok(Report::Refused(String::from_utf8_lossy(reason).into_owned()));
                    }
                }
            }
        }
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("agent.sock")
}

fn allowed_in(folder: &Path) -> PathBuf {
    folder.join("allowed.json")
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(())
}

/// Quotes a path for `sh`.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let path = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(format!("'{}'", path.replace('\'', r"'\''")))
}

/// Called by the hook. Returns only if this machine may run the job. The output appears in the job's log.
pub(crate) fn check_job(folder: &OsStr) -> ExitCode {
    let folder = Path::new(folder);
    let refused = match refusal(folder) {
        Ok(None) => {
            // Without this report the agent does not know that its runner had a job, which only changes its last line.
            if let Err(error) = report(folder, STARTED) {
                eprintln!("Drover: cannot report the start of this job to the agent: {error}");
            }
            return ExitCode::SUCCESS;
        }
        Ok(Some(refused)) => refused,
        Err(error) => format!("cannot check whether this machine's pool serves this job: {error:#}"),
    };
    eprintln!("Drover: {refused}");
    eprintln!("Drover: this machine ends now, and with it this job.");
    loop {
        if let Err(error) = report(folder, &[REFUSED, refused.as_bytes()].concat()) {
            eprintln!("Drover: cannot report the refusal to the agent: {error}");
        }
        std::thread::sleep(REPEAT);
    }
}

fn report(folder: &Path, message: &[u8]) -> std::io::Result<()> {
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    socket.send_to(&message[..message.len().min(LONGEST)], socket_in(folder)).map(drop)
}

/// Why this machine may not run the job that the runner's variables describe.
fn refusal(folder: &Path) -> anyhow::Result<Option<String>> {
    let path = allowed_in(folder);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let allowed: AllowedJobs = serde_json::from_str(&text)?;
    let name = optional("GITHUB_REPOSITORY").context("GITHUB_REPOSITORY is not set")?;
    let repository: Repository = name.parse()?;
    let job = AssignedJob { repository, public: is_public()? };
    Ok(admit(&allowed, &job).err().map(|reason| reason.to_string()))
}

/// Whether the event that triggered the workflow says that its repository is public. None if it names no repository.
fn is_public() -> anyhow::Result<Option<bool>> {
    #[derive(Deserialize)]
    struct Event {
        repository: Option<EventRepository>,
    }
    #[derive(Deserialize)]
    struct EventRepository {
        private: Option<bool>,
    }
    let Some(path) = optional("GITHUB_EVENT_PATH") else { return Ok(None) };
    let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    let event: Event = serde_json::from_reader(BufReader::new(file)).context("the event is not as expected")?;
    Ok(event.repository.and_then(|repository| repository.private).map(|private| !private))
}
