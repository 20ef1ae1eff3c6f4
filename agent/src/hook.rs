//! The hooks that GitHub's runner calls before and after a job.
//!
//! The job-started hook: GitHub may assign any job that the runner group allows, even one that the pool does not serve. The hook asks
//! the agent to end the machine before such a job runs a step. A hook that fails is not enough: steps with `if: always()` and
//! actions' `pre` steps run after a failed hook, too. So the hook never returns after a refusal, and the agent kills the runner while
//! it waits for the hook.
//!
//! The job-completed hook, if the agent measures what the job uses: prints the agent's summary into the job's log. It can neither fail
//! nor hang the job. Any process of the job can ask for a summary, too, at any time.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use domain::ids::Repository;
use domain::policy::admit::{AssignedJob, admit};
use domain::state::{AllowedJobs, BootItem};
use platform::environment::optional;
use serde::Deserialize;
use tokio::net::{UnixDatagram, UnixListener};

/// The agent's subcommands that the hooks call, with [`Hook`]'s folder as their argument.
pub(crate) const CHECK_JOB: &str = "check-job";
pub(crate) const SUMMARIZE_JOB: &str = "summarize-job";

/// The runner's environment variables with the paths of the hooks.
pub(crate) const JOB_STARTED: &str = "ACTIONS_RUNNER_HOOK_JOB_STARTED";
pub(crate) const JOB_COMPLETED: &str = "ACTIONS_RUNNER_HOOK_JOB_COMPLETED";

/// How often a refusal is repeated if the agent does not end the machine.
const REPEAT: Duration = Duration::from_secs(1);

/// How long the job-completed hook waits for the summary. The agent answers within milliseconds, unless the job has left the machine
/// without memory.
const SUMMARY_WAIT: Duration = Duration::from_secs(8);

/// Bytes of a summary that the hook prints at most.
const LONGEST_SUMMARY: u64 = 8192;

/// The longest refusal that the agent reads, in bytes. Any process of the job can write to the socket.
const LONGEST: usize = 1024;

const STARTED: &[u8] = b"started";
const REFUSED: &[u8] = b"refused ";

/// The hooks' files and the agent's ends of their sockets.
///
/// Folder and files belong to the agent's user. The runner's user can write to the sockets but cannot replace anything.
pub(crate) struct Hook {
    folder: tempfile::TempDir,
    /// The value of [`JOB_STARTED`].
    pub(crate) started_script: PathBuf,
    socket: UnixDatagram,
    /// The value of [`JOB_COMPLETED`], if the agent measures what the job uses.
    pub(crate) completed_script: Option<PathBuf>,
    /// The socket that this hook connects to.
    pub(crate) summaries: Option<UnixListener>,
}

/// What the hook reports.
pub(crate) enum Report {
    /// The runner has started a job that it may run.
    Started,
    /// The runner has started a job that it may not run, with the reason.
    Refused(String),
}

impl Hook {
    /// Writes the hooks for the jobs that this machine may run. A hook that the image sets runs after that of the agent.
    ///
    /// The scripts contain only text of the agent and the image; nothing that GitHub's users write reaches a script or any
    /// shell.
    pub(crate) fn write(item: &BootItem) -> anyhow::Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("drover-").tempdir().context("cannot create a temporary folder")?;
        // The runner's user must be able to read the folder.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let socket = listen(&socket_in(folder.path()), |path| UnixDatagram::bind(path))?;
        write(&allowed_in(folder.path()), &serde_json::to_string(&item.allowed_jobs())?, 0o644)?;
        let agent = quoted(&std::env::current_exe().context("cannot find the agent's own path")?)?;
        let quoted_folder = quoted(folder.path())?;
        // The runner requires the extension.
        let started_script = folder.path().join("job-started.sh");
        let started = format!("{agent} {CHECK_JOB} {quoted_folder} || exit 1");
        write(&started_script, &script(&started, JOB_STARTED)?, 0o755)?;
        let mut hook = Self { folder, socket, started_script, completed_script: None, summaries: None };
        if item.usage.is_some() {
            let folder = hook.folder.path();
            hook.summaries = Some(listen(&summary_socket_in(folder), |path| UnixListener::bind(path))?);
            let path = folder.join("job-completed.sh");
            let completed = format!("{agent} {SUMMARIZE_JOB} {quoted_folder} || true");
            write(&path, &script(&completed, JOB_COMPLETED)?, 0o755)?;
            hook.completed_script = Some(path);
        }
        Ok(hook)
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

/// A hook's script: the agent's command, and then the hook that the image sets under this variable.
fn script(command: &str, variable: &'static str) -> anyhow::Result<String> {
    let of_image = optional(variable).filter(|path| !path.is_empty());
    let mut script = format!("#!/bin/sh\n{command}\n");
    if let Some(path) = of_image {
        script += &format!("exec {}\n", quoted(Path::new(&path))?);
    }
    Ok(script)
}

/// A socket that the runner's user may write to.
fn listen<T>(path: &Path, bind: impl Fn(&Path) -> std::io::Result<T>) -> anyhow::Result<T> {
    let socket = bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(socket)
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("agent.sock")
}

fn summary_socket_in(folder: &Path) -> PathBuf {
    folder.join("summary.sock")
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
            // Without this report the agent does not measure the job, and its last line does not mention the job.
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

/// Called by the job-completed hook: prints the agent's summary of the job, which appears in the job's log. Succeeds always and
/// within [`SUMMARY_WAIT`], because a hook that fails or hangs would fail or hang the job.
pub(crate) fn summarize_job(folder: &OsStr) -> ExitCode {
    let socket = summary_socket_in(Path::new(folder));
    let (done, is_done) = mpsc::channel();
    // A thread, because to connect and to print may take any time. The process ends without it.
    std::thread::spawn(move || {
        // If the error cannot be printed either, the job goes on without both.
        let _ = print_summary(&socket).inspect_err(|error| eprintln!("Drover: no summary of this job: {error}"));
        done.send(())
    });
    let _ = is_done.recv_timeout(SUMMARY_WAIT);
    ExitCode::SUCCESS
}

fn print_summary(socket: &Path) -> std::io::Result<()> {
    let mut summary = Vec::new();
    UnixStream::connect(socket)?.take(LONGEST_SUMMARY).read_to_end(&mut summary)?;
    std::io::stdout().write_all(&summary)
}
