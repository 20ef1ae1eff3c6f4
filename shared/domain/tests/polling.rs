//! How often a pool with very many waiting jobs calls GitHub.

mod common;

use std::collections::BTreeSet;

use common::{after, ago, facts, job, later, noon, pool, slot, turn, view};
use domain::ids::{JobId, SlotId};
use domain::log::Transaction;
use domain::policy::PoolView;
use domain::policy::budget::Budget;
use domain::policy::check::claim;
use domain::policy::due::{Effect, due};
use domain::policy::notify::{Notification, first_check_run, published};
use domain::policy::polling::{notifications, questions};
use domain::state::{Item, Job, Slot, Stage, WaitingJob};
use domain::wire::Action;
use jiff::SignedDuration;
use serde_json::json;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// Jobs that were first seen ten minutes ago, and are due since they have an id.
fn jobs(count: u64) -> impl Iterator<Item = WaitingJob> {
    (1..=count).map(|id| WaitingJob {
        id: JobId(id),
        check_at: ago(60) + SignedDuration::from_millis(id as i64),
        ..job(600)
    })
}

fn first(count: u64) -> BTreeSet<JobId> {
    (1..=count).map(JobId).collect()
}

fn read(jobs: impl Iterator<Item = WaitingJob>) -> PoolView {
    view(jobs.map(Item::from))
}

#[test]
fn a_pool_with_few_waiting_jobs_asks_about_all_that_are_due() {
    let asked = questions(&pool(), &read(jobs(30)), None, noon());
    assert_eq!((asked.jobs, asked.is_more_due), (first(30), false));
}

#[test]
fn a_pool_asks_about_thirty_jobs_per_minute_and_about_those_first_that_are_due_for_longest() {
    let (pool, every) = (pool(), pool().timings.job_check.duration());
    let all = read(jobs(1000));
    assert_eq!(questions(&pool, &all, None, noon()).jobs, first(30));
    let answered = |job: WaitingJob| match job.id.0 {
        1..=30 => WaitingJob { checked_at: noon(), check_at: noon() + every, ..job },
        _ => job,
    };
    let asked = read(jobs(1000).map(answered));
    let before = noon() + MINUTE - SignedDuration::from_secs(1);
    assert!(questions(&pool, &asked, None, before).jobs.is_empty(), "thirty were asked within the last minute");
    let next: BTreeSet<JobId> = (31..=60).map(JobId).collect();
    assert_eq!(questions(&pool, &asked, None, noon() + MINUTE).jobs, next);
}

#[test]
fn regular_questions_are_those_that_are_due_as_often_as_the_pool_says() {
    let every = pool().timings.job_check.duration();
    let regular =
        (1..=100).map(|id| WaitingJob { id: JobId(id), checked_at: noon() - every, check_at: noon(), ..job(600) });
    assert_eq!(questions(&pool(), &read(regular), None, noon()).jobs, first(30));
}

#[test]
fn a_job_that_a_webhook_made_doubtful_does_not_wait_for_the_regular_questions() {
    let doubtful = WaitingJob { id: JobId(2000), open: false, checked_at: ago(1), check_at: noon(), ..job(600) };
    let asked = questions(&pool(), &read(jobs(1000).chain([doubtful.clone()])), None, noon());
    assert!(asked.jobs.contains(&JobId(2000)) && asked.jobs.len() == 31, "{asked:?}");
    let many = (2000..3000).map(|id| WaitingJob { id: JobId(id), ..doubtful.clone() });
    let asked = questions(&pool(), &read(many), None, noon());
    assert_eq!((asked.jobs.len(), asked.is_more_due), (120, true), "the pool is reconciled again for the others");
}

/// The last fifth of an hour's budget, which is for machines.
fn little() -> Option<Budget> {
    Some(Budget { remaining: 999, limit: 5000, reset: noon() + MINUTE })
}

#[test]
fn questions_that_must_wait_for_the_budget_do_not_keep_others_waiting() {
    let closed = WaitingJob { id: JobId(2000), open: false, check_at: ago(1), ..job(600) };
    let all = read(jobs(1000).chain([closed.clone()]));
    assert_eq!(
        questions(&pool(), &all, little(), noon()).jobs,
        BTreeSet::from([closed.id]),
        "only the answer can open it"
    );
}

#[test]
fn notices_wait_for_the_budget_that_registrations_need() {
    let pool = pool();
    let deadline = pool.timings.launch_deadline.duration().as_secs();
    let given_up = (1..=100).map(|id| WaitingJob { id: JobId(id), run_over_at: Some(ago(60)), ..job(deadline * 2) });
    let failed = WaitingJob { id: JobId(2000), ..job(deadline) };
    let all = read(given_up.chain([failed.clone()]));
    assert_eq!(notifications(&pool, &all, None, noon()).jobs, first(60));
    assert_eq!(notifications(&pool, &all, little(), noon()).jobs, BTreeSet::new(), "registrations need the rest");
}

