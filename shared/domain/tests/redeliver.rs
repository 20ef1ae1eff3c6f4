//! Which failed deliveries are requested again, and which repositories are searched.

mod common;

use common::{ago, config, described, later, noon, pool};
use domain::config::Pool;
use domain::ids::{DeliveryId, Repository};
use domain::policy::{redeliver, search};
use domain::state::{Janitor, Undelivered};
use domain::wire::{Action, DeliveryAttempt, FoundJob};
use jiff::Timestamp;

fn attempt(guid: &str, at: Timestamp, succeeded: bool) -> DeliveryAttempt {
    let id = at.as_second().unsigned_abs();
    DeliveryAttempt { id, guid: guid.into(), delivered_at: at, redelivery: false, succeeded, about_a_job: true }
}

fn examined(attempts: &[DeliveryAttempt]) -> Janitor {
    let mut memory = Janitor::default();
    redeliver::examine(&mut memory, attempts, noon());
    memory
}

fn due(memory: &Janitor) -> Vec<DeliveryId> {
    redeliver::due(memory, noon())
}

#[test]
fn an_event_is_redelivered_only_if_every_attempt_failed() {
    let again = DeliveryAttempt { redelivery: true, ..attempt("b", ago(10), true) };
    let other = DeliveryAttempt { about_a_job: false, ..attempt("c", ago(20), false) };
    let memory = examined(&[attempt("a", ago(30), false), attempt("b", ago(40), false), again, other]);
    assert_eq!(due(&memory), [DeliveryId::from("a")]);
    assert_eq!((memory.examined_to, memory.delivered_at), (Some(ago(10)), Some(ago(10))));
    assert_eq!(memory.undelivered[&"a".into()].attempt, ago(30).as_second().unsigned_abs());
}

#[test]
fn a_later_success_ends_the_redeliveries() {
    let mut memory = examined(&[attempt("a", ago(30), false)]);
    redeliver::examine(&mut memory, &[attempt("a", ago(5), true)], noon());
    assert_eq!(due(&memory), []);
}

#[test]
fn redeliveries_wait_ten_minutes_and_then_an_hour_unless_ingest_works_again() {
    let is_due = |redeliveries: u32, asked: i64, delivered: Option<i64>| {
        let mut memory = examined(&[attempt("a", ago(7200), false)]);
        memory.delivered_at = delivered.map(ago);
        let event = memory.undelivered.get_mut(&"a".into()).expect("it failed");
        *event = Undelivered { redeliveries, asked_at: Some(ago(asked)), ..event.clone() };
        !due(&memory).is_empty()
    };
    assert!(!is_due(1, 599, None) && is_due(1, 600, None));
    assert!(!is_due(2, 3599, None) && is_due(2, 3600, None));
    assert!(!is_due(3, 7200, Some(0)), "three redeliveries are the limit");
    assert!(!is_due(1, 100, Some(40)) && is_due(1, 100, Some(39)), "a minute must lie between request and success");
}

#[test]
fn an_event_that_github_refuses_to_redeliver_is_not_requested_again() {
    let mut memory = examined(&[attempt("a", ago(30), false)]);
    memory.undelivered.get_mut(&"a".into()).expect("it failed").refused(ago(7200));
    assert_eq!(due(&memory), []);
    let mut memory = examined(&[attempt("a", ago(30), false)]);
    memory.undelivered.get_mut(&"a".into()).expect("it failed").requested(noon());
    assert_eq!((memory.undelivered[&"a".into()].redeliveries, due(&memory)), (1, Vec::new()));
}

#[test]
fn one_sweep_requests_sixty_redeliveries_oldest_failure_first() {
    let attempts: Vec<_> = (0..61).map(|index| attempt(&format!("{index:02}"), ago(index), false)).collect();
    let due = due(&examined(&attempts));
    assert_eq!((due.len(), due[0].as_str(), due[59].as_str()), (60, "60", "01"));
}

