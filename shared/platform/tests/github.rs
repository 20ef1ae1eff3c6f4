//! The GitHub client against the model of GitHub. Another test checks the model against GitHub's own description.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeSet;
use std::time::Duration;

use domain::ids::{JobId, Owner, Repository, RunId, RunnerName, Scope, SlotId};
use domain::policy::budget::{Optional, is_scarce};
use domain::policy::notify::Conclusion;
use domain::wire::JobNotice;
use engine::ports::{CheckRunUpdate, Clock, Deregistered, GitHub, GitHubError, ObservedRunner, Registration, Rerun};
use jiff::{SignedDuration, Timestamp};
use platform::clock::SystemClock;
use platform::github::{GitHubApp, PublicRoots};
use platform::secrets::Secret;
use sandbox::aws::access_key;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{APP_SECRET, Driven, Options, Sandbox};
use world::LostReply;
use world::github::{Answer, DEFAULT_GROUP, Delivery, Endpoint, Group, GroupId, Limits, OwnerId, QueueJob};

struct World {
    sandbox: Sandbox,
    github: GitHubApp,
    scope: Scope,
}

async fn world() -> World {
    // One JIT config costs 5 of these points.
    world_with(|limits| limits.points_per_minute = 2000).await
}

async fn world_with(limit: impl FnOnce(&mut Limits)) -> World {
    let mut options = Options { driven: Driven::ByHand, ..Options::default() };
    limit(&mut options.github.limits);
    let sandbox = Sandbox::start(options).await.unwrap();
    let aws = platform::aws::emulator(&sandbox.aws_url, access_key("scaler").unwrap()).await;
    let github = GitHubApp::new(
        Secret::new(&aws, APP_SECRET.to_owned()),
        Some(format!("{}/", sandbox.github_url).parse().unwrap()),
        PublicRoots::BuiltIn,
    );
    World { sandbox, github, scope: "octo-org".parse().unwrap() }
}

fn registration(scope: &Scope, stack: &str, index: u8) -> Registration {
    let name = RunnerName {
        stack: stack.parse().unwrap(),
        pool: "linux".parse().unwrap(),
        epoch: "e1".parse().unwrap(),
        slot: SlotId { version: 1, index },
        registration: 1,
    };
    Registration { scope: scope.clone(), name, labels: vec!["drover".parse().unwrap()], group: 1 }
}

impl World {
    fn owner(&self) -> OwnerId {
        self.sandbox.world.look(|state| state.github.find_owner("octo-org").unwrap().id)
    }

    /// What is used of the installation's hour.
    fn used(&self) -> u64 {
        self.sandbox.world.act(|state, now| {
            let installation = state.github.find_owner("octo-org").unwrap().installation.unwrap();
            state.github.rate(world::github::Caller::Installation(installation), now).used
        })
    }

    /// The runners of the stack `ci`.
    async fn listed_runners(&self) -> Result<Vec<ObservedRunner>, GitHubError> {
        self.listed_in(&self.scope).await
    }

    async fn listed_in(&self, scope: &Scope) -> Result<Vec<ObservedRunner>, GitHubError> {
        let mut runners = Vec::new();
        for page in 1.. {
            let listed = self.github.runners(scope, &"ci".parse().unwrap(), page).await?;
            assert_eq!(listed.unreadable, []);
            runners.extend(listed.runners);
            if page * 100 >= listed.total {
                break;
            }
        }
        Ok(runners)
    }

    async fn jobs_under_way(&self, repository: &Repository) -> Result<Vec<(JobNotice, bool)>, GitHubError> {
        let mut jobs = Vec::new();
        for (run, public) in self.github.runs_under_way(repository).await?.runs {
            let listed = self.github.run_jobs(repository, run).await?.jobs;
            jobs.extend(listed.into_iter().filter(|job| job.status != "completed").map(|job| (job, public)));
        }
        Ok(jobs)
    }

