//! Facts about GitHub that Drover depends on.

use std::collections::BTreeSet;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

struct World {
    github: GitHub,
    acme: InstallationId,
    owner: OwnerId,
    repository: RepositoryId,
    scope: Scope,
}

/// An organisation with the app, and one private repository.
fn world(seed: u64) -> World {
    let app = App::new(1, "drover", "Drover", at(0));
    let mut github = GitHub::new(Config::default(), app, seed);
    let owner = github.add_owner("Acme", OwnerKind::Organization, at(0));
    let acme = github.install(owner, at(0));
    let repository = github.add_repository(owner, "Rocket", Visibility::Private, at(0));
    World { github, acme, owner, repository, scope: Scope::organization("acme") }
}

impl World {
    fn register(&mut self, name: &str, labels: &[&str]) -> Result<JitRegistration, Failure> {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.github.generate_jit(
            self.acme,
            &self.scope,
            JitRequest { name: name.into(), group: DEFAULT_GROUP, labels },
            at(0),
        )
    }

    fn connected(&mut self, name: &str, labels: &[&str], now: Timestamp) -> RunnerId {
        let secret = self.register(name, labels).unwrap().secret;
        self.github.connect(&secret, now).unwrap()
    }

    fn queue(&mut self, labels: &[&str], now: Timestamp) -> JobId {
        self.github.queue_job(QueueJob::new(self.repository, labels), now)
    }

    fn offers(&mut self, now: Timestamp) -> Vec<(RunnerId, JobId)> {
        let happenings = self.github.advance(now).into_iter();
        happenings
            .filter_map(|each| match each {
                Happening::Offered(offer) => Some((offer.runner, offer.job)),
                Happening::Deliver(_) | Happening::CancelWanted { .. } | Happening::RunnerRemoved { .. } => None,
            })
            .collect()
    }

    fn actions(&mut self, now: Timestamp) -> Vec<&'static str> {
        let happenings = self.github.advance(now).into_iter();
        happenings
            .filter_map(|each| match each {
                Happening::Deliver(delivery) => Some(delivery.event.action),
                Happening::Offered(_) | Happening::CancelWanted { .. } | Happening::RunnerRemoved { .. } => None,
            })
            .collect()
    }
}

#[test]
fn a_job_goes_to_any_idle_runner_with_a_superset_of_its_labels() {
    let mut chosen = BTreeSet::new();
    for seed in 0..20 {
        let mut world = world(seed);
        world.connected("small", &["linux"], at(1));
        world.connected("one", &["Linux", "x64"], at(1));
        world.connected("two", &["linux", "X64", "gpu"], at(1));
        world.queue(&["LINUX", "x64"], at(2));
        let offers = world.offers(at(2));
        assert_eq!(offers.len(), 1);
        chosen.insert(world.github.runner(offers[0].0).unwrap().name.clone());
    }
    assert_eq!(
        chosen,
        BTreeSet::from(["one".to_owned(), "two".to_owned()]),
        "either, by chance, and never the one that lacks a label"
    );
}

#[test]
fn a_runner_serves_only_what_its_scope_and_group_allow() {
    let mut world = world(1);
    let elsewhere = world.github.add_repository(world.owner, "other", Visibility::Private, at(0));
    let public = world.github.add_repository(world.owner, "open", Visibility::Public, at(0));
    let group = Group {
        id: GroupId(2),
        name: "fenced".into(),
        repositories: Some([world.repository, public].into()),
        allows_public: false,
    };
    world.github.set_group(world.owner, group);
    let request = JitRequest { name: "fenced".into(), group: GroupId(2), labels: vec!["linux".into()] };
    let secret = world.github.generate_jit(world.acme, &world.scope, request, at(0)).unwrap().secret;
    world.github.connect(&secret, at(1)).unwrap();
    for refused in [elsewhere, public] {
        world.github.queue_job(QueueJob::new(refused, &["linux"]), at(2));
    }
    assert!(world.offers(at(2)).is_empty());
    let job = world.queue(&["linux"], at(3));
    assert_eq!(world.offers(at(3))[0].1, job);
}

