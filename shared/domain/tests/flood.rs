//! One repository with very many waiting jobs.

mod common;

use std::collections::BTreeSet;

use common::{ago, job, later, noon, pool, turn, view};
use domain::config::Pool;
use domain::ids::JobId;
use domain::policy::MAX_DEMAND_PER_REPOSITORY;
use domain::policy::decide::decide;
use domain::policy::due::{Effect, due};
use domain::policy::notify::{Reader, reasons};
use domain::state::{Item, WaitingJob};

/// One job more than count as demand, each a second younger than the one before, and one of another repository.
fn jobs() -> Vec<WaitingJob> {
    let count = MAX_DEMAND_PER_REPOSITORY as u64 + 1;
    let of_flood = (1..=count).map(|id| WaitingJob { id: JobId(id), ..job(5000 - id as i64) });
    let repository = "octo/gadgets".parse().expect("a repository");
    of_flood.chain([WaitingJob { id: JobId(9999), repository, ..job(1) }]).collect()
}

fn youngest() -> JobId {
    JobId(MAX_DEMAND_PER_REPOSITORY as u64 + 1)
}

#[test]
fn only_the_oldest_jobs_of_a_repository_are_demand() {
    let read = view(jobs().into_iter().map(Item::from));
    assert_eq!(read.demand(noon()), MAX_DEMAND_PER_REPOSITORY + 1, "the other repository counts for itself");
    assert_eq!(read.behind(noon()), BTreeSet::from([youngest()]));
}

#[test]
fn the_others_follow_as_soon_as_older_ones_no_longer_wait() {
    let mut jobs = jobs();
    jobs.remove(0);
    let read = view(jobs.into_iter().map(Item::from));
    assert!(read.behind(noon()).is_empty());
}

#[test]
fn nothing_is_charged_to_a_job_behind_and_the_reason_is_named() {
    let spent = |job: WaitingJob| WaitingJob { launches: vec![ago(60); 3], ..job };
    let all = jobs().into_iter().map(|job| if job.id == youngest() { job } else { spent(job) });
    let read = view(all.map(Item::from));
    let pool = Pool { max: 5000, ..pool() };
    assert!(decide(&pool, &read, &turn()).and_then(|decision| decision.batch).is_none());
    let behind = &read.waiting[&youngest()];
    assert!(
        reasons(&pool, &read, behind, Reader::Author, noon())
            .iter()
            .any(|why| why.contains("older jobs of octo/widgets come first"))
    );
}

#[test]
fn github_is_asked_about_a_job_behind_once_an_hour() {
    let due_for = |checked: i64| {
        // The others were asked about before, and do not keep it waiting.
        let asked = |job: WaitingJob| match job.id == JobId(1) || job.id == youngest() {
            true => WaitingJob { check_at: ago(1), checked_at: ago(checked), ..job },
            false => WaitingJob { check_at: later(60), ..job },
        };
        let read = view(jobs().into_iter().map(asked).map(Item::from));
        let effects = due(&pool(), &read, None, noon()).effects;
        (effects.contains(&Effect::Check(JobId(1))), effects.contains(&Effect::Check(youngest())))
    };
    assert_eq!((due_for(3599), due_for(3600)), ((true, false), (true, true)));
}
