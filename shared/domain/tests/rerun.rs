//! How a re-run ends, and which job is the re-run.

mod common;

use std::collections::BTreeMap;

use common::{ago, described, job, later, noon, pool, turn, view};
use domain::ids::{JobId, RunId};
use domain::policy::PoolView;
use domain::policy::rerun::{NotRerun, RerunOutcome, RerunStep, close, next_step, recorded, requested};
use domain::state::{Item, LaterAttempt, Rerun, WaitingJob};
use domain::wire::{JobNotice, RunJobs};
use serde_json::json;

/// The re-run that job 5 of run 2 is owed.
fn rerun() -> Rerun {
    let value = json!({
        "job": 5, "pool": "linux", "repository": "octo/widgets", "run_id": 2, "run_attempt": 1, "since": ago(60),
        "tries": 1, "next_at": noon(), "revision": 1,
    });
    serde_json::from_value(value).expect("a re-run")
}

#[test]
fn a_requested_re_run_stays_until_the_job_of_the_next_attempt_is_recorded() {
    let writes = requested(&pool(), rerun(), &turn());
    let [Item::Rerun(kept)] = &writes.puts[..] else { panic!("one re-run: {writes:?}") };
    assert_eq!((kept.requested_at, kept.lease().next_at), (Some(noon()), later(300)));
    assert!(writes.event.is_some());
    let closed = |rerun: &Rerun| close(&pool(), rerun.clone(), &RerunOutcome::UnderWay, &turn());
    assert!(closed(&rerun()).event.is_some());
    assert_eq!((closed(kept).deletes.len(), closed(kept).event), (1, None), "Drover has requested it: no news");
}

#[test]
fn a_re_run_is_under_way_once_the_job_of_its_name_has_started_in_a_later_attempt() {
    let named = Rerun { name: Some("build".to_owned()), ..rerun() };
    let of = |id: u64, run_attempt: u32, name: &str, status: &str| JobNotice {
        id: JobId(id),
        run_attempt,
        name: name.to_owned(),
        ..described(status)
    };
    let step = |rerun: &Rerun, jobs: Vec<JobNotice>| {
        next_step(rerun, &RunJobs { jobs, ..RunJobs::default() }, &BTreeMap::new(), noon())
    };
    let (build, lint) = (|status| of(7, 2, "build", status), |status| of(8, 2, "lint", status));
    assert_eq!(step(&named, vec![build("queued"), lint("queued")]), RerunStep::Wait);
    assert_eq!(step(&named, vec![build("in_progress"), lint("queued")]), RerunStep::UnderWay);
    assert_eq!(step(&named, vec![lint("queued")]), RerunStep::UnderWay, "somebody re-runs other jobs");
    assert_eq!(step(&rerun(), vec![lint("queued")]), RerunStep::Wait, "an older version recorded no name");
    assert_eq!(step(&named, vec![of(9, 1, "build", "queued"), lint("in_progress")]), RerunStep::UnderWay);
    let ended = vec![of(9, 1, "lint", "completed")];
    assert_eq!(step(&named, ended), RerunStep::Request(JobId(5)), "the list is of the first attempt");
}

#[test]
fn each_outcome_of_a_re_run_is_a_sentence() {
    let shown = |outcome: RerunOutcome| outcome.to_string();
    assert_eq!(shown(RerunOutcome::UnderWay), "the run was re-run already");
    assert_eq!(shown(RerunOutcome::RunNeverEnded), "the run did not end within a day");
    assert_eq!(shown(RerunOutcome::Refused("no".to_owned())), "GitHub refuses the re-run: no");
    for why in [NotRerun::CancelledBefore, NotRerun::OthersCancelled] {
        assert_eq!(shown(RerunOutcome::GivenUp(why)), format!("not re-run: {why}"));
        assert!(why.to_string().contains("cancelled"), "{why}");
    }
}

/// Job `id`, which is of this attempt of run 2 and has this name.
fn later_attempt(id: u64, run_attempt: u32, name: &str) -> WaitingJob {
    let attempt = LaterAttempt { run_id: RunId(2), run_attempt, name: name.to_owned(), follows_interruption: false };
    WaitingJob { id: JobId(id), attempt: Some(attempt), ..job(60) }
}

#[test]
fn the_job_of_the_next_attempt_with_the_same_name_repeats_an_interrupted_one() {
    let named = Rerun { name: Some("build".to_owned()), ..rerun() };
    let repeats = |rerun: &Rerun, job: WaitingJob| {
        let read = view([Item::from(rerun.clone()), job.into()]);
        let found = recorded(&read, 10);
        assert!(found.iter().all(|(job, ended)| {
            ended == rerun && job.attempt.as_ref().is_some_and(|attempt| attempt.follows_interruption)
        }));
        !found.is_empty()
    };
    assert!(repeats(&named, later_attempt(7, 2, "build")));
    assert!(!repeats(&named, later_attempt(7, 2, "lint")) && !repeats(&named, later_attempt(7, 1, "build")));
    let other_run = later_attempt(7, 2, "build");
    let attempt = other_run.attempt.clone().map(|attempt| LaterAttempt { run_id: RunId(3), ..attempt });
    assert!(!repeats(&named, WaitingJob { attempt, ..other_run }));
    assert!(repeats(&rerun(), later_attempt(7, 2, "lint")), "an older version recorded no name");
    assert!(!repeats(&named, job(60)), "it is of a first attempt");
}

#[test]
fn each_repeated_job_ends_one_re_run() {
    let named = |id: u64| Rerun { job: JobId(id), name: Some("build".to_owned()), ..rerun() };
    let items = |jobs: u64| {
        let reruns = (1..=3).map(|id| Item::from(named(id)));
        view(reruns.chain((11..11 + jobs).map(|id| Item::from(later_attempt(id, 2, "build")))))
    };
    let found = |read: &PoolView, most| {
        recorded(read, most).into_iter().map(|(job, rerun)| (job.id.0, rerun.job.0)).collect::<Vec<_>>()
    };
    assert_eq!(found(&items(2), 10), [(11, 1), (12, 2)]);
    assert_eq!(found(&items(3), 2), [(11, 1), (12, 2)]);
}
