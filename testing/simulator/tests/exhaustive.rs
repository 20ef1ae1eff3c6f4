//! A small world, all of it. Without optimisation it would take minutes: `make exhaustive` builds it with.
#![cfg(feature = "mutants")]

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

/// The same world where one thing is missing: what keeps it safe is what we think it is.
mod without {
    use simulator::exhaustive::explore;
    use simulator::mistake::Mistake;

    fn counterexample(mutant: Mistake) -> String {
        explore(Some(mutant), |_| {}).counterexample.expect("a counterexample").1
    }

    #[test]
    fn the_lease_two_scalers_launch_the_same_batch() {
        let wrong = counterexample(Mistake::NoLease);
        assert!(wrong.starts_with("S2"), "{wrong}");
    }

    #[test]
    fn the_version_check_two_scalers_fill_the_same_gap() {
        let wrong = counterexample(Mistake::NoVersionCheck);
        assert!(wrong.starts_with("S3"), "{wrong}");
    }

    #[test]
    fn the_token_a_repeated_launch_is_another() {
        let wrong = counterexample(Mistake::NoClientToken);
        assert!(wrong.starts_with("S2") || wrong.starts_with("S3"), "{wrong}");
    }
}
