//! How many of an account's calls the janitor uses, how long a sweep takes, and how soon repositories are searched.

mod story;

use std::sync::Mutex;

use async_trait::async_trait;
use domain::config::Pool;
use domain::ids::{JobId, Owner, Repository, RunId, RunnerId, Scope, StackName};
use domain::policy::search::round_minutes;
use domain::state::Key;
use domain::wire::JobNotice;
use engine::context::{Context, Share};
use engine::ports::{
    Budget, CheckRunUpdate, DeliveryPage, Deregistered, GitHub, GitHubError, NamedRunners, Ports, Registered,
    Registration, RepositoryPage, Rerun, RunJobs, RunReference, RunnerPage, RunsUnderWay,
};
use engine::sweep::{Mode, Report, sweep};
use jiff::SignedDuration;
use simulator::{Ingest, Universe, pool};
use world::github::{self, Caller, Limits, QueueJob, Visibility, Webhooks};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// The calls of the installation on `octo-org` that counted towards its hourly limit.
fn counted(universe: &Universe) -> u64 {
    universe.github(|github, _| {
        let installation = github.find_owner("octo-org").and_then(|owner| owner.installation).expect("installed");
        github.counted(Caller::Installation(installation))
    })
}

fn of_repository(name: &str) -> Pool {
    Pool { owner: format!("octo-org/{name}").parse().expect("a scope"), ..pool(name, 10) }
}

/// A minute in which nothing happens but the sweep at its end.
fn quiet_minute(universe: &Universe) -> Report {
    (0..60).for_each(|_| universe.tick());
    universe.scale();
    universe.sweep()
}

#[test]
fn an_idle_pool_costs_at_most_five_counted_calls_per_hour() {
    const POOLS: u64 = 80;
    let pools = (0..POOLS).map(|n| of_repository(&format!("tools-{n}"))).collect();
    let universe = Universe::new(301, pools);
    universe.github(|github, now| {
        let owner = github.find_owner("octo-org").expect("an account").id;
        for n in 0..POOLS {
            github.add_repository(owner, &format!("tools-{n}"), Visibility::Private, now);
        }
    });
    const HOURS: u64 = 4;
    for _ in 0..HOURS * 60 {
        assert_eq!(quiet_minute(&universe).failures, [] as [&str; 0]);
    }
    let per_hour = counted(&universe) / HOURS / POOLS;
    assert!(per_hour <= 5, "{per_hour} per hour and pool, searches included");
}

/// Ten thousand runners of somebody else in the organisation, of which ten come and go each minute.
fn crowd(universe: &Universe) {
    universe.github(|github, now| {
        for n in 0..10_000 {
            github.add_foreign_runner(github::Scope::organization("octo-org"), &format!("other-{n}"), &["other"], now);
        }
    });
}

#[test]
fn an_organisation_with_ten_thousand_runners_and_churn_costs_at_most_fifteen_hundred_calls_per_hour() {
    let universe = Universe::new(302, vec![pool("linux", 10)]);
    crowd(&universe);
    universe.queue_job(&["linux"], MINUTE * 120);
    universe.run(MINUTE);
    let mut deleted = 0;
    for _ in 0..60 {
        universe.github(|github, now| {
            let oldest: Vec<_> = github.registrations().filter(|it| it.name.starts_with("other-")).take(10).collect();
            let oldest: Vec<_> = oldest.into_iter().map(|runner| runner.id).collect();
            let installation = github.find_owner("octo-org").and_then(|owner| owner.installation).expect("installed");
            for (n, runner) in oldest.into_iter().enumerate() {
                let scope = github::Scope::organization("octo-org");
                github.delete_runner(installation, &scope, runner, now).expect("it is idle");
                deleted += 1;
                github.add_foreign_runner(scope, &format!("other-{now}-{n}"), &["other"], now);
            }
        });
        quiet_minute(&universe);
    }
    let used = counted(&universe) - deleted;
    assert!(used <= 1500, "{used} in an hour");
    assert!(used >= 400, "{used} in an hour: the list is read, though not in every sweep");
}

/// The calls that GitHub does not answer.
enum Hanging {
    Nothing,
    Account(&'static str),
    /// Listing the jobs of this run.
    Run(RunId),
}

/// GitHub where each call takes its time and some are never answered.
struct Slow<'a> {
    universe: &'a Universe,
    world: &'a dyn GitHub,
    page_takes: SignedDuration,
    hanging: Hanging,
    pages: Mutex<usize>,
    unanswered: Mutex<usize>,
}

