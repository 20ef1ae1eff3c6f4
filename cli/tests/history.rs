//! Histories are recorded from GitHub's model and from a stack's log, and compared with what the model knows.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use drover::history::github::{Means, Subject, record};
use drover::history::{Journal, Names, Recorded, log};
use drover::output::Failure;
use engine::ports::Clock;
use jiff::{SignedDuration, Timestamp};
use platform::clock::SystemClock;
use platform::github::History;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Driven, Options, Sandbox};
use sandbox::short_timings::one_pool;
use sandbox::state::State;
use whatif::trace::{Job, Source, Trace};
use world::Model;
use world::github::{
    Conclusion, Config, Endpoint, Failure as Refusal, JobId, JobState, Limits, QueueJob, RunId, Scope, UserAccess,
    Webhooks,
};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
const MINUTE: Duration = Duration::from_secs(60);
const ENOUGH: usize = 4000;

/// A clock that does not wait: it notes until when, and lets the test act.
struct Waits<'a> {
    until: Mutex<Vec<Timestamp>>,
    then: &'a (dyn Fn() + Sync),
}

impl<'a> Waits<'a> {
    fn then(then: &'a (dyn Fn() + Sync)) -> Self {
        Self { until: Mutex::default(), then }
    }
}

#[async_trait]
impl Clock for Waits<'_> {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    async fn sleep_until(&self, at: Timestamp) {
        self.until.lock().unwrap().push(at);
        (self.then)();
    }
}

/// A sandbox without functions at work, whose GitHub has a past.
struct Past {
    sandbox: Sandbox,
    token: String,
    folder: tempfile::TempDir,
}

impl Past {
    async fn new(limits: Limits) -> Self {
        let repositories = ["octo-org/widgets", "octo-org/gadgets"].map(|it| it.parse().unwrap()).to_vec();
        let github = Config { limits, ..Options::default().github };
        let options = Options { driven: Driven::ByHand, repositories, github, ..Options::default() };
        let sandbox = Sandbox::start(options).await.unwrap();
        let token = sandbox.world.act(|state, _| {
            let owner = state.github.find_owner("octo-org").unwrap().id;
            state.github.add_user_token(UserAccess { accounts: [owner].into(), actions: true })
        });
        Self { sandbox, token, folder: tempfile::tempdir().unwrap() }
    }

    /// Queues a job at a time of the past, after everything that happened before it. GitHub sends no webhooks for it.
    fn queue(&self, at: Timestamp, name: &str, change: impl FnOnce(QueueJob) -> QueueJob) -> JobId {
        self.sandbox.world.act(|state, _| {
            state.github.advance(at);
            let repository = state.github.find_repository("octo-org", "widgets").unwrap().id;
            let job = QueueJob::new(repository, &["linux", "x64"]);
            let job = QueueJob { name: name.to_owned(), webhooks: Webhooks::NeverAttempted, runs_for: MINUTE, ..job };
            state.github.queue_job(change(job), at)
        })
    }

    fn run_of(&self, job: JobId) -> RunId {
        self.sandbox.world.look(|state| state.github.job(job).unwrap().run)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("trace.gz")
    }

    fn partial(&self) -> PathBuf {
        self.folder.path().join("trace.gz.partial")
    }

    /// The number of calls that GitHub received.
    fn calls(&self) -> u64 {
        self.sandbox.world.look(|state| state.github.calls().values().sum())
    }

    async fn record(&self, subject: &str, days: i32, calls: usize) -> Result<Recorded, Failure> {
        let nothing = || panic!("GitHub has not asked to wait");
        self.record_with(subject, days, calls, &Waits::then(&nothing)).await
    }

    async fn record_with(
        &self,
        subject: &str,
        days: i32,
        calls: usize,
        clock: &Waits<'_>,
    ) -> Result<Recorded, Failure> {
        let subject = match subject.parse() {
            Ok(repository) => Subject::Repositories(vec![repository]),
            Err(_) => Subject::Organization(subject.parse().unwrap()),
        };
        let url = self.sandbox.github_url.parse().unwrap();
        let history = History::new(self.token.clone(), Some(url)).unwrap();
        let mut journal = Journal::open(Some(&self.file()), &subject.name(), days * DAY, SystemClock.now())?;
        let means = Means { history: &history, clock, progress: &|_| {}, calls };
        let recorded = record(&means, &subject, &mut journal).await?.save(&self.file(), Names::Kept)?;
        journal.finish();
        Ok(recorded)
    }
}

