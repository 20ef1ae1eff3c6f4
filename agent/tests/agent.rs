//! The agent as a process, with a script as its runner: what it passes on, and that it always powers off.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::config::{Market, MicroUsd};
use domain::ids::RepositoryPattern;
use domain::log::Transaction;
use domain::state::{BootItem, BootReport, MeasuredMachine, StoredReport, Usage};
use engine::ports::{Clock, Store};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use platform::clock::SystemClock;
use platform::reports::ReportsTable;
use sandbox::aws::{BOOT_TABLE, REPORTS_TABLE, RUNNER_ROLE_ID, access_key, instance_access_key};
use sandbox::machine::{in_own_session, kill_session, metadata_router, serve};
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Driven, Options, Sandbox};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

const INSTANCE: &str = "i-0123456789abcdef0";

/// A machine with a power button.
struct Machine {
    sandbox: Sandbox,
    folder: TempDir,
}

async fn machine(run_sh: Option<&str>) -> Machine {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    let machine = Machine { sandbox, folder: tempfile::tempdir().unwrap() };
    if let Some(script) = run_sh {
        write_script(&machine.path("run.sh"), script);
    }
    machine
}

fn write_script(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Machine {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Writes a boot item, as the control plane does.
    async fn hand_over(&self, max_life_seconds: u64) {
        self.hand_over_with(max_life_seconds, None).await;
    }

    /// Writes the boot item of a machine that measures its job.
    async fn hand_over_measured(&self) {
        let (instance_type, price_per_hour) = ("m7i.large".into(), Some(MicroUsd(100_000)));
        self.hand_over_with(3600, Some(MeasuredMachine { instance_type, market: Market::Spot, price_per_hour })).await;
    }

    async fn hand_over_with(&self, max_life_seconds: u64, usage: Option<MeasuredMachine>) {
        let app: domain::ids::Repository = "acme/app".parse().unwrap();
        let item = BootItem {
            jit_config: "one-use-secret".to_owned(),
            max_life_seconds,
            repositories: vec![RepositoryPattern::only(&app)],
            allow_public: Some(false),
            usage,
            expires_at: 4_000_000_000,
        };
        let key = format!("{RUNNER_ROLE_ID}:{INSTANCE}");
        self.sandbox.table().await.commit(&Transaction::new().put_boot_item(key, item)).await.unwrap();
    }

    fn agent(&self) -> Command {
        let mut agent = in_own_session(Path::new(env!("CARGO_BIN_EXE_agent")));
        agent
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ENDPOINT_URL", &self.sandbox.aws_url)
            .env("AWS_ACCESS_KEY_ID", instance_access_key(INSTANCE))
            .env("AWS_SECRET_ACCESS_KEY", "sandbox")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("DROVER_BOOT_TABLE", BOOT_TABLE)
            .env("DROVER_RUNNER_DIR", self.folder.path())
            .env("TMPDIR", self.folder.path())
            .env("DROVER_POWEROFF", format!("touch {}", self.path("off").display()))
            .env("OUT", self.folder.path())
            .kill_on_drop(true);
        agent
    }

    /// Waits until the agent has sent that many reports. The last one may not be written yet.
    async fn until_it_reports(&self, times: u64) {
        let reported = |_: &sandbox::state::State| {
            let counts = self.sandbox.calls.counts();
            counts.iter().any(|((_, operation), made)| *operation == "UpdateItem" && *made >= times).then_some(())
        };
        self.sandbox.world.until("the agent to report", PATIENCE, reported).await.unwrap();
    }

    /// Reads what it has reported, as the janitor does.
    async fn stored_report(&self) -> Option<StoredReport> {
        let aws = platform::aws::emulator(&self.sandbox.aws_url, access_key("janitor").unwrap()).await;
        let (table, key) = (ReportsTable::new(&aws, REPORTS_TABLE.to_owned()), format!("{RUNNER_ROLE_ID}:{INSTANCE}"));
        table.read(std::slice::from_ref(&key)).await.unwrap().remove(&key)
    }

    /// What its job used, as it reported it.
    async fn usage(&self, launched_at: jiff::Timestamp) -> Usage {
        let text = self.stored_report().await.and_then(|it| it.usage).expect("the usage is reported");
        Usage::parse(&text, SystemClock.now().duration_since(launched_at)).unwrap()
    }

    /// Reads its report as the janitor does, until there is one with that property.
    async fn report(&self, launched_at: jiff::Timestamp, is_awaited: impl Fn(&BootReport) -> bool) -> BootReport {
        let reading = async {
            loop {
                let read = self.stored_report().await;
                let report = read.map(|it| BootReport::parse(&it, launched_at, SystemClock.now()).unwrap());
                if let Some(report) = report.filter(&is_awaited) {
                    return report;
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the agent reports")
    }

    fn is_off(&self) -> bool {
        self.path("off").exists()
    }
}

/// Waits for the agent's end; then the machine is off, and with it whatever the agent left running.
async fn end_of(mut agent: Child) -> ExitStatus {
    let session = agent.id().unwrap();
    let ended = tokio::time::timeout(PATIENCE, agent.wait()).await.expect("the agent ends").unwrap();
    kill_session(session);
    ended
}

/// Waits for the agent's end like [`end_of`], and returns its last line.
async fn last_line_of(agent: &mut Command) -> String {
    let mut agent = agent.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut output = agent.stdout.take().unwrap();
    let reading = tokio::time::timeout(PATIENCE, output.read_to_string(&mut said));
    let (read, _) = tokio::join!(reading, end_of(agent));
    read.expect("the agent ends").unwrap();
    said.lines().last().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_runs_one_job_hides_its_secret_and_powers_off() {
    let machine = machine(Some(
        "echo \"$#\" > $OUT/arguments\n\
         tr '\\0' ' ' < /proc/$$/cmdline > $OUT/cmdline\n\
         echo \"$ACTIONS_RUNNER_INPUT_JITCONFIG\" > $OUT/secret\n\
         pwd > $OUT/folder\n\
         env | grep ^AWS_REGION > $OUT/region\n\
         for repository in acme/app ACME/App; do\n\
           GITHUB_REPOSITORY=\"$repository\" \"$ACTIONS_RUNNER_HOOK_JOB_STARTED\"; echo \"$repository: $?\" >> $OUT/hook\n\
         done",
    ))
    .await;
    machine.hand_over(3600).await;
    assert!(end_of(machine.agent().spawn().unwrap()).await.success());
    assert!(machine.is_off());
    assert_eq!(machine.read("arguments"), "0\n");
    assert!(!machine.read("cmdline").contains("one-use-secret"));
    assert_eq!(machine.read("secret"), "one-use-secret\n");
    assert_eq!(machine.read("folder").trim(), machine.folder.path().to_str().unwrap());
    assert_eq!(machine.read("region"), "");
    assert_eq!(machine.read("hook"), "acme/app: 0\nACME/App: 0\n");

    // The item was taken: a second machine with the same key would find nothing.
    fs::remove_file(machine.path("secret")).unwrap();
    assert!(end_of(machine.agent().env("DROVER_AGENT_WAIT", "1s").spawn().unwrap()).await.success());
    assert!(!machine.path("secret").exists(), "read once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_job_ends_the_machine_before_the_hook_returns() {
    let cases = [
        ("acme/other", "{}", "does not serve acme/other"),
        ("x; reboot", "{}", "cannot check"),
        ("", "{}", "cannot check"),
        ("acme/app", r#"{"repository": {"private": false}}"#, "acme/app is public"),
        ("acme/app", "no JSON", "cannot check"),
    ];
    for (repository, event, expected) in cases {
        let machine = machine(Some(
            "GITHUB_EVENT_PATH=$OUT/event \"$ACTIONS_RUNNER_HOOK_JOB_STARTED\" 2> $OUT/said; touch $OUT/next; sleep 1000",
        ))
        .await;
        fs::write(machine.path("event"), event).unwrap();
        machine.hand_over(3600).await;
        let last = last_line_of(machine.agent().env("GITHUB_REPOSITORY", repository)).await;
        assert!(machine.is_off(), "{repository} {event}");
        assert!(!machine.path("next").exists(), "the runner went on: {repository} {event}");
        assert!(machine.read("said").contains(expected), "{repository} {event}: {}", machine.read("said"));
        assert!(last.contains("powering off: refused a job") && last.contains(expected), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_whose_answers_are_lost_still_runs_its_job() {
    let machine = machine(Some("touch $OUT/ran")).await;
    machine.hand_over(3600).await;
    // More than the attempts that the SDK makes in one call.
    for operation in ["GetItem", "DeleteItem"] {
        machine.sandbox.calls.lose_answers("DynamoDB", operation, 4);
    }
    assert!(end_of(machine.agent().spawn().unwrap()).await.success());
    assert!(machine.path("ran").exists());
    let counts = machine.sandbox.calls.counts();
    let made = |operation: &str| counts[&("DynamoDB", operation.to_owned())];
    assert!(made("GetItem") > 4 && made("DeleteItem") > 4, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_a_private_repository_or_of_an_event_without_one_is_run() {
    for event in [r#"{"repository": {"private": true}, "other": 1}"#, r#"{"schedule": "0 0 * * *"}"#] {
        let machine = machine(Some(
            "GITHUB_REPOSITORY=acme/app GITHUB_EVENT_PATH=$OUT/event \"$ACTIONS_RUNNER_HOOK_JOB_STARTED\"; echo $? > $OUT/hook",
        ))
        .await;
        fs::write(machine.path("event"), event).unwrap();
        machine.hand_over(3600).await;
        let last = last_line_of(&mut machine.agent()).await;
        assert_eq!(machine.read("hook"), "0\n", "{event}");
        assert!(last.contains("the runner has ended after its job: exit status: 0"), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runners_user_can_write_to_the_hooks_sockets_and_replace_nothing() {
    let script = "cd \"$(dirname \"$ACTIONS_RUNNER_HOOK_JOB_STARTED\")\"; stat --format '%n %a' . * > $OUT/modes";
    let unmeasured = machine(Some(script)).await;
    unmeasured.hand_over(3600).await;
    end_of(unmeasured.agent().spawn().unwrap()).await;
    assert_eq!(unmeasured.read("modes"), ". 755\nagent.sock 666\nallowed.json 644\njob-started.sh 755\n");

    let measured = machine(Some(script)).await;
    measured.hand_over_measured().await;
    end_of(measured.agent().spawn().unwrap()).await;
    let expected =
        ". 755\nagent.sock 666\nallowed.json 644\njob-completed.sh 755\njob-started.sh 755\nsummary.sock 666\n";
    assert_eq!(measured.read("modes"), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_line_says_how_a_runner_without_a_job_ended() {
    let machine =
        machine(Some("echo 'Connected to GitHub'; echo 'Runner version 2.300.0 is deprecated' >&2; exit 0")).await;
    machine.hand_over(3600).await;
    let last = last_line_of(&mut machine.agent()).await;
    let expected = "powering off: the runner has ended without a job: exit status: 0. \
                    Its last lines: Connected to GitHub | Runner version 2.300.0 is deprecated";
    assert!(last.contains(expected), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_of_the_image_runs_only_after_the_agents_hook_has_agreed() {
    for (repository, expected) in [("acme/app", "own acme/app\nacme/app 7\n"), ("acme/other", "")] {
        let machine =
            machine(Some("\"$ACTIONS_RUNNER_HOOK_JOB_STARTED\"; echo \"$GITHUB_REPOSITORY $?\" >> $OUT/hook")).await;
        let own = machine.path("it's own.sh");
        write_script(&own, "echo \"own $GITHUB_REPOSITORY\" >> $OUT/hook; exit 7");
        machine.hand_over(3600).await;
        let mut agent = machine.agent();
        agent.env("ACTIONS_RUNNER_HOOK_JOB_STARTED", own).env("GITHUB_REPOSITORY", repository);
        end_of(agent.spawn().unwrap()).await;
        assert_eq!(machine.read("hook"), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_ends_in_power_off() {
    let hangs = "exec sleep 1000";
    type Case = (&'static str, Option<&'static str>, u64, &'static [(&'static str, &'static str)]);
    let paths: [Case; 7] = [
        ("the runner fails", Some("exit 3"), 3600, &[]),
        ("there is no runner", None, 3600, &[]),
        ("the runner hangs past the machine's life", Some(hangs), 1, &[]),
        ("there is no such user", Some("true"), 3600, &[("DROVER_RUNNER_USER", "nobody-of-that-name")]),
        ("no boot table is named", Some("true"), 3600, &[("DROVER_BOOT_TABLE", "")]),
        ("the wait makes no sense", Some("true"), 3600, &[("DROVER_AGENT_WAIT", "soon")]),
        (
            "AWS cannot be reached",
            Some("true"),
            3600,
            &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("DROVER_AGENT_WAIT", "1s")],
        ),
    ];
    for (what, run_sh, max_life, more) in paths {
        let machine = machine(run_sh).await;
        machine.hand_over(max_life).await;
        let ended = end_of(machine.agent().envs(more.iter().copied()).spawn().unwrap()).await;
        assert!(machine.is_off(), "{what}");
        assert!(ended.success(), "{what}: {ended}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_starts_before_the_metadata_service_answers_runs_its_job() {
    let machine = machine(Some("touch $OUT/ran")).await;
    machine.hand_over(3600).await;
    let (listener, up) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::new(Notify::new()));
    let address = format!("http://{}", listener.local_addr().unwrap());
    let metadata = metadata_router(INSTANCE.to_owned(), machine.sandbox.world.clone());
    let notified = up.clone();
    let serving = tokio::spawn(async move {
        loop {
            tokio::select! {
                refused = listener.accept() => drop(refused),
                () = notified.notified() => break,
            }
        }
        serve(listener, metadata).await;
    });

    let mut agent = machine.agent();
    for name in ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"] {
        agent.env_remove(name);
    }
    agent.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", address).stdout(Stdio::piped());
    let mut agent = agent.spawn().unwrap();
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let mut up = Some(up);
    // Reads to the end, because a full pipe would stop the agent.
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("region")
                && let Some(up) = up.take()
            {
                up.notify_one();
            }
        }
    };
    let (read, ended) = tokio::join!(tokio::time::timeout(PATIENCE, reading), end_of(agent));
    read.expect("the agent ends");
    assert!(ended.success());
    assert!(machine.path("ran").exists());
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_reports_that_it_has_booted_before_it_has_a_job() {
    let machine = machine(Some("touch $OUT/ran")).await;
    let before = SystemClock.now();
    let agent = machine.agent().env("DROVER_REPORTS_TABLE", REPORTS_TABLE).spawn().unwrap();
    machine.until_it_reports(1).await;
    let report = machine.report(before, |_| true).await;
    assert!(report.reported_at >= before && report.uptime_seconds > 0, "{report:?}");
    machine.hand_over(3600).await;
    assert!(end_of(agent).await.success());
    assert!(machine.path("ran").exists() && machine.is_off());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_waits_prepares_itself_reports_that_and_still_runs_its_job() {
    let machine = machine(Some("touch $OUT/ran")).await;
    let before = SystemClock.now();
    let agent = machine.agent().env("DROVER_REPORTS_TABLE", REPORTS_TABLE).spawn().unwrap();
    machine.until_it_reports(1).await;
    let booted = machine.report(before, |_| true).await;
    machine.until_it_reports(2).await;
    let prepared = machine.report(before, |report| report.prepared_at.is_some()).await;
    assert!(prepared.prepared_at.is_some_and(|time| time >= booted.reported_at), "{prepared:?}");
    assert_eq!(prepared, BootReport { prepared_at: prepared.prepared_at, ..booted });
    machine.hand_over(3600).await;
    assert!(end_of(agent).await.success());
    assert!(machine.path("ran").exists() && machine.is_off());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_preparation_is_not_reported_and_ends_no_machine() {
    let machine = machine(None).await;
    let mut agent = machine.agent();
    let agent = agent.env("DROVER_REPORTS_TABLE", REPORTS_TABLE).env("DROVER_RUNNER_DIR", machine.path("missing"));
    let mut agent = agent.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let failed = async { while !lines.next_line().await.unwrap().expect("a line").contains("is not prepared") {} };
    tokio::time::timeout(PATIENCE, failed).await.expect("the preparation fails");
    let looks = || machine.sandbox.calls.counts()[&("DynamoDB", "GetItem".to_owned())];
    let before = looks();
    let again = |_: &sandbox::state::State| (looks() > before).then_some(());
    machine.sandbox.world.until("the agent to look again", PATIENCE, again).await.unwrap();
    assert_eq!(machine.sandbox.calls.counts()[&("DynamoDB", "UpdateItem".to_owned())], 1);
    kill(Pid::from_raw(agent.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    end_of(agent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_fails_keeps_no_machine_from_its_job_and_is_logged_once() {
    let machine = machine(Some("touch $OUT/ran")).await;
    // As in a stack without the table.
    let mut agent = machine.agent();
    let agent = agent.env("DROVER_REPORTS_TABLE", "drover-missing").env("NO_COLOR", "1").stdout(Stdio::piped());
    let mut agent = agent.spawn().unwrap();
    let mut said = String::new();
    let mut output = agent.stdout.take().unwrap();
    machine.until_it_reports(2).await;
    machine.hand_over(3600).await;
    let (read, ended) = tokio::join!(output.read_to_string(&mut said), end_of(agent));
    read.unwrap();
    assert!(ended.success() && machine.path("ran").exists() && machine.is_off());
    assert_eq!(said.matches("is not reported yet").count(), 1, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_gets_no_jit_config_or_a_signal_powers_off() {
    let machine = machine(Some("echo ran > $OUT/ran")).await;
    end_of(machine.agent().env("DROVER_AGENT_WAIT", "0s").spawn().unwrap()).await;
    assert!(machine.is_off());
    fs::remove_file(machine.path("off")).unwrap();

    let agent = machine.agent().spawn().unwrap();
    let asked = |_: &sandbox::state::State| {
        let counts = machine.sandbox.calls.counts();
        counts.keys().any(|(service, _)| *service == "STS").then_some(())
    };
    // The agent is up and has read its identity. Now it gets the signal.
    machine.sandbox.world.until("the agent to look", PATIENCE, asked).await.unwrap();
    kill(Pid::from_raw(agent.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    end_of(agent).await;
    assert!(machine.is_off());
    assert!(!machine.path("ran").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_cannot_power_off_fails() {
    let machine = machine(Some("true")).await;
    machine.hand_over(3600).await;
    assert!(!end_of(machine.agent().env("DROVER_POWEROFF", "false").spawn().unwrap()).await.success());
}

/// What GitHub's runner does before and after the steps of a job.
const START: &str = "GITHUB_REPOSITORY=acme/app \"$ACTIONS_RUNNER_HOOK_JOB_STARTED\" || exit 1";
const COMPLETE: &str = "\"$ACTIONS_RUNNER_HOOK_JOB_COMPLETED\" > $OUT/log; echo $? > $OUT/hook";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_measured_job_reports_what_it_used_and_shows_it_in_its_log() {
    // `tail` keeps a line without an end in memory: 300 MiB of it, once `cat` opens the pipe. Then the shell works for 1.5 s of CPU.
    let machine = machine(Some(&format!(
        "{START}\n\
         mkfifo $OUT/pipe\n\
         {{ head -c 314572800 /dev/zero; cat $OUT/pipe; }} | tail > /dev/null &\n\
         exec 3> $OUT/pipe\n\
         worked=0; while [ $worked -lt 150 ]; do\n\
           i=0; while [ $i -lt 10000 ]; do i=$((i + 1)); done\n\
           read -r stat < /proc/$$/stat; set -- $stat; worked=${{14}}\n\
         done\n\
         grep VmRSS /proc/$!/status > $OUT/held\n\
         {COMPLETE}"
    )))
    .await;
    let before = SystemClock.now();
    machine.hand_over_measured().await;
    let last = last_line_of(machine.agent().env("DROVER_REPORTS_TABLE", REPORTS_TABLE)).await;
    assert!(last.contains("the runner has ended after its job: exit status: 0"), "{last}");

    let usage = machine.usage(before).await;
    let held: u32 = machine.read("held").split_whitespace().nth(1).unwrap().parse().unwrap();
    // Loose, because this machine may swap. Everything else on it comes on top.
    assert!(held > 64 << 10, "`tail` holds {held} KiB");
    assert!(usage.memory_peak_mib >= held >> 11, "{usage:?}");
    let worked = u64::from(usage.cpu_mean) * u64::from(usage.seconds + 1);
    assert!(worked >= 1500 / 2, "{usage:?}");
    assert!(usage.seconds >= 1 && usage.cpu_chart.len() == usage.memory_chart.len(), "{usage:?}");

    assert_eq!(machine.read("hook"), "0\n");
    let log = machine.read("log");
    let ran = jiff::SignedDuration::from_secs(usage.seconds.into());
    assert!(log.starts_with(&format!("Drover: this job ran for {ran:#} on m7i.large, spot\n")), "{log}");
    for line in usage.lines() {
        assert!(log.contains(&line.text) && log.contains(line.chart.as_deref().unwrap_or_default()), "{line:?} {log}");
    }
    assert!(log.contains("at 0.1000 USD per hour"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_killed_before_its_hook_reports_what_it_used() {
    // The runner ends, and the machine ends while the runner is busy.
    for (ends, reason) in [
        ("exit 1", "the runner has ended after its job: exit status: 1"),
        ("kill -TERM $PPID; exec sleep 1000", "the agent was stopped"),
    ] {
        let machine = machine(Some(&format!("{START}\n{ends}"))).await;
        let before = SystemClock.now();
        machine.hand_over_measured().await;
        let last = last_line_of(machine.agent().env("DROVER_REPORTS_TABLE", REPORTS_TABLE)).await;
        assert!(last.contains(reason), "{last}");
        assert!(machine.usage(before).await.memory_peak_mib > 0, "{ends}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_without_usage_measures_nothing_and_has_no_hook_after_the_job() {
    for own in [None, Some("/image/own.sh")] {
        let script = format!("{START}\necho \"${{ACTIONS_RUNNER_HOOK_JOB_COMPLETED-unset}}\" > $OUT/completed");
        let machine = machine(Some(&script)).await;
        machine.hand_over(3600).await;
        let mut agent = machine.agent();
        agent
            .env("DROVER_REPORTS_TABLE", REPORTS_TABLE)
            .envs(own.map(|own| ("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", own)));
        assert!(end_of(agent.spawn().unwrap()).await.success());
        assert_eq!(machine.read("completed").trim(), own.unwrap_or("unset"));
        assert_eq!(machine.stored_report().await.and_then(|report| report.usage), None);
    }
}

/// Threads that send reports and garbage to a socket as fast as they can.
struct Flood {
    is_over: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn start(socket: &Path) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let send = |message: &'static [u8]| {
            let (is_over, socket) = (Arc::clone(&is_over), socket.to_owned());
            std::thread::spawn(move || {
                let own = std::os::unix::net::UnixDatagram::unbound().unwrap();
                own.set_nonblocking(true).unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    // The queue may be full, and the socket gone.
                    let _ = own.send_to(message, &socket);
                }
            })
        };
        let threads = vec![send(b"started"), send(b"x"), send(b"started")];
        Self { is_over, threads }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_use_of_the_hooks_socket_ends_or_blocks_the_agent() {
    let machine = machine(Some(&format!(
        "{START}\n{START}\n\
         dirname \"$ACTIONS_RUNNER_HOOK_JOB_COMPLETED\" > $OUT/running\n\
         read -r go < $OUT/go\n\
         {COMPLETE}"
    )))
    .await;
    for name in ["running", "go"] {
        mkfifo(&machine.path(name), Mode::S_IRWXU).unwrap();
    }
    let before = SystemClock.now();
    machine.hand_over_measured().await;
    let agent = machine.agent().env("DROVER_REPORTS_TABLE", REPORTS_TABLE).spawn().unwrap();
    let files = PathBuf::from(format!("/proc/{}/fd", agent.id().unwrap()));
    let running = tokio::fs::read_to_string(machine.path("running"));
    let folder = tokio::time::timeout(PATIENCE, running).await.expect("the job runs").unwrap();
    let socket = Path::new(folder.trim()).join("summary.sock");
    let connect = || async { UnixStream::connect(&socket).await.unwrap() };
    // The other socket of the hooks, too, until the machine is off.
    let flood = Flood::start(&Path::new(folder.trim()).join("agent.sock"));

    let mut open = Vec::new();
    for _ in 0..100 {
        let mut connection = connect().await;
        // The agent may have closed the connection already.
        let _ = connection.write_all(&[b'x'; 1 << 16]).await;
        open.push(connection);
    }
    for _ in 0..1000 {
        let mut summary = String::new();
        let mut connection = connect().await;
        let answer = tokio::time::timeout(PATIENCE, connection.read_to_string(&mut summary));
        answer.await.expect("the agent answers").unwrap();
        assert!(summary.starts_with("Drover: this job ran for "), "{summary}");
        open.extend((open.len() < 200).then_some(connection));
    }
    let files = fs::read_dir(files).unwrap().count();
    assert!(files < 50, "the agent keeps {files} files open");

    fs::write(machine.path("go"), "\n").unwrap();
    assert!(end_of(agent).await.success());
    assert!(machine.is_off());
    drop(flood);
    assert_eq!(machine.read("hook"), "0\n");
    let usage = machine.usage(before).await;
    let log = machine.read("log");
    assert!(log.lines().count() > 4 && usage.lines().iter().all(|line| log.contains(&line.text)), "{usage:?} {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_of_the_image_runs_after_the_summary() {
    let machine = machine(Some(&format!("{START}\n{COMPLETE}"))).await;
    let own = machine.path("it's own.sh");
    write_script(&own, "echo own; exit 7");
    machine.hand_over_measured().await;
    end_of(machine.agent().env("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", own).spawn().unwrap()).await;
    assert_eq!(machine.read("hook"), "7\n");
    let log = machine.read("log");
    assert!(log.starts_with("Drover: this job ran for ") && log.ends_with("USD per hour\nown\n"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_usage_that_cannot_be_reported_ends_no_machine() {
    let machine = machine(Some(&format!("{START}\n{COMPLETE}"))).await;
    machine.hand_over_measured().await;
    // As in a stack without the table.
    let last = last_line_of(machine.agent().env("DROVER_REPORTS_TABLE", "drover-missing")).await;
    assert!(last.contains("the runner has ended after its job: exit status: 0"), "{last}");
    assert!(machine.is_off());
    assert_eq!(machine.read("hook"), "0\n");
    assert!(machine.read("log").starts_with("Drover: this job ran for "), "{}", machine.read("log"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_summary_that_never_comes_fails_no_job() {
    let folder = tempfile::tempdir().unwrap();
    let summarize = async || {
        let mut hook = Command::new(env!("CARGO_BIN_EXE_agent"));
        let said = hook.arg("summarize-job").arg(folder.path()).output();
        tokio::time::timeout(PATIENCE, said).await.expect("the hook ends").unwrap()
    };
    let said = summarize().await;
    assert!(said.status.success() && said.stdout.is_empty());
    assert!(String::from_utf8_lossy(&said.stderr).contains("Drover: no summary of this job"), "{said:?}");

    // Nobody answers.
    let _silent = UnixListener::bind(folder.path().join("summary.sock")).unwrap();
    let said = summarize().await;
    assert!(said.status.success() && said.stdout.is_empty(), "{said:?}");
}
