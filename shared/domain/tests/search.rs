//! The rounds in which all repositories of an account are searched for jobs without a webhook.

mod common;

use common::{ago, config, noon, pool};
use domain::config::Pool;
use domain::ids::{Owner, Repository};
use domain::policy::search::{advance, due, is_named, open_accounts, remember, round, round_minutes};
use domain::state::{Janitor, SearchRound};

fn owner(name: &str) -> Owner {
    name.parse().expect("an owner")
}

fn of(scope: &str) -> Pool {
    Pool { owner: scope.parse().expect("a scope"), ..pool() }
}

fn repository(name: &str) -> Repository {
    name.parse().expect("a repository")
}

#[test]
fn rounds_are_for_accounts_of_which_a_pool_serves_every_repository() {
    let named = Pool { repositories: vec![repository("b/widgets")], ..of("b") };
    let draining = Pool { draining: true, ..of("c") };
    let open = open_accounts(&config([of("a"), named.clone(), draining.clone(), of("d/widgets")]));
    assert_eq!(open, [owner("a")].into());
    let config = config([of("a"), named, draining, of("d/widgets")]);
    assert!(is_named(&config, &repository("b/widgets")) && is_named(&config, &repository("d/widgets")));
    assert!(!is_named(&config, &repository("a/widgets")));
}

#[test]
fn a_round_begins_when_the_poll_interval_has_passed_since_the_last_one_began() {
    let after = |last: Option<SearchRound>, pools: &[Pool]| {
        let rounds = last.map(|last| (owner("octo"), last)).into_iter().collect();
        round(&Janitor { rounds, ..Janitor::default() }, &config(pools.iter().cloned()), &owner("octo"), noon())
    };
    let ended = |seconds| Some(SearchRound { began_at: ago(seconds), page: 0, searched: 0 });
    let mut hourly = pool();
    hourly.timings.poll_interval = "1h".parse().expect("a length of time");
    let first = Some(SearchRound { began_at: noon(), page: 1, searched: 0 });
    assert_eq!(after(None, &[pool()]), first);
    assert_eq!((after(ended(599), &[pool()]), after(ended(600), &[pool()])), (None, first));
    assert_eq!(after(ended(600), std::slice::from_ref(&hourly)), None);
    assert_eq!(after(ended(600), &[hourly.clone(), pool()]), first, "the shortest interval counts");
    let draining = Pool { draining: true, ..pool() };
    assert_eq!(after(ended(600), &[hourly.clone(), draining]), None);
    assert_eq!(after(ended(600), &[hourly, of("mona")]), None, "a pool of another account");
    let under_way = Some(SearchRound { began_at: ago(5), page: 2, searched: 30 });
    assert_eq!(after(under_way, &[pool()]), under_way, "it goes on");
}

#[test]
fn a_round_goes_through_the_pages_and_ends_after_the_last_one() {
    let at = |page, searched| SearchRound { began_at: ago(60), page, searched };
    assert_eq!(advance(at(1, 0), 99, 100, 250), at(1, 99), "the page has one more repository");
    assert_eq!(advance(at(1, 99), 100, 100, 250), at(2, 0));
    assert_eq!(advance(at(3, 0), 50, 50, 250), at(0, 0));
    assert_eq!(advance(at(2, 0), 100, 100, 200), at(0, 0));
    assert_eq!(advance(at(2, 0), 100, 100, 201), at(3, 0));
    assert_eq!(advance(at(2, 0), 0, 0, 500), at(0, 0), "repositories were deleted meanwhile");
}

#[test]
fn a_round_of_a_hundred_repositories_takes_twelve_minutes() {
    assert_eq!((round_minutes(100), round_minutes(1000)), (12, 120));
}

#[test]
fn the_repositories_that_had_jobs_last_are_remembered() {
    let remembered = |count: i64| {
        let mut memory = Janitor::default();
        (0..count).for_each(|index| remember(&mut memory, repository(&format!("octo/{index}")), ago(index)));
        due(&mut memory, &config([pool()]), noon());
        (memory.repositories.len(), memory.repositories.contains_key(&repository(&format!("octo/{}", count - 1))))
    };
    assert_eq!((remembered(800), remembered(801)), ((800, true), (800, false)));
}
