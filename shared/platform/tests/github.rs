//! The client of GitHub held against the model, which is held against GitHub's own description elsewhere.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use domain::ids::{JobId, RunnerName, Scope, SlotId};
use engine::ports::{Clock, Deregistered, GitHub, GitHubError, Registration};
use platform::clock::SystemClock;
use platform::github::GitHubApp;
use platform::secrets::Secret;
use sandbox::aws::access_key;
use sandbox::sandbox::{Driven, Options, Sandbox};
use world::LostReply;
use world::github::Endpoint;

struct World {
    sandbox: Sandbox,
    github: GitHubApp,
    scope: Scope,
}

async fn world() -> World {
    let mut options = Options { driven: Driven::ByHand, ..Options::default() };
    // One JIT config costs 5 of these points.
    options.github.limits.points_per_minute = 2000;
    let sandbox = Sandbox::start(options).await.unwrap();
    let aws = platform::aws::emulator(&sandbox.aws_url, access_key("scaler").unwrap()).await;
    let github = GitHubApp::new(Secret::new(&aws, "drover/app".to_owned()), Some(format!("{}/", sandbox.github_url)));
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
    fn calls(&self, endpoint: Endpoint) -> u64 {
        self.sandbox.world.look(|state| state.github.calls().get(&endpoint).copied().unwrap_or_default())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_are_made_listed_page_by_page_and_removed() {
    let world = world().await;
    for scope in ["octo-org", "octo-org/widgets"] {
        let scope: Scope = scope.parse().unwrap();
        // Those of a stack whose name begins like ours are not ours.
        world.github.register(&registration(&scope, "ci-2", 0)).await.unwrap();
        let made = futures::future::join_all((0..120).map(|index| {
            let (github, scope) = (&world.github, scope.clone());
            async move { github.register(&registration(&scope, "ci", index)).await }
        }))
        .await;
        let made: Vec<_> = made.into_iter().map(|made| made.unwrap()).collect();
        let listed = world.github.runners(&scope, &"ci".parse().unwrap()).await.unwrap();
        assert_eq!(listed.len(), 120, "more than a page");
        assert!(listed.iter().all(|runner| !runner.online && !runner.busy));
        let again = world.github.register(&registration(&scope, "ci", 0)).await;
        assert_eq!(again.unwrap_err(), GitHubError::NameTaken);
        assert_eq!(world.github.deregister(&scope, made[0].runner_id).await.unwrap(), Deregistered::Removed);
        assert_eq!(world.github.deregister(&scope, made[0].runner_id).await.unwrap(), Deregistered::AlreadyGone);
    }
    assert_eq!(world.calls(Endpoint::CreateToken), 1, "one token serves all of an account");
    assert_eq!(world.calls(Endpoint::FindInstallation), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_runner_is_said_to_be_busy() {
    let world = world().await;
    let job = world.sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(60));
    let made = world.github.register(&registration(&world.scope, "ci", 1)).await.unwrap();
    use base64::Engine;
    let config = base64::engine::general_purpose::STANDARD.decode(&made.jit_config).unwrap();
    let secret = serde_json::from_slice::<serde_json::Value>(&config).unwrap()["secret"].as_str().unwrap().to_owned();
    world.sandbox.world.act(|state, now| state.github.connect(&secret, now)).unwrap();
    assert_eq!(world.github.deregister(&world.scope, made.runner_id).await.unwrap(), Deregistered::Busy);
    let listed = world.github.runners(&world.scope, &"ci".parse().unwrap()).await.unwrap();
    assert!(listed[0].online && listed[0].busy);

    let repository = "octo-org/widgets".parse().unwrap();
    let said = world.github.job(&repository, JobId(job.0)).await.unwrap().unwrap();
    assert_eq!((said.id, said.status.as_str()), (JobId(job.0), "queued"));
    assert_eq!(world.github.job(&repository, JobId(7)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_told_with_its_end_and_never_waited_for() {
    let mut world = world().await;
    let mut options = Options { driven: Driven::ByHand, ..Options::default() };
    options.github.limits.points_per_minute = 10;
    world.sandbox = Sandbox::start(options).await.unwrap();
    let aws = platform::aws::emulator(&world.sandbox.aws_url, access_key("scaler").unwrap()).await;
    let secret = Secret::new(&aws, "drover/app".to_owned());
    let github = GitHubApp::new(secret, Some(world.sandbox.github_url.clone()));
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
async fn what_github_answers_is_told_apart() {
    let world = world().await;
    let (github, state) = (&world.github, &world.sandbox.world);
    github.register(&registration(&world.scope, "ci", 0)).await.unwrap();

    let group = Registration { group: 77, ..registration(&world.scope, "ci", 1) };
    assert!(matches!(github.register(&group).await, Err(GitHubError::Refused(_))), "a group that is gone");
    for status in [500, 502, 503] {
        state.act(|state, _| state.github.faults.broken.push_back((Endpoint::GenerateJit, status)));
        let broken = github.register(&registration(&world.scope, "ci", 2)).await;
        assert!(matches!(broken, Err(GitHubError::Unavailable(_))), "{broken:?}");
    }
    state.act(|state, _| state.github.faults.lost_replies.push_back((Endpoint::GenerateJit, LostReply::Applied)));
    let lost = github.register(&registration(&world.scope, "ci", 2)).await;
    assert!(matches!(lost, Err(GitHubError::Unavailable(_))), "{lost:?}");
    let again = github.register(&registration(&world.scope, "ci", 2)).await;
    assert_eq!(again.unwrap_err(), GitHubError::NameTaken, "it had been made");

    // Installed anew: the old token is worth nothing, and is replaced within the call.
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
    assert!(matches!(&denied, Err(GitHubError::Denied(why)) if why.contains("not installed")), "{denied:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_secret_that_is_wrong_says_what_it_must_be_and_not_what_it_is() {
    let world = world().await;
    let aws = platform::aws::emulator(&world.sandbox.aws_url, access_key("scaler").unwrap()).await;
    for (secret, expected) in [
        ("-----BEGIN RSA PRIVATE KEY-----", "must be JSON"),
        (r#"{"app_id": 1, "private_key": "sesame"}"#, "no RSA key"),
        (r#"{"app_id": 1}"#, "must be JSON"),
    ] {
        world.sandbox.world.act(|state, _| {
            state.secrets.get_mut("drover/app").unwrap().current = secret.to_owned();
        });
        let github = GitHubApp::new(Secret::new(&aws, "drover/app".to_owned()), None);
        let error = github.job(&"acme/app".parse().unwrap(), JobId(1)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("sesame") && !error.contains("BEGIN"), "{error}");
    }
}