impl Slow<'_> {
    fn takes(&self, owner: &Owner) -> Result<(), GitHubError> {
        self.answers_unless(matches!(self.hanging, Hanging::Account(name) if name == owner.as_str()))
    }

    fn answers_unless(&self, hangs: bool) -> Result<(), GitHubError> {
        self.universe.pass(if hangs { SECOND * 7 } else { self.page_takes });
        *self.unanswered.lock().expect("no panic") += usize::from(hangs);
        if hangs { Err(GitHubError::unavailable("no answer within 7 s")) } else { Ok(()) }
    }
}

#[async_trait]
impl GitHub for Slow<'_> {
    async fn register(&self, registration: &Registration) -> Result<Registered, GitHubError> {
        self.takes(registration.scope.owner())?;
        self.world.register(registration).await
    }
    async fn runners(&self, scope: &Scope, stack: &StackName, page: usize) -> Result<RunnerPage, GitHubError> {
        self.takes(scope.owner())?;
        *self.pages.lock().expect("no panic") += 1;
        self.world.runners(scope, stack, page).await
    }
    async fn runners_named(&self, scope: &Scope, name: &str) -> Result<NamedRunners, GitHubError> {
        self.takes(scope.owner())?;
        self.world.runners_named(scope, name).await
    }
    async fn deregister(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError> {
        self.takes(scope.owner())?;
        self.world.deregister(scope, runner).await
    }
    async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError> {
        self.takes(&repository.owner)?;
        self.world.job(repository, job).await
    }
    async fn repositories(&self, owner: &Owner, page: usize) -> Result<RepositoryPage, GitHubError> {
        self.takes(owner)?;
        self.world.repositories(owner, page).await
    }
    async fn run_jobs(&self, repository: &Repository, run: RunId) -> Result<RunJobs, GitHubError> {
        self.takes(&repository.owner)?;
        self.answers_unless(matches!(self.hanging, Hanging::Run(it) if it == run))?;
        self.world.run_jobs(repository, run).await
    }
    async fn is_run_over(&self, run: &RunReference) -> Result<bool, GitHubError> {
        self.takes(&run.repository.owner)?;
        self.world.is_run_over(run).await
    }
    async fn runs_under_way(&self, repository: &Repository) -> Result<RunsUnderWay, GitHubError> {
        self.takes(&repository.owner)?;
        self.world.runs_under_way(repository).await
    }
    async fn deliveries(&self, from: Option<&str>) -> Result<DeliveryPage, GitHubError> {
        self.universe.pass(self.page_takes);
        self.world.deliveries(from).await
    }
    async fn redeliver(&self, attempt: u64) -> Result<(), GitHubError> {
        self.universe.pass(self.page_takes);
        self.world.redeliver(attempt).await
    }
    async fn write_check_run(&self, update: &CheckRunUpdate) -> Result<u64, GitHubError> {
        self.takes(&update.repository.owner)?;
        self.world.write_check_run(update).await
    }
    async fn rerun(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError> {
        self.takes(&repository.owner)?;
        self.world.rerun(repository, job).await
    }
    fn budget(&self, owner: &Owner) -> Option<Budget> {
        self.world.budget(owner)
    }
}

/// One sweep with a slow GitHub. It must end before the invocation does. Returns how many pages of runners it read.
fn slow_sweep(universe: &Universe, page_takes: SignedDuration, hanging: Hanging) -> (Report, usize) {
    universe.invoke(async |context| {
        let (world, zero) = (context.ports.github, Mutex::default);
        let slow = Slow { universe, world, page_takes, hanging, pages: zero(), unanswered: zero() };
        let context = Context { ports: Ports { github: &slow, ..context.ports }, ..*context };
        let report = sweep(&context, Mode::Repair).await.expect("the table can be read");
        assert!(universe.now() <= context.deadline, "the sweep ends at {}, after {}", universe.now(), context.deadline);
        let unanswered = *slow.unanswered.lock().expect("no panic");
        assert!(unanswered <= 1, "{unanswered} calls were made for an account that does not answer");
        let pages = *slow.pages.lock().expect("no panic");
        (report, pages)
    })
}

#[test]
fn a_list_of_ten_thousand_runners_is_completed_within_five_sweeps_even_page_by_page() {
    let universe = Universe::new(303, vec![pool("linux", 10)]);
    crowd(&universe);
    universe.queue_job(&["linux"], MINUTE * 60);
    universe.run(SECOND * 50);
    let stale = universe.github(|github, now| {
        let installation = github.find_owner("octo-org").and_then(|owner| owner.installation).expect("installed");
        let request = github::JitRequest {
            name: "drover_sim_linux_e1_999_0_1".to_owned(),
            group: github::DEFAULT_GROUP,
            labels: vec!["linux".to_owned()],
        };
        let made = github.generate_jit(installation, &github::Scope::organization("octo-org"), request, now);
        made.expect("a free name").runner.id
    });
    let mut pages = Vec::new();
    while pages.iter().sum::<usize>() < 100 {
        pages.push(slow_sweep(&universe, SignedDuration::from_millis(700), Hanging::Nothing).1);
        let slots = universe.store.view(&"linux".parse().expect("a pool")).slots;
        assert!(slots.values().all(|slot| slot.stop.is_none()), "unread is unknown, never absent: {slots:#?}");
    }
    assert!(pages.len() <= 5, "{pages:?}");
    // The unused registration is on the last page. A minute of grace is five.
    for _ in 0..40 {
        slow_sweep(&universe, SignedDuration::from_millis(700), Hanging::Nothing);
        (0..30).for_each(|_| universe.tick());
    }
    assert!(universe.github(|github, _| github.runner(stale).is_none()), "and what it shows is acted on");
}

#[test]
fn a_first_sweep_without_time_for_deliveries_leaves_them_to_the_next() {
    let universe = Universe::new(307, vec![pool("linux", 10)]);
    universe.set_ingest(Ingest::Down);
    universe.queue_job(&["linux"], MINUTE);
    (0..30).for_each(|_| universe.tick());
    universe.set_ingest(Ingest::Up);
    // Otherwise the new deliveries reach back to the failed one.
    (0..120).for_each(|_| universe.tick());
    let report = universe.invoke(async |context| {
        let share = Share { until: context.now() - SECOND, ..context.share };
        sweep(&Context { share, ..*context }, Mode::Repair).await.expect("the table can be read")
    });
    assert_eq!(report.redelivered, 0, "no time is left: {report:?}");
    assert_eq!(universe.sweep().redelivered, 1);
}

#[test]
fn a_sweep_ends_in_time_and_serves_every_other_account_although_one_hangs() {
    let other = |name: &str, owner: &str| Pool { owner: owner.parse().expect("a scope"), ..pool(name, 10) };
    let universe = Universe::new(304, vec![pool("linux", 10), other("arm", "mona-inc"), other("mac", "hubot-inc")]);
    universe.add_account("mona-inc");
    universe.add_account("hubot-inc");
    let stale = universe.github(|github, now| {
        ["octo-org", "mona-inc", "hubot-inc"].map(|login| {
            let installation = github.find_owner(login).and_then(|owner| owner.installation).expect("installed");
            let pool = match login {
                "octo-org" => "linux",
                "mona-inc" => "arm",
                _ => "mac",
            };
            let request = github::JitRequest {
                name: format!("drover_sim_{pool}_e1_999_0_1"),
                group: github::DEFAULT_GROUP,
                labels: vec![pool.to_owned()],
            };
            let made = github.generate_jit(installation, &github::Scope::organization(login), request, now);
            made.expect("a free name").runner.id
        })
    });
    let is_registered = |n: usize| universe.github(|github, _| github.runner(stale[n]).is_some());
    for _ in 0..8 {
        let (report, _) = slow_sweep(&universe, SignedDuration::from_millis(300), Hanging::Account("octo-org"));
        assert!(!report.failures.is_empty(), "it says what hangs");
        (0..60).for_each(|_| universe.tick());
    }
    assert!(!is_registered(1) && !is_registered(2), "the healthy accounts are swept");
    assert!(is_registered(0));
    for _ in 0..8 {
        slow_sweep(&universe, SignedDuration::from_millis(300), Hanging::Nothing);
        (0..60).for_each(|_| universe.tick());
    }
    assert!(!is_registered(0), "and so is the third once it answers");
}

#[test]
fn a_run_whose_jobs_cannot_be_listed_keeps_no_later_run_from_being_searched() {
    let named = Pool { repositories: vec!["octo-org/widgets".parse().expect("a repository")], ..pool("linux", 10) };
    let universe = Universe::new(308, vec![named]);
    let jobs: Vec<JobId> = (0..10).map(|_| universe.queue(&["of-nobody"], |job| job)).collect();
    let unheard = universe.queue(&["linux"], |job| QueueJob { webhooks: Webhooks::NeverAttempted, ..job });
    (0..120).for_each(|_| universe.tick());
    let large = universe.github(|github, _| github.job(github::JobId(jobs[5].0)).expect("it was queued").run);
    let is_found = || universe.item(&Key::Job(JobId(unheard.0))).is_some();
    for _ in 0..3 {
        assert!(!is_found());
        let (report, _) = slow_sweep(&universe, SignedDuration::from_millis(100), Hanging::Run(RunId(large.0)));
        assert_eq!(report.failures.len(), usize::from(!is_found()), "{report:?}");
        (0..60).for_each(|_| universe.tick());
    }
    assert!(is_found());
}

/// Adds repositories without a job, and returns how many minutes pass until a job without a webhook in the last one starts.
fn minutes_until_found(repositories: usize) -> i64 {
    let universe = Universe::new(305, vec![pool("linux", 10)]);
    let last = universe.github(|github, now| {
        let owner = github.find_owner("octo-org").expect("an account").id;
        let ids = (1..repositories).map(|n| github.add_repository(owner, &format!("r{n}"), Visibility::Private, now));
        ids.last().expect("some")
    });
    // The first round has begun, and used up what was saved.
    (0..3).for_each(|_| drop(quiet_minute(&universe)));
    let unsent = QueueJob { webhooks: Webhooks::NeverAttempted, ..QueueJob::new(last, &["linux"]) };
    let job = universe.github(|github, now| github.queue_job(unsent, now));
    for minute in 1..1000 {
        quiet_minute(&universe);
        if universe.github(|github, _| github.job(job).is_some_and(|job| !job.history.started.is_empty())) {
            return minute;
        }
    }
    panic!("job {job} is never found");
}

#[test]
fn a_job_without_a_webhook_is_found_in_every_repository_within_the_documented_time() {
    for (repositories, documented) in [(100, 12), (1000, 120)] {
        assert_eq!(round_minutes(repositories), documented);
        let minutes = minutes_until_found(repositories);
        // A round, the sweep that it ends in, and the start of the machine.
        assert!(minutes <= documented + 4, "{repositories} repositories: {minutes} minutes");
    }
}

#[test]
fn the_first_limited_answer_ends_an_accounts_calls_in_the_invocation_and_is_stored_for_others() {
    let universe = Universe::new(306, vec![pool("linux", 50)]);
    universe.github(|github, now| github.faults.limited_until = Some(now + MINUTE * 3));
    for _ in 0..30 {
        universe.queue_job(&["linux"], MINUTE);
    }
    let limited = |universe: &Universe| universe.github(|github, _| github.struck().limited);
    for _ in 0..60 {
        let before = limited(&universe);
        universe.tick();
        universe.scale();
        // Calls that were under way at the time may be refused, too.
        assert!(limited(&universe) - before <= 24, "{} calls in one invocation", limited(&universe) - before);
    }
    assert!(limited(&universe) <= 25, "{} calls against one limit", limited(&universe));
    universe.run(MINUTE * 6);
    story::everything_is_over(&universe);
}

#[test]
fn a_search_of_a_thousand_runs_leaves_what_registrations_need() {
    let limits = Limits { requests_per_hour: 1000, ..Limits::default() };
    let github = github::Config { limits, ..github::Config::default() };
    let universe = Universe::with_github(309, vec![of_repository("widgets")], github);
    for _ in 0..1000 {
        universe.queue(&["nobody"], |job| QueueJob { webhooks: Webhooks::NeverAttempted, ..job });
    }
    for _ in 0..10 {
        quiet_minute(&universe);
        assert_eq!(universe.github(|github, _| github.struck().limited), 0);
    }
    // Registrations keep a fifth, and four calls may have been under way.
    assert!(counted(&universe) <= 800 + 4, "{} of 1,000", counted(&universe));
}

/// All of them wait for a pool that is full, so that each is read once per search and recorded already.
#[test]
fn a_flood_of_known_jobs_does_not_keep_another_repository_from_its_search() {
    let universe = Universe::new(310, vec![pool("linux", 1)]);
    let other = universe.github(|github, now| {
        let owner = github.find_owner("octo-org").expect("an account").id;
        github.add_repository(owner, "zebra", Visibility::Private, now)
    });
    for _ in 0..1200 {
        universe.queue_job(&["linux"], MINUTE * 600);
    }
    (0..2).for_each(|_| drop(quiet_minute(&universe)));
    let unsent = QueueJob { webhooks: Webhooks::NeverAttempted, ..QueueJob::new(other, &["linux"]) };
    let job = JobId(universe.github(|github, now| github.queue_job(unsent, now)).0);
    let found_after = (1..=30).find(|_| {
        assert_eq!(quiet_minute(&universe).failures, [] as [&str; 0]);
        universe.item(&Key::Job(job)).is_some()
    });
    assert!(found_after.is_some(), "the job is never found");
}

#[test]
fn the_jobs_of_a_run_are_read_with_one_call_as_long_as_they_fit_one_page() {
    let universe = Universe::new(308, vec![pool("linux", 10)]);
    let job = universe.queue_job(&["linux"], MINUTE);
    let run = universe.github(|github, _| github.job(github::JobId(job.0)).expect("queued").run);
    let before = counted(&universe);
    let repository: Repository = "octo-org/widgets".parse().expect("a repository");
    let read = universe.invoke(async |context| context.ports.github.run_jobs(&repository, RunId(run.0)).await);
    assert_eq!((read.expect("an answer").jobs.len(), counted(&universe) - before), (1, 1));
}