#[test]
fn deliveries_are_listed_from_a_minute_before_the_newest_and_not_while_the_app_is_limited() {
    let mut memory = Janitor::default();
    assert_eq!(redeliver::list_since(&memory, noon()), Some(ago(3 * 24 * 3600)));
    memory.examined_to = Some(ago(100));
    assert_eq!(redeliver::list_since(&memory, noon()), Some(ago(160)));
    memory.app_backoff_until = Some(later(1));
    assert_eq!(redeliver::list_since(&memory, noon()), None);
    memory.app_backoff_until = Some(noon());
    assert_eq!(redeliver::list_since(&memory, noon()), Some(ago(160)));
}

#[test]
fn failures_that_github_no_longer_has_are_forgotten() {
    let days = 3 * 24 * 3600;
    assert_eq!(examined(&[attempt("a", ago(days), false)]).undelivered.len(), 1);
    assert_eq!(examined(&[attempt("a", ago(days + 1), false)]).undelivered.len(), 0);
}

#[test]
fn a_failure_that_github_will_not_redeliver_is_remembered_while_its_attempt_is_listed() {
    let mut memory = examined(&[attempt("a", ago(100), false)]);
    memory.undelivered.get_mut(&"a".into()).expect("it failed").refused(ago(90));
    let listed = |memory: &Janitor, examined_to| {
        let mut memory = Janitor { examined_to: Some(examined_to), ..memory.clone() };
        redeliver::examine(&mut memory, &[], noon());
        memory.undelivered.len()
    };
    assert_eq!((listed(&memory, ago(40)), listed(&memory, ago(39))), (1, 0), "the list begins a minute earlier");
    memory.undelivered.get_mut(&"a".into()).expect("it failed").redeliveries = 2;
    assert_eq!(listed(&memory, noon()), 1, "it may be requested once more");
    let mut unlisted = Janitor { examined_to: None, ..memory };
    unlisted.undelivered.get_mut(&"a".into()).expect("it failed").redeliveries = 3;
    redeliver::examine_part(&mut unlisted, &[], "cursor".to_owned(), noon());
    assert_eq!(unlisted.undelivered.len(), 0);
}

#[test]
fn a_listing_in_parts_is_examined_once_the_last_part_is_read() {
    let mut memory = Janitor::default();
    redeliver::examine_part(&mut memory, &[attempt("a", ago(30), false)], "cursor".to_owned(), noon());
    let unread = memory.unread_deliveries.clone().expect("there is more");
    assert_eq!((unread.from.as_str(), unread.newest, memory.examined_to), ("cursor", ago(30), None));
    assert_eq!(due(&memory).len(), 1);
    redeliver::examine(&mut memory, &[attempt("b", ago(300), false)], noon());
    assert_eq!((memory.examined_to, memory.unread_deliveries.clone()), (Some(ago(30)), None));
    assert_eq!(due(&memory).len(), 2);
}

#[test]
fn the_oldest_failures_are_remembered_and_newer_ones_are_listed_again() {
    let of = |count: i64| {
        let attempts: Vec<_> = (0..count).map(|index| attempt(&format!("{index}"), ago(index), false)).collect();
        let memory = examined(&attempts);
        (memory.undelivered.len(), memory.examined_to)
    };
    assert_eq!((of(500), of(501), of(503)), ((500, Some(noon())), (500, Some(noon())), (500, Some(ago(2)))));
}

#[test]
fn failures_without_room_in_a_listing_of_several_parts_are_listed_again() {
    let failed = |from: i64, count: i64| -> Vec<_> {
        (from..from + count).map(|index| attempt(&format!("{index}"), ago(index), false)).collect()
    };
    let mut memory = Janitor::default();
    redeliver::examine_part(&mut memory, &failed(10, 505), "cursor".to_owned(), noon());
    redeliver::examine(&mut memory, &[attempt("older", ago(3000), true)], noon());
    assert_eq!((memory.undelivered.len(), memory.examined_to), (500, Some(ago(14))), "five were too many");
    redeliver::examine_part(&mut memory, &failed(10, 1), "cursor".to_owned(), noon());
    redeliver::examine_part(&mut memory, &failed(600, 2), "further".to_owned(), noon());
    assert_eq!(memory.unread_deliveries.as_ref().map(|unread| unread.newest), Some(ago(16)), "two more were");
}