#[test]
fn an_ephemeral_runner_runs_one_job_and_is_gone() {
    let mut world = world(2);
    let runner = world.connected("one", &["linux"], at(1));
    let (first, second) = (world.queue(&["linux"], at(2)), world.queue(&["linux"], at(3)));
    assert_eq!(world.offers(at(3)), [(runner, first)]);
    world.github.acquire(runner, first, at(4)).unwrap();
    assert_eq!(world.github.delete_runner(world.acme, &world.scope, runner, at(5)).unwrap_err().status(), Some(422));
    world.github.complete(runner, first, Conclusion::Success, at(9)).unwrap();
    assert_eq!(world.github.delete_runner(world.acme, &world.scope, runner, at(10)), Err(Failure::NotFound));
    world.github.disconnect(runner, at(10));
    assert!(world.github.job(first).unwrap().served_once());
    assert_eq!(world.github.job(second).unwrap().state, JobState::Queued { assigned: None });
    assert_eq!(world.github.killed().count() + world.github.registrations().count(), 0);
    let mut actions = world.actions(at(20));
    actions.sort_unstable();
    assert_eq!(actions, ["completed", "in_progress", "queued", "queued"].map(|action| action).as_slice());
}

#[test]
fn a_jit_config_works_once_and_its_name_is_taken() {
    let mut world = world(3);
    let jit = world.register("one", &["linux"]).unwrap();
    assert_eq!(world.register("one", &["linux"]).unwrap_err().status(), Some(409));
    assert_eq!(world.register("two", &[]).unwrap_err().status(), Some(422));
    assert_eq!(world.register(&"x".repeat(65), &["linux"]).unwrap_err().status(), Some(422));
    assert_eq!(world.github.connect(&jit.secret, at(1)), Ok(jit.runner.id));
    assert_eq!(world.github.connect(&jit.secret, at(1)), Err(Unknown));

    let unused = world.register("two", &["linux"]).unwrap();
    world.github.advance(at(24 * 3600));
    assert!(world.github.runner(unused.runner.id).is_none(), "never connected, removed after a day");
    assert_eq!(world.github.connect(&unused.secret, at(24 * 3600)), Err(Unknown));
    assert!(world.github.runner(jit.runner.id).is_some(), "connected, so it stays");
}

#[test]
fn a_job_not_picked_up_in_a_minute_is_queued_again_without_a_webhook() {
    let mut world = world(4);
    let dead = world.connected("dead", &["linux"], at(1));
    let job = world.queue(&["linux"], at(2));
    assert_eq!(world.offers(at(2)), [(dead, job)]);
    world.github.disconnect(dead, at(3));
    let alive = world.connected("alive", &["linux"], at(10));
    assert!(world.offers(at(61)).is_empty());
    assert_eq!(world.offers(at(62)), [(alive, job)]);
    assert!(world.github.acquire(dead, job, at(63)).is_err());
    assert_eq!(world.github.job(job).unwrap().history.queued.len(), 2);
    assert!(world.actions(at(100)).is_empty(), "its only webhook came before");
}

#[test]
fn a_job_of_a_lost_runner_is_killed() {
    let mut world = world(5);
    let runner = world.connected("one", &["linux"], at(1));
    let job = world.queue(&["linux"], at(2));
    world.github.advance(at(2));
    world.github.acquire(runner, job, at(3)).unwrap();
    world.github.disconnect(runner, at(30));
    assert_eq!(world.github.killed().map(|job| job.id).collect::<Vec<_>>(), [job]);
    world.github.advance(at(629));
    assert!(world.github.job(job).unwrap().state.conclusion().is_none());
    world.github.advance(at(630));
    assert_eq!(world.github.job(job).unwrap().state.conclusion(), Some(Conclusion::Failure));
    assert!(!world.github.job(job).unwrap().served_once());
    assert_eq!(world.github.registrations().count(), 0);
}

#[test]
fn a_cancelled_job_completes_without_a_runner_and_a_gate_shows_in_both_actions() {
    let mut world = world(6);
    let job = world.github.queue_gated_job(QueueJob::new(world.repository, &["linux"]), at(0));
    world.github.approve(job, at(5));
    world.github.cancel(job, at(10));
    let state = &world.github.job(job).unwrap().state;
    assert_eq!((state.conclusion(), state.runner()), (Some(Conclusion::Cancelled), None));
    let mut actions = world.actions(at(60));
    actions.sort_unstable();
    assert_eq!(actions, ["completed", "queued", "queued", "waiting"]);
}