/// What GitHub's model knows about the jobs that were queued and not copied, without `after`.
fn truth(state: &State) -> Vec<Job> {
    let queued = state.github.jobs().filter(|job| !job.history.queued.is_empty());
    let mut jobs: Vec<Job> = queued
        .map(|job| {
            let repository = state.github.repository(job.repository).unwrap();
            let conclusion = match &job.state {
                JobState::Completed { conclusion, .. } => Some(conclusion.as_str().to_owned()),
                JobState::Waiting | JobState::Queued { .. } | JobState::InProgress { .. } => None,
            };
            Job {
                id: job.id.0,
                run: job.run.0,
                attempt: job.attempt.try_into().unwrap(),
                repository: format!("{}/{}", repository.owner_login, repository.name),
                workflow: Some("CI".to_owned()),
                name: Some(job.name.clone()),
                labels: job.labels.clone(),
                queued_at: job.history.queued[0],
                started_at: job.history.started.last().map(|start| start.at),
                ended_at: job.completed_at,
                conclusion,
                after: None,
            }
        })
        .collect();
    jobs.sort_by_key(|job| (job.queued_at, job.id));
    jobs
}

/// The jobs without `after`.
fn facts(trace: &Trace) -> Vec<Job> {
    trace.jobs.iter().map(|job| Job { after: None, ..job.clone() }).collect()
}

fn read(file: &Path) -> Trace {
    Trace::read(std::fs::File::open(file).unwrap()).unwrap()
}

