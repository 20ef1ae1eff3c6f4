//! For how long a job is demand. GitHub calls some jobs queued for ever.

mod common;

use common::{ago, described, facts, job, later, noon, notice, pool, turn, view};
use domain::ids::JobId;
use domain::policy::check::{Answer, RECHECK_EVERY, answer, close_too_old, forget, held};
use domain::policy::decide::decide;
use domain::policy::notify::{Notification, Reader, due_notification, published, reasons};
use domain::policy::search::notices;
use domain::state::{CheckRun, GivenUp, Item, Job, Lease, Rank, Stage, Unserved, WaitingJob};
use domain::wire::{Action, FoundJob, JobNotice, Notice};
use jiff::SignedDuration;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// A notice about job 5. Both times are in seconds before noon.
fn at(action: Action, queued: i64, arrived: i64) -> Notice {
    let notice = notice(action);
    let job = JobNotice { created_at: ago(queued), ..notice.job };
    Notice { received_at: ago(arrived), job, ..notice }
}

fn found(notice: Notice) -> Notice {
    Notice { delivery: "".into(), ..notice }
}

/// The facts after these notices.
fn joined(notices: &[Notice]) -> Job {
    let first = Job::first(pool().name, &notices[0]);
    notices.iter().fold(first, |job, notice| job.join(notice))
}