fn repository(name: &str) -> Repository {
    name.parse().expect("a repository")
}

#[test]
fn a_remembered_repository_is_searched_every_poll_interval() {
    let searched = |ago_seconds: Option<i64>| {
        let mut memory = Janitor::default();
        search::remember(&mut memory, repository("octo/widgets"), noon());
        memory.repositories.get_mut(&repository("octo/widgets")).expect("it is remembered").searched_at =
            ago_seconds.map(ago);
        search::due(&mut memory, &config([pool()]), noon()).len()
    };
    assert_eq!((searched(None), searched(Some(599)), searched(Some(600))), (1, 0, 1));
}

#[test]
fn a_repository_without_jobs_for_a_week_is_forgotten_unless_a_pool_names_it() {
    let week = 7 * 24 * 3600;
    let due = |seen: i64, pool: Pool| {
        let mut memory = Janitor::default();
        search::remember(&mut memory, repository("octo/widgets"), ago(seen));
        search::due(&mut memory, &config([pool]), noon()).len()
    };
    assert_eq!((due(week - 1, pool()), due(week, pool())), (1, 0));
    let named = Pool { repositories: vec![repository("octo/widgets")], ..pool() };
    assert_eq!(due(week, named.clone()), 1);
    assert_eq!(due(week, Pool { draining: true, ..named }), 0);
    assert_eq!(due(week, Pool { owner: "octo/widgets".parse().expect("a scope"), ..pool() }), 1);
    assert_eq!(due(0, Pool { owner: "mona".parse().expect("a scope"), ..pool() }), 0, "no pool covers it");
}

#[test]
fn the_least_recently_searched_repository_is_first() {
    let mut memory = Janitor::default();
    for (name, at) in [("octo/a", Some(700)), ("octo/b", None), ("octo/c", Some(900))] {
        search::remember(&mut memory, repository(name), noon());
        memory.repositories.get_mut(&repository(name)).expect("it is remembered").searched_at = at.map(ago);
    }
    let order = search::due(&mut memory, &config([pool()]), noon());
    assert_eq!(order, [repository("octo/b"), repository("octo/c"), repository("octo/a")]);
}

#[test]
fn a_job_that_was_just_queued_is_left_to_its_webhook() {
    let found = |age: i64, poll_interval: &str| {
        let mut pool = pool();
        pool.timings.poll_interval = poll_interval.parse().expect("a time");
        let jobs = ["queued", "waiting", "in_progress"].map(|status| {
            let mut job = described(status);
            (job.created_at, job.labels) = (ago(age), vec!["linux".to_owned()]);
            FoundJob { job, public: false }
        });
        search::notices(&config([pool]), &repository("octo/widgets"), jobs.into(), noon()).len()
    };
    assert_eq!((found(59, "10m"), found(60, "10m")), (0, 3));
    assert_eq!((found(59, "24h"), found(60, "24h")), (0, 3), "however rarely repositories are searched");
    assert_eq!((found(5, "1m"), found(6, "1m")), (0, 3), "the next search finds it soon");
    assert_eq!(found(0, "0s"), 3);
}

#[test]
fn found_jobs_of_a_pool_become_notices() {
    let found = |status: &str, label: &str| {
        let mut job = described(status);
        job.labels = vec![label.to_owned()];
        let jobs = vec![FoundJob { job, public: false }];
        search::notices(&config([pool()]), &repository("octo/widgets"), jobs, noon()).pop().map(|notice| notice.action)
    };
    assert_eq!(found("queued", "linux"), Some(Action::Queued));
    assert_eq!(found("waiting", "linux"), Some(Action::Waiting));
    assert_eq!(found("pending", "linux"), Some(Action::Waiting));
    assert_eq!(found("in_progress", "linux"), Some(Action::InProgress));
    assert_eq!((found("completed", "linux"), found("queued", "gpu")), (None, None));
}