/// Midnight some days ago.
fn midnight(days: i32) -> Timestamp {
    let second = SystemClock.now().as_second();
    Timestamp::from_second(second - second.rem_euclid(86_400)).unwrap() - days * DAY
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jobs_of_an_organisation_are_recorded_as_github_ran_them() {
    let past = Past::new(Limits::default()).await;
    let begin = midnight(2) + 8 * HOUR;
    let installation = past.sandbox.world.act(|state, _| {
        for name in ["one", "two"] {
            state.github.add_foreign_runner(Scope::organization("octo-org"), name, &["linux", "x64"], begin);
        }
        state.github.find_owner("octo-org").unwrap().installation.unwrap()
    });
    // Two jobs, then one that needs both, fails, and is re-run: GitHub copies the other two into the second attempt.
    let build = past.queue(begin, "build", |job| QueueJob { runs_for: 5 * MINUTE, ..job });
    let run = Some(past.run_of(build));
    past.queue(begin, "lint", |job| QueueJob { run, ..job });
    let test = past.queue(begin + SignedDuration::from_secs(303), "test", |job| QueueJob {
        run,
        ends: Conclusion::Failure,
        ..job
    });
    past.sandbox.world.act(|state, _| {
        state.github.advance(begin + HOUR);
        state.github.rerun_job(installation, "octo-org", "widgets", test, begin + HOUR).unwrap();
    });
    // More jobs than runners, one that no runner fits and that is cancelled, and one of another repository.
    for number in 0..4 {
        past.queue(begin + 2 * HOUR, &format!("matrix {number}"), |job| job);
    }
    let unserved = past.queue(begin + 3 * HOUR, "gpu", |job| QueueJob { labels: vec!["gpu".to_owned()], ..job });
    past.sandbox.world.act(|state, _| state.github.cancel(unserved, begin + 4 * HOUR));
    let gadgets = past.sandbox.world.look(|state| state.github.find_repository("octo-org", "gadgets").unwrap().id);
    past.queue(begin + 5 * HOUR, "build", |job| QueueJob { repository: gadgets, ..job });
    // These are still running and queued.
    let recent = SystemClock.now() - SignedDuration::from_mins(10);
    past.queue(recent, "slow", |job| QueueJob { runs_for: 60 * MINUTE, ..job });
    past.queue(recent, "waiting", |job| QueueJob { labels: vec!["gpu".to_owned()], ..job });

    let before = past.calls();
    let recorded = past.record("octo-org", 5, ENOUGH).await.unwrap();
    let (truth, runs) = past.sandbox.world.look(|state| {
        let runs: BTreeSet<RunId> = state.github.jobs().map(|job| job.run).collect();
        (truth(state), runs.len() as u64)
    });
    assert_eq!(truth.len(), 12);
    assert_eq!(facts(&recorded.trace), truth);
    let after: Vec<u64> = recorded.trace.jobs.iter().filter_map(|job| job.after).collect();
    assert_eq!(after, [build.0], "the test is after the build, which ended last");
    assert_eq!((recorded.trace.header.source, recorded.notes.len()), (Source::GitHub, 0));
    let calls = past.calls() - before;
    assert_eq!(calls, 1 + 3 + runs, "the repositories, the runs of each of the three, and the jobs of each run");
    assert_eq!(read(&past.file()), recorded.trace);
    assert!(!past.partial().exists());

    let hidden = recorded.save(&past.file(), Names::Hidden).unwrap().trace;
    assert_eq!(read(&past.file()), hidden);
    assert!(hidden.jobs.iter().all(|job| !job.repository.contains("octo-org") && !job.labels.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_recording_continues_without_asking_again() {
    let past = Past::new(Limits::default()).await;
    for hour in 0..6 {
        past.queue(midnight(1) + hour * HOUR, "build", |job| job);
    }
    let error = past.record("octo-org/widgets", 3, 3).await.unwrap_err().to_string();
    assert!(error.contains("not even one day of this history can be read with 3 calls -> --calls 7"), "{error}");
    assert_eq!(past.calls(), 1);
    // The second job list is never answered.
    let broken = |state: &mut State| {
        state.github.faults.broken.extend([(Endpoint::ListRunJobs, 502); 4]);
        state.github.faults.failures.push_back((Endpoint::ListRunJobs, Refusal::NoReply));
    };
    past.sandbox.world.act(|state, _| broken(state));
    let nothing = || {};
    let clock = Waits::then(&nothing);
    let error = past.record_with("octo-org/widgets", 3, ENOUGH, &clock).await.unwrap_err();
    assert!(error.to_string().contains("run the same command again later"), "{error}");
    assert!(error.to_string().contains("trace.gz.partial keeps 1 answer"), "{error}");
    assert_eq!((error.exit_code(), clock.until.lock().unwrap().len()), (3.into(), 3), "it was repeated three times");
    assert!(past.partial().exists() && !past.file().exists());

    let before = past.calls();
    let nothing = || {};
    let recorded = past.record_with("octo-org/widgets", 3, ENOUGH, &Waits::then(&nothing)).await.unwrap();
    assert_eq!(facts(&recorded.trace), past.sandbox.world.look(truth));
    assert_eq!(past.calls() - before, 6 + 1, "the jobs of six runs, one of them twice, and no list of runs");
    assert!(!past.partial().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recorder_waits_until_githubs_limits_allow_the_next_call() {
    let past = Past::new(Limits::default()).await;
    for hour in 0..3 {
        past.queue(midnight(1) + hour * HOUR, "build", |job| job);
    }
    let reset = Timestamp::from_second(SystemClock.now().as_second()).unwrap() + SignedDuration::from_mins(20);
    let limited_until = reset + SignedDuration::from_mins(5);
    past.sandbox.world.act(|state, _| {
        state.github.faults.failures.push_back((Endpoint::ListRunJobs, Refusal::PrimaryLimit { reset }));
        state.github.faults.limited_until = Some(limited_until);
    });
    let lift = || past.sandbox.world.act(|state, _| state.github.faults.limited_until = None);
    let clock = Waits::then(&lift);
    let recorded = past.record_with("octo-org/widgets", 3, ENOUGH, &clock).await.unwrap();
    assert_eq!(facts(&recorded.trace), past.sandbox.world.look(truth));
    let waits = clock.until.lock().unwrap().clone();
    let [secondary, primary] = waits[..] else { panic!("{waits:?}") };
    assert!(secondary >= limited_until && secondary - limited_until <= SignedDuration::from_secs(60), "{secondary}");
    assert_eq!(primary, reset);

    // A limit that lasts longer than an hour is left to the operator.
    past.sandbox.world.act(|state, now| state.github.faults.limited_until = Some(now + 3 * HOUR));
    let error = past.record("octo-org/widgets", 3, ENOUGH).await.unwrap_err().to_string();
    assert!(error.starts_with("GitHub allows no call before 20") && error.contains("run the same command"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_call_of_an_hour_is_followed_by_a_wait_and_not_by_a_refusal() {
    let past = Past::new(Limits { requests_per_hour: 3, ..Limits::default() }).await;
    for hour in 0..4 {
        past.queue(midnight(1) + hour * HOUR, "build", |job| job);
    }
    let calls = Mutex::new(Vec::new());
    let count = || calls.lock().unwrap().push(past.calls());
    let clock = Waits::then(&count);
    // The model's hour does not pass, so the recording ends with the budget.
    let error = past.record_with("octo-org/widgets", 3, 5, &clock).await.unwrap_err().to_string();
    assert!(error.starts_with("--calls allows no more than 5 calls"), "{error}");
    assert_eq!(calls.lock().unwrap().first(), Some(&3), "it waited before a fourth call");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_with_more_runs_than_github_lists_is_recorded_completely() {
    let past = Past::new(Limits { enforced: false, ..Limits::default() }).await;
    for second in 0..1_100 {
        past.queue(midnight(1) + SignedDuration::from_secs(second * 60), "build", |job| job);
    }
    past.queue(midnight(2), "build", |job| job);
    let recorded = past.record("octo-org/widgets", 3, ENOUGH).await.unwrap();
    assert_eq!(recorded.trace.jobs.len(), 1_101);
    assert_eq!(facts(&recorded.trace), past.sandbox.world.look(truth));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_beyond_the_budget_is_sampled_by_whole_days() {
    let past = Past::new(Limits::default()).await;
    for day in (1..=13).rev() {
        for hour in 0..10 {
            past.queue(midnight(day) + hour * HOUR, "build", |job| job);
        }
    }
    // 130 runs on two pages. Each day takes a list and ten runs.
    let recorded = past.record("octo-org/widgets", 14, 80).await.unwrap();
    let header = &recorded.trace.header;
    assert!(past.calls() <= 80, "{}", past.calls());
    let date = |job: &Job| jiff::tz::TimeZone::UTC.to_datetime(job.queued_at).date();
    let expected: Vec<Job> = past.sandbox.world.look(truth);
    let expected: Vec<Job> = expected.into_iter().filter(|job| header.days.contains(&date(job))).collect();
    assert_eq!((header.days.len(), expected.len()), (7, 70));
    assert_eq!(facts(&recorded.trace), expected);
    let weekdays: BTreeSet<i8> = header.days.iter().map(|day| day.weekday().to_monday_zero_offset()).collect();
    assert_eq!(weekdays.len(), 7);
    let [note] = &recorded.notes[..] else { panic!("{:?}", recorded.notes) };
    assert!(note.contains("more than --calls 80: 7 of 15 days were read, 20"), "{note}");
    assert_eq!(read(&past.file()), recorded.trace);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_is_explained_by_the_permission_that_it_lacks() {
    let mut past = Past::new(Limits::default()).await;
    let error = past.record("nobody/nothing", 3, ENOUGH).await.unwrap_err();
    assert_eq!(error.exit_code(), 3.into());
    assert!(error.to_string().contains("may not read the workflow runs of nobody/nothing: "), "{error}");
    std::fs::remove_file(past.partial()).unwrap();
    let error = past.record("nobody", 3, ENOUGH).await.unwrap_err().to_string();
    assert!(error.contains("the repositories of nobody: ") && error.contains("404"), "{error}");
    assert!(error.contains("if nobody is a user, name repositories with --repository"), "{error}");
    std::fs::remove_file(past.partial()).unwrap();

    past.sandbox.world.act(|state, _| {
        let owner = state.github.find_owner("octo-org").unwrap().id;
        let access = UserAccess { accounts: [owner].into(), actions: false };
        state.github.set_user_access(&past.token, Some(access));
    });
    let error = past.record("octo-org/widgets", 3, ENOUGH).await.unwrap_err().to_string();
    assert!(error.contains("403: Resource not accessible by personal access token"), "{error}");
    assert!(error.contains("-> check the name. A fine-grained token needs the permission Actions: read"), "{error}");
    std::fs::remove_file(past.partial()).unwrap();
    // Of an organisation, repositories that the token may not read are left out and named.
    let recorded = past.record("octo-org", 3, ENOUGH).await.unwrap();
    let [note] = &recorded.notes[..] else { panic!("{:?}", recorded.notes) };
    assert!(note.contains("octo-org/widgets, octo-org/gadgets: they are left out"), "{note}");

    past.token = "github_pat_expired".to_owned();
    let error = past.record("octo-org/widgets", 3, ENOUGH).await.unwrap_err().to_string();
    assert!(error.contains("the token is invalid or has expired") && !error.contains("github_pat"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_stack_contains_its_jobs_as_github_ran_them() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let begin = SystemClock.now() - HOUR;
    let jobs: Vec<JobId> =
        (0..3).map(|_| sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1))).collect();
    sandbox.reconcile(&jobs, PATIENCE).await.unwrap();
    // A machine's report is kept once its slot is closed.
    for machine in sandbox.world.look(|state| state.ec2.instances().map(|it| it.id.clone()).collect::<Vec<_>>()) {
        sandbox.closed(&machine).await.unwrap();
    }
    let table = sandbox.table().await;
    let now = SystemClock.now();
    let recorded = log::record(&table, "eu-west-1", begin, now).await.unwrap();
    // The sandbox's webhooks have the names of GitHub's example.
    let unnamed = |job: Job| Job { workflow: None, name: None, ..job };
    let expected: Vec<Job> = sandbox.world.look(truth).into_iter().map(unnamed).collect();
    assert_eq!(facts(&recorded.trace).into_iter().map(unnamed).collect::<Vec<_>>(), expected);
    let Trace { header, jobs } = &recorded.trace;
    let is_complete = |job: &Job| job.started_at.is_some() && job.ended_at.is_some() && job.workflow.is_some();
    assert!(jobs.iter().all(is_complete), "{jobs:#?}");
    assert!(header.from >= begin && header.until == now, "the log begins with the first job");
    assert_eq!((header.source, header.region.as_deref()), (Source::Log, Some("eu-west-1")));
    let measured = &header.measured;
    assert!(measured.boot_seconds.is_some() && measured.runner_seconds.is_some(), "{measured:?}");
    assert_eq!(measured.start_seconds, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drover_records_a_history_and_simulates_it_without_printing_the_token() {
    let past = Past::new(Limits::default()).await;
    for hour in 0..3 {
        past.queue(midnight(1) + hour * HOUR, "build", |job| job);
    }
    let file = past.file().to_str().unwrap().to_owned();
    let drover = async |arguments: &[&str], token: &str| {
        let output = past.sandbox.drover_with(arguments, &[("GITHUB_TOKEN", token)]).await.unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains(&past.token), "{text}");
        (output.status.code().unwrap(), text)
    };
    let from_github = ["simulate", "--history", "3d", "--repository", "octo-org/widgets", "--record", &file];
    let (code, text) = drover(&from_github, "").await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("GITHUB_TOKEN is not set -> "), "{text}");
    let (code, text) = drover(&from_github, &past.token).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("1 of 1 repository ran workflows; about 4 calls"), "{text}");
    assert!(text.contains("trace.gz: 3 jobs of 1 repository, queued from 20"), "{text}");
    assert_eq!(facts(&read(&past.file())), past.sandbox.world.look(truth));

    let pools = past.folder.path().join("pools.toml");
    std::fs::write(&pools, one_pool("").replace("\"drover\"", "\"linux\", \"x64\"")).unwrap();
    let pools = pools.to_str().unwrap();
    let (code, from_history) = drover(&[&["simulate", pools][..], &from_github[1..]].concat(), &past.token).await;
    assert_eq!(code, 0, "{from_history}");
    let (code, from_trace) = drover(&["simulate", pools, "--trace", &file], "").await;
    assert_eq!(code, 0, "{from_trace}");
    assert!(from_history.contains("3 jobs of 20") && from_trace.contains("3 jobs of 20"), "{from_history}");
    let (code, text) = drover(&["simulate", pools], "").await;
    assert_eq!(code, 2, "{text}");
}