#[test]
fn another_users_runner_takes_a_job_and_finishes_it() {
    let mut world = world(7);
    world.github.add_foreign_runner(Scope::repository("acme", "rocket"), "foreign", &["linux"], at(0));
    let job = world.queue(&["linux"], at(1));
    world.github.advance(at(2));
    assert!(world.github.job(job).unwrap().served_once());
    assert_eq!(world.github.job(job).unwrap().history.started[0].name, "foreign");
}

#[test]
fn a_started_run_hides_its_queued_jobs_from_the_list_of_queued_runs() {
    let mut world = world(8);
    let first = world.queue(&["linux"], at(0));
    let run = world.github.job(first).unwrap().run;
    world.github.queue_job(QueueJob { run: Some(run), ..QueueJob::new(world.repository, &["gpu"]) }, at(0));
    let runner = world.connected("one", &["linux"], at(1));
    world.github.acquire(runner, first, at(2)).unwrap();
    let mut listed = |status| {
        let runs =
            world.github.list_runs(world.acme, "acme", "rocket", Some(status), Paging::default(), at(3)).unwrap();
        runs.total
    };
    assert_eq!((listed("queued"), listed("in_progress")), (0, 1));
}

#[test]
fn a_redelivery_is_another_delivery_with_the_same_guid() {
    let mut world = world(9);
    world.queue(&["linux"], at(0));
    let Some(Happening::Deliver(sent)) = world.github.advance(at(10)).pop() else { panic!("a webhook is due") };
    world.github.record_answer(sent.id, Answer::Status(503), Duration::from_millis(20), at(11));
    world.github.redeliver(sent.id, at(20)).unwrap();
    let Some(Happening::Deliver(again)) = world.github.advance(at(30)).pop() else { panic!("a redelivery is due") };
    assert_eq!((again.guid.as_str(), again.redelivery), (sent.guid.as_str(), true));
    assert_ne!(again.id, sent.id);
    world.github.record_answer(again.id, Answer::Status(202), Duration::ZERO, at(31));

    let (newest, cursor) = world.github.list_deliveries(1, None, at(40)).unwrap();
    let (oldest, end) = world.github.list_deliveries(1, cursor.as_deref(), at(40)).unwrap();
    assert_eq!((newest[0].id, oldest[0].id, end), (again.id, sent.id, None));
    assert!(world.github.list_deliveries(10, None, at(4 * 24 * 3600)).unwrap().0.is_empty(), "kept for three days");
}

#[test]
fn a_write_costs_five_points_so_a_minute_has_180_jit_configs() {
    let mut world = world(10);
    for n in 0..180 {
        world.register(&format!("runner-{n}"), &["linux"]).unwrap();
    }
    assert_eq!(world.register("one-more", &["linux"]).unwrap_err(), Failure::SecondaryLimit { until: at(60) });
    let rate = world.github.rate(Caller::Installation(world.acme), at(1));
    assert_eq!((rate.limit, rate.used), (5000, 180), "another window, not exhausted");
    let page = Paging { page: 2, per_page: 1000 };
    let listed = world.github.list_runners(world.acme, &world.scope, None, page, at(1)).unwrap();
    assert_eq!((listed.total, listed.items.len()), (180, 80), "at most 100 a page");
}

#[test]
fn a_token_is_for_one_owner_and_one_hour() {
    let mut world = world(11);
    let other = world.github.add_owner("other", OwnerKind::Organization, at(0));
    world.github.install(other, at(0));
    let token = world.github.create_token(world.acme, at(0)).unwrap();
    assert_eq!(world.github.authorize(&token.token, at(3599)), Ok(world.acme));
    assert_eq!(world.github.authorize(&token.token, at(3600)), Err(Failure::Unauthorized));
    let elsewhere = Scope::organization("other");
    let refused = world.github.list_runners(world.acme, &elsewhere, None, Paging::default(), at(1)).unwrap_err();
    assert_eq!(refused.status(), Some(403));
}