#[test]
fn a_pool_writes_sixty_check_runs_per_minute() {
    let pool = pool();
    let waiting: Vec<WaitingJob> =
        (1..=200).map(|id| WaitingJob { id: JobId(id), check_at: later(60), ..job(2000) }).collect();
    let all = read(waiting.iter().cloned());
    assert_eq!(notifications(&pool, &all, None, noon()).jobs, first(60));
    let check = |id: u64| {
        let check = first_check_run(&pool, &Job { id: JobId(id), ..facts(&[Action::Queued]) }, noon());
        published(&pool, check, Notification::Stage(Stage::Waiting), Some(id), String::new(), &turn())
    };
    let mut notified = read(waiting.into_iter());
    (1..=60).for_each(|id| notified.apply(&check(id)));
    assert!(notifications(&pool, &notified, None, noon() + MINUTE - SignedDuration::from_secs(1)).jobs.is_empty());
    assert_eq!(notifications(&pool, &notified, None, noon() + MINUTE).jobs.len(), 60);
    for check in notified.check_runs.values_mut() {
        (check.published, check.lease) = (None, check.lease.put_off(noon() + MINUTE * 30));
    }
    assert_eq!(
        notifications(&pool, &notified, None, noon()).jobs.len(),
        60,
        "those that GitHub refused keep no other waiting"
    );
}

#[test]
fn many_check_runs_are_closed_over_several_minutes_and_none_is_left() {
    let pool = pool();
    let check = |id: u64| first_check_run(&pool, &Job { id: JobId(id), ..facts(&[Action::Queued]) }, noon());
    let closed_at = |count: u64, minute: i64| {
        notifications(&pool, &view((1..=count).map(check).map(Item::from)), None, noon() + MINUTE * minute as i32).jobs
    };
    assert_eq!(closed_at(30, 0), first(30));
    let each: Vec<BTreeSet<JobId>> = (0..32).map(|minute| closed_at(960, minute)).collect();
    assert!(each.iter().all(|jobs| jobs.len() == 30));
    assert_eq!(each.into_iter().flatten().collect::<BTreeSet<JobId>>(), first(960));
}

#[test]
fn the_end_of_an_hours_budget_is_not_used_up_by_closing_check_runs() {
    let check = |id: u64| first_check_run(&pool(), &Job { id: JobId(id), ..facts(&[Action::Queued]) }, noon());
    let all = view((1..=600).map(check).map(Item::from));
    assert!(
        notifications(&pool(), &all, little(), noon()).jobs.is_empty(),
        "machines have to be registered and removed"
    );
    assert!(!notifications(&pool(), &all, None, noon()).jobs.is_empty());
}

/// Machines of this pool that ended ten seconds ago without a report.
fn ended(count: u64) -> impl Iterator<Item = Item> {
    (0..count).map(|version| {
        let ended = slot("configured", 60, json!({ "gone_at": ago(10) }));
        Slot { id: SlotId { version, index: 0 }, ..ended }.into()
    })
}

#[test]
fn machines_that_end_together_do_not_have_the_same_jobs_asked_about_again_and_again() {
    let pool = pool();
    let waiting = |asked: u64| {
        let every = pool.timings.job_check.duration();
        jobs(1000).map(move |job| match job.id.0 <= asked {
            true => WaitingJob { checked_at: ago(1), check_at: ago(1) + every, ..job },
            false => WaitingJob { check_at: later(60), ..job },
        })
    };
    let due_at = |machines: u64, asked: u64| {
        let read = view(ended(machines).chain(waiting(asked).map(Item::from)));
        let is_check = |effect: &Effect| matches!(effect, Effect::Check(_));
        due(&pool, &read, None, noon()).effects.into_iter().filter(is_check).count()
    };
    assert_eq!((due_at(40, 0), due_at(40, 30), due_at(40, 80)), (80, 50, 0), "GitHub has just answered about these");
    assert_eq!((due_at(1, 0), due_at(1, 8), due_at(1, 10)), (2, 2, 0));
    // Ten seconds later one machine more has ended.
    let (read, last) =
        (view(ended(40).chain(waiting(80).map(Item::from))), slot("configured", 60, json!({ "gone_at": later(9) })));
    let read = after(&read, &Transaction::new().put(Slot { id: SlotId { version: 99, index: 0 }, ..last }));
    assert_eq!(due(&pool, &read, None, later(10)).effects.len(), 2);
    assert!(!due(&pool, &read, None, later(19)).effects.is_empty(), "before its grace is over");
}

#[test]
fn a_job_that_one_invocation_asks_about_is_not_due_for_another_and_counts() {
    let claimed = |until| {
        let claimed = jobs(1000).map(move |job| if job.id.0 <= 10 { claim(&job, until) } else { job });
        questions(&pool(), &read(claimed), None, noon()).jobs
    };
    assert_eq!(claimed(later(1)), (11..=30).map(JobId).collect());
    assert_eq!(claimed(noon()), first(30), "the claim ends");
}