    fn calls(&self, endpoint: Endpoint) -> u64 {
        self.sandbox.world.look(|state| state.github.calls().get(&endpoint).copied().unwrap_or_default())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_are_made_listed_page_by_page_and_removed() {
    let world = world().await;
    for scope in ["octo-org", "octo-org/widgets"] {
        let scope: Scope = scope.parse().unwrap();
        // Runners of a stack whose name has the same beginning are left out.
        world.github.register(&registration(&scope, "ci-2", 0)).await.unwrap();
        let made = futures::future::join_all((0..120).map(|index| {
            let (github, scope) = (&world.github, scope.clone());
            async move { github.register(&registration(&scope, "ci", index)).await }
        }))
        .await;
        let made: Vec<_> = made.into_iter().map(|made| made.unwrap()).collect();
        let listed = world.listed_in(&scope).await.unwrap();
        assert_eq!(listed.len(), 120, "more than a page");
        assert!(listed.iter().all(|runner| !runner.online && !runner.busy));
        let again = world.github.register(&registration(&scope, "ci", 0)).await;
        assert!(matches!(again, Err(GitHubError::NameTaken)), "{again:?}");
        assert_eq!(world.github.deregister(&scope, made[0].runner_id).await.unwrap(), Deregistered::Removed);
        let again = world.github.deregister(&scope, made[0].runner_id).await.unwrap();
        let Deregistered::NotFound(token) = again else { panic!("it is not registered any more: {again:?}") };
        let name = |index| registration(&scope, "ci", index).name.to_string();
        let gone = world.github.runners_named(&scope, &name(0)).await.unwrap();
        assert_eq!((gone.token, gone.ids), (token, Vec::new()), "the same token proves that it is gone");
        let there = world.github.runners_named(&scope, &name(1)).await.unwrap();
        assert_eq!(there.ids, [made[1].runner_id], "of 119 runners, one has the name");
    }
    assert_eq!(world.calls(Endpoint::CreateToken), 1, "one token serves all of an account");
    assert_eq!(world.calls(Endpoint::FindInstallation), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_runner_is_reported_as_busy() {
    let world = world().await;
    let job = world.sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(60));
    let made = world.github.register(&registration(&world.scope, "ci", 1)).await.unwrap();
    use base64::Engine;
    let config = base64::engine::general_purpose::STANDARD.decode(&made.jit_config).unwrap();
    let secret = serde_json::from_slice::<serde_json::Value>(&config).unwrap()["secret"].as_str().unwrap().to_owned();
    world.sandbox.world.act(|state, now| state.github.connect(&secret, now)).unwrap();
    assert_eq!(world.github.deregister(&world.scope, made.runner_id).await.unwrap(), Deregistered::Busy);
    let listed = world.listed_runners().await.unwrap();
    assert!(listed[0].online && listed[0].busy);

    let repository = "octo-org/widgets".parse().unwrap();
    let said = world.github.job(&repository, JobId(job.0)).await.unwrap().unwrap();
    assert_eq!((said.id, said.status.as_str()), (JobId(job.0), "queued"));
    assert_eq!(world.github.job(&repository, JobId(7)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_is_returned_with_its_end_and_not_waited_for() {
    let world = world_with(|limits| limits.points_per_minute = 10).await;
    let github = &world.github;
    for index in 0..2 {
        github.register(&registration(&world.scope, "ci", index)).await.unwrap();
    }
    let now = SystemClock.now();
    let Err(GitHubError::Limited { until, .. }) = github.register(&registration(&world.scope, "ci", 2)).await else {
        panic!("15 points of 10");
    };
    let seconds = until.duration_since(now).as_secs();
    assert!((30..=62).contains(&seconds), "{seconds} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_githubs_answers_has_its_own_error() {
    let world = world().await;
    let (github, state) = (&world.github, &world.sandbox.world);
    github.register(&registration(&world.scope, "ci", 0)).await.unwrap();

    let group = Registration { group: 77, ..registration(&world.scope, "ci", 1) };
    assert!(matches!(github.register(&group).await, Err(GitHubError::Refused(_))), "a group that is gone");
    for status in [500, 502, 503] {
        state.act(|state, _| state.github.faults.broken.push_back((Endpoint::GenerateJit, status)));
        let broken = github.register(&registration(&world.scope, "ci", 2)).await;
        assert!(matches!(broken, Err(GitHubError::Unavailable { .. })), "{broken:?}");
    }
    state.act(|state, _| state.github.faults.lost_replies.push_back((Endpoint::GenerateJit, LostReply::Applied)));
    let lost = github.register(&registration(&world.scope, "ci", 2)).await;
    assert!(matches!(lost, Err(GitHubError::Unavailable { .. })), "{lost:?}");
    let again = github.register(&registration(&world.scope, "ci", 2)).await;
    assert!(matches!(again, Err(GitHubError::NameTaken)), "it had been made: {again:?}");

    // The app was installed again: the old token is invalid and is replaced within the call.
    state.act(|state, now| {
        let owner = state.github.find_owner("octo-org").unwrap().id;
        state.github.uninstall(owner);
        state.github.install(owner, now);
    });
    github.register(&registration(&world.scope, "ci", 3)).await.unwrap();
    state.act(|state, _| {
        let owner = state.github.find_owner("octo-org").unwrap().id;
        state.github.uninstall(owner);
    });
    let denied = github.register(&registration(&world.scope, "ci", 4)).await;
    assert!(matches!(&denied, Err(GitHubError::Denied(why)) if why.message.contains("not installed")), "{denied:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unusable_app_secret_is_explained_and_not_quoted() {
    let world = world().await;
    let aws = platform::aws::emulator(&world.sandbox.aws_url, access_key("scaler").unwrap()).await;
    for (secret, expected) in [
        ("-----BEGIN RSA PRIVATE KEY-----", "must be JSON"),
        (r#"{"app_id": 1, "private_key": "sesame"}"#, "not an RSA private key"),
        (r#"{"app_id": 1}"#, "must be JSON"),
    ] {
        world.sandbox.world.act(|state, _| {
            state.secrets.get_mut(APP_SECRET).unwrap().current = secret.to_owned();
        });
        let github = GitHubApp::new(Secret::new(&aws, APP_SECRET.to_owned()), None, PublicRoots::BuiltIn);
        let error = github.job(&"acme/app".parse().unwrap(), JobId(1)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("sesame") && !error.contains("BEGIN"), "{error}");
    }
}

fn widgets() -> Repository {
    "octo-org/widgets".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivery_attempts_are_listed_since_a_time_and_repeated() {
    let world = world().await;
    let state = &world.sandbox.world;
    for number in 0..130 {
        if number == 3 {
            // From here on ingest is not there.
            state.act(|state, _| {
                let nowhere = "http://127.0.0.1:1/".to_owned();
                state.github.set_hook(world::github::HookConfig { url: nowhere, ..state.github.hook().clone() });
            });
        }
        world.sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1));
        let attempted = |state: &sandbox::state::State| {
            let done = state.github.deliveries().filter(|it| it.attempted.is_some()).count();
            (done == number + 1).then_some(())
        };
        state.until("the attempt", PATIENCE, attempted).await.unwrap();
    }
    let first = world.github.deliveries(None).await.unwrap();
    assert_eq!((first.attempts.len(), first.unreadable), (100, 0));
    let second = world.github.deliveries(first.next.as_deref()).await.unwrap();
    assert_eq!((second.attempts.len(), second.next), (30, None), "more than a page");
    let all = [first.attempts, second.attempts].concat();
    assert!(all.iter().all(|attempt| attempt.about_a_job));
    assert!(all.is_sorted_by_key(|attempt| std::cmp::Reverse(attempt.id)), "newest first");
    assert_eq!(all.iter().filter(|attempt| attempt.succeeded).count(), 3);
    state.act(|state, _| {
        let newest = state.github.deliveries().last().unwrap().id;
        state.github.faults.malformed_deliveries.insert(newest);
    });
    let page = world.github.deliveries(None).await.unwrap();
    assert_eq!((page.attempts.len(), page.unreadable), (99, 1), "one of an unknown form does not hide the others");
    state.act(|state, _| state.github.faults.malformed_deliveries.clear());

    let lost = &all[0];
    world.github.redeliver(lost.id).await.unwrap();
    let again = |state: &sandbox::state::State| {
        let same = |it: &&Delivery| it.guid == lost.guid.as_str() && it.redelivery;
        state.github.deliveries().find(same).and_then(|it| it.attempted.clone())
    };
    let again = state.until("the redelivery", PATIENCE, again).await.unwrap();
    assert_eq!(again.answer, Answer::Unreachable);
    assert!(matches!(world.github.redeliver(7).await, Err(GitHubError::Refused(_))), "kept for three days");
    state.act(|state, _| state.github.faults.lost_replies.push_back((Endpoint::Redeliver, LostReply::Applied)));
    assert!(matches!(world.github.redeliver(lost.id).await, Err(GitHubError::Unavailable { .. })));
    state.act(|state, _| state.github.faults.broken.push_back((Endpoint::ListDeliveries, 502)));
    assert!(matches!(world.github.deliveries(None).await, Err(GitHubError::Unavailable { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_under_way_are_found_behind_every_page_and_in_runs_that_hide_them() {
    let world = world().await;
    let push = || world.sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(60));
    assert!(world.jobs_under_way(&widgets()).await.unwrap().is_empty());
    let first = push();
    let queued: Vec<_> = (0..110).map(|_| push()).collect();
    let run = world.sandbox.world.look(|state| state.github.job(first).unwrap().run);
    // One job of the run has a runner, so the run counts as running, and the other is in no list of queued runs.
    let hidden = world.sandbox.queue("octo-org/widgets", &["gpu"], |job| QueueJob { run: Some(run), ..job });
    world.sandbox.world.act(|state, now| {
        let scope = world::github::Scope::organization("octo-org");
        state.github.add_foreign_runner(scope, "foreign", &["drover"], now);
        state.github.cancel(queued[0], now);
    });
    let found = world.jobs_under_way(&widgets()).await.unwrap();
    let mut ids: Vec<u64> = found.iter().map(|(job, _)| job.id.0).collect();
    ids.sort_unstable();
    let mut expected: Vec<u64> = queued[1..].iter().chain([&first, &hidden]).map(|job| job.0).collect();
    expected.sort_unstable();
    assert_eq!(ids, expected, "not the one that is over");
    assert!(found.iter().all(|(job, public)| !public && job.head_sha.len() == 40));
    let statuses = |id: u64| found.iter().find(|(job, _)| job.id.0 == id).unwrap().0.status.clone();
    assert_eq!((statuses(first.0), statuses(hidden.0)), ("in_progress".to_owned(), "queued".to_owned()));

    // Nothing changed: GitHub says so, for free.
    let used = world.used();
    assert_eq!(world.jobs_under_way(&widgets()).await.unwrap().len(), found.len());
    assert_eq!(world.used(), used);

    let of_run = world.github.run_jobs(&widgets(), RunId(run.0)).await.unwrap().jobs;
    assert_eq!(of_run.iter().map(|job| job.id.0).collect::<Vec<_>>(), [first.0, hidden.0]);
    assert!(matches!(world.github.run_jobs(&widgets(), RunId(7)).await, Err(GitHubError::Refused(_))));
    let nowhere: Repository = "octo-org/nowhere".parse().unwrap();
    assert!(matches!(world.jobs_under_way(&nowhere).await, Err(GitHubError::Refused(_) | GitHubError::Denied(_))));
    world.sandbox.world.act(|state, _| state.github.faults.broken.push_back((Endpoint::ListRunJobs, 500)));
    let half = world.jobs_under_way(&widgets()).await;
    assert!(matches!(half, Err(GitHubError::Unavailable { .. })), "half an answer is none: {half:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_list_costs_nothing_until_the_token_is_renewed() {
    let world = world().await;
    world.github.register(&registration(&world.scope, "ci", 1)).await.unwrap();
    let stack = "ci".parse().unwrap();
    let owner = world.scope.owner();
    let read = async || {
        let runners = world.github.runners(&world.scope, &stack, 1).await.unwrap();
        let repositories = world.github.repositories(owner, 1).await.unwrap();
        assert_eq!(runners.runners.len(), 1);
        assert!(
            repositories.repositories.contains(&widgets()) && repositories.total == repositories.repositories.len()
        );
        (runners.counted, repositories.counted)
    };
    assert_eq!(read().await, (1, 1));
    let used = world.used();
    assert_eq!((read().await, world.used()), ((0, 0), used));
    // A refused token is replaced, and GitHub's tags of the old one are worth nothing.
    world.sandbox.world.act(|state, _| state.github.faults.broken.push_back((Endpoint::ListRunners, 401)));
    assert_eq!(read().await, (1, 1));
    assert_eq!(read().await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_of_an_unknown_form_does_not_hide_the_others_of_its_list() {
    let world = world().await;
    let first = world.github.register(&registration(&world.scope, "ci", 1)).await.unwrap().runner_id;
    let other = world.github.register(&registration(&world.scope, "ci", 2)).await.unwrap().runner_id;
    let foreign = world.github.register(&registration(&world.scope, "other", 1)).await.unwrap().runner_id;
    let malform = |runner: domain::ids::RunnerId, form| {
        world.sandbox.world.act(|state, _| {
            state.github.faults.malformed_runners.insert(world::github::RunnerId(runner.0), form);
        });
    };
    let stack = "ci".parse().unwrap();
    malform(first, world::github::Malformed::State);
    malform(foreign, world::github::Malformed::All);
    let page = world.github.runners(&world.scope, &stack, 1).await.unwrap();
    assert_eq!(page.runners.iter().map(|runner| runner.id).collect::<Vec<_>>(), [other]);
    assert_eq!(page.unreadable, [Some(first), None]);

    let queued = |label: &str| world.sandbox.queue_job("octo-org/widgets", &[label], Duration::from_secs(60));
    let (malformed, readable) = (queued("gpu"), queued("drover"));
    world.sandbox.world.act(|state, _| state.github.faults.malformed_jobs.insert(malformed));
    let runs = world.github.runs_under_way(&widgets()).await.unwrap().runs;
    let (mut jobs, mut unreadable) = (Vec::new(), 0);
    for run in runs.into_keys() {
        let listed = world.github.run_jobs(&widgets(), run).await.unwrap();
        jobs.extend(listed.jobs.iter().map(|job| job.id.0));
        unreadable += listed.unreadable;
    }
    assert_eq!((jobs, unreadable), (vec![readable.0], 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_of_the_runs_under_way_is_read() {
    let world = world().await;
    let queued: BTreeSet<RunId> = (0..250)
        .map(|_| {
            let job = world.sandbox.queue_job("octo-org/widgets", &["gpu"], Duration::from_secs(60));
            RunId(world.sandbox.world.look(|state| state.github.job(job).unwrap().run.0))
        })
        .collect();
    let found = world.github.runs_under_way(&widgets()).await.unwrap();
    assert_eq!(found.runs.into_keys().collect::<BTreeSet<_>>(), queued);
    assert_eq!(world.calls(Endpoint::ListRuns), 3 + 1, "three pages of queued runs, and an empty one of running ones");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_job_costs_nothing_and_a_changed_one_is_read_again() {
    let world = world().await;
    let job = world.sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(60));
    let read = || async { world.github.job(&widgets(), JobId(job.0)).await.unwrap().unwrap() };
    assert_eq!(read().await.status, "queued");
    let used = world.used();
    assert_eq!((read().await.status.as_str(), world.used()), ("queued", used));
    world.sandbox.world.act(|state, now| state.github.cancel(job, now));
    assert_eq!((read().await.status.as_str(), world.used()), ("completed", used + 1));
    assert_eq!(world.calls(Endpoint::GetJob), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_run_is_created_once_and_then_updated() {
    let world = world().await;
    let job = world.sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(60));
    let said = world.github.job(&widgets(), JobId(job.0)).await.unwrap().unwrap();
    let waits = CheckRunUpdate {
        repository: widgets(),
        head_sha: said.head_sha.clone(),
        external_id: job.to_string(),
        check_run: None,
        conclusion: Conclusion::Neutral,
        title: "waiting for capacity".to_owned(),
        summary: "no zone has a machine".to_owned(),
        details_url: String::new(),
    };
    let id = world.github.write_check_run(&waits).await.unwrap();
    let starts = CheckRunUpdate {
        check_run: Some(id),
        conclusion: Conclusion::Success,
        title: "started".to_owned(),
        details_url: "https://example.com/".to_owned(),
        ..waits.clone()
    };
    assert_eq!(world.github.write_check_run(&starts).await.unwrap(), id);
    world.sandbox.world.look(|state| {
        let [run] = &state.github.check_runs().collect::<Vec<_>>()[..] else { panic!("one check run") };
        assert_eq!((&run.head_sha, run.now.external_id.as_ref()), (&said.head_sha, Some(&job.to_string())));
        assert_eq!((run.now.name.as_deref(), run.now.conclusion.as_deref()), (Some("Drover"), Some("success")));
        assert_eq!(run.now.output.as_ref().unwrap().title, "started");
        assert_eq!(run.now.details_url.as_deref(), Some("https://example.com/"));
    });
    let gone = world.github.write_check_run(&CheckRunUpdate { check_run: Some(7), ..waits.clone() }).await;
    assert!(matches!(gone, Err(GitHubError::Refused(_))), "{gone:?}");
    let no_commit = world.github.write_check_run(&CheckRunUpdate { head_sha: String::new(), ..waits.clone() }).await;
    assert!(matches!(no_commit, Err(GitHubError::Refused(_))), "{no_commit:?}");
    let lose = |how| {
        world.sandbox.world.act(|state, _| state.github.faults.lost_replies.push_back((Endpoint::CreateCheckRun, how)))
    };
    lose(LostReply::NotApplied);
    assert!(matches!(world.github.write_check_run(&waits).await, Err(GitHubError::Unavailable { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_re_run_after_its_run_has_ended() {
    let world = world().await;
    let job = world.sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(60));
    let again = async || world.github.rerun(&widgets(), JobId(job.0)).await;
    assert_eq!(again().await.unwrap(), Rerun::RunUnderWay);
    world.sandbox.world.act(|state, now| state.github.cancel(job, now));
    assert_eq!(again().await.unwrap(), Rerun::Begun);
    let run = world.sandbox.world.look(|state| state.github.job(job).unwrap().run);
    let latest = world.github.run_jobs(&widgets(), RunId(run.0)).await.unwrap().jobs;
    assert_eq!((latest.len(), latest[0].run_attempt, latest[0].status.as_str()), (1, 2, "queued"));
    assert_ne!(latest[0].id, JobId(job.0), "a re-run makes a new job");
    assert_eq!(again().await.unwrap(), Rerun::RunUnderWay, "of the job before it");
    assert!(matches!(world.github.rerun(&widgets(), JobId(7)).await, Err(GitHubError::Refused(_))));
    world.sandbox.world.act(|state, now| {
        let owner = state.github.find_owner("octo-org").unwrap().id;
        state.github.suspend(owner, Some(now));
    });
    assert!(matches!(again().await, Err(GitHubError::Denied(_))), "no permission is not a run under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_fifth_of_an_hours_budget_is_scarce_for_that_account_alone() {
    let world = world_with(|limits| limits.requests_per_hour = 10).await;
    let (owner, other): (Owner, Owner) = ("Octo-Org".parse().unwrap(), "umbrella".parse().unwrap());
    let scarce = |owner| is_scarce(world.github.budget(owner), Optional::Notice, SystemClock.now());
    assert!(!scarce(&owner), "GitHub has not answered yet");
    // A list would not count: it does not change.
    let ask = || world.github.deregister(&world.scope, domain::ids::RunnerId(7));
    for left in (0..10).rev() {
        assert!(matches!(ask().await.unwrap(), Deregistered::NotFound(_)));
        assert_eq!(scarce(&owner), left < 2, "{left} of 10 left");
    }
    assert!(!scarce(&other));
    let now = SystemClock.now();
    let Err(GitHubError::Limited { until, .. }) = ask().await else { panic!("the eleventh of ten") };
    let minutes = until.duration_since(now).as_mins();
    assert!((55..=60).contains(&minutes), "until the hour is over: {minutes} min");
    assert!(scarce(&owner));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_installation_is_denied_until_it_is_resumed() {
    let world = world().await;
    let owner = world.owner();
    let ask = || world.listed_runners();
    let suspend = |since: Option<Timestamp>| world.sandbox.world.act(|state, _| state.github.suspend(owner, since));
    suspend(Some(SystemClock.now()));
    let runners = world.listed_runners().await;
    assert!(matches!(&runners, Err(GitHubError::Denied(why)) if why.message.contains("suspended")), "{runners:?}");
    suspend(None);
    assert!(ask().await.unwrap().is_empty());
    // And with a token in hand.
    suspend(Some(SystemClock.now()));
    let runners = ask().await;
    assert!(matches!(&runners, Err(GitHubError::Denied(why)) if why.message.contains("suspended")), "{runners:?}");
    let job = world.github.job(&widgets(), JobId(1)).await;
    assert!(matches!(job, Err(GitHubError::Denied(_))), "what it may not see is not what is not there: {job:?}");
    suspend(None);
    assert!(ask().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_left_the_installation_proves_nothing_about_its_runners() {
    let world = world().await;
    let scope: Scope = "octo-org/widgets".parse().unwrap();
    let made = world.github.register(&registration(&scope, "ci", 1)).await.unwrap();
    let widgets = world.sandbox.world.look(|state| state.github.find_repository("octo-org", "widgets").unwrap().id);
    world.sandbox.world.act(|state, _| state.github.exclude_repository(widgets));
    let answer = world.github.deregister(&scope, made.runner_id).await.unwrap();
    assert!(matches!(answer, Deregistered::NotFound(_)), "{answer:?}");
    let name = registration(&scope, "ci", 1).name.to_string();
    let listed = world.github.runners_named(&scope, &name).await;
    assert!(matches!(listed, Err(GitHubError::Refused(_))), "{listed:?}");
    world.sandbox.world.act(|state, _| state.github.include_repository(widgets));
    assert_eq!(world.github.deregister(&scope, made.runner_id).await.unwrap(), Deregistered::Removed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renamed_repository_is_found_under_its_old_name_by_every_call() {
    let world = world().await;
    let scope: Scope = "octo-org/widgets".parse().unwrap();
    let job = world.sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(60));
    world.sandbox.world.act(|state, _| {
        let widgets = state.github.find_repository("octo-org", "widgets").unwrap().id;
        state.github.rename_repository(widgets, "gadgets");
    });
    let said = world.github.job(&widgets(), JobId(job.0)).await.unwrap().unwrap();
    assert_eq!(said.id, JobId(job.0));
    let made = world.github.register(&registration(&scope, "ci", 1)).await.unwrap();
    assert_eq!(world.listed_in(&scope).await.unwrap().len(), 1);
    assert_eq!(world.github.deregister(&scope, made.runner_id).await.unwrap(), Deregistered::Removed);
    assert_eq!(world.jobs_under_way(&widgets()).await.unwrap().len(), 1);
    let update = CheckRunUpdate {
        repository: widgets(),
        head_sha: said.head_sha,
        external_id: job.to_string(),
        check_run: None,
        conclusion: Conclusion::Neutral,
        title: "waiting".to_owned(),
        summary: String::new(),
        details_url: String::new(),
    };
    world.github.write_check_run(&update).await.unwrap();
    world.sandbox.world.act(|state, now| state.github.cancel(job, now));
    assert_eq!(world.github.rerun(&widgets(), JobId(job.0)).await.unwrap(), Rerun::Begun);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_two_minutes_off_in_either_direction_does_no_harm() {
    for minutes in [-2, 2] {
        let world = world().await;
        world.sandbox.world.act(|state, _| state.github_ahead = SignedDuration::from_mins(minutes));
        world.github.register(&registration(&world.scope, "ci", 1)).await.unwrap();
        assert!(world.github.deliveries(None).await.unwrap().attempts.is_empty());
        world.sandbox.world.act(|state, _| state.github.faults.broken.push_back((Endpoint::ListRunners, 401)));
        assert_eq!(world.listed_runners().await.unwrap().len(), 1);
        // The model does check: five minutes are too many.
        world.sandbox.world.act(|state, _| state.github_ahead = SignedDuration::from_mins(minutes * 5));
        let denied = world.github.deliveries(None).await;
        assert!(matches!(denied, Err(GitHubError::Denied(_))), "{denied:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_runner_group_refuses_its_own_registrations_and_no_others() {
    let world = world().await;
    let (state, owner) = (&world.sandbox.world, world.owner());
    let organization: Owner = "octo-org".parse().unwrap();
    let restricted = state.act(|state, _| {
        let widgets = state.github.find_repository("octo-org", "widgets").unwrap().id;
        Group { id: GroupId(5), name: "restricted".into(), repositories: Some([widgets].into()), allows_public: false }
    });
    world.sandbox.open_groups();
    state.act(|state, _| state.github.set_group(owner, restricted));
    let groups = world.github.runner_groups(&organization, None).await.unwrap();
    let listed: Vec<_> = groups.iter().map(|it| (it.id, it.selected, it.allows_public)).collect();
    assert_eq!(listed, [(DEFAULT_GROUP.0, false, true), (5, true, false)]);
    let foreign: Repository = format!("octo-org/{}", sandbox::sandbox::FOREIGN_REPOSITORY).parse().unwrap();
    let seen = world.github.runner_groups(&organization, Some(&foreign)).await.unwrap();
    assert_eq!(seen.iter().map(|it| it.id).collect::<Vec<_>>(), [DEFAULT_GROUP.0]);

    let in_group = |index| Registration { group: 5, ..registration(&world.scope, "ci", index) };
    world.github.register(&in_group(1)).await.unwrap();
    state.act(|state, _| state.github.remove_group(owner, GroupId(5)));
    let refused = world.github.register(&in_group(2)).await;
    assert!(matches!(refused, Err(GitHubError::Refused(_))), "{refused:?}");
    world.github.register(&registration(&world.scope, "ci", 3)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_whose_token_is_refused_create_one_token() {
    let world = world().await;
    let (repository, job) =
        (widgets(), world.sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1)));
    assert!(world.github.job(&repository, JobId(job.0)).await.unwrap().is_some());
    let tokens = || {
        let counts = world.sandbox.calls.counts();
        counts.get(&("GitHub", "POST /app/installations/{id}/access_tokens".to_owned())).copied().unwrap_or_default()
    };
    let before = tokens();
    world.sandbox.world.act(|state, now| {
        let owner = state.github.find_owner("octo-org").unwrap().id;
        state.github.uninstall(owner);
        state.github.install(owner, now);
    });
    let calls = (0..20).map(|_| world.github.job(&repository, JobId(job.0)));
    for answer in futures::future::join_all(calls).await {
        assert!(answer.unwrap().is_some());
    }
    assert_eq!(tokens() - before, 1);
}

#[tokio::test]
async fn an_installation_that_a_webhook_named_is_looked_up_only_once_it_is_gone() {
    let world = world().await;
    let owner: Owner = "octo-org".parse().unwrap();
    let look_ups = || {
        let counts = world.sandbox.calls.counts();
        counts.get(&("GitHub", "GET /orgs/{org}/installation".to_owned())).copied().unwrap_or_default()
    };
    let before = look_ups();
    let id = world.sandbox.world.look(|state| state.github.find_owner("octo-org").unwrap().installation.unwrap());
    world.github.note_installation(&owner, id.0);
    world.listed_runners().await.unwrap();
    assert_eq!(look_ups(), before, "the webhook's installation exists");

    let other = platform::aws::emulator(&world.sandbox.aws_url, access_key("scaler").unwrap()).await;
    let api = Some(format!("{}/", world.sandbox.github_url).parse().unwrap());
    let github = GitHubApp::new(Secret::new(&other, APP_SECRET.to_owned()), api, PublicRoots::BuiltIn);
    github.note_installation(&owner, 1);
    github.runners(&world.scope, &"ci".parse().unwrap(), 1).await.unwrap();
    assert_eq!(look_ups(), before + 1, "the webhook's installation is gone");
}