#[test]
fn a_suspended_installation_has_no_tokens_and_sends_no_webhooks() {
    let mut world = world(12);
    let token = world.github.create_token(world.acme, at(0)).unwrap();
    world.github.suspend(world.owner, Some(at(1)));
    assert_eq!(world.github.find_installation(&world.scope, at(2)).unwrap().suspended_at, Some(at(1)));
    assert_eq!(world.github.create_token(world.acme, at(2)).unwrap_err().status(), Some(403));
    assert_eq!(world.github.authorize(&token.token, at(2)).unwrap_err().status(), Some(403));
    world.queue(&["linux"], at(3));
    assert!(world.actions(at(20)).is_empty(), "no webhook comes from it");
    world.github.suspend(world.owner, None);
    assert_eq!(world.github.authorize(&token.token, at(21)), Ok(world.acme));
}

#[test]
fn a_renamed_repository_keeps_its_number_its_jobs_and_its_runners() {
    let mut world = world(13);
    let job = world.queue(&["linux"], at(0));
    let scope = Scope::repository("acme", "rocket");
    let request = JitRequest { name: "one".into(), group: DEFAULT_GROUP, labels: vec!["linux".into()] };
    world.github.generate_jit(world.acme, &scope, request, at(0)).unwrap();
    world.github.rename_repository(world.repository, "Booster");
    assert!(world.github.find_repository("acme", "rocket").is_none());
    assert_eq!(world.github.moved("ACME", "Rocket"), Some(world.repository));
    assert_eq!(world.github.get_job(world.acme, "acme", "booster", job, at(1)).unwrap().id, job);
    let there = Scope::repository("acme", "booster");
    let listed = world.github.list_runners(world.acme, &there, None, Paging::default(), at(1)).unwrap();
    assert_eq!(listed.total, 1);
    world.github.rename_repository(world.repository, "rocket");
    assert_eq!(world.github.moved("acme", "rocket"), None, "it has its old name again");
}

#[test]
fn a_job_is_re_run_only_after_its_whole_run_has_ended() {
    let mut world = world(14);
    let first = world.queue(&["linux"], at(0));
    let run = world.github.job(first).unwrap().run;
    let second =
        world.github.queue_job(QueueJob { run: Some(run), ..QueueJob::new(world.repository, &["gpu"]) }, at(0));
    world.github.cancel(first, at(1));
    let refused = world.github.rerun_job(world.acme, "acme", "rocket", first, at(2)).unwrap_err();
    assert_eq!(refused.status(), Some(403));
    world.github.cancel(second, at(3));
    let again = world.github.rerun_job(world.acme, "acme", "rocket", first, at(4)).unwrap();
    assert_eq!(world.github.job(again).unwrap().attempt, 2);
    world.github.cancel(again, at(5));
    let old = world.github.rerun_job(world.acme, "acme", "rocket", second, at(6)).unwrap_err();
    assert_eq!(old.status(), Some(403), "it is not of the latest attempt");
    let copy = world.github.jobs().find(|job| job.attempt == 2 && job.id != again).expect("a copy of the other").id;
    assert!(world.github.rerun_job(world.acme, "acme", "rocket", copy, at(7)).is_ok());
}

#[test]
fn lasting_faults_affect_calls_until_they_end_and_are_counted() {
    let mut world = world(15);
    let scope = world.scope.clone();
    let list = |world: &mut World, now| world.github.list_runners(world.acme, &scope, None, Paging::default(), now);
    world.github.faults.down = true;
    assert_eq!(list(&mut world, at(0)).unwrap_err(), Failure::Broken(503));
    assert_eq!(world.github.get_app(at(0)).unwrap_err(), Failure::Broken(503));
    world.github.faults.down = false;
    world.github.faults.limited_until = Some(at(5));
    assert_eq!(list(&mut world, at(4)).unwrap_err(), Failure::SecondaryLimit { until: at(5) });
    assert!(world.github.get_app(at(4)).is_ok(), "the app has limits of its own");
    assert!(list(&mut world, at(5)).is_ok());
    assert_eq!(world.github.struck(), Struck { down: 2, limited: 1 });
}
