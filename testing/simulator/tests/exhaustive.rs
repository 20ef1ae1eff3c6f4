//! Explores a small world completely. Exists in optimised builds only, because it takes minutes in others: `make exhaustive`
//! runs it.
#![cfg(not(debug_assertions))]

use simulator::exhaustive::explore;

#[test]
fn no_order_of_calls_breaks_an_invariant() {
    let explored = explore(None, |_| {});
    if let Some((way, wrong)) = &explored.counterexample {
        panic!("{wrong} after {way:#?}");
    }
    assert!(explored.states >= 100_000, "{explored:?}: too small a world");
    assert!(explored.ends > 1, "{explored:?}");
}

/// The same world with one safeguard missing. An invariant breaks, which proves that the safeguard is needed.
mod missing_safeguards {
    use simulator::exhaustive::explore;
    use simulator::mistakes::Mistake;

    fn counterexample(mistake: Mistake) -> String {
        explore(Some(mistake), |_| {}).counterexample.expect("a counterexample").1
    }

    #[test]
    fn without_leases_two_scalers_launch_the_same_batch() {
        let wrong = counterexample(Mistake::NoLease);
        assert!(wrong.starts_with("S2"), "{wrong}");
    }

    #[test]
    fn without_version_checks_two_scalers_launch_for_the_same_jobs() {
        let wrong = counterexample(Mistake::NoVersionCheck);
        assert!(wrong.starts_with("S3"), "{wrong}");
    }

    #[test]
    fn without_client_tokens_a_repeated_launch_launches_again() {
        let wrong = counterexample(Mistake::NoClientToken);
        assert!(wrong.starts_with("S2") || wrong.starts_with("S3"), "{wrong}");
    }
}