/// The waiting job after these notices, and after GitHub was asked and called it queued.
fn confirmed(notices: &[Notice]) -> WaitingJob {
    let job = joined(notices);
    let waiting = WaitingJob::of(&job, None, noon(), SignedDuration::from_mins(5));
    match answer(&pool(), &waiting, Some(&job), Some(&described("queued")), noon()) {
        Answer::Waits { job, .. } => *job,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_job_is_demand_for_a_day_after_it_was_queued() {
    let waits = |queued| job(queued).is_demand(noon());
    assert_eq!((waits(DAY - 1), waits(DAY)), (true, false));
    assert_eq!(job(DAY).given_up(noon()), Some(GivenUp::TooOld));
}

#[test]
fn a_gate_that_github_reported_begins_a_new_day() {
    let gated = WaitingJob { open: false, ..job(10 * DAY) };
    let opened = |facts: &Job| match answer(&pool(), &gated, Some(facts), Some(&described("queued")), noon()) {
        Answer::Waits { job, .. } => *job,
        other => panic!("{other:?}"),
    };
    assert!(opened(&facts(&[Action::Waiting])).is_demand(later(DAY - 1)));
    assert!(!opened(&facts(&[Action::Waiting])).is_demand(later(DAY)));
    assert!(!opened(&facts(&[Action::Queued])).is_demand(noon()), "it never had a gate");
}

#[test]
fn a_job_that_github_did_not_know_for_a_while_is_as_old_as_before() {
    let gated = facts(&[Action::Waiting]);
    let waiting = WaitingJob { opened_at: Some(ago(DAY - 60)), ..job(DAY - 30) };
    let Answer::Waits { job: unknown, .. } = answer(&pool(), &waiting, Some(&gated), None, noon()) else {
        panic!("it may be known again")
    };
    assert_eq!((unknown.open, unknown.unknown_since), (false, Some(noon())));
    let Answer::Waits { job: known, .. } =
        answer(&pool(), &unknown, Some(&gated), Some(&described("queued")), later(30))
    else {
        panic!("it waits")
    };
    assert_eq!((known.open, known.unknown_since, known.opened_at), (true, None, Some(ago(DAY - 60))));
}

#[test]
fn a_gate_in_githubs_answer_is_remembered() {
    let Answer::Held { job: waiting, .. } = answer(&pool(), &job(600), None, Some(&described("waiting")), noon())
    else {
        panic!("a gate holds it")
    };
    let writes = held(&pool(), *waiting.clone(), Some(facts(&[Action::Queued])), &turn());
    assert!(writes.puts.iter().any(|item| matches!(item, Item::Job(job) if job.gated)), "{writes:?}");
    assert!(writes.event.is_some());
    let again = held(&pool(), *waiting, Some(facts(&[Action::Waiting])), &turn());
    assert_eq!((again.puts.len(), again.event), (1, None));
}

#[test]
fn the_first_webhook_of_an_old_job_begins_a_new_day_once() {
    let late = at(Action::Queued, 2 * DAY, 0);
    assert!(confirmed(std::slice::from_ref(&late)).is_demand(later(DAY - 1)));
    let again = [at(Action::Queued, 3 * DAY, DAY + 60), at(Action::Queued, 3 * DAY, 0)];
    assert!(!confirmed(&again).is_demand(noon()), "only the first one counts");
    let reordered = [again[1].clone(), again[0].clone()];
    assert_eq!(joined(&reordered), joined(&again));
    let punctual = [at(Action::Queued, 2 * DAY, 2 * DAY - 5), at(Action::Queued, 2 * DAY, 0)];
    assert!(!confirmed(&punctual).is_demand(noon()), "the first one was not late");
}

#[test]
fn a_search_begins_no_new_day() {
    assert!(!confirmed(&[found(at(Action::Queued, DAY, 0))]).is_demand(noon()));
    assert!(confirmed(&[found(at(Action::Queued, DAY - 1, 0))]).is_demand(noon()));
    let both = [found(at(Action::Queued, 2 * DAY, 60)), at(Action::Queued, 2 * DAY, 0)];
    assert!(confirmed(&both).is_demand(noon()), "its first webhook is a day late");
}

#[test]
fn nothing_is_launched_after_35_days_and_a_search_ignores_such_a_job() {
    let gated = WaitingJob { opened_at: Some(ago(60)), ..job(35 * DAY) };
    assert!(!gated.is_demand(noon()));
    assert!(WaitingJob { queued_at: ago(35 * DAY - 1), ..gated }.is_demand(noon()));
    assert!(!confirmed(&[at(Action::Queued, 98 * DAY, 0)]).is_demand(noon()));
    let search = |queued: i64| {
        let job = JobNotice { created_at: ago(queued), ..described("queued") };
        let repository = "octo/widgets".parse().expect("a repository");
        notices(&common::config([pool()]), &repository, vec![FoundJob { job, public: false }], noon()).len()
    };
    assert_eq!((search(35 * DAY - 1), search(35 * DAY)), (1, 0));
}

#[test]
fn a_job_whose_run_is_over_is_no_demand_and_both_reasons_are_named() {
    let over = WaitingJob { run_over_at: Some(ago(60)), ..job(600) };
    assert_eq!((over.is_demand(noon()), over.given_up(noon())), (false, Some(GivenUp::RunOver)));
    let why = |job: WaitingJob| reasons(&pool(), &view([job.clone().into()]), &job, Reader::Author, noon()).join("; ");
    assert!(why(over).contains("its run is over"));
    assert!(why(job(98 * DAY)).contains("queued for 98 days"));
    assert!(why(job(30 * HOUR)).contains("queued for 30 hours"));
}

#[test]
fn an_old_job_launches_nothing_and_does_not_hide_a_young_one() {
    let decided = |jobs: Vec<WaitingJob>| {
        let items = jobs.into_iter().map(Item::from);
        decide(&pool(), &view(items), &turn()).map(|decision| decision.batch.map_or(0, |batch| batch.count))
    };
    assert!(matches!(decided(vec![job(98 * DAY)]), None | Some(0)));
    let young = WaitingJob { id: JobId(6), ..job(60) };
    assert_eq!(decided(vec![job(98 * DAY), young]), Some(1));
}

#[test]
fn its_author_is_notified_once() {
    let (pool, old) = (pool(), job(98 * DAY));
    let check = |published, given_up| CheckRun {
        job: old.id,
        pool: pool.name.clone(),
        repository: old.repository.clone(),
        head_sha: String::new(),
        html_url: String::new(),
        published,
        given_up,
        id: Some(1),
        lease: Lease::due(noon()),
        revision: 1,
    };
    let due = |items: Vec<Item>| due_notification(&pool, &view(items), old.id, noon());
    assert_eq!(due(vec![old.clone().into()]), Some(Notification::GivenUp));
    let waited = check(Some(Stage::Failed), false);
    assert_eq!(due(vec![old.clone().into(), waited.clone().into()]), Some(Notification::GivenUp));
    let writes = published(&pool, waited, Notification::GivenUp, Some(1), "no machine".to_owned(), &turn());
    let [Item::CheckRun(after)] = &writes.puts[..] else { panic!("one check run: {writes:?}") };
    assert!(after.given_up);
    assert_eq!(due(vec![old.clone().into(), check(Some(Stage::Failed), true).into()]), None);
}

#[test]
fn it_is_asked_about_every_hour_and_closed_after_35_days() {
    let asked = |waiting: &WaitingJob| answer(&pool(), waiting, None, Some(&described("queued")), noon());
    let Answer::Waits { job: old, .. } = asked(&job(2 * DAY)) else { panic!("it waits") };
    assert_eq!(old.check_at, noon() + RECHECK_EVERY);
    assert_eq!(asked(&job(35 * DAY)), Answer::TooOld);
    let read = view([job(35 * DAY).into()]);
    let closed = close_too_old(&pool(), &read, &job(35 * DAY), Some(facts(&[Action::Queued])), &turn());
    let [Item::Job(done)] = &closed.puts[..] else { panic!("one job: {closed:?}") };
    assert_eq!((done.rank, closed.deletes.len()), (Rank::Done, 1));
}

#[test]
fn a_forgotten_job_stays_forgotten_until_no_notice_could_make_it_demand() {
    let old = WaitingJob { unserved: None::<Unserved>, ..job(2 * DAY) };
    let facts = joined(&[at(Action::Queued, 2 * DAY, 2 * DAY - 5)]);
    let writes = forget(&pool(), &view([old.clone().into()]), &old, Some(facts), &turn());
    let [Item::Job(done)] = &writes.puts[..] else { panic!("one job: {writes:?}") };
    assert_eq!(done.conclusion.as_deref(), Some("forgotten"));
    assert_eq!(done.expires_at, Some(later(33 * DAY).as_second()));
    let again = (**done).clone().join(&at(Action::Queued, 2 * DAY, 0));
    assert_eq!((again.rank, again.expires_at), (Rank::Done, done.expires_at));
}
