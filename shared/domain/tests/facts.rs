//! Order and repetition of GitHub's notices do not change the facts.

use domain::state::{Job, Rank};
use domain::wire::{Action, JobNotice, MESSAGE_VERSION as VERSION, Notice, RunnerNotice};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

fn second(n: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + n).expect("a time")
}

/// Any notices about one job: gated or not, run by one of two runners or cancelled before.
fn deliveries() -> impl Strategy<Value = Vec<Notice>> {
    let action = select(vec![
        (Action::Queued, "queued"),
        (Action::Queued, "waiting"),
        (Action::Waiting, "waiting"),
        (Action::InProgress, "in_progress"),
        (Action::Completed, "completed"),
    ]);
    let runner = select(vec![None, Some((7, "drover_ci_linux_e1_3_0_1")), Some((8, "other"))]);
    let one = (action, runner, 0..90i64, select(vec![None, Some("success"), Some("cancelled"), Some("failure")]));
    prop::collection::vec(one, 1..8).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(index, ((action, status), runner, at, conclusion))| Notice {
                v: VERSION,
                delivery: format!("delivery-{index}").as_str().into(),
                received_at: second(at),
                action,
                repository: "octo-org/widgets".parse().expect("a repository"),
                repository_id: Some(1),
                public: false,
                installation: None,
                job: JobNotice {
                    id: domain::ids::JobId(1),
                    run_id: domain::ids::RunId(2),
                    run_attempt: 1,
                    name: "build".to_owned(),
                    workflow: None,
                    labels: vec!["linux".to_owned()],
                    status: status.to_owned(),
                    conclusion: conclusion.map(str::to_owned),
                    runner: runner.map(|(id, name)| RunnerNotice {
                        id: domain::ids::RunnerId(id),
                        name: name.to_owned(),
                        group: (id % 2 == 0).then_some(id),
                    }),
                    created_at: second(0),
                    started_at: Some(second(at)),
                    completed_at: (action == Action::Completed).then(|| second(at + 1)),
                    head_sha: String::new(),
                    html_url: String::new(),
                },
            })
            .collect()
    })
}

fn joined(notices: &[Notice]) -> Job {
    let first = Job::first("linux".parse().expect("a pool"), &notices[0]);
    notices.iter().skip(1).fold(first, |job, notice| job.join(notice))
}

proptest! {
    #[test]
    fn any_order_and_repetition_ends_in_the_same_facts(
        (once, again) in deliveries().prop_flat_map(|once| {
            let repeated = subsequence(once.clone(), 0..=once.len());
            let again = repeated.prop_map({
                let once = once.clone();
                move |repeated| once.iter().cloned().chain(repeated).collect::<Vec<_>>()
            });
            (Just(once), again.prop_shuffle())
        })
    ) {
        prop_assert_eq!(joined(&once), joined(&again));
    }

    #[test]
    fn a_finished_job_is_kept_for_a_week(notices in deliveries()) {
        let job = joined(&notices);
        let week = job.completed_at.map(|at| at.as_second() + 7 * 24 * 60 * 60);
        prop_assert_eq!(job.expires_at, week);
    }

    #[test]
    fn a_rank_never_decreases_and_a_gate_never_closes_again(notices in deliveries()) {
        let mut job = Job::first("linux".parse().expect("a pool"), &notices[0]);
        for notice in &notices {
            let next = job.clone().join(notice);
            prop_assert!(next.rank >= job.rank && next.gated >= job.gated);
            prop_assert!(next.rank >= Rank::from(notice.action));
            job = next;
        }
    }
}
