//! Explores small worlds completely. Exists in optimised builds only, because it takes minutes in others: `make exhaustive`
//! runs it.
#![cfg(not(debug_assertions))]

use simulator::exhaustive::{WORLDS, explore, story};

#[test]
fn no_order_of_calls_breaks_an_invariant() {
    let mut states = 0;
    for world in WORLDS {
        let explored = explore(world, None, |_| {});
        if let Some((way, wrong)) = &explored.counterexample {
            panic!("{}: {:#?}", world.name, story(world, None, way, wrong));
        }
        assert!(explored.ends > 1, "{}: {explored:?}", world.name);
        states += explored.states;
    }
    assert!(states >= 1_000_000, "{states}: too small worlds");
}

/// The same worlds with one safeguard missing. An invariant breaks, which proves that the safeguard is needed.
mod missing_safeguards {
    use simulator::exhaustive::{WORLDS, explore, story, world};
    use simulator::mistakes::Mistake;

    fn counterexample(name: &str, mistake: Mistake) -> String {
        let world = world(name).expect("a world of that name");
        assert!(world.mistakes.contains(&mistake), "the command prints its counterexample, too");
        explore(world, Some(mistake), |_| {}).counterexample.expect("a counterexample").1
    }

    #[test]
    fn each_world_shows_one_as_sentences() {
        for world in WORLDS {
            let mistake = *world.mistakes.first().expect("at least one safeguard is needed");
            let (way, wrong) = explore(world, Some(mistake), |_| {}).counterexample.expect("a counterexample");
            let sentences = story(world, Some(mistake), &way, &wrong);
            assert_eq!(sentences.len(), way.len() + 1, "{}", world.name);
            assert!(sentences.iter().all(|sentence| !sentence.is_empty()), "{sentences:#?}");
        }
    }

    #[test]
    fn without_leases_two_scalers_launch_the_same_batch() {
        let wrong = counterexample("launch", Mistake::NoLease);
        assert!(wrong.starts_with("S2"), "{wrong}");
    }

    #[test]
    fn without_version_checks_two_scalers_launch_for_the_same_jobs() {
        let wrong = counterexample("launch", Mistake::NoVersionCheck);
        assert!(wrong.starts_with("S3"), "{wrong}");
    }

    #[test]
    fn without_client_tokens_a_repeated_launch_launches_again() {
        let wrong = counterexample("launch", Mistake::NoClientToken);
        assert!(wrong.starts_with("S2") || wrong.starts_with("S3"), "{wrong}");
    }

    #[test]
    fn without_a_deregistration_a_machine_ends_that_may_get_a_job() {
        let wrong = counterexample("stealing", Mistake::TerminateFirst);
        assert!(wrong.starts_with("S1"), "{wrong}");
    }

    #[test]
    fn without_heed_of_busy_runners_a_machine_ends_with_the_job_that_github_gave_it() {
        let wrong = counterexample("stealing", Mistake::StaleBusy);
        assert!(wrong.starts_with("S1"), "{wrong}");
    }

    #[test]
    fn without_the_request_an_interrupted_job_is_not_run_again() {
        let wrong = counterexample("interruption", Mistake::NoRerun);
        assert!(wrong.starts_with("L"), "{wrong}");
    }

    #[test]
    fn without_a_nudge_the_job_of_the_slower_scaler_waits_for_a_sweep() {
        let wrong = counterexample("doorbell", Mistake::NoDoorbell);
        assert!(wrong.starts_with("L1"), "{wrong}");
    }

    #[test]
    fn without_the_order_of_an_answer_a_job_is_recorded_and_not_read() {
        let wrong = counterexample("doorbell", Mistake::LateAnswer);
        assert!(wrong.starts_with("L1"), "{wrong}");
    }

    #[test]
    fn without_the_claim_of_a_stop_a_machine_is_used_and_stopped() {
        let wrong = counterexample("stopped", Mistake::StopUnclaimed);
        assert!(wrong.starts_with('S') || wrong.starts_with('L'), "{wrong}");
    }

    #[test]
    fn without_the_class_of_a_launch_a_job_gets_too_small_a_machine() {
        let wrong = counterexample("class", Mistake::SmallFallback);
        assert!(wrong.starts_with("S11"), "{wrong}");
    }
}
